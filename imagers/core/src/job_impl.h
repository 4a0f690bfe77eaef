/* Shared inside job.c, job_io.c, job_stages.c and job_split.c. */
#ifndef IMAGERS_JOB_IMPL_H
#define IMAGERS_JOB_IMPL_H

#include "impl.h"

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
    struct imc_hasher *source_hash; /* when sealing what is changed; NULL otherwise */
    struct imc_hasher *tar_hash;    /* NULL: no tar, or another digest is that of the tar */
    struct imc_hasher *opened_hash; /* of what the sink gets, where nothing else has it */
    bool wants_opened;              /* result.opened_digest is wanted */
    bool opened_is_tar;             /* it is the digest of the tar */
    bool tar_is_source;             /* the digest of the tar is that of the source */
    struct imc_stage *decoder;      /* NULL: none */
    struct imc_untar *untar;
    struct imc_tar_reader *tar_reader;
    struct imc_ring *ring; /* NULL: the source is a file */

    bool split;                      /* several threads: see job_split.c */
    struct imc_line *line;           /* NULL: not split */
    struct imc_frames *frames;       /* compression; NULL: none */
    struct imc_failure last_failure; /* of the frames */
    atomic_bool abandoned; /* a later stage cannot go on, and no check can matter any more */

    uint8_t *piece;    /* IMC_PIECE bytes each; NULL where not needed */
    uint8_t *tar;      /* out of the decoder */
    size_t tar_filled; /* when sealing */
    uint64_t taken;    /* of the source */

    int wake;          /* an eventfd that is readable when the job is cancelled */
    bool source_waits; /* it is a pipe or a socket */
    bool sink_waits;
    struct imc_written written;
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

/* job.c: a thread with signals blocked; false if there is none to be had. */
bool imc_job_spawn(pthread_t *thread, void *(*body)(void *), struct imc_job *job);

/* job_io.c */
enum imc_fault imc_job_write(struct imc_job *job, const uint8_t *data, size_t length,
                             struct imc_failure *failure);
/* The next piece of the source, in memory that may be changed: in `buffer`, of IMC_PIECE bytes,
 * or in a slot of the ring where the source is fed. *length is 0 at its end. */
enum imc_fault imc_job_next_piece(struct imc_job *job, uint8_t *buffer, uint8_t **piece,
                                  size_t *length);
void imc_job_done_with_piece(struct imc_job *job);
/* After the last piece: whether the source goes on. */
enum imc_fault imc_job_check_end(struct imc_job *job);
/* Whether the job is to end without a result. */
bool imc_job_is_over(const struct imc_job *job);

/* job_stages.c: all of the work, up to the last check. */
enum imc_fault imc_job_seal(struct imc_job *job);
enum imc_fault imc_job_open(struct imc_job *job);
bool imc_job_is_of_data(enum imc_fault fault);
enum imc_fault imc_job_see_tar(struct imc_job *job, const uint8_t *data, size_t length,
                               struct imc_failure *failure);
enum imc_fault imc_job_put_opened(struct imc_job *job, const uint8_t *data, size_t length,
                                  struct imc_failure *failure);
void imc_job_count_out(struct imc_job *job, size_t length);

enum imc_fault imc_job_put_sealed(struct imc_job *job, uint8_t *data, size_t length,
                                  struct imc_failure *failure);
/* job.c. From a stage that cannot go on: its failure is that of the job. */
void imc_job_abandon(struct imc_job *job);

/* job_frames.c. Start, put, finish and join are for the job's own thread; stop is for any. */
enum imc_fault imc_frames_new(struct imc_job *job, unsigned threads); /* into job->frames */
size_t imc_frames_bytes(const struct imc_options *options);
enum imc_fault imc_frames_start(struct imc_frames *frames);
enum imc_fault imc_frames_put(struct imc_frames *frames, const uint8_t *data, size_t length);
enum imc_fault imc_frames_finish(struct imc_frames *frames);
void imc_frames_stop(struct imc_frames *frames);
void imc_frames_join(struct imc_frames *frames);
void imc_frames_free(struct imc_frames *frames);

/* job_split.c: as the loop of job_stages.c over the source, with several threads. */
enum imc_fault imc_job_split(struct imc_job *job); /* makes job->line */
enum imc_fault imc_job_drive_split(struct imc_job *job);

#endif
