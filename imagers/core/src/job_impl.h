/* Shared inside job.c, job_io.c and job_stages.c. */
#ifndef IMAGERS_JOB_IMPL_H
#define IMAGERS_JOB_IMPL_H

#include "impl.h"

struct imc_job {
    struct imc_options options; /* its pointers are to the copies below, or NULL */
    char digest[IMC_DIGEST_TEXT];
    char diff_id[IMC_DIGEST_TEXT];
    uint8_t hmac[IMC_MAC_BYTES];

    const struct imc_layer_ops *layer_ops;
    void *layer;
    struct imc_hasher *source_hash; /* when sealing what is changed; NULL otherwise */
    struct imc_hasher *tar_hash;    /* NULL: no tar, or the layer hashes it */
    struct imc_stage *decoder;      /* NULL: none; so is the next */
    struct imc_stage *encoder;
    struct imc_untar *untar;
    struct imc_tar_reader *tar_reader;
    struct imc_ring *ring; /* NULL: the source is a file */

    uint8_t *piece;    /* IMC_PIECE bytes each; NULL where not needed */
    uint8_t *tar;      /* out of the decoder */
    uint8_t *encoded;  /* out of the encoder */
    size_t tar_filled; /* when sealing */
    size_t encoded_filled;
    uint64_t taken; /* of the source */

    int wake;          /* an eventfd that is readable when the job is cancelled */
    bool source_waits; /* it is a pipe or a socket */
    bool sink_waits;
    atomic_bool cancelled;
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
enum imc_fault imc_job_write(struct imc_job *job, const uint8_t *data, size_t length);
/* The next piece of the source, in memory that may be changed. *length is 0 at its end. */
enum imc_fault imc_job_next_piece(struct imc_job *job, uint8_t **piece, size_t *length);
void imc_job_done_with_piece(struct imc_job *job);
/* After the last piece: whether the source goes on. */
enum imc_fault imc_job_check_end(struct imc_job *job);

/* job_stages.c: all of the work, up to the last check. */
enum imc_fault imc_job_seal(struct imc_job *job);
enum imc_fault imc_job_open(struct imc_job *job);

#endif
