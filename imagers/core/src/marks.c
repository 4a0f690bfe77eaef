/* A hash table with open addressing over a polynomial hash modulo 2**61 - 1.
 *
 * The polynomial is evaluated at a random point, drawn anew for each job: two different
 * members of at most 300 bytes meet with a probability below 50 / 2**61, whoever chose
 * them. A meeting would spare a file of a lower layer from a whiteout.
 */
#define _GNU_SOURCE
#include "marks.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PRIME ((UINT64_C(1) << 61) - 1)
#define FIRST_SLOTS 1024 /* a power of two, as all sizes of the table */
#define WORD_BYTES 7     /* less than the prime in any case */

struct imc_marks {
    uint64_t point;
    uint64_t *slots; /* 0: free; else a hash plus one */
    size_t size;
    size_t count;
};

enum imc_fault imc_marks_new(struct imc_marks **out) {
    struct imc_marks *marks = calloc(1, sizeof *marks);
    if (marks == NULL) {
        return IMC_NO_MEMORY;
    }
    marks->size = FIRST_SLOTS;
    marks->slots = calloc(marks->size, sizeof *marks->slots);
    if (marks->slots == NULL) {
        free(marks);
        return IMC_NO_MEMORY;
    }
    /* 8 bytes are never cut short; it fails only on kernels without the call. */
    if (getrandom(&marks->point, sizeof marks->point, 0) != (ssize_t)sizeof marks->point) {
        imc_marks_free(marks);
        return IMC_CRYPTO;
    }
    marks->point %= PRIME;
    *out = marks;
    return IMC_OK;
}

void imc_marks_free(struct imc_marks *marks) {
    if (marks != NULL) {
        free(marks->slots);
        free(marks);
    }
}

size_t imc_marks_count(const struct imc_marks *marks) {
    return marks->count;
}

/* (sum * point + word) modulo the prime; all are below 2**61. */
static uint64_t next(const struct imc_marks *marks, uint64_t sum, uint64_t word) {
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)sum * marks->point + word;
    uint64_t folded = (uint64_t)(product & PRIME) + (uint64_t)(product >> 61);
    return folded >= PRIME ? folded - PRIME : folded;
}

static uint64_t hash(const struct imc_marks *marks, uint64_t device, uint64_t inode,
                     const char *name, size_t length) {
    const uint64_t half = UINT32_MAX;
    uint64_t sum = next(marks, 1, device & half);
    sum = next(marks, sum, device >> 32);
    sum = next(marks, sum, inode & half);
    sum = next(marks, sum, inode >> 32);
    sum = next(marks, sum, length);
    for (size_t at = 0; at < length; at += WORD_BYTES) {
        uint64_t word = 0;
        size_t part = length - at < WORD_BYTES ? length - at : WORD_BYTES;
        memcpy(&word, name + at, part);
        sum = next(marks, sum, word % PRIME);
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

static bool grow(struct imc_marks *marks) {
    size_t size = marks->size * 2; /* as many bytes as members: memory ends before size_t */
    uint64_t *slots = calloc(size, sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < marks->size; i++) {
        if (marks->slots[i] != 0) {
            slots[find(slots, size, marks->slots[i])] = marks->slots[i];
        }
    }
    free(marks->slots);
    marks->slots = slots;
    marks->size = size;
    return true;
}

enum imc_fault imc_marks_add(struct imc_marks *marks, uint64_t device, uint64_t inode,
                             const char *name, size_t length) {
    if (marks->count >= marks->size / 4 * 3 && !grow(marks)) {
        return IMC_NO_MEMORY;
    }
    uint64_t value = hash(marks, device, inode, name, length);
    size_t at = find(marks->slots, marks->size, value);
    if (marks->slots[at] == 0) {
        marks->slots[at] = value;
        marks->count++;
    }
    return IMC_OK;
}

bool imc_marks_has(const struct imc_marks *marks, uint64_t device, uint64_t inode, const char *name,
                   size_t length) {
    uint64_t value = hash(marks, device, inode, name, length);
    return marks->slots[find(marks->slots, marks->size, value)] == value;
}
