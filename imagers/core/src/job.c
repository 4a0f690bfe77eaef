/* SPDX-License-Identifier: Apache-2.0 */
/* One job is one layer: its parts, and its thread. */
#define _GNU_SOURCE
#include "job_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#define SPLIT_BYTES ((uint64_t)4 * IMC_PIECE)  /* below, threads cost what they gain */
#define SMALL_BYTES ((size_t)64 * 1024)        /* of the parts that are no buffers */
#define UNPACK_BYTES ((size_t)5 * 1024 * 1024) /* above all four extensions of an entry */

/* Thread */

static void wipe_layer(struct imc_job *job) {
    if (job->layer != NULL) {
        job->layer_ops->wipe(job->layer);
        job->layer = NULL;
    }
}

/* Ends the work, from any thread, and wakes whoever waits in it or for it. */
static void stop(void *context) {
    struct imc_job *job = context;
    uint64_t one = 1;
    atomic_store(&job->over, true);
    /* It can only fail where the counter is full, and then it is readable. */
    ssize_t written = write(job->wake, &one, sizeof one);
    (void)written;
    if (job->ring != NULL) {
        imc_ring_stop(job->ring);
    }
    if (job->frames != NULL) {
        imc_frames_stop(job->frames);
    }
    imc_line_stop(job->line);
}

static void *run(void *opaque) {
    struct imc_job *job = opaque;
    enum imc_fault fault = job->options.sealing ? imc_job_seal(job) : imc_job_open(job);
    wipe_layer(job);
    if (fault != IMC_OK && atomic_load(&job->cancelled)) {
        fault = IMC_CANCELLED; /* what else went wrong came of it */
    }
    if (fault != IMC_OK && job->failure.fault != fault) {
        imc_fail(&job->failure, fault, 0, 0);
    }
    if (fault == IMC_OK) {
        job->failure.fault = IMC_OK;
    }
    stop(job); /* the feeder waits for room in the ring */
    pthread_mutex_lock(&job->mutex);
    job->done = true;
    pthread_cond_broadcast(&job->cond);
    pthread_mutex_unlock(&job->mutex);
    return NULL;
}

/* Making */

static bool copy_digest(char to[IMC_DIGEST_TEXT], const char *from) {
    size_t length = strlen(from);
    if (length >= IMC_DIGEST_TEXT) {
        return false;
    }
    memcpy(to, from, length + 1);
    return true;
}

/* Whether two texts of digests name the same algorithm. */
static bool same_algorithm(const char *a, const char *b) {
    size_t length = strcspn(a, ":");
    return length == strcspn(b, ":") && memcmp(a, b, length) == 0;
}

static enum imc_fault make_reader(enum imc_compression compression, uint64_t window_bytes,
                                  struct imc_stage **stage) {
    switch (compression) {
    case IMC_GZIP:
        return imc_gzip_reader(stage);
    case IMC_ZSTD:
        return imc_zstd_reader(window_bytes, stage);
    default:
        return IMC_OK;
    }
}

/* Whether reading or writing may block for as long as a peer likes. */
static bool waits(int fd) {
    struct stat status;
    return fd >= 0 && fstat(fd, &status) == 0 &&
           (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode));
}

/* Threads of the line: one beside compression, which has threads of its own. */
static unsigned threads_of(const struct imc_options *options) {
    bool changes = options->decode != IMC_PLAIN || options->encode != IMC_PLAIN;
    if (options->sealing && changes) {
        return 1;
    }
    if (options->force != NULL) {
        bool split = strcmp(options->force, "split") == 0;
        return !split ? 1 : options->threads < 2 ? 2 : options->threads;
    }
    return options->threads > 1 && options->size >= SPLIT_BYTES ? options->threads : 1;
}

/* Which digest is taken where; see struct imc_layer_ops for what a layer can do in one pass.
 * With several threads, a pass of its own is faster where another thread has the time. */
