/* SPDX-License-Identifier: Apache-2.0 */
/* Floor of a zstd layer: libzstd's streaming decompression, from memory to one slot.
 *
 *     floor_zstd FILE.zst
 *
 * "bytes" counts what comes out; frames that follow each other are one stream.
 * Build: cc -O2 floor_zstd.c -lzstd
 */
#include "floor.h"

#include <zstd.h>

static uint8_t slot[SLOT_BYTES];

int main(int argc, char **argv) {
    size_t size;
    const uint8_t *file = load_file(argc, argv, &size);
    ZSTD_DCtx *context = ZSTD_createDCtx();
    need(context != NULL, "ZSTD_createDCtx");
    ZSTD_inBuffer in = {.src = file};
    uint64_t bytes = 0;
    size_t missing = 1; /* 0 at the end of each frame */
    int was_full = 0;   /* then there may be more to flush, with no more input */

    struct clocks start = start_clocks();
    while (in.pos < size || was_full) {
        ZSTD_outBuffer out = {.dst = slot, .size = SLOT_BYTES};
        if (in.pos == in.size) /* in slots, as the ring would bring them */
            in.size = size - in.size < SLOT_BYTES ? size : in.size + SLOT_BYTES;
        missing = ZSTD_decompressStream(context, &out, &in);
        need(!ZSTD_isError(missing), "ZSTD_decompressStream");
        bytes += out.pos;
        was_full = out.pos == out.size && missing != 0;
    }
    need(missing == 0, "truncated input: ZSTD_decompressStream");
    print_result(bytes, start);
    ZSTD_freeDCtx(context);
    return 0;
}
