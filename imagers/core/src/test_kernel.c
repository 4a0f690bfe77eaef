/* SPDX-License-Identifier: Apache-2.0 */
/* layer_shani.c against libcrypto, and against answers that come from neither.
 *
 * Every case runs in both directions, in place and out of place, as K2 and as K3, in one piece and
 * cut at random. All four results are compared, and that nothing is written beyond the output.
 */
#include "layer_kernel.h"
#include "test_kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

enum { MAX_BYTES = 1 << 20, GUARD = 64 };

static unsigned long checks;

static void fail(const char *what, const char *where, size_t length) {
    fprintf(stderr, "core-test: kernel: %s: %s, length %zu\n", where, what, length);
    exit(1);
}

static void expect(bool holds, const char *what, const char *where, size_t length) {
    checks++;
    if (!holds)
        fail(what, where, length);
}

static uint64_t random_state;

static uint64_t next_random(void) { /* xorshift64*: a seed gives the same run again */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

static void fill_random(uint8_t *to, size_t length) {
    for (size_t i = 0; i < length; i++)
        to[i] = (uint8_t)(next_random() >> 56);
}

struct results {
    uint8_t digest[IMC_LAYER_DIGEST_BYTES], hmac[IMC_LAYER_DIGEST_BYTES],
        plain[IMC_LAYER_DIGEST_BYTES];
};

/* The definition: sealed by libcrypto, one call for each result. */
static void seal_by_libcrypto(const uint8_t *key, const uint8_t *nonce, const uint8_t *plain,
                              uint8_t *stored, size_t length, struct results *results) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int written = 0;
    unsigned size = 0;
    if (!context || !EVP_EncryptInit_ex(context, EVP_aes_256_ctr(), NULL, key, nonce) ||
        !EVP_EncryptUpdate(context, stored, &written, plain, (int)length) ||
        !EVP_Digest(stored, length, results->digest, &size, EVP_sha256(), NULL) ||
        !HMAC(EVP_sha256(), key, IMC_LAYER_KEY_BYTES, stored, length, results->hmac, &size) ||
        !EVP_Digest(plain, length, results->plain, &size, EVP_sha256(), NULL))
        fail("libcrypto failed", "reference", length);
    EVP_CIPHER_CTX_free(context);
}

enum cut { WHOLE, BYTES, RANDOM_SMALL, RANDOM_LARGE, SLOTS, CUTS };

static size_t next_piece(enum cut cut, size_t left) {
    size_t piece = left;
    if (cut == BYTES)
        piece = 1;
    else if (cut == RANDOM_SMALL)
        piece = next_random() % 150; /* 0 among them */
    else if (cut == RANDOM_LARGE)
        piece = next_random() % 70000;
    else if (cut == SLOTS)
        piece = 256 * 1024;
    return piece < left ? piece : left;
}

/* One way through the kernel. `shift` moves both buffers off any alignment. */
static void check_path(const char *where, const uint8_t *key, const uint8_t *nonce,
                       enum imc_direction direction, bool wants_plain, bool in_place, enum cut cut,
                       size_t shift, const uint8_t *from, const uint8_t *to, size_t length,
                       const struct results *expected) {
    static uint8_t in_buffer[MAX_BYTES + 2 * GUARD], out_buffer[MAX_BYTES + 2 * GUARD];
    const struct imc_kernel *kernel = &imc_kernel_shani;
    struct imc_kernel_state state;
    struct results results;
    uint8_t *in = in_buffer + shift, *out = (in_place ? in_buffer : out_buffer) + shift;

    memset(&state, 0xa5, sizeof state); /* init may not rely on what was there */
    memset(&results, 0xa5, sizeof results);
    memset(out, 0xa5, length + GUARD);
    memcpy(in, from, length);
    if (!kernel->init(&state, key, nonce, direction, wants_plain))
        fail("init", where, length);
    for (size_t done = 0; done < length;) {
        size_t piece = next_piece(cut, length - done);
        if (!kernel->update(&state, in + done, out + done, piece))
            fail("update", where, length);
        done += piece;
    }
    if (!kernel->final(&state, results.digest, results.hmac, wants_plain ? results.plain : NULL))
        fail("final", where, length);
    expect(memcmp(out, to, length) == 0, "bytes", where, length);
    expect(in_place || memcmp(in, from, length) == 0, "input was changed", where, length);
    for (size_t i = 0; i < GUARD; i++)
        expect(out[length + i] == 0xa5, "written beyond the end", where, length);
    expect(memcmp(results.digest, expected->digest, IMC_LAYER_DIGEST_BYTES) == 0, "digest", where,
           length);
    expect(memcmp(results.hmac, expected->hmac, IMC_LAYER_DIGEST_BYTES) == 0, "hmac", where,
           length);
    expect(!wants_plain || memcmp(results.plain, expected->plain, IMC_LAYER_DIGEST_BYTES) == 0,
           "plain digest", where, length);

    kernel->wipe(&state);
    for (size_t i = 0; i < sizeof state; i++)
        expect(((const uint8_t *)&state)[i] == 0, "not wiped", where, length);
}

