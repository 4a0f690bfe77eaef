/* SPDX-License-Identifier: Apache-2.0 */
/* Compression on several cores: frames that know nothing of each other, put back in order.
 *
 *     one thread              fills frames
 *     any thread              compresses a frame, with an encoder of its own
 *     one at a time           hands frame after frame on
 *
 * A frame is IMC_FRAME_BYTES of tar, and there is no other way through for what is compressed:
 * the bytes do not depend on the number of threads. Frames go round: `filled`, `taken` and
 * `written` count them. The thread that fills them does what there is to do while it has no frame
 * to fill, so threads are as many as were given, and one does all of it.
 */
#include "frames.h"

#include <stdlib.h>
#include <string.h>

#define MOST_THREADS 4 /* imc_job_memory: 61 MiB at the worst, of the 64 that a job may use */

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
    struct frame frames[MOST_THREADS + 1];
    size_t count; /* of the frames */
    struct imc_stage *encoders[MOST_THREADS];
    size_t threads; /* with the one that fills, which has the first encoder */
    pthread_t workers[MOST_THREADS - 1];
    size_t started;      /* of the workers */
    size_t next_encoder; /* of a worker */
    uint64_t filled;
    uint64_t taken;
    uint64_t written;
    bool writing; /* a thread is at the frame `written` */
    bool closed;
    bool stopped;
    bool current; /* the frame `filled` is being filled */
    struct imc_owner owner;
    imc_take take;
    struct imc_failure failure; /* the first one */
};

static struct frame *frame_of(struct imc_frames *frames, uint64_t number) {
    return &frames->frames[number % frames->count];
}

static bool is_over(const struct imc_frames *frames) {
    return atomic_load_explicit(frames->owner.over, memory_order_relaxed);
}

void imc_frames_stop(struct imc_frames *frames) {
    pthread_mutex_lock(&frames->mutex);
    frames->stopped = true;
    pthread_cond_broadcast(&frames->changed);
    pthread_mutex_unlock(&frames->mutex);
}

/* Keeps the first fault of a thread; each of them ends the work. */
static void give_up(struct imc_frames *frames, enum imc_fault fault, struct imc_failure *failure) {
    failure->fault = fault;
    pthread_mutex_lock(&frames->mutex);
    if (frames->failure.fault == IMC_OK && fault != IMC_CANCELLED) {
        frames->failure = *failure;
    }
    pthread_mutex_unlock(&frames->mutex);
    frames->owner.abandon(frames->owner.context);
}

/* What any thread does */

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