static enum imc_fault make_hashes(struct imc_job *job, const struct imc_options *options) {
    bool split = threads_of(options) > 1;
    bool changes = options->decode != IMC_PLAIN || options->encode != IMC_PLAIN;
    const char *tar = options->diff_id == NULL ? "sha256:" : options->diff_id;
    bool decodes = !options->sealing && options->sees_tar && options->decode != IMC_PLAIN;
    struct imc_layer_config config = {
        .sealing = options->sealing,
        .has_cipher = options->has_cipher && !job->checks,
        .has_mac = options->has_cipher && !job->is_known,
        .key = options->key,
        .nonce = options->nonce,
        .stored_hash = options->sealing ? "sha256:"
                       : job->is_known  ? NULL
                                        : options->digest,
    };
    bool needs_tar = options->sees_tar;
    bool needs_source = options->sealing && (changes || split);
    bool needs_opened = false;
    job->wants_opened =
        !options->sealing && options->sink_fd >= 0 && !options->gives_tar && !job->checks;
    if (options->sealing && !changes) {
        bool same = options->sees_tar && same_algorithm(tar, options->digest);
        config.plain_hash = split ? NULL : options->digest;
        job->tar_is_source = same && split;
        needs_tar = needs_tar && !same;
    } else if (!options->sealing && options->sees_tar && !decodes && !split) {
        config.plain_hash = tar;
        needs_tar = false;
    }
    if (job->wants_opened) {
        job->opened_is_tar = options->sees_tar && !decodes && same_algorithm(tar, "sha256:");
        needs_opened = !job->opened_is_tar;
        if (needs_opened && config.plain_hash == NULL && (decodes || !split)) {
            config.plain_hash = "sha256:";
            needs_opened = false;
        }
    }
    const char *force = NULL;
    if (options->force != NULL && strncmp(options->force, "layer=", 6) == 0) {
        force = options->force + 6;
    }
    job->layer_ops = imc_layer_pick(&config, force);
    enum imc_fault fault =
        job->layer_ops == NULL ? IMC_CRYPTO : job->layer_ops->init(&config, &job->layer);
    if (fault == IMC_OK && needs_tar) {
        fault = imc_hasher_new(tar, &job->tar_hash);
    }
    if (fault == IMC_OK && needs_source) {
        fault = imc_hasher_new(options->digest, &job->source_hash);
    }
    if (fault == IMC_OK && needs_opened) {
        fault = imc_hasher_new("sha256:", &job->opened_hash);
    }
    return fault;
}

size_t imc_job_memory(const struct imc_options *options) {
    bool fed = options->source_fd < 0;
    bool decodes = options->decode != IMC_PLAIN && (options->sealing || options->sees_tar);
    size_t bytes = SMALL_BYTES + (fed ? imc_ring_bytes() : 0);
    bytes += imc_line_bytes(decodes, threads_of(options));
    if (decodes) {
        bytes += IMC_READER_BYTES + (options->decode == IMC_ZSTD ? options->window_bytes : 0);
    }
    if (options->sealing && options->encode != IMC_PLAIN) {
        bytes += imc_frames_bytes(options->encode, options->threads);
    }
    return bytes + (options->root_fd >= 0 ? UNPACK_BYTES : 0);
}

static enum imc_fault make_parts(struct imc_job *job, const struct imc_options *options) {
    const struct imc_owner owner = {job, &job->over, stop};
    struct imc_plan plan;
    enum imc_fault fault = make_hashes(job, options);
    if (fault == IMC_OK && options->piece_key != NULL) {
        fault =
            imc_pieces_new(options->piece_key, options->codes, options->codes_length, &job->pieces);
    }
    if (fault == IMC_OK) {
        bool decodes = options->sealing || options->sees_tar;
        fault = make_reader(decodes ? options->decode : IMC_PLAIN, options->window_bytes,
                            &job->decoder);
    }
    if (fault == IMC_OK && options->sealing && options->encode != IMC_PLAIN) {
        fault = imc_frames_new(&owner, imc_job_put_sealed, options->encode, options->threads,
                               &job->frames);
    }
    if (fault == IMC_OK && options->root_fd >= 0) {
        fault = imc_untar_new(options, &job->over, &job->untar);
        if (fault == IMC_OK) {
            fault = imc_tar_reader_new(job->untar, options, &job->tar_reader);
        }
    }
    if (fault == IMC_OK && options->source_fd < 0) {
        fault = imc_ring_new(&job->ring);
    }
    if (fault != IMC_OK) {
        return fault;
    }
    imc_job_plan(job, &plan);
    return imc_line_new(&owner, &plan, threads_of(options), &job->line);
}

