/* SPDX-License-Identifier: Apache-2.0 */
/* The layer cipher AES_256_CTR_HMAC_SHA256 and the digests around it, in one pass over the bytes.
 *
 * A layer needs up to four results from the same bytes: AES-256-CTR of them, SHA-256 of the stored
 * bytes, HMAC-SHA256 of the stored bytes, and SHA-256 of the plain bytes. Stored bytes are what a
 * registry has (encrypted), plain bytes what goes into the cipher or comes out of it.
 *
 *     K1   SHA-256 (stored) + HMAC (stored)
 *     K2   AES-CTR + SHA-256 (stored) + HMAC (stored)
 *     K3   K2 + SHA-256 (plain): the diff_id of an uncompressed layer, or the digest of a source
 *
 * Threads: a state belongs to one thread at a time; states are independent of each other.
 *
 * Spec: ocicrypt, blockcipher/blockcipher_aes_ctr.go. The 16-byte nonce is the first counter block,
 * counted big-endian over all 16 bytes; the HMAC key is the AES key; the HMAC covers the stored
 * bytes and nothing else.
 */
#ifndef IMAGERS_LAYER_KERNEL_H
#define IMAGERS_LAYER_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    IMC_LAYER_KEY_BYTES = 32,
    IMC_LAYER_NONCE_BYTES = 16,
    IMC_LAYER_DIGEST_BYTES = 32,
    IMC_LAYER_BLOCK_BYTES = 64, /* one block of SHA-256, four of AES */
    IMC_LAYER_AES_ROUNDS = 14,
};

/* Longest layer: SHA-256 counts bits in 64 bits, and the HMAC has 64 bytes of key before it. */
#define IMC_LAYER_MAX_BYTES ((UINT64_C(1) << 61) - 65)

enum imc_direction {
    IMC_OPEN,  /* stored bytes in, plain bytes out */
    IMC_SEAL,  /* plain bytes in, stored bytes out */
    IMC_CHECK, /* stored bytes in, and left as they are; no plain digest */
};

/* Owned and placed by the caller (malloc's alignment is enough); private to its kernel. Holds
 * secrets from init until wipe. */
struct imc_kernel_state {
    _Alignas(16) uint8_t round_keys[IMC_LAYER_AES_ROUNDS + 1][16];

    /* SHA-256 chaining values in the register layout of the SHA instructions: f e b a, h g d c. */
    _Alignas(16) uint32_t digest[8];     /* of the stored bytes */
    _Alignas(16) uint32_t hmac[8];       /* of the block key ^ ipad, then the stored bytes */
    _Alignas(16) uint32_t hmac_outer[8]; /* of the block key ^ opad; waits for final */
    _Alignas(16) uint32_t plain[8];      /* of the plain bytes, if wants_plain_digest */

    /* The block of which update has seen `length % 64` bytes so far, in both of its forms. */
    _Alignas(16) uint8_t keystream[IMC_LAYER_BLOCK_BYTES];
    uint8_t stored_block[IMC_LAYER_BLOCK_BYTES];
    uint8_t plain_block[IMC_LAYER_BLOCK_BYTES];

    uint64_t counter_high, counter_low; /* of the first AES block without keystream yet */
    uint64_t length;                    /* bytes seen */
    enum imc_direction direction;
    bool wants_plain_digest;
};

/* One implementation; a table of them picks at run time. That of libcrypto can fail in any of init,
 * update and final, hence the bool; the stitched one fails only where it is said here. */
struct imc_kernel {
    const char *name;

    /* Whether this CPU can run it. Executes CPUID, which traps in every virtual machine: ask once
     * a process. */
    bool (*is_supported)(void);

    /* Start a layer in `state`, whatever was in it. Key and nonce may be wiped afterwards. */
    bool (*init)(struct imc_kernel_state *state, const uint8_t key[IMC_LAYER_KEY_BYTES],
                 const uint8_t nonce[IMC_LAYER_NONCE_BYTES], enum imc_direction direction,
                 bool wants_plain_digest);

    /* Turn `length` bytes at `in` into as many at `out`. Any length, any pieces, any alignment: all
     * bytes given are in `out` on return, and the results do not depend on how a layer is cut.
     * `in` and `out` are equal or do not overlap. Opened bytes are unverified until the caller
     * has compared what final gives. False, with nothing done, beyond IMC_LAYER_MAX_BYTES.
     *
     * Speed: pieces of 64 bytes run as fast as those of 256 KiB, the kernel takes whole blocks; a
     * piece that ends inside a block costs 0.1 microseconds more (4095 bytes: 3 %). */
    bool (*update)(struct imc_kernel_state *state, const uint8_t *in, uint8_t *out, size_t length);

    /* End the layer: only wipe or init may follow. `plain_digest` is not touched, and may be NULL,
     * unless init asked for it. Compare `hmac` in constant time. */
    bool (*final)(struct imc_kernel_state *state, uint8_t digest[IMC_LAYER_DIGEST_BYTES],
                  uint8_t hmac[IMC_LAYER_DIGEST_BYTES],
                  uint8_t plain_digest[IMC_LAYER_DIGEST_BYTES]);

    /* Overwrite the whole state, in a way that the compiler cannot drop. At any time. */
    void (*wipe)(struct imc_kernel_state *state);
};

/* True if this CPU has SHA, AES, SSSE3 and SSE4.1 (AMD since Zen, Intel servers since Ice Lake).
 * False on other architectures, where imc_kernel_shani does not exist. */
bool imc_shani_is_supported(void);

#if defined(__x86_64__)
extern const struct imc_kernel imc_kernel_shani;
#endif

#endif
