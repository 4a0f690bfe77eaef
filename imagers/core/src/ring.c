/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces from the thread that feeds a job, in order and with bounded memory.
 *
 * A mutex and two condition variables: a wake-up costs far less than the work on a piece.
 */
#include "impl.h"

#include <stdlib.h>

#define ALIGNMENT 64 /* bytes: a cache line, and a block of SHA-256 */

struct imc_ring {
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    pthread_cond_t freed;
    uint8_t *slots[IMC_SLOTS]; /* IMC_PIECE bytes each */
    size_t lengths[IMC_SLOTS];
    size_t first; /* the oldest filled slot */
    size_t count; /* filled slots; the next `count` from `first` on */
    bool closed;
    bool surplus;
    bool stopped;
};

static void free_slots(struct imc_ring *ring) {
    for (size_t i = 0; i < IMC_SLOTS; i++) {
        free(ring->slots[i]);
    }
}

size_t imc_ring_bytes(void) {
    return IMC_SLOTS * IMC_PIECE;
}

enum imc_fault imc_ring_new(struct imc_ring **out) {
    struct imc_ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) {
        return IMC_NO_MEMORY;
    }
    for (size_t i = 0; i < IMC_SLOTS; i++) {
        ring->slots[i] = aligned_alloc(ALIGNMENT, IMC_PIECE);
        if (ring->slots[i] == NULL) {
            goto no_mutex;
        }
    }
    if (pthread_mutex_init(&ring->mutex, NULL) != 0) {
        goto no_mutex;
    }
    if (imc_cond_init(&ring->filled) != 0) {
        goto no_filled;
    }
    if (imc_cond_init(&ring->freed) != 0) {
        goto no_freed;
    }
    *out = ring;
    return IMC_OK;
no_freed:
    pthread_cond_destroy(&ring->filled);
no_filled:
    pthread_mutex_destroy(&ring->mutex);
no_mutex:
    free_slots(ring);
    free(ring);
    return IMC_NO_MEMORY;
}

void imc_ring_free(struct imc_ring *ring) {
    if (ring == NULL) {
        return;
    }
    pthread_cond_destroy(&ring->filled);
    pthread_cond_destroy(&ring->freed);
    pthread_mutex_destroy(&ring->mutex);
    free_slots(ring);
    free(ring);
}

uint8_t *imc_ring_acquire(struct imc_ring *ring, unsigned milliseconds) {
    uint8_t *found = NULL;
    pthread_mutex_lock(&ring->mutex);
    if (ring->count == IMC_SLOTS && !ring->stopped) {
        /* One wait: who calls has other things to look after as well. */
        imc_cond_wait(&ring->freed, &ring->mutex, milliseconds);
    }
    if (ring->count < IMC_SLOTS && !ring->stopped) {
        found = ring->slots[(ring->first + ring->count) % IMC_SLOTS];
    }
    pthread_mutex_unlock(&ring->mutex);
    return found;
}

void imc_ring_commit(struct imc_ring *ring, size_t length) {
    pthread_mutex_lock(&ring->mutex);
    ring->lengths[(ring->first + ring->count) % IMC_SLOTS] = length;
    ring->count++;
    pthread_cond_signal(&ring->filled);
    pthread_mutex_unlock(&ring->mutex);
}

void imc_ring_close(struct imc_ring *ring, bool surplus) {
    pthread_mutex_lock(&ring->mutex);
    ring->closed = true;
    ring->surplus = surplus;
    pthread_cond_signal(&ring->filled);
    pthread_mutex_unlock(&ring->mutex);
}

bool imc_ring_take(struct imc_ring *ring, uint8_t **buffer, size_t *length) {
    pthread_mutex_lock(&ring->mutex);
    while (ring->count == 0 && !ring->closed && !ring->stopped) {
        pthread_cond_wait(&ring->filled, &ring->mutex);
    }
    bool taken = ring->count > 0 && !ring->stopped;
    if (taken) {
        uint8_t *piece = ring->slots[ring->first];
        ring->slots[ring->first] = *buffer;
        *buffer = piece;
        *length = ring->lengths[ring->first];
        ring->first = (ring->first + 1) % IMC_SLOTS;
        ring->count--;
        pthread_cond_signal(&ring->freed);
    }
    pthread_mutex_unlock(&ring->mutex);
    return taken;
}

bool imc_ring_is_ready(struct imc_ring *ring) {
    pthread_mutex_lock(&ring->mutex);
    bool ready = ring->count > 0 || ring->closed || ring->stopped;
    pthread_mutex_unlock(&ring->mutex);
    return ready;
}

bool imc_ring_surplus(struct imc_ring *ring) {
    pthread_mutex_lock(&ring->mutex);
    bool surplus = ring->surplus;
    pthread_mutex_unlock(&ring->mutex);
    return surplus;
}

void imc_ring_stop(struct imc_ring *ring) {
    pthread_mutex_lock(&ring->mutex);
    ring->stopped = true;
    pthread_cond_broadcast(&ring->filled);
    pthread_cond_broadcast(&ring->freed);
    pthread_mutex_unlock(&ring->mutex);
}
