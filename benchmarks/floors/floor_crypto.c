/* SPDX-License-Identifier: Apache-2.0 */
/* Floor of the layer cipher: sequential passes of libcrypto over pieces of 64 KiB.
 *
 *     floor_crypto 3 [MIB]    SHA-256 (stored), HMAC-SHA256 (stored), AES-256-CTR
 *     floor_crypto 4 [MIB]    and SHA-256 of what came out (diff_id)
 *
 * Pieces of 4 KiB to 1 MiB give the same within 2 %. Build: cc -O2 floor_crypto.c -lcrypto
 */
#include "floor.h"

#include <openssl/evp.h>

enum { PIECE = 64 * 1024, PIECES = 16 };

static uint8_t source[PIECES][PIECE], target[PIECE];

int main(int argc, char **argv) {
    static const uint8_t key[32] = {1}, nonce[16] = {2};
    int passes = argc > 1 ? atoi(argv[1]) : 0;
    if (passes != 3 && passes != 4) {
        fprintf(stderr, "usage: %s 3|4 [MIB]\n", argv[0]);
        return 2;
    }
    uint64_t bytes = parse_bytes(argc, argv, 2, 512);

    char sha256[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", sha256, 0),
                           OSSL_PARAM_construct_end()};
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *mac = EVP_MAC_CTX_new(hmac);
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    EVP_MD_CTX *stored = EVP_MD_CTX_new(), *plain = EVP_MD_CTX_new();
    need(EVP_MAC_init(mac, key, sizeof key, params) &&
             EVP_DecryptInit_ex(cipher, EVP_aes_256_ctr(), NULL, key, nonce) &&
             EVP_DigestInit_ex(stored, EVP_sha256(), NULL) &&
             EVP_DigestInit_ex(plain, EVP_sha256(), NULL),
         "init");

    struct clocks start = start_clocks();
    for (uint64_t done = 0; done < bytes; done += PIECE) {
        const uint8_t *piece = source[done / PIECE % PIECES];
        int written;
        need(EVP_DigestUpdate(stored, piece, PIECE) && EVP_MAC_update(mac, piece, PIECE) &&
                 EVP_DecryptUpdate(cipher, target, &written, piece, PIECE),
             "update");
        if (passes == 4)
            need(EVP_DigestUpdate(plain, target, PIECE), "update");
    }
    print_result(bytes, start);
    EVP_MAC_CTX_free(mac), EVP_MAC_free(hmac), EVP_CIPHER_CTX_free(cipher);
    EVP_MD_CTX_free(stored), EVP_MD_CTX_free(plain);
    return 0;
}
