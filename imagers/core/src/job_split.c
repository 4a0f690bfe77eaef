/* A job with a thread for each stage, and rings between them.
 *
 *     open, compressed    read, cipher [write] -> decompress -> diff_id, [write or unpack]
 *     open, plain         read, cipher -> diff_id, write or unpack
 *     seal, as it is      read, source digest -> cipher -> write
 *
 * The first of them is the job's own thread. It reads the stored bytes to their end whatever
 * happens to what is in them: a later stage that finds damage stops the ring behind it, and
 * from then on the first stage only hashes. Where a later stage cannot go on at all (a full
 * disk), the job is abandoned, and the first one stops as well.
 *
 * Each stage has a failure of its own, which is read when its thread has ended. Of two faults of
 * the data the last stage's came first in the stream: it has seen only what went before.
 */
#include "job_impl.h"

#include <unistd.h>

void imc_job_abandon(struct imc_job *job) {
    uint64_t one = 1;
    atomic_store(&job->abandoned, true);
    ssize_t written = write(job->wake, &one, sizeof one); /* as in imc_job_cancel */
    (void)written;
    imc_job_stop_rings(job);
}

/* Keeps what went wrong in a later stage, and tells those before it. */
static void give_up(struct imc_job *job, enum imc_fault fault, struct imc_failure *failure,
                    struct imc_ring *before) {
    if (failure->fault != fault) {
        imc_fail(failure, fault, 0, 0);
    }
    if (imc_job_is_of_data(fault)) {
        imc_ring_stop(before);
    } else {
        imc_job_abandon(job);
    }
}

/* Middle stages */

/* All that the decoder makes of a piece, cut anew into slots. *slot and *filled are of the slot
 * that is being filled. A step that fails gives nothing, as in job_stages.c. */
static enum imc_fault decode_piece(struct imc_job *job, struct imc_in in, uint8_t **slot,
                                   size_t *filled) {
    bool full = true;
    while (in.left > 0 || full) {
        if (imc_job_is_over(job)) {
            return IMC_CANCELLED;
        }
        if (*slot == NULL) {
            *slot = imc_ring_claim(job->second);
            *filled = 0;
            if (*slot == NULL) {
                return IMC_CANCELLED; /* the last stage takes no more */
            }
        }
        struct imc_out out = {*slot + *filled, IMC_PIECE - *filled};
        enum imc_fault fault =
            job->decoder->ops->step(job->decoder, &in, &out, &job->middle_failure);
        if (fault != IMC_OK) {
            return fault;
        }
        full = out.left == 0;
        *filled = IMC_PIECE - out.left;
        if (full) {
            imc_ring_commit(job->second, IMC_PIECE);
            *slot = NULL;
        }
    }
    return IMC_OK;
}

static void *decode_all(void *opaque) {
    struct imc_job *job = opaque;
    enum imc_fault fault = IMC_OK;
    uint8_t *slot = NULL;
    size_t filled = 0;
    size_t length = 0;
    const uint8_t *piece;
    while (fault == IMC_OK && (piece = imc_ring_take(job->first, &length)) != NULL) {
        fault = decode_piece(job, (struct imc_in){piece, length}, &slot, &filled);
        imc_ring_release(job->first);
    }
    if (slot != NULL && filled > 0) {
        imc_ring_commit(job->second, filled);
    }
    imc_ring_close(job->second, false);
    if (fault == IMC_CANCELLED) {
        imc_ring_stop(job->first);
    } else if (fault != IMC_OK) {
        give_up(job, fault, &job->middle_failure, job->first);
    }
    return NULL;
}

static void *seal_all(void *opaque) {
    struct imc_job *job = opaque;
    enum imc_fault fault = IMC_OK;
    size_t length = 0;
    uint8_t *piece;
    while (fault == IMC_OK && (piece = imc_ring_take(job->first, &length)) != NULL) {
        fault = job->layer_ops->step(job->layer, piece, length);
        if (fault == IMC_OK && imc_ring_claim(job->second) == NULL) {
            fault = IMC_CANCELLED;
        }
        if (fault == IMC_OK) {
            imc_ring_swap(job->first, job->second);
            imc_ring_commit(job->second, length);
        }
        imc_ring_release(job->first);
    }
    imc_ring_close(job->second, false);
    if (fault == IMC_CANCELLED) {
        imc_ring_stop(job->first);
    } else if (fault != IMC_OK) {
        give_up(job, fault, &job->middle_failure, job->first);
    }
    return NULL;
}

/* The last stage */

