/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as gzip or zstd: the stages that decompress, and that compress.
 *
 * The first byte says which library (bit 0), whether the bytes are compressed first (bit 1), and
 * the sizes of the pieces in the second run. The first run has room for all; both must come to the
 * same, and what was compressed comes back as it was.
 */
#define _GNU_SOURCE
#include "fuzz.h"

enum { ROOM = 1 << 21, WINDOW = 1 << 21 };

struct bytes {
    uint8_t *at;
    size_t length;
};

static struct imc_stage *stage_of(bool zstd, bool writes) {
    struct imc_stage *stage = NULL;
    enum imc_fault fault = writes ? (zstd ? imc_zstd_writer(&stage) : imc_gzip_writer(&stage))
                           : zstd ? imc_zstd_reader(WINDOW, &stage)
                                  : imc_gzip_reader(&stage);
    must(fault == IMC_OK, "a stage");
    return stage;
}

/* All of `data` through `stage`, which this frees; what is above ROOM is given up. */
static enum imc_fault pass(struct imc_stage *stage, struct bytes data, size_t piece,
                           struct bytes *result) {
    struct imc_failure failure = {0};
    enum imc_fault fault = IMC_OK;
    bool done = false;
    size_t taken = 0;
    result->length = 0;
    struct imc_in in = {data.at, 0};
    uint8_t *copies[2] = {NULL, NULL}; /* pieces whose ends the sanitizer knows */
    while (fault == IMC_OK && !done && result->length < ROOM) {
        if (in.left == 0 && taken < data.length) {
            size_t part = data.length - taken < piece ? data.length - taken : piece;
            free(copies[0]);
            copies[0] = malloc(part);
            must(copies[0] != NULL, "memory");
            memcpy(copies[0], data.at + taken, part);
            in = (struct imc_in){copies[0], part};
            taken += part;
        }
        size_t room = ROOM - result->length < piece ? ROOM - result->length : piece;
        copies[1] = malloc(room);
        must(copies[1] != NULL, "memory");
        struct imc_out out = {copies[1], room};
        size_t before = in.left;
        if (before > 0) {
            fault = stage->ops->step(stage, &in, &out, &failure);
            must(fault != IMC_OK || in.left < before || out.left < room, "a step goes on");
            must(fault != IMC_OK || in.left == 0 || out.left == 0, "a step uses one of them up");
        } else {
            /* Output that the last step had no room for comes before the end. */
            fault = stage->ops->step(stage, &in, &out, &failure);
            if (fault == IMC_OK && out.left == room) {
                fault = stage->ops->finish(stage, &out, &done, &failure);
            }
        }
        must(out.left <= room && in.left <= before, "a step stays where it was told to");
        memcpy(result->at + result->length, copies[1], room - out.left);
        result->length += room - out.left;
        free(copies[1]);
    }
    free(copies[0]);
    stage->ops->free(stage);
    return fault;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t rooms[3][ROOM];
    if (size == 0) {
        return 0;
    }
    bool zstd = data[0] & 1;
    size_t piece = 1 + (size_t)(data[0] >> 2) * 7;
    struct bytes input = {(uint8_t *)(uintptr_t)data + 1, size - 1}; /* only read */
    struct bytes coded = {rooms[0], 0};
    if (data[0] & 2) {
        must(pass(stage_of(zstd, true), input, piece, &coded) == IMC_OK, "any bytes compress");
    } else {
        coded = input;
    }
    struct bytes whole = {rooms[1], 0};
    struct bytes pieces = {rooms[2], 0};
    enum imc_fault first = pass(stage_of(zstd, false), coded, ROOM, &whole);
    enum imc_fault second = pass(stage_of(zstd, false), coded, piece, &pieces);
    bool bounded = whole.length < ROOM && pieces.length < ROOM;
    must(!bounded || first == second, "pieces change no fault");
    must(!bounded || first != IMC_OK ||
             (whole.length == pieces.length && memcmp(whole.at, pieces.at, whole.length) == 0),
         "pieces change no byte");
    must(!(data[0] & 2) || (first == IMC_OK && whole.length == input.length &&
                            memcmp(whole.at, input.at, input.length) == 0),
         "what was compressed comes back");
    return 0;
}