static void check_paths(const char *where, const uint8_t *key, const uint8_t *nonce,
                        const uint8_t *plain, size_t length, unsigned cuts) {
    static uint8_t stored[MAX_BYTES];
    struct results expected;
    seal_by_libcrypto(key, nonce, plain, stored, length, &expected);
    for (unsigned path = 0; path < 8; path++)
        for (enum cut cut = 0; cut < CUTS; cut++)
            if (cuts >> cut & 1) {
                bool opens = path & 1;
                check_path(where, key, nonce, opens ? IMC_OPEN : IMC_SEAL, path & 2, path & 4, cut,
                           next_random() % GUARD, opens ? stored : plain, opens ? plain : stored,
                           length, &expected);
            }
}

static void check_lengths(void) {
    static const size_t centres[] = {8 * 16, 8 * 64, 4096, 64 * 1024, 256 * 1024, 1000000};
    static uint8_t plain[MAX_BYTES];
    uint8_t key[IMC_LAYER_KEY_BYTES], nonce[IMC_LAYER_NONCE_BYTES];
    fill_random(plain, sizeof plain);
    for (size_t length = 0; length <= 300; length++) {
        fill_random(key, sizeof key);
        fill_random(nonce, sizeof nonce);
        check_paths("short", key, nonce, plain, length,
                    1 << WHOLE | 1 << BYTES | 1 << RANDOM_SMALL);
    }
    for (size_t i = 0; i < sizeof centres / sizeof centres[0]; i++)
        for (size_t length = centres[i] - 65; length <= centres[i] + 65; length++) {
            size_t off = length > centres[i] ? length - centres[i] : centres[i] - length;
            if (off > 1 && off != 16 && off < 63)
                continue;
            fill_random(key, sizeof key);
            fill_random(nonce, sizeof nonce);
            check_paths("edge", key, nonce, plain, length,
                        1 << WHOLE | 1 << RANDOM_SMALL | 1 << RANDOM_LARGE | 1 << SLOTS);
        }
    for (unsigned i = 0; i < 200; i++) {
        size_t length = next_random() % 5000;
        fill_random(key, sizeof key);
        fill_random(nonce, sizeof nonce);
        check_paths("random", key, nonce, plain, length, 1 << WHOLE | 1 << RANDOM_SMALL);
    }
}

/* The counter crosses 2^32, 2^64 and 2^128 at each place of a run of four AES blocks, in the first
 * block of 64 bytes, in a later one, and in one that is assembled from pieces. */
static void check_carries(void) {
    static const char *const names[] = {"carry out of 32 bits", "carry out of 64 bits",
                                        "carry out of 128 bits"};
    uint8_t plain[700], key[IMC_LAYER_KEY_BYTES], nonce[IMC_LAYER_NONCE_BYTES];
    fill_random(plain, sizeof plain);
    fill_random(key, sizeof key);
    for (unsigned width = 0; width < 3; width++)
        for (unsigned before = 0; before < 40; before++) { /* counters left before the carry */
            fill_random(nonce, sizeof nonce);
            nonce[7] &= 0x7f; /* so that a carry out of 64 bits ends there */
            memset(nonce + 16 - (4 << width), 0xff, 4u << width);
            nonce[15] = (uint8_t)(0xff - before);
            for (size_t length = 640; length <= 700; length += 60)
                check_paths(names[width], key, nonce, plain, length,
                            1 << WHOLE | 1 << BYTES | 1 << RANDOM_SMALL);
        }
}

