/* SPDX-License-Identifier: Apache-2.0 */
/* Stations that pieces of bytes go through, and the threads that work on them.
 *
 *     free slots -> fill -> step ... -> decode -> step ... -> free slots
 *
 * A station takes one piece at a time, in order, whichever thread does it: it is as serial as a
 * thread of its own would make it. Threads are as many as the line was given, and none belongs to a
 * station. Each stays with its station while that has something to do, whose state is in the cache
 * of its core, and goes to the last one that has something otherwise. So every core is busy while
 * any station could go on, whatever the stages cost on the machine at hand; with a thread for each
 * stage it was the kernel that had to find this out (docs/adr/0004).
 *
 * There is one mutex, held for some hundred instructions every 100 us, and one condition variable.
 * A thread that takes up a piece wakes another only where there is more to do than that.
 *
 * One thread goes round with one slot before the decoder and one behind it: what is in them stays
 * in the cache of its core. A loop of its own for it was no faster: CPU time of 16 ways to seal or
 * open 64 MB, 17 rounds in turns, medians of 0.98 to 1.04 of the line's.
 */
#include "line.h"

#include <stdlib.h>

#define ALIGNMENT 64 /* bytes: a cache line, and a block of SHA-256 */
#define MOST_THREADS IMC_STATIONS

struct slot {
    uint8_t *data; /* NULL: none */
    size_t length;
};

struct queue {
    struct slot slots[IMC_SLOTS];
    size_t first;
    size_t count;
};

struct station {
    imc_step step;
    struct queue in;
    bool closed; /* nothing more comes in */
    bool busy;   /* a thread is at it */
    bool dead;   /* what comes in goes straight back */
    bool ended;
    struct imc_failure failure;
};

struct imc_line {
    struct imc_owner owner;
    struct imc_plan plan;
    struct station stations[IMC_STATIONS];
    size_t count;
    size_t decoder;       /* its station; `count`: none */
    struct queue free[2]; /* slots for what is before the decoder, and for what is behind it */

    /* The decoder's: what it takes from and gives to. */
    struct slot input;
    struct imc_in left;
    struct slot output;

    pthread_mutex_t mutex;
    pthread_cond_t ready;
    unsigned threads;
    unsigned idle;
    bool stopped;
    bool done;
    struct imc_failure fatal;
};

/* Queues. A queue has room for all the slots that could come into it. */

static void put(struct queue *queue, struct slot slot) {
    queue->slots[(queue->first + queue->count) % IMC_SLOTS] = slot;
    queue->count++;
}

static struct slot take(struct queue *queue) {
    struct slot slot = queue->slots[queue->first];
    queue->first = (queue->first + 1) % IMC_SLOTS;
    queue->count--;
    return slot;
}

/* A slot that station `at`, or whoever is behind the last, gets or would have got. */
static void give_back(struct imc_line *line, size_t at, struct slot slot) {
    put(&line->free[at > line->decoder ? 1 : 0], slot);
}

/* To station `at`, if there is one and it wants any more. */
static void hand_to(struct imc_line *line, size_t at, struct slot slot) {
    if (at == line->count || line->stations[at].dead) {
        give_back(line, at, slot);
    } else {
        put(&line->stations[at].in, slot);
    }
}

/* Under the mutex: what can be done, and what came of it */

static bool can_work(const struct imc_line *line, size_t at) {
    const struct station *station = &line->stations[at];
    if (station->busy || station->ended || station->dead) {
        return false;
    }
    if (at == 0) {
        return !station->closed && line->free[0].count > 0 &&
               (line->plan.ready == NULL || line->plan.ready(line->owner.context));
    }
    if (at == line->decoder) {
        return (line->input.data != NULL || station->in.count > 0) &&
               (line->output.data != NULL || line->free[1].count > 0);
    }
    return station->in.count > 0;
}

/* The station to work on for who was at `mine`; line->count: none. */
static size_t pick(const struct imc_line *line, size_t mine) {
    if (mine < line->count && can_work(line, mine)) {
        return mine;
    }
    for (size_t at = line->count; at > 0; at--) {
        if (can_work(line, at - 1)) {
            return at - 1;
        }
    }
    return line->count;
}

/* What it has given goes on; what it still had to take, where it is dead, does not. */
static void end_decoder(struct imc_line *line) {
    size_t at = line->decoder;
    if (line->input.data != NULL) {
        give_back(line, at, line->input);
        line->input.data = NULL;
    }
    if (line->output.data != NULL && line->output.length > 0) {
        hand_to(line, at + 1, line->output);
    } else if (line->output.data != NULL) {
        give_back(line, at + 1, line->output);
    }
    line->output.data = NULL;
}

