/* Any bytes as a layer: decompression, tar reader and unpacking, behind digest and cipher.
 *
 *     clang -fsanitize=fuzzer,address,undefined -DLIBFUZZER ...     with libFuzzer
 *     fuzz_layer SECONDS SEED FILE...                               without: mutations of FILEs
 *
 * The first byte says which codec, where the bytes go and whether each stage has a thread. The
 * expected digest is never the right one, and that is found only after all else was done: every
 * run must end with a fault, and with nothing outside of the root.
 */
#define _GNU_SOURCE
#include "imagers_core.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    (void)status;
    (void)kind;
    (void)walk;
    chmod(path, 0700);
    return remove(path);
}

static int run(const uint8_t *data, size_t size, int root) {
    static const uint8_t key[IMC_KEY_BYTES] = {0};
    uint8_t how = data[0];
    struct imc_options options = {
        .has_cipher = false,
        .digest = "sha256:0",
        .size = size - 1,
        .decode = (enum imc_compression)(how % 3),
        .sees_tar = true,
        .gives_tar = true,
        .source_fd = -1,
        .sink_fd = -1,
        .root_fd = how & 16 ? root : -1,
        .tar_bytes = 1 << 24,
        .window_bytes = 1 << 23,
        .max_entries = 300,
        .max_name_bytes = 4095,
        .force = how & 32 ? "split" : NULL,
        .key = key,
    };
    struct imc_job *job = NULL;
    if (imc_job_new(&options, &job) != IMC_OK || imc_job_start(job) != IMC_OK) {
        abort();
    }
    for (size_t at = 1; at < size;) {
        uint8_t *slot = imc_job_slot(job, 100);
        if (slot == NULL) {
            if (imc_job_wait(job, 0)) {
                break;
            }
            continue;
        }
        size_t part = size - at < IMC_PIECE ? size - at : IMC_PIECE;
        memcpy(slot, data + at, part);
        imc_job_commit(job, part);
        at += part;
    }
    imc_job_end_of_source(job, false);
    enum imc_fault fault = imc_job_join(job);
    imc_job_free(job);
    return fault == IMC_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char folder[] = "/tmp/fuzz_layer_XXXXXX";
    if (size == 0 || mkdtemp(folder) == NULL) {
        return 0;
    }
    char inside[64];
    snprintf(inside, sizeof inside, "%s/root", folder);
    mkdir(inside, 0755);
    int root = open(inside, O_RDONLY | O_DIRECTORY);
    if (run(data, size, root)) {
        abort(); /* a layer with a wrong digest was good */
    }
    close(root);
    nftw(inside, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (rmdir(folder) != 0) {
        abort(); /* something is beside the root */
    }
    return 0;
}

#ifndef LIBFUZZER

static uint64_t state;

static uint64_t next(void) { /* xorshift64*: a seed gives the same run again */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(2685821657736338717);
}

static size_t mutate(uint8_t *data, size_t size, size_t room) {
    for (uint64_t count = 1 + next() % 8; count > 0; count--) {
        size_t at = size == 0 ? 0 : next() % size;
        switch (next() % 5) {
        case 0:
            data[at] ^= (uint8_t)(1 << next() % 8);
            break;
        case 1:
            data[at] = (uint8_t)next();
            break;
        case 2: /* cut */
            size = at + 1;
            break;
        case 3: { /* a number in octal digits, as headers have them */
            size_t length = next() % 12;
            for (size_t i = 0; i < length && at + i < size; i++) {
                data[at + i] = (uint8_t)('0' + next() % 8);
            }
            break;
        }
        default: { /* a part once more */
            size_t length = next() % 1024;
            length = length < size - at ? length : size - at;
            length = length < room - size ? length : room - size;
            memmove(data + at + length, data + at, size - at);
            size += length;
        }
        }
    }
    return size;
}

int main(int count, char **arguments) {
    enum { ROOM = 1 << 20 };
    static uint8_t seed[ROOM];
    static uint8_t data[ROOM];
    if (count < 4) {
        fprintf(stderr, "usage: %s SECONDS SEED FILE...\n", arguments[0]);
        return 2;
    }
    time_t end = time(NULL) + strtol(arguments[1], NULL, 10);
    state = strtoull(arguments[2], NULL, 0) | 1;
    unsigned long runs = 0;
    do {
        FILE *file = fopen(arguments[3 + next() % (uint64_t)(count - 3)], "rb");
        if (file == NULL) {
            return 2;
        }
        size_t size = fread(seed + 1, 1, ROOM / 2, file) + 1;
        fclose(file);
        for (unsigned i = 0; i < 20; i++, runs++) {
            memcpy(data, seed, size);
            size_t changed = mutate(data, size, ROOM);
            data[0] = (uint8_t)next();
            LLVMFuzzerTestOneInput(data, changed);
        }
    } while (time(NULL) < end);
    printf("fuzz_layer: %lu runs, seed %s\n", runs, arguments[2]);
    return 0;
}

#endif
