/* SPDX-License-Identifier: Apache-2.0 */
/* Stations that pieces of bytes go through, and the threads that work on them. */
#ifndef IMAGERS_LINE_H
#define IMAGERS_LINE_H

#include "impl.h"

#define IMC_STATIONS 6 /* the most that a line has */

struct imc_line;

/* The first station fills a slot of IMC_PIECE bytes; *length is 0 at the end. It may exchange
 * *data for another buffer as large. */
typedef enum imc_fault (*imc_fill)(void *context, uint8_t **data, size_t *length,
                                   struct imc_failure *failure);
/* Every other one but the decoder. After a fault of the data it is called on only where it is
 * required, and sees that fault in *failure. */
typedef enum imc_fault (*imc_step)(void *context, uint8_t *data, size_t length,
                                   struct imc_failure *failure);

struct imc_plan {
    imc_fill fill;
    imc_step steps[IMC_STATIONS - 1];
    size_t count;              /* of the steps */
    size_t required;           /* so many of them see every byte, whatever is wrong with it */
    size_t decode_after;       /* so many of them; only with a decoder */
    struct imc_stage *decoder; /* NULL: none */
    /* For a source that is fed: whether `fill` would not wait. NULL: it may always be called. */
    bool (*ready)(void *context);
};

/* After a failure *line may still be one to free. */
enum imc_fault imc_line_new(const struct imc_owner *owner, const struct imc_plan *plan,
                            unsigned threads, struct imc_line **line);
/* All of it, in this thread and, with more than one, others. IMC_OK: the source is at its end, and
 * the first fault of the data, if there was one, is in *of_data. Otherwise *fatal has what ended
 * it, but for IMC_CANCELLED. */
enum imc_fault imc_line_run(struct imc_line *line, struct imc_failure *fatal,
                            struct imc_failure *of_data);
/* From any thread. */
void imc_line_stop(struct imc_line *line);
void imc_line_wake(struct imc_line *line); /* `ready` may have changed */
void imc_line_free(struct imc_line *line); /* NULL is fine */
size_t imc_line_bytes(bool decodes, unsigned threads);

#endif