/* Stations that have seen their last piece end one after the other. */
static void settle(struct imc_line *line) {
    size_t ended = 0;
    for (size_t at = 0; at < line->count; at++) {
        struct station *station = &line->stations[at];
        bool rest = at == line->decoder && line->input.data != NULL;
        bool empty = station->closed && station->in.count == 0 && !rest;
        if (!station->ended && !station->busy && (station->dead || empty)) {
            station->ended = true;
            if (at == line->decoder) {
                end_decoder(line);
            }
            if (at + 1 < line->count) {
                line->stations[at + 1].closed = true;
            }
        }
        ended += station->ended ? 1 : 0;
    }
    line->done = ended == line->count;
    if (line->done) {
        pthread_cond_broadcast(&line->ready);
    }
}

/* After a fault of the data: whatever else comes to this station, or to one before it that is not
 * required, is of no use. What is behind it came before it in the stream, and goes on. */
static void give_up_at(struct imc_line *line, size_t at) {
    size_t first = line->plan.required + 1;
    size_t last = at < first ? line->count - 1 : at;
    for (size_t i = first; i <= last; i++) {
        struct station *station = &line->stations[i];
        station->dead = true;
        while (station->in.count > 0) {
            give_back(line, i, take(&station->in));
        }
    }
}

static void note_fault(struct imc_line *line, size_t at, enum imc_fault fault) {
    struct station *station = &line->stations[at];
    if (station->dead) {
        return; /* a fault further on in the line came first in the stream */
    }
    if (fault != IMC_CANCELLED && station->failure.fault != fault) {
        imc_fail(&station->failure, fault, 0, 0);
    }
    if (imc_is_of_data(fault)) {
        give_up_at(line, at);
        return;
    }
    if (fault != IMC_CANCELLED && line->fatal.fault == IMC_OK) {
        line->fatal = station->failure;
    }
    line->stopped = true;
    pthread_cond_broadcast(&line->ready);
}

/* Work. Each begins and ends under the mutex, and drops it for the work itself. */

static void work_first(struct imc_line *line) {
    struct station *station = &line->stations[0];
    struct slot slot = take(&line->free[0]);
    pthread_mutex_unlock(&line->mutex);
    enum imc_fault fault =
        line->plan.fill(line->owner.context, &slot.data, &slot.length, &station->failure);
    pthread_mutex_lock(&line->mutex);
    if (fault != IMC_OK) {
        note_fault(line, 0, fault);
        give_back(line, 0, slot);
    } else if (slot.length == 0) {
        station->closed = true;
        give_back(line, 0, slot);
    } else {
        hand_to(line, 1, slot);
    }
}

static void work_step(struct imc_line *line, size_t at) {
    struct station *station = &line->stations[at];
    struct slot slot = take(&station->in);
    pthread_mutex_unlock(&line->mutex);
    enum imc_fault fault =
        station->step(line->owner.context, slot.data, slot.length, &station->failure);
    pthread_mutex_lock(&line->mutex);
    if (fault == IMC_OK) {
        hand_to(line, at + 1, slot);
    } else {
        note_fault(line, at, fault);
        give_back(line, at, slot);
    }
}

/* Until a slot is full or a piece used up. A step that fails gives nothing. */
static void work_decoder(struct imc_line *line) {
    size_t at = line->decoder;
    struct station *station = &line->stations[at];
    struct imc_stage *decoder = line->plan.decoder;
    if (line->input.data == NULL) {
        line->input = take(&station->in);
        line->left = (struct imc_in){line->input.data, line->input.length};
    }
    if (line->output.data == NULL) {
        line->output = take(&line->free[1]);
        line->output.length = 0;
    }
    pthread_mutex_unlock(&line->mutex);
    struct imc_out out = {line->output.data + line->output.length, IMC_PIECE - line->output.length};
    enum imc_fault fault = decoder->ops->step(decoder, &line->left, &out, &station->failure);
    pthread_mutex_lock(&line->mutex);
    bool full = fault == IMC_OK && out.left == 0;
    if (fault == IMC_OK) {
        line->output.length = IMC_PIECE - out.left;
    } else {
        note_fault(line, at, fault);
    }
    if (full) {
        hand_to(line, at + 1, line->output);
        line->output.data = NULL;
    }
    if (fault != IMC_OK || (line->left.left == 0 && !full)) {
        give_back(line, at, line->input);
        line->input.data = NULL;
    }
}

