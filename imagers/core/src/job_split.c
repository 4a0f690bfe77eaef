/* A job with several threads: which stations its line has.
 *
 *     open            read -> cipher [-> write] -> decompress -> diff_id [-> write or unpack]
 *     seal, as it is  read -> source digest -> cipher -> write
 *
 * The stored bytes are read and checked to their end whatever happens to what is in them.
 */
#include "line.h"

#include "job_impl.h"

static bool is_fed(struct imc_job *job) {
    return imc_ring_is_ready(job->ring);
}

static enum imc_fault fill(struct imc_job *job, uint8_t **data, size_t *length,
                           struct imc_failure *failure) {
    uint8_t *piece = NULL;
    enum imc_fault fault = imc_job_next_piece(job, *data, &piece, length);
    if (fault == IMC_OK && *length == 0) {
        fault = imc_job_check_end(job);
    } else if (fault == IMC_OK && job->ring != NULL) {
        imc_ring_exchange(job->ring, data);
        imc_job_done_with_piece(job);
    }
    if (fault != IMC_OK) {
        *failure = job->failure;
    }
    return fault;
}

/* Opening */

static enum imc_fault check(struct imc_job *job, uint8_t *data, size_t length,
                            struct imc_failure *failure) {
    (void)failure;
    return job->layer_ops->step(job->layer, data, length);
}

static enum imc_fault look(struct imc_job *job, uint8_t *data, size_t length,
                           struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    if (job->options.sees_tar) {
        fault = imc_job_see_tar(job, data, length, failure);
    }
    if (fault == IMC_OK && job->opened_hash != NULL) {
        fault = imc_hasher_step(job->opened_hash, data, length);
    }
    return fault;
}

static enum imc_fault give(struct imc_job *job, uint8_t *data, size_t length,
                           struct imc_failure *failure) {
    return imc_job_put_opened(job, data, length, failure);
}

static void plan_open(const struct imc_job *job, struct imc_plan *plan) {
    plan->steps[plan->count++] = check;
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

/* Sealing */

static enum imc_fault look_at_source(struct imc_job *job, uint8_t *data, size_t length,
                                     struct imc_failure *failure) {
    enum imc_fault fault = imc_hasher_step(job->source_hash, data, length);
    if (fault == IMC_OK && failure->fault == IMC_OK && job->options.sees_tar) {
        fault = imc_job_see_tar(job, data, length, failure);
    }
    return fault;
}

static enum imc_fault write_out(struct imc_job *job, uint8_t *data, size_t length,
                                struct imc_failure *failure) {
    job->result.stored_size += length;
    imc_job_count_out(job, length);
    return imc_job_write(job, data, length, failure);
}

enum imc_fault imc_job_split(struct imc_job *job) {
    struct imc_plan plan = {.fill = fill, .required = 1};
    if (job->options.sealing) {
        plan.steps[0] = look_at_source;
        plan.steps[1] = check;
        plan.steps[2] = write_out;
        plan.count = 3;
    } else {
        plan_open(job, &plan);
    }
    plan.ready = job->ring == NULL ? NULL : is_fed;
    return imc_line_new(job, &plan, job->options.threads, &job->line);
}

enum imc_fault imc_job_drive_split(struct imc_job *job) {
    return imc_line_run(job->line, &job->failure, &job->data_failure);
}
