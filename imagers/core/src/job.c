/* One job is one layer: its thread, and the loop that drives the stages.
 *
 * What is wrong is reported in the order that imagers/core/layer.py promises. A fault of
 * the data behind the cipher is therefore kept while the stored bytes are read to their
 * end: if their digest or HMAC is wrong too, that is the cause.
 */
#define _GNU_SOURCE
#include "impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#define ALIGNMENT 64
#define STACK_BYTES ((size_t)1024 * 1024) /* musl gives 128 KiB; libzstd likes some more */
#define PIPE_PIECE 4096 /* PIPE_BUF: what a pipe that is ready takes without blocking */

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

/* Reading and writing */

/* Until the descriptor is ready; IMC_CANCELLED comes first. */
static enum imc_fault wait_for(struct imc_job *job, int fd, short events) {
    for (;;) {
        struct pollfd both[2] = {{.fd = fd, .events = events}, {.fd = job->wake, .events = POLLIN}};
        int ready = poll(both, 2, -1);
        if (atomic_load(&job->cancelled)) {
            return IMC_CANCELLED;
        }
        if (ready > 0 && both[0].revents != 0) {
            return IMC_OK;
        }
        if (ready < 0 && errno != EINTR) {
            return imc_fail(&job->failure, IMC_READ, (uint64_t)errno, 0);
        }
    }
}

/* `length` bytes; fewer only at the end of the file. */
static enum imc_fault read_fully(struct imc_job *job, uint8_t *buffer, size_t length, size_t *got) {
    int fd = job->options.source_fd;
    bool waits = job->source_waits;
    *got = 0;
    while (*got < length) {
        if (atomic_load_explicit(&job->cancelled, memory_order_relaxed)) {
            return IMC_CANCELLED;
        }
        if (waits) {
            enum imc_fault fault = wait_for(job, fd, POLLIN);
            if (fault != IMC_OK) {
                return fault;
            }
        }
        ssize_t count = read(fd, buffer + *got, length - *got);
        if (count == 0) {
            break;
        }
        if (count < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                waits = true;
            } else if (errno != EINTR) {
                return imc_fail(&job->failure, IMC_READ, (uint64_t)errno, 0);
            }
            continue;
        }
        *got += (size_t)count;
    }
    return IMC_OK;
}

static enum imc_fault write_fully(struct imc_job *job, const uint8_t *data, size_t length) {
    int fd = job->options.sink_fd;
    bool waits = job->sink_waits;
    while (length > 0) {
        if (atomic_load_explicit(&job->cancelled, memory_order_relaxed)) {
            return IMC_CANCELLED;
        }
        if (waits) {
            enum imc_fault fault = wait_for(job, fd, POLLOUT);
            if (fault != IMC_OK) {
                return fault;
            }
        }
        ssize_t count = write(fd, data, waits && length > PIPE_PIECE ? PIPE_PIECE : length);
        if (count < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                waits = true;
            } else if (errno != EINTR) {
                return imc_fail(&job->failure, IMC_WRITE, (uint64_t)errno, 0);
            }
            continue;
        }
        data += count;
        length -= (size_t)count;
    }
    return IMC_OK;
}

/* The next piece of the source, in memory that may be changed. *length is 0 at its end. */
static enum imc_fault next_piece(struct imc_job *job, uint8_t **piece, size_t *length) {
    uint64_t left = job->options.size - job->taken;
    size_t want = left < IMC_PIECE ? (size_t)left : IMC_PIECE;
    size_t got = 0;
    *length = 0;
    if (want == 0) {
        return IMC_OK;
    }
    if (job->ring == NULL) {
        *piece = job->piece;
        enum imc_fault fault = read_fully(job, *piece, want, &got);
        if (fault != IMC_OK) {
            return fault;
        }
    } else {
        *piece = imc_ring_take(job->ring, &got);
        if (*piece == NULL) {
            got = 0;
            if (atomic_load(&job->cancelled)) {
                return IMC_CANCELLED;
            }
        }
    }
    if (got < want) {
        return imc_fail(&job->failure, IMC_STORED_SHORT, job->options.size, job->taken + got);
    }
    if (got > want) { /* a feeder that ignores the size */
        return imc_fail(&job->failure, IMC_STORED_LONG, job->options.size, 0);
    }
    job->taken += got;
    atomic_store_explicit(&job->bytes_in, job->taken, memory_order_relaxed);
    *length = got;
    return IMC_OK;
}

