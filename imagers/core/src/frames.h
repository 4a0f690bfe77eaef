/* SPDX-License-Identifier: Apache-2.0 */
/* Compression on several cores: frames that know nothing of each other, put back in order. */
#ifndef IMAGERS_FRAMES_H
#define IMAGERS_FRAMES_H

#include "impl.h"

struct imc_frames;

/* Gets what is compressed, piece by piece, in order; may change it. */
typedef enum imc_fault (*imc_take)(void *context, uint8_t *data, size_t length,
                                   struct imc_failure *failure);

/* After a failure *frames may still be one to free. */
enum imc_fault imc_frames_new(const struct imc_owner *owner, imc_take take,
                              enum imc_compression encode, unsigned threads,
                              struct imc_frames **frames);
size_t imc_frames_bytes(enum imc_compression encode, unsigned threads);
/* Start, put, finish and join are for one thread; stop is for any. */
enum imc_fault imc_frames_start(struct imc_frames *frames);
enum imc_fault imc_frames_put(struct imc_frames *frames, const uint8_t *data, size_t length);
enum imc_fault imc_frames_finish(struct imc_frames *frames);
void imc_frames_stop(struct imc_frames *frames);
void imc_frames_join(struct imc_frames *frames);
/* After join: the first fault of a thread, for which put and finish gave IMC_CANCELLED. */
const struct imc_failure *imc_frames_failure(const struct imc_frames *frames);
void imc_frames_free(struct imc_frames *frames); /* NULL is fine */

#endif