/* The frame as one member or frame of the codec. */
static enum imc_fault compress(const struct imc_frames *frames, struct imc_stage *encoder,
                               struct frame *frame, struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    bool done = false;
    frame->out_length = 0;
    for (size_t at = 0; at < frame->length && fault == IMC_OK; at += IMC_PIECE) {
        size_t left = frame->length - at;
        struct imc_in in = {frame->tar + at, left < IMC_PIECE ? left : IMC_PIECE};
        bool full = true;
        while (fault == IMC_OK && (in.left > 0 || full)) {
            if (is_over(frames)) {
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

static enum imc_fault hand_on(const struct imc_frames *frames, const struct frame *frame,
                              struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    for (size_t at = 0; at < frame->out_length && fault == IMC_OK; at += IMC_PIECE) {
        size_t left = frame->out_length - at;
        fault = frames->take(frames->owner.context, frame->out + at,
                             left < IMC_PIECE ? left : IMC_PIECE, failure);
    }
    return fault;
}

/* Under the mutex, which it drops for the work: writes a frame or compresses one, where there is
 * one to be had. False: there is none. */
static bool help(struct imc_frames *frames, struct imc_stage *encoder) {
    struct imc_failure failure = {.fault = IMC_OK};
    bool writes = !frames->writing && frames->written < frames->taken &&
                  frame_of(frames, frames->written)->done;
    if (!writes && frames->taken == frames->filled) {
        return false;
    }
    frames->writing = frames->writing || writes;
    struct frame *frame = frame_of(frames, writes ? frames->written : frames->taken++);
    pthread_mutex_unlock(&frames->mutex);
    enum imc_fault fault =
        writes ? hand_on(frames, frame, &failure) : compress(frames, encoder, frame, &failure);
    if (fault != IMC_OK) {
        give_up(frames, fault, &failure);
    }
    pthread_mutex_lock(&frames->mutex);
    frame->done = !writes;
    if (writes) {
        frames->writing = false;
        frames->written++;
    }
    pthread_cond_broadcast(&frames->changed);
    return true;
}

static void *work(void *opaque) {
    struct imc_frames *frames = opaque;
    pthread_mutex_lock(&frames->mutex);
    struct imc_stage *encoder = frames->encoders[frames->next_encoder++];
    while (!frames->stopped && !(frames->closed && frames->written == frames->filled)) {
        if (!help(frames, encoder)) {
            pthread_cond_wait(&frames->changed, &frames->mutex);
        }
    }
    pthread_mutex_unlock(&frames->mutex);
    return NULL;
}

/* The thread that fills */

/* The frame to fill; NULL: the work is over. */
static struct frame *current_frame(struct imc_frames *frames) {
    struct frame *frame = frame_of(frames, frames->filled); /* only this thread counts it up */
    if (frames->current) {
        return frame;
    }
    pthread_mutex_lock(&frames->mutex);
    while (!frames->stopped && frames->filled - frames->written == frames->count) {
        if (!help(frames, frames->encoders[0])) {
            pthread_cond_wait(&frames->changed, &frames->mutex);
        }
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
    while (!frames->stopped && frames->written < frames->filled) {
        if (!help(frames, frames->encoders[0])) {
            pthread_cond_wait(&frames->changed, &frames->mutex);
        }
    }
    pthread_mutex_unlock(&frames->mutex);
    imc_frames_join(frames);
    return is_over(frames) ? IMC_CANCELLED : IMC_OK;
}

void imc_frames_join(struct imc_frames *frames) {
    for (; frames->started > 0; frames->started--) {
        pthread_join(frames->workers[frames->started - 1], NULL);
    }
}

const struct imc_failure *imc_frames_failure(const struct imc_frames *frames) {
    return &frames->failure;
}

enum imc_fault imc_frames_start(struct imc_frames *frames) {
    while (frames->started + 1 < frames->threads) {
        if (!imc_spawn(&frames->workers[frames->started], work, frames)) {
            return IMC_NO_MEMORY;
        }
        frames->started++;
    }
    return IMC_OK;
}

static size_t threads_of(unsigned threads) {
    return threads < 1 ? 1 : threads < MOST_THREADS ? threads : MOST_THREADS;
}

/* One is to be filled while each thread has one. */
static size_t count_for(size_t threads) {
    return threads > 1 ? threads + 1 : 1;
}

size_t imc_frames_bytes(enum imc_compression encode, unsigned threads) {
    size_t count = threads_of(threads);
    size_t encoder = encode == IMC_GZIP ? IMC_GZIP_WRITER_BYTES : IMC_ZSTD_WRITER_BYTES;
    /* What does not shrink grows by less than a piece. */
    return count_for(count) * (2 * IMC_FRAME_BYTES + IMC_PIECE) + count * encoder;
}

enum imc_fault imc_frames_new(const struct imc_owner *owner, imc_take take,
                              enum imc_compression encode, unsigned threads,
                              struct imc_frames **out) {
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
    frames->owner = *owner;
    frames->take = take;
    frames->threads = threads_of(threads);
    frames->count = count_for(frames->threads);
    frames->next_encoder = 1;
    *out = frames; /* imc_frames_free takes what is there */
    enum imc_fault fault = IMC_OK;
    for (size_t i = 0; i < frames->count && fault == IMC_OK; i++) {
        frames->frames[i].tar = malloc(IMC_FRAME_BYTES);
        fault = frames->frames[i].tar == NULL ? IMC_NO_MEMORY : IMC_OK;
    }
    for (size_t i = 0; i < frames->threads && fault == IMC_OK; i++) {
        fault = encode == IMC_GZIP ? imc_gzip_writer(&frames->encoders[i])
                                   : imc_zstd_writer(&frames->encoders[i]);
    }
    return fault;
}

void imc_frames_free(struct imc_frames *frames) {
    if (frames == NULL) {
        return;
    }
    for (size_t i = 0; i <= MOST_THREADS; i++) {
        free(frames->frames[i].tar);
        free(frames->frames[i].out);
    }
    for (size_t i = 0; i < MOST_THREADS; i++) {
        if (frames->encoders[i] != NULL) {
            frames->encoders[i]->ops->free(frames->encoders[i]);
        }
    }
    pthread_cond_destroy(&frames->changed);
    pthread_mutex_destroy(&frames->mutex);
    free(frames);
}