enum imc_fault imc_job_new(const struct imc_options *options, struct imc_job **out) {
    struct imc_job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        return IMC_NO_MEMORY;
    }
    job->options = *options;
    job->options.key = NULL; /* only the state of the layer has it */
    job->options.nonce = NULL;
    job->options.hmac = NULL;
    job->options.piece_key = NULL;
    job->options.codes = NULL;
    job->options.force = NULL;
    job->options.digest = job->digest;
    job->options.diff_id = options->diff_id == NULL ? NULL : job->diff_id;
    if (!copy_digest(job->digest, options->digest) ||
        (options->diff_id != NULL && !copy_digest(job->diff_id, options->diff_id)) ||
        (options->root_fd >= 0 && options->max_name_bytes > 4095)) {
        free(job);
        return IMC_CRYPTO; /* unreachable: the binding has checked them */
    }
    if (options->hmac != NULL) {
        memcpy(job->hmac, options->hmac, IMC_MAC_BYTES);
    }
    job->checks = options->piece_key != NULL && options->codes == NULL;
    job->is_known = options->codes != NULL;
    job->source_waits = waits(options->source_fd);
    job->sink_waits = waits(options->sink_fd);
    if (options->sink_fd >= 0) {
        job->written.from = lseek(options->sink_fd, 0, SEEK_CUR);
        job->written.is_file = job->written.from >= 0; /* a pipe has no position */
    }
    if (pthread_mutex_init(&job->mutex, NULL) != 0) {
        free(job);
        return IMC_NO_MEMORY;
    }
    if (imc_cond_init(&job->cond) != 0) {
        pthread_mutex_destroy(&job->mutex);
        free(job);
        return IMC_NO_MEMORY;
    }
    job->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int saved = errno;
    enum imc_fault fault = job->wake < 0 ? IMC_READ : make_parts(job, options);
    if (fault != IMC_OK) {
        imc_job_free(job);
        errno = saved;
        return fault;
    }
    *out = job;
    return IMC_OK;
}

enum imc_fault imc_job_start(struct imc_job *job) {
    if (!imc_spawn(&job->thread, run, job)) {
        job->done = true;
        return imc_fail(&job->failure, IMC_NO_MEMORY, 0, 0);
    }
    job->started = true;
    return IMC_OK;
}

uint8_t *imc_job_slot(struct imc_job *job, unsigned milliseconds) {
    return imc_ring_acquire(job->ring, milliseconds);
}

void imc_job_commit(struct imc_job *job, size_t length) {
    imc_ring_commit(job->ring, length);
    imc_line_wake(job->line);
}

void imc_job_end_of_source(struct imc_job *job, bool surplus) {
    imc_ring_close(job->ring, surplus);
    imc_line_wake(job->line);
}

bool imc_job_wait(struct imc_job *job, unsigned milliseconds) {
    pthread_mutex_lock(&job->mutex);
    if (!job->done && milliseconds > 0) {
        imc_cond_wait(&job->cond, &job->mutex, milliseconds);
    }
    bool done = job->done;
    pthread_mutex_unlock(&job->mutex);
    return done;
}

void imc_job_cancel(struct imc_job *job) {
    atomic_store(&job->cancelled, true); /* before the work ends of it */
    stop(job);
}

void imc_job_progress(const struct imc_job *job, struct imc_progress *progress) {
    progress->bytes_in = atomic_load_explicit(&job->bytes_in, memory_order_relaxed);
    progress->bytes_out = atomic_load_explicit(&job->bytes_out, memory_order_relaxed);
    progress->entries = atomic_load_explicit(&job->entries, memory_order_relaxed);
}

enum imc_fault imc_job_join(struct imc_job *job) {
    if (job->started && !job->joined) {
        pthread_join(job->thread, NULL);
        job->joined = true;
    }
    return job->failure.fault;
}

const struct imc_result *imc_job_result(const struct imc_job *job) {
    return &job->result;
}

const uint8_t *imc_job_codes(const struct imc_job *job, size_t *length) {
    *length = 0;
    return job->checks ? imc_pieces_codes(job->pieces, length) : NULL;
}

const uint8_t *imc_job_beginning(const struct imc_job *job, size_t *length) {
    *length = 0;
    return job->checks ? imc_pieces_beginning(job->pieces, length) : NULL;
}

const struct imc_left_out *imc_job_left_out(const struct imc_job *job) {
    return job->untar == NULL ? NULL : imc_untar_left_out(job->untar);
}

const struct imc_failure *imc_job_failure(const struct imc_job *job) {
    return &job->failure;
}

void imc_job_free(struct imc_job *job) {
    if (job == NULL) {
        return;
    }
    wipe_layer(job);
    imc_hasher_free(job->source_hash);
    imc_hasher_free(job->tar_hash);
    imc_hasher_free(job->opened_hash);
    imc_pieces_free(job->pieces);
    if (job->decoder != NULL) {
        job->decoder->ops->free(job->decoder);
    }
    imc_tar_reader_free(job->tar_reader);
    imc_untar_free(job->untar);
    imc_ring_free(job->ring);
    imc_line_free(job->line);
    imc_frames_free(job->frames);
    if (job->wake >= 0) {
        close(job->wake);
    }
    pthread_cond_destroy(&job->cond);
    pthread_mutex_destroy(&job->mutex);
    OPENSSL_cleanse(job, sizeof *job);
    free(job);
}
