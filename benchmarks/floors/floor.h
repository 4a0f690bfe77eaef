/* SPDX-License-Identifier: Apache-2.0 */
/* What the floor programs share: clocks, a file in memory, a line of JSON.
 *
 * A floor is what a stage costs when nothing but its library runs: one thread, input in memory,
 * output to one slot that is used again and again, no Python. Benchmarks divide by it in the same
 * run.
 */
#ifndef FLOOR_H
#define FLOOR_H

#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SLOT_BYTES = 256 * 1024 }; /* of the core's rings */

static inline void need(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "floor: %s failed\n", what);
        exit(1);
    }
}

/* Thread CPU time, for what a stage costs; wall time, for what a machine gives to two at once. */
struct clocks {
    double cpu, wall;
};

static inline double seconds_of(clockid_t clock) {
    struct timespec now;
    need(clock_gettime(clock, &now) == 0, "clock_gettime");
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline struct clocks start_clocks(void) {
    return (struct clocks){seconds_of(CLOCK_THREAD_CPUTIME_ID), seconds_of(CLOCK_MONOTONIC)};
}

static inline void print_result(uint64_t bytes, struct clocks start) {
    struct clocks end = start_clocks();
    printf("{\"bytes\": %llu, \"seconds\": %.6f, \"wall\": %.6f}\n", (unsigned long long)bytes,
           end.cpu - start.cpu, end.wall - start.wall);
}

/* Size in MiB from an optional argument. */
static inline uint64_t parse_bytes(int argc, char **argv, int index, unsigned long default_mib) {
    unsigned long mib = argc > index ? strtoul(argv[index], NULL, 10) : default_mib;
    need(mib > 0 && mib <= 1 << 20, "size in MiB");
    return (uint64_t)mib << 20;
}

/* The file's bytes; the caller frees them, or the end of the process does. */
static inline uint8_t *load_file(int argc, char **argv, size_t *size) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s FILE\n", argv[0]);
        exit(2);
    }
    FILE *file = fopen(argv[1], "rb");
    need(file != NULL, argv[1]);
    need(fseek(file, 0, SEEK_END) == 0, "fseek");
    long end = ftell(file);
    need(end > 0 && fseek(file, 0, SEEK_SET) == 0, "size of the file");
    *size = (size_t)end;
    uint8_t *bytes = malloc(*size);
    need(bytes != NULL, "malloc");
    need(fread(bytes, 1, *size, file) == *size, "read");
    fclose(file);
    return bytes;
}

#endif
