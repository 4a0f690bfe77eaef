/* SPDX-License-Identifier: Apache-2.0 */
/* What a job does with each piece, as the stations of its line.
 *
 *     open            read -> cipher [-> write] -> decompress -> diff_id [-> write or unpack]
 *     check           read -> digest and hmac [-> write]
 *     seal, as it is  read -> source digest [-> cipher] -> write
 *     seal, anew      read -> source digest [-> decompress] -> diff_id -> compress, or cipher ->
 * write
 *
 * The stored bytes are read and checked to their end whatever happens to what is in them. Where
 * one thread does it all, digests are taken in the pass of the cipher as far as it can: see
 * make_hashes in job.c.
 */
#include "job_impl.h"

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

static bool is_fed(void *context) {
    const struct imc_job *job = context;
    return imc_ring_is_ready(job->ring);
}

static enum imc_fault fill(void *context, uint8_t **data, size_t *length,
                           struct imc_failure *failure) {
    return imc_job_read(context, data, length, failure);
}

static enum imc_fault pass_layer(void *context, uint8_t *data, size_t length,
                                 struct imc_failure *failure) {
    struct imc_job *job = context;
    (void)failure;
    return job->layer_ops->step(job->layer, data, length);
}

static enum imc_fault look(void *context, uint8_t *data, size_t length,
                           struct imc_failure *failure) {
    struct imc_job *job = context;
    enum imc_fault fault = IMC_OK;
    if (job->options.sees_tar) {
        fault = see_tar(job, data, length, failure);
    }
    if (fault == IMC_OK && job->opened_hash != NULL) {
        fault = imc_hasher_step(job->opened_hash, data, length);
    }
    return fault;
}

/* A part of what was opened, to where it goes. */
static enum imc_fault give(void *context, uint8_t *data, size_t length,
                           struct imc_failure *failure) {
    struct imc_job *job = context;
    enum imc_fault fault = IMC_OK;
    if (job->tar_reader != NULL) {
        fault = imc_tar_reader_step(job->tar_reader, data, length, failure);
        atomic_store_explicit(&job->entries, imc_untar_entries(job->untar), memory_order_relaxed);
    } else if (job->options.sink_fd >= 0) {
        fault = imc_job_write(job, data, length, failure);
    }
    count_out(job, length);
    return fault;
}

static void plan_open(const struct imc_job *job, struct imc_plan *plan) {
    plan->steps[plan->count++] = pass_layer;
    plan->decoder = job->decoder;
    if (job->decoder != NULL && !job->options.gives_tar) {
        plan->steps[plan->count++] = give; /* what stays compressed */
    }
    plan->decode_after = plan->count;
    if (job->options.sees_tar || job->opened_hash != NULL) {
        plan->steps[plan->count++] = look;
    }
    if (job->decoder == NULL || job->options.gives_tar) {
        plan->steps[plan->count++] = give;
    }
}

/* Every byte goes into the source's digest, which the layer takes where there is no hash for it;
 * in place, so that the tar is seen before. After a fault of the data, only that. */
static enum imc_fault take_source(void *context, uint8_t *data, size_t length,
                                  struct imc_failure *failure) {
    struct imc_job *job = context;
    enum imc_fault of_data = IMC_OK;
    if (job->options.sees_tar && job->decoder == NULL && failure->fault == IMC_OK) {
        of_data = see_tar(job, data, length, failure);
    }
    enum imc_fault fault = job->source_hash != NULL
                               ? imc_hasher_step(job->source_hash, data, length)
                               : job->layer_ops->step(job->layer, data, length);
    return fault == IMC_OK ? of_data : fault;
}

static enum imc_fault compress(void *context, uint8_t *data, size_t length,
                               struct imc_failure *failure) {
    struct imc_job *job = context;
    (void)failure;
    return imc_frames_put(job->frames, data, length);
}

static enum imc_fault write_out(void *context, uint8_t *data, size_t length,
                                struct imc_failure *failure) {
    struct imc_job *job = context;
    job->result.stored_size += length;
    count_out(job, length);
    return imc_job_write(job, data, length, failure);
}

enum imc_fault imc_job_put_sealed(void *context, uint8_t *data, size_t length,
                                  struct imc_failure *failure) {
    enum imc_fault fault = pass_layer(context, data, length, failure);
    return fault == IMC_OK ? write_out(context, data, length, failure) : fault;
}

static void plan_seal(const struct imc_job *job, struct imc_plan *plan) {
    plan->steps[plan->count++] = take_source;
    plan->decoder = job->decoder;
    plan->decode_after = plan->count;
    if (job->decoder != NULL) {
        plan->steps[plan->count++] = look;
    }
    if (job->frames != NULL) {
        plan->steps[plan->count++] = compress;
        return;
    }
    if (job->source_hash != NULL) {
        plan->steps[plan->count++] = pass_layer;
    }
    plan->steps[plan->count++] = write_out;
}

void imc_job_plan(const struct imc_job *job, struct imc_plan *plan) {
    *plan =
        (struct imc_plan){.fill = fill, .required = 1, .ready = job->ring == NULL ? NULL : is_fed};
    if (job->options.sealing) {
        plan_seal(job, plan);
    } else {
        plan_open(job, plan);
    }
}
