/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table with open addressing over a polynomial hash modulo 2**61 - 1.
 *
 * The polynomial is evaluated at a random point, drawn anew for each job: two different
 * members of at most 300 bytes meet with a probability below 50 / 2**61, whoever chose
 * them. A meeting would spare a file of a lower layer from a whiteout.
 */
#define _GNU_SOURCE
#include "path_set.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PRIME ((UINT64_C(1) << 61) - 1)
#define FIRST_SLOTS 1024 /* a power of two, as all sizes of the table */
#define WORD_BYTES 7     /* less than the prime in any case */

struct imc_path_set {
    uint64_t point;
    uint64_t *slots; /* 0: free; else a hash plus one */
    size_t size;
    size_t count;
};

enum imc_fault imc_path_set_new(struct imc_path_set **out) {
    struct imc_path_set *set = calloc(1, sizeof *set);
    if (set == NULL) {
        return IMC_NO_MEMORY;
    }
    set->size = FIRST_SLOTS;
    set->slots = calloc(set->size, sizeof *set->slots);
    if (set->slots == NULL) {
        free(set);
        return IMC_NO_MEMORY;
    }
    /* 8 bytes are never cut short; it fails only on kernels without the call. */
    if (getrandom(&set->point, sizeof set->point, 0) != (ssize_t)sizeof set->point) {
        imc_path_set_free(set);
        return IMC_CRYPTO;
    }
    set->point %= PRIME;
    *out = set;
    return IMC_OK;
}

void imc_path_set_free(struct imc_path_set *set) {
    if (set != NULL) {
        free(set->slots);
        free(set);
    }
}

size_t imc_path_set_count(const struct imc_path_set *set) {
    return set->count;
}

/* (sum * point + word) modulo the prime; all are below 2**61. */
static uint64_t next(const struct imc_path_set *set, uint64_t sum, uint64_t word) {
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)sum * set->point + word;
    uint64_t folded = (uint64_t)(product & PRIME) + (uint64_t)(product >> 61);
    return folded >= PRIME ? folded - PRIME : folded;
}

static uint64_t hash(const struct imc_path_set *set, uint64_t device, uint64_t inode,
                     const char *name, size_t length) {
    const uint64_t half = UINT32_MAX;
    uint64_t sum = next(set, 1, device & half);
    sum = next(set, sum, device >> 32);
    sum = next(set, sum, inode & half);
    sum = next(set, sum, inode >> 32);
    sum = next(set, sum, length);
    for (size_t at = 0; at < length; at += WORD_BYTES) {
        uint64_t word = 0;
        size_t part = length - at < WORD_BYTES ? length - at : WORD_BYTES;
        memcpy(&word, name + at, part);
        sum = next(set, sum, word % PRIME);
    }
    return sum + 1;
}

/* The slot that has `value`, or the free one where it belongs. */
static size_t find(const uint64_t *slots, size_t size, uint64_t value) {
    size_t at = (size_t)value & (size - 1);
    while (slots[at] != 0 && slots[at] != value) {
        at = (at + 1) & (size - 1);
    }
    return at;
}

static bool grow(struct imc_path_set *set) {
    size_t size = set->size * 2; /* as many bytes as members: memory ends before size_t */
    uint64_t *slots = calloc(size, sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < set->size; i++) {
        if (set->slots[i] != 0) {
            slots[find(slots, size, set->slots[i])] = set->slots[i];
        }
    }
    free(set->slots);
    set->slots = slots;
    set->size = size;
    return true;
}

enum imc_fault imc_path_set_add(struct imc_path_set *set, uint64_t device, uint64_t inode,
                                const char *name, size_t length) {
    if (set->count >= set->size / 4 * 3 && !grow(set)) {
        return IMC_NO_MEMORY;
    }
    uint64_t value = hash(set, device, inode, name, length);
    size_t at = find(set->slots, set->size, value);
    if (set->slots[at] == 0) {
        set->slots[at] = value;
        set->count++;
    }
    return IMC_OK;
}

bool imc_path_set_has(const struct imc_path_set *set, uint64_t device, uint64_t inode,
                      const char *name, size_t length) {
    uint64_t value = hash(set, device, inode, name, length);
    return set->slots[find(set->slots, set->size, value)] == value;
}
