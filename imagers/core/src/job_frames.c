/* Compression on several cores: frames that know nothing of each other, put back in order.
 *
 *     job's own thread        read, digest, [decompress], diff_id: fills frames
 *     workers                 compress a frame each, with an encoder of their own
 *     last thread             cipher and write, frame after frame
 *
 * A frame is IMC_FRAME_BYTES of tar, and there is no other way through for what is compressed:
 * the bytes do not depend on the number of threads. Frames go round: `filled`, `taken` and
 * `written` count them.
 */
#include "job_impl.h"

#include <stdlib.h>
#include <string.h>

#define MOST_WORKERS 5 /* with one frame more, in and out: 48 MiB, of the 64 that a job may use */

struct frame {
    uint8_t *tar;
    size_t length;
    uint8_t *out;
    size_t out_length;
    size_t out_room;
    bool done;
};

struct imc_frames {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct frame frames[MOST_WORKERS + 1];
    struct imc_stage *encoders[MOST_WORKERS];
    pthread_t threads[MOST_WORKERS + 1]; /* the last thread, then the workers */
    size_t workers;
    size_t started;
    size_t next_encoder;
    uint64_t filled;
    uint64_t taken;
    uint64_t written;
    bool closed;
    bool stopped;
    bool current; /* the frame `filled` is being filled */
    struct imc_job *job;
};

static struct frame *frame_of(struct imc_frames *frames, uint64_t number) {
    return &frames->frames[number % (frames->workers + 1)];
}

void imc_frames_stop(struct imc_frames *frames) {
    pthread_mutex_lock(&frames->mutex);
    frames->stopped = true;
    pthread_cond_broadcast(&frames->changed);
    pthread_mutex_unlock(&frames->mutex);
}

/* Keeps the first fault of a thread; all of them are ones that end the job. */
static void give_up(struct imc_frames *frames, const struct imc_failure *failure) {
    struct imc_job *job = frames->job;
    pthread_mutex_lock(&frames->mutex);
    if (job->last_failure.fault == IMC_OK && failure->fault != IMC_CANCELLED) {
        job->last_failure = *failure;
    }
    pthread_mutex_unlock(&frames->mutex);
    imc_job_abandon(job);
}

/* Workers */

static bool has_room(struct frame *frame) {
    if (frame->out_length < frame->out_room) {
        return true;
    }
    size_t room = frame->out_room + IMC_PIECE;
    uint8_t *out = realloc(frame->out, room);
    if (out == NULL) {
        return false;
    }
    frame->out = out;
    frame->out_room = room;
    return true;
}

/* To the next multiple of IMC_PIECE: ISA-L ends blocks where its output is full, so the bytes
 * would depend on how much room an earlier frame has left here. */
static struct imc_out next_out(const struct frame *frame) {
    return (struct imc_out){frame->out + frame->out_length,
                            IMC_PIECE - frame->out_length % IMC_PIECE};
}

/* The frame as one member or frame of the codec: as job_stages.c does it without threads. */
static enum imc_fault compress(const struct imc_job *job, struct imc_stage *encoder,
                               struct frame *frame, struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    bool done = false;
    frame->out_length = 0;
    for (size_t at = 0; at < frame->length && fault == IMC_OK; at += IMC_PIECE) {
        size_t left = frame->length - at;
        struct imc_in in = {frame->tar + at, left < IMC_PIECE ? left : IMC_PIECE};
        bool full = true;
        while (fault == IMC_OK && (in.left > 0 || full)) {
            if (imc_job_is_over(job)) {
                return IMC_CANCELLED;
            }
            if (!has_room(frame)) {
                return IMC_NO_MEMORY;
            }
            struct imc_out out = next_out(frame);
            fault = encoder->ops->step(encoder, &in, &out, failure);
            frame->out_length = (size_t)(out.at - frame->out);
            full = out.left == 0;
        }
    }
    while (fault == IMC_OK && !done) {
        if (!has_room(frame)) {
            return IMC_NO_MEMORY;
        }
        struct imc_out out = next_out(frame);
        fault = encoder->ops->finish(encoder, &out, &done, failure);
        frame->out_length = (size_t)(out.at - frame->out);
    }
    return fault;
}

static void *compress_frames(void *opaque) {
    struct imc_job *job = opaque;
    struct imc_frames *frames = job->frames;
    struct imc_failure failure = {.fault = IMC_OK};
    pthread_mutex_lock(&frames->mutex);
    struct imc_stage *encoder = frames->encoders[frames->next_encoder++];
    for (;;) {
        while (!frames->stopped && !frames->closed && frames->taken == frames->filled) {
            pthread_cond_wait(&frames->changed, &frames->mutex);
        }
        if (frames->stopped || frames->taken == frames->filled) {
            break;
        }
        struct frame *frame = frame_of(frames, frames->taken++);
        pthread_mutex_unlock(&frames->mutex);
        enum imc_fault fault = compress(job, encoder, frame, &failure);
        if (fault != IMC_OK) {
            failure.fault = fault;
            give_up(frames, &failure);
        }
        pthread_mutex_lock(&frames->mutex);
        frame->done = true;
        pthread_cond_broadcast(&frames->changed);
    }
    pthread_mutex_unlock(&frames->mutex);
    return NULL;
}

/* The last thread */

static enum imc_fault put_frame(struct imc_job *job, const struct frame *frame,
                                struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    for (size_t at = 0; at < frame->out_length && fault == IMC_OK; at += IMC_PIECE) {
        size_t left = frame->out_length - at;
        fault =
            imc_job_put_sealed(job, frame->out + at, left < IMC_PIECE ? left : IMC_PIECE, failure);
    }
    return fault;
}

