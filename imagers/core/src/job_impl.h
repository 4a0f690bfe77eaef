/* SPDX-License-Identifier: Apache-2.0 */
/* Shared inside job*.c. */
#ifndef IMAGERS_JOB_IMPL_H
#define IMAGERS_JOB_IMPL_H

#include "frames.h"
#include "impl.h"
#include "line.h"

#include <sys/types.h>

/* What a file got that is not on its way to the disk yet. */
struct imc_written {
    bool is_file;
    off_t from;
    size_t waiting;
};

struct imc_job {
    struct imc_options options; /* its pointers are to the copies below, or NULL */
    char digest[IMC_DIGEST_TEXT];
    char diff_id[IMC_DIGEST_TEXT];
    uint8_t hmac[IMC_MAC_BYTES];

    const struct imc_layer_ops *layer_ops;
    void *layer;
    struct imc_hasher *source_hash; /* NULL: opening, or the layer takes it */
    struct imc_hasher *tar_hash;    /* NULL: no tar, or another digest is that of the tar */
    struct imc_hasher *opened_hash; /* of what the sink gets, where nothing else has it */
    bool wants_opened;              /* result.opened_digest is wanted */
    bool opened_is_tar;             /* it is the digest of the tar */
    bool tar_is_source;             /* the digest of the tar is that of the source */
    struct imc_stage *decoder;      /* NULL: none */
    struct imc_untar *untar;
    struct imc_tar_reader *tar_reader;
    struct imc_ring *ring;     /* NULL: the source is a file */
    struct imc_pieces *pieces; /* NULL: it is read once */
    bool checks;               /* only: what is written are the stored bytes */
    bool is_known;             /* by its pieces: neither digest nor hmac is computed */

    struct imc_line *line;     /* of what job_steps.c does with each piece */
    struct imc_frames *frames; /* compression; NULL: none */

    uint64_t taken; /* of the source */

    int wake;          /* an eventfd that is readable once the job is over */
    bool source_waits; /* it is a pipe or a socket */
    bool sink_waits;
    struct imc_written written;
    atomic_bool cancelled;
    atomic_bool over; /* cancelled, or a thread cannot go on: it ends without a result */
    _Atomic uint64_t bytes_in;
    _Atomic uint64_t bytes_out;
    _Atomic uint64_t entries;

    pthread_t thread;
    bool started;
    bool joined;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool done; /* under the mutex */

    struct imc_result result;
    struct imc_failure data_failure; /* kept until the stored bytes were checked */
    struct imc_failure failure;
};

/* job_io.c */

enum imc_fault imc_job_write(struct imc_job *job, const uint8_t *data, size_t length,
                             struct imc_failure *failure);
/* The next piece of the source, in *buffer of IMC_PIECE bytes, which may be exchanged for another
 * one as large. *length is 0 at its end, and the source does not go on after it. */
enum imc_fault imc_job_read(struct imc_job *job, uint8_t **buffer, size_t *length,
                            struct imc_failure *failure);

/* job_steps.c */

void imc_job_plan(const struct imc_job *job, struct imc_plan *plan);
/* Seals what was compressed, in place, and writes it. */
enum imc_fault imc_job_put_sealed(void *context, uint8_t *data, size_t length,
                                  struct imc_failure *failure);

/* job_checks.c: all of the work, up to the last check. */

enum imc_fault imc_job_seal(struct imc_job *job);
enum imc_fault imc_job_open(struct imc_job *job);

#endif
