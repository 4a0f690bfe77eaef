/* SPDX-License-Identifier: Apache-2.0 */
/* Raw deflate by ISA-L where it was found, by zlib otherwise. Only gzip_stage.c uses this. */
#ifndef IMAGERS_INFLATE_H
#define IMAGERS_INFLATE_H

#include "impl.h"

struct imc_inflate;
struct imc_deflate;

struct imc_inflate *imc_inflate_new(void); /* NULL: no memory */
void imc_inflate_reset(struct imc_inflate *inflate);
void imc_inflate_free(struct imc_inflate *inflate);
/* Until input or output is used up, or the deflate data has ended. Whole bytes that were
 * read past its end are in `rest` then, `*rest_length` of them. */
enum imc_fault imc_inflate_step(struct imc_inflate *inflate, struct imc_in *in, struct imc_out *out,
                                bool *ended, uint8_t rest[8], size_t *rest_length);

/* A whole gzip member: header, data and trailer, with no time and no name in it. */
struct imc_deflate *imc_deflate_new(void);
bool imc_deflate_reset(struct imc_deflate *deflate);
void imc_deflate_free(struct imc_deflate *deflate);
/* `last`: nothing comes after `in`; *ended then says that the member is complete. */
enum imc_fault imc_deflate_step(struct imc_deflate *deflate, struct imc_in *in, struct imc_out *out,
                                bool last, bool *ended);

uint32_t imc_crc32(uint32_t crc, const uint8_t *data, size_t length);

#endif