static void *write_frames(void *opaque) {
    struct imc_job *job = opaque;
    struct imc_frames *frames = job->frames;
    struct imc_failure failure = {.fault = IMC_OK};
    pthread_mutex_lock(&frames->mutex);
    for (;;) {
        struct frame *frame = frame_of(frames, frames->written);
        while (!frames->stopped && !(frames->closed && frames->written == frames->filled) &&
               !(frames->written < frames->taken && frame->done)) {
            pthread_cond_wait(&frames->changed, &frames->mutex);
        }
        if (frames->stopped || !frame->done) {
            break;
        }
        pthread_mutex_unlock(&frames->mutex);
        enum imc_fault fault = put_frame(job, frame, &failure);
        if (fault != IMC_OK) {
            failure.fault = fault;
            give_up(frames, &failure);
        }
        pthread_mutex_lock(&frames->mutex);
        frame->done = false;
        frames->written++;
        pthread_cond_broadcast(&frames->changed);
    }
    pthread_mutex_unlock(&frames->mutex);
    return NULL;
}

/* The job's own thread */

/* The frame to fill; NULL: the job is over. */
static struct frame *current_frame(struct imc_frames *frames) {
    struct frame *frame = frame_of(frames, frames->filled); /* only this thread counts it up */
    if (frames->current) {
        return frame;
    }
    pthread_mutex_lock(&frames->mutex);
    while (!frames->stopped && frames->filled - frames->written > frames->workers) {
        pthread_cond_wait(&frames->changed, &frames->mutex);
    }
    frames->current = !frames->stopped;
    pthread_mutex_unlock(&frames->mutex);
    frame->length = frames->current ? 0 : frame->length;
    return frames->current ? frame : NULL;
}

static void hand_over(struct imc_frames *frames) {
    pthread_mutex_lock(&frames->mutex);
    frames->current = false;
    frames->filled++;
    pthread_cond_broadcast(&frames->changed);
    pthread_mutex_unlock(&frames->mutex);
}

enum imc_fault imc_frames_put(struct imc_frames *frames, const uint8_t *data, size_t length) {
    while (length > 0) {
        struct frame *frame = current_frame(frames);
        if (frame == NULL) {
            return IMC_CANCELLED;
        }
        size_t room = IMC_FRAME_BYTES - frame->length;
        size_t part = length < room ? length : room;
        memcpy(frame->tar + frame->length, data, part);
        frame->length += part;
        data += part;
        length -= part;
        if (frame->length == IMC_FRAME_BYTES) {
            hand_over(frames);
        }
    }
    return IMC_OK;
}

enum imc_fault imc_frames_finish(struct imc_frames *frames) {
    if (frames->current || frames->filled == 0) { /* an empty tar has one frame */
        if (current_frame(frames) == NULL) {
            return IMC_CANCELLED;
        }
        hand_over(frames);
    }
    pthread_mutex_lock(&frames->mutex);
    frames->closed = true;
    pthread_cond_broadcast(&frames->changed);
    pthread_mutex_unlock(&frames->mutex);
    imc_frames_join(frames);
    /* imc_job_seal tells which failure it was. */
    return imc_job_is_over(frames->job) ? IMC_CANCELLED : IMC_OK;
}

void imc_frames_join(struct imc_frames *frames) {
    for (; frames->started > 0; frames->started--) {
        pthread_join(frames->threads[frames->started - 1], NULL);
    }
}

enum imc_fault imc_frames_start(struct imc_frames *frames) {
    for (size_t i = 0; i <= frames->workers; i++) {
        void *(*body)(void *) = i == 0 ? write_frames : compress_frames;
        if (!imc_job_spawn(&frames->threads[i], body, frames->job)) {
            return IMC_NO_MEMORY;
        }
        frames->started++;
    }
    return IMC_OK;
}

enum imc_fault imc_frames_new(struct imc_job *job, unsigned threads) {
    struct imc_frames *frames = calloc(1, sizeof *frames);
    if (frames == NULL) {
        return IMC_NO_MEMORY;
    }
    if (pthread_mutex_init(&frames->mutex, NULL) != 0) {
        free(frames);
        return IMC_NO_MEMORY;
    }
    if (pthread_cond_init(&frames->changed, NULL) != 0) {
        pthread_mutex_destroy(&frames->mutex);
        free(frames);
        return IMC_NO_MEMORY;
    }
    frames->job = job;
    frames->workers = threads < 2 ? 2 : threads < MOST_WORKERS ? threads : MOST_WORKERS;
    job->frames = frames; /* imc_frames_free takes what is there */
    enum imc_fault fault = IMC_OK;
    for (size_t i = 0; i <= frames->workers && fault == IMC_OK; i++) {
        frames->frames[i].tar = malloc(IMC_FRAME_BYTES);
        fault = frames->frames[i].tar == NULL ? IMC_NO_MEMORY : IMC_OK;
    }
    for (size_t i = 0; i < frames->workers && fault == IMC_OK; i++) {
        fault = job->options.encode == IMC_GZIP ? imc_gzip_writer(&frames->encoders[i])
                                                : imc_zstd_writer(&frames->encoders[i]);
    }
    return fault;
}

void imc_frames_free(struct imc_frames *frames) {
    if (frames == NULL) {
        return;
    }
    for (size_t i = 0; i <= MOST_WORKERS; i++) {
        free(frames->frames[i].tar);
        free(frames->frames[i].out);
    }
    for (size_t i = 0; i < MOST_WORKERS; i++) {
        if (frames->encoders[i] != NULL) {
            frames->encoders[i]->ops->free(frames->encoders[i]);
        }
    }
    pthread_cond_destroy(&frames->changed);
    pthread_mutex_destroy(&frames->mutex);
    free(frames);
}
