/* The stages of a job, one after the other on each piece, and its checks.
 *
 * What is wrong is reported in the order that imagers/core/layer.py promises. A fault of
 * the data behind the cipher is therefore kept while the stored bytes are read to their
 * end: if their digest or HMAC is wrong too, that is the cause.
 */
#include "job_impl.h"

#include <string.h>

#include <openssl/crypto.h>

void imc_job_count_out(struct imc_job *job, size_t length) {
    uint64_t before = atomic_load_explicit(&job->bytes_out, memory_order_relaxed);
    atomic_store_explicit(&job->bytes_out, before + length, memory_order_relaxed);
}

/* The tar passing by: counted, bounded, hashed. */
enum imc_fault imc_job_see_tar(struct imc_job *job, const uint8_t *data, size_t length,
                               struct imc_failure *failure) {
    if (length > job->options.tar_bytes - job->result.tar_size) {
        return imc_fail(failure, IMC_TAR_BYTES, job->options.tar_bytes, 0);
    }
    job->result.tar_size += length;
    return job->tar_hash == NULL ? IMC_OK : imc_hasher_step(job->tar_hash, data, length);
}

/* Seals what is in `data`, in place, and writes it. */
enum imc_fault imc_job_put_sealed(struct imc_job *job, uint8_t *data, size_t length,
                                  struct imc_failure *failure) {
    enum imc_fault fault = job->layer_ops->step(job->layer, data, length);
    if (fault == IMC_OK) {
        fault = imc_job_write(job, data, length, failure);
    }
    job->result.stored_size += length;
    imc_job_count_out(job, length);
    return fault;
}

/* A part of the tar on its way to be sealed. */
static enum imc_fault encode(struct imc_job *job, uint8_t *data, size_t length,
                             struct imc_failure *failure) {
    enum imc_fault fault = imc_job_see_tar(job, data, length, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    return job->frames == NULL ? imc_job_put_sealed(job, data, length, failure)
                               : imc_frames_put(job->frames, data, length);
}

/* A part of what was opened, to where it goes. */
enum imc_fault imc_job_put_opened(struct imc_job *job, const uint8_t *data, size_t length,
                                  struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    if (job->tar_reader != NULL) {
        fault = imc_tar_reader_step(job->tar_reader, data, length, failure);
        atomic_store_explicit(&job->entries, imc_untar_entries(job->untar), memory_order_relaxed);
    } else if (job->options.sink_fd >= 0) {
        fault = imc_job_write(job, data, length, failure);
    }
    imc_job_count_out(job, length);
    return fault;
}

/* A part of the tar out of the decoder, when opening. */
static enum imc_fault put_tar(struct imc_job *job, const uint8_t *data, size_t length,
                              struct imc_failure *failure) {
    enum imc_fault fault = imc_job_see_tar(job, data, length, failure);
    if (fault == IMC_OK && job->options.gives_tar) {
        fault = imc_job_put_opened(job, data, length, failure);
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
    struct imc_out out = {NULL, 0}; /* a decoder gives all that it has at once */
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
        return imc_job_put_sealed(job, data, length, failure);
    }
    if (job->opened_hash != NULL) {
        fault = imc_hasher_step(job->opened_hash, data, length);
    }
    if (fault == IMC_OK && !options->gives_tar) {
        fault = imc_job_put_opened(job, data, length, failure);
    }
    if (fault == IMC_OK && options->sees_tar) {
        fault = job->decoder == NULL ? put_tar(job, data, length, failure)
                                     : decode(job, data, length, failure);
    }
    return fault;
}

/* Whether a fault is one of the data, which waits for the checks of the stored bytes. */
bool imc_job_is_of_data(enum imc_fault fault) {
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
        enum imc_fault fault = imc_job_next_piece(job, job->piece, &piece, &length);
        if (fault != IMC_OK) {
            return fault;
        }
        if (length == 0) {
            return imc_job_check_end(job);
        }
        if (job->source_hash != NULL) {
            fault = imc_hasher_step(job->source_hash, piece, length);
        } else if (!options->sealing) {
            fault = job->layer_ops->step(job->layer, piece, length);
        }
        if (fault == IMC_OK && job->data_failure.fault == IMC_OK) {
            fault = take_piece(job, piece, length, &job->data_failure);
            if (fault != IMC_OK && imc_job_is_of_data(fault) && job->data_failure.fault != fault) {
                imc_fail(&job->data_failure, fault, 0, 0);
            }
            if (imc_job_is_of_data(fault)) {
                fault = digest_only(job, piece, length);
            } else if (fault != IMC_OK && job->data_failure.fault == fault) {
                job->failure = job->data_failure; /* a file that cannot be written */
            }
        } else if (fault == IMC_OK) {
            fault = digest_only(job, piece, length);
        }
        imc_job_done_with_piece(job);
        if (fault == IMC_OK && atomic_load_explicit(&job->cancelled, memory_order_relaxed)) {
            fault = IMC_CANCELLED;
        }
        if (fault != IMC_OK) {
            return fault;
        }
    }
}

/* The digest of what the sink got, once that of the tar is known. */
static enum imc_fault finish_opened(struct imc_job *job, const struct imc_layer_sums *sums) {
    char *to = job->result.opened_digest;
    if (job->opened_hash != NULL) {
        return imc_hasher_finish(job->opened_hash, to);
    }
    if (job->wants_opened) {
        memcpy(to, job->opened_is_tar ? job->result.tar_digest : sums->plain, IMC_DIGEST_TEXT);
    }
    return IMC_OK;
}

/* The tar's digest, and whether it is the expected one. */
static enum imc_fault finish_tar(struct imc_job *job, const struct imc_layer_sums *sums) {
    const struct imc_options *options = &job->options;
    if (!options->sees_tar) {
        return IMC_OK;
    }
    if (job->tar_is_source) {
        memcpy(job->result.tar_digest, job->digest, IMC_DIGEST_TEXT); /* it was compared */
    } else if (job->tar_hash == NULL) {
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
    enum imc_fault fault = job->split ? imc_job_drive_split(job) : drive(job);
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
        if (fault == IMC_OK && job->frames != NULL) {
            fault = imc_frames_finish(job->frames);
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

enum imc_fault imc_job_seal(struct imc_job *job) {
    if (job->frames == NULL) {
        return seal(job);
    }
    enum imc_fault fault = imc_frames_start(job->frames);
    if (fault == IMC_OK) {
        fault = seal(job);
    }
    if (fault != IMC_OK) {
        imc_frames_stop(job->frames);
    }
    imc_frames_join(job->frames);
    if (job->last_failure.fault != IMC_OK && (fault == IMC_CANCELLED || fault == IMC_OK)) {
        job->failure = job->last_failure;
        fault = job->failure.fault;
    }
    return fault;
}

enum imc_fault imc_job_open(struct imc_job *job) {
    struct imc_layer_sums sums = {0};
    enum imc_fault fault = job->split ? imc_job_drive_split(job) : drive(job);
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
    if (fault == IMC_OK) {
        fault = finish_opened(job, &sums);
    }
    job->result.stored_size = job->taken;
    if (job->untar != NULL) {
        job->result.entries = imc_untar_entries(job->untar);
        job->result.hole_bytes = imc_tar_reader_hole_bytes(job->tar_reader);
    }
    return fault;
}