static void done_with_piece(struct imc_job *job) {
    if (job->ring != NULL) {
        imc_ring_release(job->ring);
    }
}

/* After the last piece: whether the source goes on. */
static enum imc_fault check_end(struct imc_job *job) {
    uint8_t byte;
    size_t got = 0;
    enum imc_fault fault = IMC_OK;
    if (job->ring == NULL) {
        fault = read_fully(job, &byte, 1, &got);
    } else if (imc_ring_take(job->ring, &got) != NULL || imc_ring_surplus(job->ring)) {
        got = 1;
    } else {
        fault = atomic_load(&job->cancelled) ? IMC_CANCELLED : IMC_OK;
    }
    if (fault == IMC_OK && got > 0) {
        fault = imc_fail(&job->failure, IMC_STORED_LONG, job->options.size, 0);
    }
    return fault;
}

/* The stages behind the source */

static void count_out(struct imc_job *job, size_t length) {
    uint64_t before = atomic_load_explicit(&job->bytes_out, memory_order_relaxed);
    atomic_store_explicit(&job->bytes_out, before + length, memory_order_relaxed);
}

/* The tar passing by: counted, bounded, hashed. */
static enum imc_fault see_tar(struct imc_job *job, const uint8_t *data, size_t length,
                              struct imc_failure *failure) {
    if (length > job->options.tar_bytes - job->result.tar_size) {
        return imc_fail(failure, IMC_TAR_BYTES, job->options.tar_bytes, 0);
    }
    job->result.tar_size += length;
    return job->tar_hash == NULL ? IMC_OK : imc_hasher_step(job->tar_hash, data, length);
}

/* Seals what is in `data`, in place, and writes it. */
static enum imc_fault put_sealed(struct imc_job *job, uint8_t *data, size_t length) {
    enum imc_fault fault = job->layer_ops->step(job->layer, data, length);
    if (fault == IMC_OK) {
        fault = write_fully(job, data, length);
    }
    job->result.stored_size += length;
    count_out(job, length);
    return fault;
}

static enum imc_fault flush_encoded(struct imc_job *job) {
    size_t length = job->encoded_filled;
    job->encoded_filled = 0;
    return length == 0 ? IMC_OK : put_sealed(job, job->encoded, length);
}

/* A block of the tar on its way to be sealed; all but the last have IMC_PIECE bytes, on
 * which the encoder's output depends. */
