/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a tar: the reader, and unpacking, by root with devices and all attributes.
 *
 * The first byte is no part of the tar: it says in which pieces the second run gets it. The first
 * run gets it whole and resolves names by openat2, the second one by hand; both must come to the
 * same. Headers have a checksum that a mutation would nearly always break, so that nothing behind
 * it was ever seen: the mutator mends it.
 */
#define _GNU_SOURCE
#include "fuzz.h"

enum { BLOCK = 512, MAGIC_AT = 257, CHECKSUM_AT = 148, CHECKSUM_BYTES = 8 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, room);
    if (seed % 16 == 0) { /* a wrong checksum is of interest too */
        return size;
    }
    for (size_t at = 1; size >= BLOCK && at <= size - BLOCK; at += BLOCK) {
        uint8_t *block = data + at;
        if (memcmp(block + MAGIC_AT, "ustar", 5) == 0) {
            unsigned sum = CHECKSUM_BYTES * ' ';
            for (unsigned i = 0; i < BLOCK; i++) {
                sum += i - CHECKSUM_AT < CHECKSUM_BYTES ? 0 : block[i];
            }
            char text[CHECKSUM_BYTES];
            snprintf(text, sizeof text, "%06o", sum); /* at most 0377000 */
            memcpy(block + CHECKSUM_AT, text, sizeof text);
        }
    }
    return size;
}

/* What must not depend on pieces and resolution. */
struct outcome {
    enum imc_fault fault;
    uint64_t entries;
    uint64_t hole_bytes;
    uint64_t left_out[IMC_LEFT_KINDS];
};

static struct outcome unpack(const uint8_t *data, size_t size, size_t piece, const char *force) {
    static const atomic_bool cancelled = false;
    struct imc_options options = {
        .root_fd = open_root(),
        .keep_owner = geteuid() == 0,
        .max_entries = MAX_ENTRIES,
        .max_name_bytes = PATH_MAX - 1,
        .tar_bytes = MAX_TAR_BYTES,
        .force = force,
    };
    struct imc_failure failure = {0};
    struct imc_untar *untar = NULL;
    struct imc_tar_reader *reader = NULL;
    must(imc_untar_new(&options, &cancelled, &untar) == IMC_OK &&
             imc_tar_reader_new(untar, &options, &reader) == IMC_OK,
         "a reader");
    enum imc_fault fault = IMC_OK;
    for (size_t at = 0; fault == IMC_OK && at < size;) {
        size_t part = size - at < piece ? size - at : piece;
        uint8_t *copy = malloc(part); /* its end is one that the sanitizer knows */
        must(copy != NULL, "memory");
        memcpy(copy, data + at, part);
        fault = imc_tar_reader_step(reader, copy, part, &failure);
        free(copy);
        at += part;
    }
    if (fault == IMC_OK) {
        fault = imc_tar_reader_finish(reader, &failure);
    }
    if (fault == IMC_OK) {
        fault = imc_untar_finish(untar, &failure);
    }
    must(fault == IMC_OK || failure.fault == fault, "a fault has its facts");
    struct outcome outcome = {.fault = fault,
                              .entries = imc_untar_entries(untar),
                              .hole_bytes = imc_tar_reader_hole_bytes(reader)};
    must(fault != IMC_OK || outcome.hole_bytes <= MAX_TAR_BYTES, "holes are bounded");
    for (size_t i = 0; i < IMC_LEFT_KINDS; i++) {
        outcome.left_out[i] = imc_untar_left_out(untar)[i].count;
    }
    imc_tar_reader_free(reader);
    imc_untar_free(untar);
    close_root();
    return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    size_t piece = 1 + (size_t)data[0] * 5;
    struct outcome whole = unpack(data + 1, size - 1, size, NULL);
    struct outcome pieces = unpack(data + 1, size - 1, piece, "walk");
    must(whole.fault == pieces.fault && whole.entries == pieces.entries &&
             whole.hole_bytes == pieces.hole_bytes &&
             memcmp(whole.left_out, pieces.left_out, sizeof whole.left_out) == 0,
         "pieces and resolution change nothing");
    return 0;
}