static void *work(void *opaque) {
    struct imc_line *line = opaque;
    pthread_mutex_lock(&line->mutex);
    size_t mine = line->count;
    while (!line->stopped && !line->done) {
        mine = pick(line, mine);
        if (mine == line->count) {
            line->idle++;
            pthread_cond_wait(&line->ready, &line->mutex);
            line->idle--;
            continue;
        }
        line->stations[mine].busy = true;
        if (line->idle > 0 && pick(line, line->count) < line->count) {
            pthread_cond_signal(&line->ready);
        }
        if (atomic_load_explicit(line->owner.over, memory_order_relaxed)) {
            note_fault(line, mine, IMC_CANCELLED);
        } else if (mine == 0) {
            work_first(line);
        } else if (mine == line->decoder) {
            work_decoder(line);
        } else {
            work_step(line, mine);
        }
        line->stations[mine].busy = false;
        settle(line);
    }
    bool stopped = line->stopped;
    pthread_mutex_unlock(&line->mutex);
    if (stopped) {
        line->owner.abandon(line->owner.context); /* another thread may wait for a pipe */
    }
    return NULL;
}

/* The whole */

enum imc_fault imc_line_run(struct imc_line *line, struct imc_failure *fatal,
                            struct imc_failure *of_data) {
    pthread_t threads[MOST_THREADS];
    unsigned started = 0;
    while (started + 1 < line->threads && imc_spawn(&threads[started], work, line)) {
        started++;
    }
    work(line); /* also where there was no other thread to be had */
    while (started > 0) {
        pthread_join(threads[--started], NULL);
    }
    if (line->fatal.fault != IMC_OK) {
        *fatal = line->fatal;
        return fatal->fault;
    }
    for (size_t at = 0; at < line->count; at++) {
        const struct imc_failure *failure = &line->stations[at].failure;
        if (imc_is_of_data(failure->fault)) {
            *of_data = *failure; /* the last station's: it has seen only what went before */
        }
    }
    return line->done ? IMC_OK : IMC_CANCELLED;
}

void imc_line_stop(struct imc_line *line) {
    pthread_mutex_lock(&line->mutex);
    line->stopped = true;
    pthread_cond_broadcast(&line->ready);
    pthread_mutex_unlock(&line->mutex);
}

void imc_line_wake(struct imc_line *line) {
    pthread_mutex_lock(&line->mutex);
    if (line->idle > 0) {
        pthread_cond_signal(&line->ready);
    }
    pthread_mutex_unlock(&line->mutex);
}

/* Of each queue. */
static size_t slots_of(unsigned threads) {
    return threads > 1 ? IMC_SLOTS : 1;
}

size_t imc_line_bytes(bool decodes, unsigned threads) {
    return (decodes ? (size_t)2 : 1) * slots_of(threads) * IMC_PIECE;
}

enum imc_fault imc_line_new(const struct imc_owner *owner, const struct imc_plan *plan,
                            unsigned threads, struct imc_line **out) {
    struct imc_line *line = calloc(1, sizeof *line);
    if (line == NULL) {
        return IMC_NO_MEMORY;
    }
    line->owner = *owner;
    line->plan = *plan;
    line->count = 1;
    line->decoder = IMC_STATIONS;
    for (size_t i = 0; i <= plan->count; i++) {
        if (plan->decoder != NULL && i == plan->decode_after) {
            line->decoder = line->count++;
        }
        if (i < plan->count) {
            line->stations[line->count++].step = plan->steps[i];
        }
    }
    line->threads = threads < line->count ? threads : (unsigned)line->count;
    if (pthread_mutex_init(&line->mutex, NULL) != 0) {
        free(line);
        return IMC_NO_MEMORY;
    }
    if (pthread_cond_init(&line->ready, NULL) != 0) {
        pthread_mutex_destroy(&line->mutex);
        free(line);
        return IMC_NO_MEMORY;
    }
    *out = line; /* imc_line_free takes what is there */
    size_t slots = slots_of(threads);
    for (size_t i = 0; i < imc_line_bytes(plan->decoder != NULL, threads) / IMC_PIECE; i++) {
        uint8_t *data = aligned_alloc(ALIGNMENT, IMC_PIECE);
        if (data == NULL) {
            return IMC_NO_MEMORY;
        }
        put(&line->free[i / slots], (struct slot){data, 0});
    }
    return IMC_OK;
}

static void free_queue(struct queue *queue) {
    while (queue->count > 0) {
        free(take(queue).data);
    }
}

void imc_line_free(struct imc_line *line) {
    if (line == NULL) {
        return;
    }
    /* No thread has one any more. They are not those of imc_line_new: a fed source exchanges. */
    free_queue(&line->free[0]);
    free_queue(&line->free[1]);
    for (size_t at = 0; at < line->count; at++) {
        free_queue(&line->stations[at].in);
    }
    free(line->input.data);
    free(line->output.data);
    pthread_cond_destroy(&line->ready);
    pthread_mutex_destroy(&line->mutex);
    free(line);
}