static enum imc_fault encode(struct imc_job *job, uint8_t *data, size_t length,
                             struct imc_failure *failure) {
    enum imc_fault fault = see_tar(job, data, length, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    if (job->encoder == NULL) {
        return put_sealed(job, data, length);
    }
    struct imc_in in = {data, length};
    bool full = true;
    while (fault == IMC_OK && (in.left > 0 || full)) {
        struct imc_out out = {job->encoded + job->encoded_filled, IMC_PIECE - job->encoded_filled};
        fault = job->encoder->ops->step(job->encoder, &in, &out, failure);
        job->encoded_filled = IMC_PIECE - out.left;
        full = out.left == 0;
        if (fault == IMC_OK && full) {
            fault = flush_encoded(job);
        }
    }
    return fault;
}

static enum imc_fault finish_encoder(struct imc_job *job, struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    bool done = job->encoder == NULL;
    while (fault == IMC_OK && !done) {
        struct imc_out out = {job->encoded + job->encoded_filled, IMC_PIECE - job->encoded_filled};
        fault = job->encoder->ops->finish(job->encoder, &out, &done, failure);
        job->encoded_filled = IMC_PIECE - out.left;
        if (fault == IMC_OK) {
            fault = flush_encoded(job);
        }
    }
    return fault;
}

/* A part of what was opened, to where it goes. */
static enum imc_fault put_opened(struct imc_job *job, const uint8_t *data, size_t length,
                                 struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    if (job->tar_reader != NULL) {
        fault = imc_tar_reader_step(job->tar_reader, data, length, failure);
        atomic_store_explicit(&job->entries, imc_untar_entries(job->untar), memory_order_relaxed);
    } else if (job->options.sink_fd >= 0) {
        fault = write_fully(job, data, length);
    }
    count_out(job, length);
    return fault;
}

/* A part of the tar out of the decoder, when opening. */
static enum imc_fault put_tar(struct imc_job *job, const uint8_t *data, size_t length,
                              struct imc_failure *failure) {
    enum imc_fault fault = see_tar(job, data, length, failure);
    if (fault == IMC_OK && job->options.gives_tar) {
        fault = put_opened(job, data, length, failure);
    }
    return fault;
}

/* What is decoded goes on when there is a full block of it; when opening, at once. */
static enum imc_fault decode(struct imc_job *job, const uint8_t *data, size_t length,
                             struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    struct imc_in in = {data, length};
    bool full = true;
    while (fault == IMC_OK && (in.left > 0 || full)) {
        if (atomic_load_explicit(&job->cancelled, memory_order_relaxed)) {
            return IMC_CANCELLED;
        }
        struct imc_out out = {job->tar + job->tar_filled, IMC_PIECE - job->tar_filled};
        fault = job->decoder->ops->step(job->decoder, &in, &out, failure);
        full = out.left == 0;
        job->tar_filled = IMC_PIECE - out.left;
        if (fault != IMC_OK || (job->options.sealing && !full)) {
            continue;
        }
        size_t filled = job->tar_filled;
        job->tar_filled = 0;
        if (filled > 0) {
            fault = job->options.sealing ? encode(job, job->tar, filled, failure)
                                         : put_tar(job, job->tar, filled, failure);
        }
    }
    return fault;
}

static enum imc_fault finish_decoder(struct imc_job *job, struct imc_failure *failure) {
    if (job->decoder == NULL) {
        return IMC_OK;
    }
    struct imc_out out = {job->tar + job->tar_filled, IMC_PIECE - job->tar_filled};
    bool done = false;
    enum imc_fault fault = job->decoder->ops->finish(job->decoder, &out, &done, failure);
    if (fault == IMC_OK && job->tar_filled > 0) { /* only when sealing */
        size_t filled = job->tar_filled;
        job->tar_filled = 0;
        fault = encode(job, job->tar, filled, failure);
    }
    return fault;
}

/* What is done with a piece behind the cipher, or before it when sealing. */
static enum imc_fault take_piece(struct imc_job *job, uint8_t *data, size_t length,
                                 struct imc_failure *failure) {
    const struct imc_options *options = &job->options;
    enum imc_fault fault = IMC_OK;
    if (options->sealing) {
        if (job->decoder != NULL) {
            return decode(job, data, length, failure);
        }
        if (options->sees_tar) {
            return encode(job, data, length, failure);
        }
        return put_sealed(job, data, length);
    }
    if (!options->gives_tar) {
        fault = put_opened(job, data, length, failure);
    }
    if (fault == IMC_OK && options->sees_tar) {
        fault = job->decoder == NULL ? put_tar(job, data, length, failure)
                                     : decode(job, data, length, failure);
    }
    return fault;
}

/* Whether a fault is one of the data, which waits for the checks of the stored bytes. */
static bool is_of_data(enum imc_fault fault) {
    return fault >= IMC_NOT_GZIP && fault < IMC_UNPACK;
}

static enum imc_fault check_digest(struct imc_job *job, enum imc_fault fault, const char *expected,
                                   const char *actual) {
    /* Digests are public: no constant time is needed. */
    if (strcmp(expected, actual) == 0) {
        return IMC_OK;
    }
    return imc_fail_text(&job->failure, fault, expected, strlen(expected), actual, strlen(actual),
                         0, 0);
}

/* What is left to do with a piece after a fault of the data: the source's digest, where it
 * is the layer that takes it. Such a fault came before the layer had the piece. */
static enum imc_fault digest_only(struct imc_job *job, uint8_t *piece, size_t length) {
    if (!job->options.sealing || job->source_hash != NULL) {
        return IMC_OK;
    }
    return job->layer_ops->step(job->layer, piece, length);
}

/* The source, to its end; the first fault of its data is in data_failure then. */
static enum imc_fault drive(struct imc_job *job) {
    const struct imc_options *options = &job->options;
    for (;;) {
        uint8_t *piece = NULL;
        size_t length = 0;
        enum imc_fault fault = next_piece(job, &piece, &length);
        if (fault != IMC_OK) {
            return fault;
        }
        if (length == 0) {
            return check_end(job);
        }
        if (job->source_hash != NULL) {
            fault = imc_hasher_step(job->source_hash, piece, length);
        } else if (!options->sealing) {
            fault = job->layer_ops->step(job->layer, piece, length);
        }
        if (fault == IMC_OK && job->data_failure.fault == IMC_OK) {
            fault = take_piece(job, piece, length, &job->data_failure);
            if (fault != IMC_OK && is_of_data(fault) && job->data_failure.fault != fault) {
                imc_fail(&job->data_failure, fault, 0, 0);
            }
            if (is_of_data(fault)) {
                fault = digest_only(job, piece, length);
            } else if (fault != IMC_OK && job->data_failure.fault == fault) {
                job->failure = job->data_failure; /* a file that cannot be written */
            }
        } else if (fault == IMC_OK) {
            fault = digest_only(job, piece, length);
        }
        done_with_piece(job);
        if (fault == IMC_OK && atomic_load_explicit(&job->cancelled, memory_order_relaxed)) {
            fault = IMC_CANCELLED;
        }
        if (fault != IMC_OK) {
            return fault;
        }
    }
}

/* The tar's digest, and whether it is the expected one. */
static enum imc_fault finish_tar(struct imc_job *job, const struct imc_layer_sums *sums) {
    const struct imc_options *options = &job->options;
    if (!options->sees_tar) {
        return IMC_OK;
    }
    if (job->tar_hash == NULL) {
        memcpy(job->result.tar_digest, sums->plain, IMC_DIGEST_TEXT);
    } else {
        enum imc_fault fault = imc_hasher_finish(job->tar_hash, job->result.tar_digest);
        if (fault != IMC_OK) {
            return fault;
        }
    }
    if (options->diff_id == NULL) {
        return IMC_OK;
    }
    return check_digest(job, IMC_DIFF_ID, options->diff_id, job->result.tar_digest);
}

static enum imc_fault seal(struct imc_job *job) {
    struct imc_layer_sums sums = {0};
    char source[IMC_DIGEST_TEXT];
    enum imc_fault fault = drive(job);
    if (fault != IMC_OK) {
        return fault;
    }
    if (job->source_hash != NULL) {
        fault = imc_hasher_finish(job->source_hash, source);
        if (fault == IMC_OK) {
            fault = check_digest(job, IMC_STORED_DIGEST, job->digest, source);
        }
        if (fault == IMC_OK && job->data_failure.fault != IMC_OK) {
            job->failure = job->data_failure;
            fault = job->failure.fault;
        }
        if (fault == IMC_OK) {
            fault = finish_decoder(job, &job->failure);
        }
        if (fault == IMC_OK) {
            fault = finish_encoder(job, &job->failure);
        }
    }
    if (fault == IMC_OK) {
        fault = job->layer_ops->finish(job->layer, &sums);
    }
    if (fault == IMC_OK && job->source_hash == NULL) {
        fault = check_digest(job, IMC_STORED_DIGEST, job->digest, sums.plain);
        if (fault == IMC_OK && job->data_failure.fault != IMC_OK) {
            job->failure = job->data_failure;
            fault = job->failure.fault;
        }
    }
    if (fault == IMC_OK) {
        fault = finish_tar(job, &sums);
    }
    if (fault == IMC_OK) {
        memcpy(job->result.stored_digest, sums.stored, IMC_DIGEST_TEXT);
        memcpy(job->result.hmac, sums.hmac, IMC_MAC_BYTES);
        job->result.has_hmac = job->options.has_cipher;
    }
    return fault;
}

static enum imc_fault open_layer(struct imc_job *job) {
    struct imc_layer_sums sums = {0};
    enum imc_fault fault = drive(job);
    if (fault == IMC_OK) {
        fault = job->layer_ops->finish(job->layer, &sums);
    }
    if (fault == IMC_OK) {
        fault = check_digest(job, IMC_STORED_DIGEST, job->digest, sums.stored);
    }
    if (fault == IMC_OK && job->options.has_cipher &&
        CRYPTO_memcmp(sums.hmac, job->hmac, IMC_MAC_BYTES) != 0) {
        fault = imc_fail(&job->failure, IMC_TAG, 0, 0);
    }
    if (fault == IMC_OK && job->data_failure.fault != IMC_OK) {
        job->failure = job->data_failure;
        fault = job->failure.fault;
    }
    if (fault == IMC_OK) {
        fault = finish_decoder(job, &job->failure);
    }
    if (fault == IMC_OK && job->tar_reader != NULL) {
        fault = imc_tar_reader_finish(job->tar_reader, &job->failure);
    }
    if (fault == IMC_OK) {
        fault = finish_tar(job, &sums);
    }
    job->result.stored_size = job->taken;
    if (job->untar != NULL) {
        job->result.entries = imc_untar_entries(job->untar);
    }
    return fault;
}

/* Thread */

static void wipe_layer(struct imc_job *job) {
    if (job->layer != NULL) {
        job->layer_ops->wipe(job->layer);
        job->layer = NULL;
    }
}

static void *run(void *opaque) {
    struct imc_job *job = opaque;
    enum imc_fault fault = job->options.sealing ? seal(job) : open_layer(job);
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
    if (job->ring != NULL) {
        imc_ring_stop(job->ring); /* wakes the feeder */
    }
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

static enum imc_fault make_stage(enum imc_compression compression, bool reader,
                                 uint64_t window_bytes, struct imc_stage **stage) {
    switch (compression) {
    case IMC_GZIP:
        return reader ? imc_gzip_reader(stage) : imc_gzip_writer(stage);
    case IMC_ZSTD:
        return reader ? imc_zstd_reader(window_bytes, stage) : imc_zstd_writer(stage);
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

/* Which digest is taken where; see struct imc_layer_ops for what a layer can do in one pass. */
static enum imc_fault make_hashes(struct imc_job *job, const struct imc_options *options) {
    bool changes = options->decode != IMC_PLAIN || options->encode != IMC_PLAIN;
    const char *tar = options->diff_id == NULL ? "sha256:" : options->diff_id;
    struct imc_layer_config config = {
        .sealing = options->sealing,
        .has_cipher = options->has_cipher,
        .key = options->key,
        .nonce = options->nonce,
        .stored_hash = options->sealing ? "sha256:" : options->digest,
    };
    bool layer_has_tar = false;
    if (options->sealing && !changes) {
        config.plain_hash = options->digest;
        layer_has_tar = same_algorithm(tar, options->digest);
    } else if (!options->sealing && options->sees_tar && options->decode == IMC_PLAIN) {
        config.plain_hash = tar;
        layer_has_tar = true;
    }
    const char *force = NULL;
    if (options->force != NULL && strncmp(options->force, "layer=", 6) == 0) {
        force = options->force + 6;
    }
    job->layer_ops = imc_layer_pick(&config, force);
    enum imc_fault fault =
        job->layer_ops == NULL ? IMC_CRYPTO : job->layer_ops->init(&config, &job->layer);
    if (fault == IMC_OK && options->sees_tar && !layer_has_tar) {
        fault = imc_hasher_new(tar, &job->tar_hash);
    }
    if (fault == IMC_OK && options->sealing && changes) {
        fault = imc_hasher_new(options->digest, &job->source_hash);
    }
    return fault;
}

static enum imc_fault make_parts(struct imc_job *job, const struct imc_options *options) {
    enum imc_fault fault = make_hashes(job, options);
    if (fault == IMC_OK) {
        bool decodes = options->sealing || options->sees_tar;
        fault = make_stage(decodes ? options->decode : IMC_PLAIN, true, options->window_bytes,
                           &job->decoder);
    }
    if (fault == IMC_OK && options->sealing) {
        fault = make_stage(options->encode, false, 0, &job->encoder);
    }
    if (fault == IMC_OK && options->root_fd >= 0) {
        fault = imc_untar_new(options, &job->cancelled, &job->untar);
        if (fault == IMC_OK) {
            fault = imc_tar_reader_new(job->untar, options->max_name_bytes, &job->tar_reader);
        }
    }
    if (fault != IMC_OK) {
        return fault;
    }
    if (options->source_fd < 0) {
        fault = imc_ring_new(&job->ring);
    } else {
        job->piece = aligned_alloc(ALIGNMENT, IMC_PIECE);
        fault = job->piece == NULL ? IMC_NO_MEMORY : IMC_OK;
    }
    if (job->decoder != NULL) {
        job->tar = aligned_alloc(ALIGNMENT, IMC_PIECE);
        fault = job->tar == NULL ? IMC_NO_MEMORY : fault;
    }
    if (job->encoder != NULL) {
        job->encoded = aligned_alloc(ALIGNMENT, IMC_PIECE);
        fault = job->encoded == NULL ? IMC_NO_MEMORY : fault;
    }
    return fault;
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
    job->source_waits = waits(options->source_fd);
    job->sink_waits = waits(options->sink_fd);
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
    enum imc_fault fault = job->wake < 0 ? IMC_NO_MEMORY : make_parts(job, options);
    if (fault != IMC_OK) {
        imc_job_free(job);
        return fault;
    }
    *out = job;
    return IMC_OK;
}

enum imc_fault imc_job_start(struct imc_job *job) {
    pthread_attr_t attributes;
    sigset_t all;
    sigset_t before;
    if (pthread_attr_init(&attributes) != 0) {
        return imc_fail(&job->failure, IMC_NO_MEMORY, 0, 0);
    }
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    /* Signals are for the threads of Python; SIGPIPE becomes EPIPE. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&job->thread, &attributes, run, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
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
}

void imc_job_end_of_source(struct imc_job *job, bool surplus) {
    imc_ring_close(job->ring, surplus);
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
    uint64_t one = 1;
    atomic_store(&job->cancelled, true);
    /* It can only fail where the counter is full, and then it is readable. */
    ssize_t written = write(job->wake, &one, sizeof one);
    (void)written;
    if (job->ring != NULL) {
        imc_ring_stop(job->ring);
    }
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
    if (job->decoder != NULL) {
        job->decoder->ops->free(job->decoder);
    }
    if (job->encoder != NULL) {
        job->encoder->ops->free(job->encoder);
    }
    imc_tar_reader_free(job->tar_reader);
    imc_untar_free(job->untar);
    imc_ring_free(job->ring);
    free(job->piece);
    free(job->tar);
    free(job->encoded);
    if (job->wake >= 0) {
        close(job->wake);
    }
    pthread_cond_destroy(&job->cond);
    pthread_mutex_destroy(&job->mutex);
    OPENSSL_cleanse(job, sizeof *job);
    free(job);
}
