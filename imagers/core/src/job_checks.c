/* SPDX-License-Identifier: Apache-2.0 */
/* The whole of a job: its line is run, and then come its checks.
 *
 * What is wrong is reported in the order that imagers/core/layer.py promises. A fault of
 * the data behind the cipher is therefore kept while the stored bytes are read to their
 * end: if their digest or HMAC is wrong too, that is the cause.
 */
#include "job_impl.h"

#include <string.h>

#include <openssl/crypto.h>

static enum imc_fault finish_decoder(struct imc_job *job) {
    if (job->decoder == NULL) {
        return IMC_OK;
    }
    struct imc_out out = {NULL, 0}; /* a decoder gives all that it has at once */
    bool done = false;
    return job->decoder->ops->finish(job->decoder, &out, &done, &job->failure);
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
    enum imc_fault fault = imc_line_run(job->line, &job->failure, &job->data_failure);
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
            fault = finish_decoder(job);
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
    const struct imc_failure *failure = imc_frames_failure(job->frames);
    if (failure->fault != IMC_OK && (fault == IMC_CANCELLED || fault == IMC_OK)) {
        job->failure = *failure;
        fault = job->failure.fault;
    }
    return fault;
}

enum imc_fault imc_job_open(struct imc_job *job) {
    struct imc_layer_sums sums = {0};
    enum imc_fault fault = imc_line_run(job->line, &job->failure, &job->data_failure);
    if (fault == IMC_OK) {
        fault = job->layer_ops->finish(job->layer, &sums);
    }
    if (fault == IMC_OK && !job->is_known) {
        fault = check_digest(job, IMC_STORED_DIGEST, job->digest, sums.stored);
    }
    if (fault == IMC_OK && !job->is_known && job->options.has_cipher &&
        CRYPTO_memcmp(sums.hmac, job->hmac, IMC_MAC_BYTES) != 0) {
        fault = imc_fail(&job->failure, IMC_TAG, 0, 0);
    }
    if (fault == IMC_OK && job->data_failure.fault != IMC_OK) {
        job->failure = job->data_failure;
        fault = job->failure.fault;
    }
    if (fault == IMC_OK) {
        fault = finish_decoder(job);
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