static enum imc_fault finish_piece(struct imc_job *job, const uint8_t *data, size_t length) {
    struct imc_failure *failure = &job->last_failure;
    const struct imc_options *options = &job->options;
    enum imc_fault fault = IMC_OK;
    if (options->sealing) {
        fault = imc_job_write(job, data, length, failure);
        job->result.stored_size += length;
        imc_job_count_out(job, length);
        return fault;
    }
    if (options->sees_tar) {
        fault = imc_job_see_tar(job, data, length, failure);
    }
    if (fault == IMC_OK && job->opened_hash != NULL) {
        fault = imc_hasher_step(job->opened_hash, data, length);
    }
    /* Beside a decoder the first stage has given on what was to stay compressed. */
    if (fault == IMC_OK && (options->gives_tar || job->second == NULL)) {
        fault = imc_job_put_opened(job, data, length, failure);
    }
    return fault;
}

static void *finish_all(void *opaque) {
    struct imc_job *job = opaque;
    struct imc_ring *ring = job->second == NULL ? job->first : job->second;
    enum imc_fault fault = IMC_OK;
    size_t length = 0;
    const uint8_t *piece;
    while (fault == IMC_OK && (piece = imc_ring_take(ring, &length)) != NULL) {
        fault = imc_job_is_over(job) ? IMC_CANCELLED : finish_piece(job, piece, length);
        imc_ring_release(ring);
    }
    if (fault == IMC_CANCELLED) {
        imc_ring_stop(ring);
    } else if (fault != IMC_OK) {
        give_up(job, fault, &job->last_failure, ring);
    }
    return NULL;
}

/* The first stage */

/* What is done to each piece, also where nobody wants it any more. */
static enum imc_fault check_piece(struct imc_job *job, uint8_t *piece, size_t length, bool wanted) {
    const struct imc_options *options = &job->options;
    enum imc_fault fault = IMC_OK;
    if (options->sealing) {
        fault = imc_hasher_step(job->source_hash, piece, length);
        if (fault == IMC_OK && wanted && options->sees_tar) {
            fault = imc_job_see_tar(job, piece, length, &job->data_failure);
        }
        return fault;
    }
    fault = job->layer_ops->step(job->layer, piece, length);
    if (fault == IMC_OK && wanted && !options->gives_tar && job->second != NULL) {
        fault = imc_job_put_opened(job, piece, length, &job->failure);
    }
    return fault;
}

static enum imc_fault read_all(struct imc_job *job) {
    bool wanted = true;
    for (;;) {
        uint8_t *slot = wanted ? imc_ring_claim(job->first) : NULL;
        uint8_t *piece = NULL;
        size_t length = 0;
        if (imc_job_is_over(job)) {
            return IMC_CANCELLED;
        }
        wanted = slot != NULL;
        enum imc_fault fault = imc_job_next_piece(job, wanted ? slot : job->piece, &piece, &length);
        if (fault != IMC_OK) {
            return fault;
        }
        if (length == 0) {
            return imc_job_check_end(job);
        }
        fault = check_piece(job, piece, length, wanted);
        if (imc_job_is_of_data(fault)) { /* as any of a later stage: it waits */
            imc_ring_close(job->first, false);
            wanted = false;
            fault = IMC_OK;
        }
        if (fault == IMC_OK && wanted) {
            if (job->ring != NULL) {
                imc_ring_swap(job->ring, job->first);
            }
            imc_ring_commit(job->first, length);
        }
        imc_job_done_with_piece(job);
        if (fault != IMC_OK) {
            return fault;
        }
    }
}

enum imc_fault imc_job_drive_split(struct imc_job *job) {
    pthread_t middle;
    pthread_t last;
    bool has_middle = job->second != NULL;
    if (!imc_job_spawn(&last, finish_all, job)) {
        return IMC_NO_MEMORY;
    }
    bool good =
        !has_middle || imc_job_spawn(&middle, job->options.sealing ? seal_all : decode_all, job);
    enum imc_fault fault = good ? read_all(job) : IMC_NO_MEMORY;
    if (fault == IMC_OK) {
        imc_ring_close(job->first, false);
    } else {
        imc_job_stop_rings(job);
    }
    if (good && has_middle) {
        pthread_join(middle, NULL);
    }
    pthread_join(last, NULL);

    const struct imc_failure *found[] = {&job->last_failure, &job->middle_failure};
    for (size_t i = 0; i < 2; i++) {
        /* What stopped it all is the cause of what the first stage met after that. */
        bool fatal = found[i]->fault != IMC_OK && !imc_job_is_of_data(found[i]->fault);
        if (fatal && (fault == IMC_OK || fault == IMC_CANCELLED)) {
            job->failure = *found[i];
            return found[i]->fault;
        }
    }
    for (size_t i = 0; i < 2 && job->data_failure.fault == IMC_OK; i++) {
        if (imc_job_is_of_data(found[i]->fault)) {
            job->data_failure = *found[i];
        }
    }
    return fault;
}
