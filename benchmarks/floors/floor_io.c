/* SPDX-License-Identifier: Apache-2.0 */
/* Floors of source and sink: the page cache read, and a new file written, 256 KiB a call.
 *
 *     floor_io read FILE           a file that was read before
 *     floor_io write FILE [MIB]    a file that is not there; removed again
 *
 * Build: cc -O2 floor_io.c
 */
#include "floor.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static uint8_t slot[SLOT_BYTES];

int main(int argc, char **argv) {
    int reads = argc == 3 && strcmp(argv[1], "read") == 0;
    if (!reads && (argc < 3 || strcmp(argv[1], "write") != 0)) {
        fprintf(stderr, "usage: %s read FILE | write FILE [MIB]\n", argv[0]);
        return 2;
    }
    uint64_t bytes = 0, limit = parse_bytes(argc, argv, 3, 512);
    memset(slot, 0x5a, sizeof slot);
    int fd = reads ? open(argv[2], O_RDONLY) : open(argv[2], O_WRONLY | O_CREAT | O_EXCL, 0600);
    need(fd >= 0, argv[2]);

    struct clocks start = start_clocks();
    if (reads) {
        for (ssize_t got; (got = read(fd, slot, sizeof slot)) != 0; bytes += (uint64_t)got)
            need(got > 0, "read");
    } else {
        for (; bytes < limit; bytes += SLOT_BYTES)
            need(write(fd, slot, sizeof slot) == (ssize_t)sizeof slot, "write");
    }
    print_result(bytes, start);
    close(fd);
    if (!reads)
        unlink(argv[2]);
    return 0;
}
