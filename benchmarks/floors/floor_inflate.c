/* SPDX-License-Identifier: Apache-2.0 */
/* Floor of a gzip layer: ISA-L's streaming inflate, with gzip's own CRC, from memory to one slot.
 *
 *     floor_inflate FILE.gz
 *
 * "bytes" counts what comes out. Members that follow each other are one stream; anything else after
 * the last is an error, except zeros. Build: cc -O2 floor_inflate.c -lisal
 */
#include "floor.h"

#include <isa-l/igzip_lib.h>
#include <string.h>

static uint8_t slot[SLOT_BYTES];

static int is_zero(const uint8_t *bytes, size_t size) {
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

int main(int argc, char **argv) {
    size_t size;
    const uint8_t *file = load_file(argc, argv, &size), *end = file + size;
    static struct inflate_state state;
    uint64_t bytes = 0;

    struct clocks start = start_clocks();
    isal_inflate_init(&state);
    state.crc_flag = ISAL_GZIP;
    state.next_in = (uint8_t *)(uintptr_t)file; /* ISA-L reads only, but takes no const */
    for (;;) {
        if (state.avail_in == 0) { /* in slots, as the ring would bring them */
            size_t left = (size_t)(end - state.next_in);
            state.avail_in = (uint32_t)(left < SLOT_BYTES ? left : SLOT_BYTES);
        }
        uint32_t offered = state.avail_in;
        state.next_out = slot;
        state.avail_out = SLOT_BYTES;
        need(isal_inflate(&state) == ISAL_DECOMP_OK, "isal_inflate");
        uint32_t given = SLOT_BYTES - state.avail_out;
        bytes += given;
        if (state.block_state == ISAL_BLOCK_FINISH) {
            /* Whole bytes that ISA-L has already taken into its bit buffer belong to the next. */
            const uint8_t *next = state.next_in - state.read_in_length / 8;
            if (is_zero(next, (size_t)(end - next)))
                break;
            isal_inflate_reset(&state);
            state.crc_flag = ISAL_GZIP;
            state.next_in = (uint8_t *)(uintptr_t)next;
            state.avail_in = 0;
        } else {
            need(given != 0 || state.avail_in != offered, "truncated input: isal_inflate");
        }
    }
    print_result(bytes, start);
    return 0;
}
