/* SPDX-License-Identifier: Apache-2.0 */
/* Floor of a digest of its own (diff_id of a compressed layer): one SHA-256 of libcrypto.
 *
 *     floor_sha [MIB]
 *
 * Build: cc -O2 floor_sha.c -lcrypto
 */
#include "floor.h"

#include <openssl/evp.h>

static uint8_t slot[SLOT_BYTES];

int main(int argc, char **argv) {
    uint64_t bytes = parse_bytes(argc, argv, 1, 512);
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    need(EVP_DigestInit_ex(digest, EVP_sha256(), NULL), "init");
    struct clocks start = start_clocks();
    for (uint64_t done = 0; done < bytes; done += SLOT_BYTES)
        need(EVP_DigestUpdate(digest, slot, SLOT_BYTES), "update");
    print_result(bytes, start);
    EVP_MD_CTX_free(digest);
    return 0;
}