static void parse_hex(const char *text, uint8_t *to) {
    for (; *text; text += 2) {
        unsigned byte;
        sscanf(text, "%2x", &byte);
        *to++ = (uint8_t)byte;
    }
}

/* Computed from the specification with other tools; not taken from libcrypto or from this code. */
static void check_known_answers(void) {
    static const char text[] =
        "imagers layer test vector\nimagers layer test vector\nimagers layer test vector\n";
    enum { TEXT_BYTES = sizeof text - 1 };
    uint8_t key[IMC_LAYER_KEY_BYTES], nonce[IMC_LAYER_NONCE_BYTES], stored[TEXT_BYTES];
    struct results expected;
    for (unsigned i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)i;
    for (unsigned i = 0; i < sizeof nonce; i++)
        nonce[i] = (uint8_t)(0xf0 + i);
    parse_hex("fb6dacea46e4f3eb36089f3132121771b92b5b36944940ae1cad3c4c2b10e3fcea4c4d3a6d7d87b80ce0"
              "5364b52297ec3d07b127bf9d86457669afd4900221c1c4240fbc0a08da949fee6bb6159c",
              stored);
    parse_hex("867de7e6940b42e91352af1f0856335b4046db823c8b103ce3f1c3ab051b46de", expected.hmac);
    parse_hex("6543ae06cde8ebe18a16440851d07adab5ea076ca19fc8a4ade0fc829f398d7e", expected.plain);
    /* sha256sum of `stored` */
    parse_hex("26e2acd204506ff84ba26dfc7384ec9e9798b7f08faee4687235f5f088687fb0", expected.digest);
    for (enum cut cut = 0; cut < CUTS; cut++) {
        check_path("layer vector", key, nonce, IMC_SEAL, true, false, cut, 0, (const uint8_t *)text,
                   stored, TEXT_BYTES, &expected);
        check_path("layer vector", key, nonce, IMC_OPEN, true, true, cut, 0, stored,
                   (const uint8_t *)text, TEXT_BYTES, &expected);
    }

    static const uint8_t zeros[48];
    uint8_t wrapped[48], out[48];
    struct imc_kernel_state state;
    memset(nonce, 0xff, sizeof nonce);
    parse_hex("e999e41d4ca770da5387117b5d8f57eef29000b62a499fd0a9f39a6add2e7780f05d76ae4ab99fe5a6f6"
              "9b3148c2363d",
              wrapped);
    imc_kernel_shani.init(&state, key, nonce, IMC_SEAL, false);
    imc_kernel_shani.update(&state, zeros, out, sizeof out);
    expect(memcmp(out, wrapped, sizeof out) == 0, "bytes", "counter wrap vector", sizeof out);
    imc_kernel_shani.wipe(&state);
}

/* What only the functions themselves can show. */
static void check_contract(void) {
    static const uint8_t key[IMC_LAYER_KEY_BYTES], nonce[IMC_LAYER_NONCE_BYTES];
    const struct imc_kernel *kernel = &imc_kernel_shani;
    struct imc_kernel_state state, copy;
    struct results results, untouched;

    kernel->init(&state, key, nonce, IMC_SEAL, false);
    expect(kernel->update(&state, NULL, NULL, 0), "empty update", "contract", 0);
    copy = state;
    expect(!kernel->update(&state, key, NULL, SIZE_MAX), "too long refused", "contract", SIZE_MAX);
    expect(memcmp(&copy, &state, sizeof state) == 0, "refusal changed state", "contract", SIZE_MAX);
    memset(&results, 0xa5, sizeof results);
    untouched = results;
    expect(kernel->final(&state, results.digest, results.hmac, results.plain), "final", "contract",
           0);
    expect(memcmp(results.plain, untouched.plain, IMC_LAYER_DIGEST_BYTES) == 0,
           "plain digest not asked for", "contract", 0);
    kernel->wipe(&state);
    kernel->wipe(&state);
    kernel->wipe(&copy);
}

int imc_test_kernel(uint64_t seed) {
    random_state = seed == 0 ? 1 : seed;
    if (!imc_shani_is_supported()) {
        puts("core-test: stitched kernels skipped: this CPU has no SHA instructions");
        return 0;
    }
    check_known_answers();
    check_contract();
    check_carries();
    check_lengths();
    printf("core-test: stitched kernels: %lu checks, seed 0x%llx\n", checks,
           (unsigned long long)seed);
    return 0;
}
