/* SPDX-License-Identifier: Apache-2.0 */
/* K2 and K3: AES-256-CTR, stitched between the rounds of two or three SHA-256 chains.
 *
 * Why it is faster than a good library's passes, one after the other:
 *
 *   - A chain needs 32 sha256rnds2 in a row for a block, each with a latency of 4 cycles: 128.
 *     The unit could start one every 2 (AMD) or 3 (Intel) cycles: a second chain fills the gaps.
 *   - Blob digest and HMAC hash the same blocks, as HMAC puts exactly one block before them. So
 *     one message schedule, and one addition of the round constants, serves both; they part only
 *     in the padding, which final hashes one by one.
 *   - AES goes to other ports and finds enough free slots between the rounds to cost nothing.
 *
 *                        |----------------- one block of 64 bytes -----------------|
 *     step               0      1      2      3      4      ...  13     14    15
 *     digest, hmac       4 rounds each step, of shared message words
 *     plain (K3)         4 rounds each step, of its own message words
 *     AES                start  round  round  round  round  ...  round  last  xor, store
 *
 * Bounds, in cycles for a block: K2 has 64 sha256rnds2 to start, K3 96.
 *
 *                                    bare rounds       here, gcc 12 -O2   -O3        clang 14
 *     Intel (one every 3 cycles)     K2 192  K3 288    195  291           198  292   195  294
 *     AMD Zen 5 (one every 2)        K2 133            160 to 167, 235 in a prototype like this
 *
 * On AMD each other instruction that takes an issue slot delays a chain, which with two chains
 * and no slack never catches up: 160 is the practical floor there.
 *
 * What was tried and was no better:
 *
 *   - VAES, message schedules by AVX-512: 1.70 GB/s against 1.68 on Zen 5. Hence no AVX in this
 *     file at all, so that no transition between SSE and AVX can cost anything.
 *   - Some rounds of the third chain in general registers, to relieve the unit: 333 to 410 cycles
 *     for K3 on Intel. Such a round takes 8 cycles against 2 on the unit, and a chain is serial.
 *   - AES between the halves of a step instead of after them: the same by gcc, K3 2 % worse by
 *     clang. Seal needs no longer lag than one block: it is as fast as open.
 *
 * Constant time: no branch and no address depends on key or data (the carry's branch depends on
 * the counter, which CTR does not need secret). What the compiler spills to the stack, in K3 some
 * message words, is not wiped; round keys exist only in the state.
 */
#include "layer_kernel.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

/* A function attribute and not a flag: the rest of the program must run on CPUs without these. */
#define STITCHED __attribute__((target("sha,aes,sse4.1,ssse3")))
/* Inlining is what makes the `work` and `step` parameters below constants, arrays registers. */
#define INLINE static inline STITCHED __attribute__((always_inline))

enum { STEPS = 16 }; /* of four rounds, in a block */

/* FIPS 180-4, 4.2.2 and 5.3.3 (the latter in the layout of struct imc_kernel_state). */
static const _Alignas(16) uint32_t ROUND_CONSTANTS[STEPS][4] = {
    {0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5},
    {0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5},
    {0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3},
    {0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174},
    {0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc},
    {0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da},
    {0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7},
    {0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967},
    {0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13},
    {0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85},
    {0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3},
    {0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070},
    {0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5},
    {0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3},
    {0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208},
    {0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2},
};
static const uint32_t INITIAL[8] = {
    0x9b05688c, 0x510e527f, 0xbb67ae85, 0x6a09e667, /* f e b a */
    0x5be0cd19, 0x1f83d9ab, 0xa54ff53a, 0x3c6ef372, /* h g d c */
};
/* Where a, b, ... h are in that layout. */
static const uint8_t POSITION[8] = {3, 2, 7, 6, 1, 0, 5, 4};

/* What one run over a block does; combined with |, always constant. */
enum {
    CRYPT = 1,       /* AES-CTR: `in` to `out` */
    HASH_STORED = 2, /* two chains over `stored` */
    HASH_PLAIN = 4,  /* one chain over `plain` */
};

struct chain {
    __m128i abef, cdgh;
};

/* What should live in registers: K2 fills 15 of the 16, K3 spills some message words. */
struct lanes {
    struct chain digest, hmac, plain;
    __m128i stored_words[4], plain_words[4]; /* the last 16 words of each message schedule */
    __m128i aes[4];
};

/* The block that each part of a run works on: not the same one, see the kernels. */
struct block {
    const uint8_t *stored, *plain, *in;
    uint8_t *out;
};

INLINE __m128i load(const void *from) {
    return _mm_loadu_si128((const __m128i *)from);
}

INLINE void store(void *to, __m128i value) {
    _mm_storeu_si128((__m128i *)to, value);
}

INLINE struct chain load_chain(const uint32_t words[8]) {
    return (struct chain){.abef = load(words), .cdgh = load(words + 4)};
}

INLINE void store_chain(uint32_t words[8], struct chain chain) {
    store(words, chain.abef);
    store(words + 4, chain.cdgh);
}

/* The end of a block: add what the chain was before it. That is kept in memory, not in registers,
 * where it would push out message words: 195 cycles instead of 197 for K2, 291 instead of 294. */
INLINE void end_block(struct chain *chain, uint32_t words[8]) {
    chain->abef = _mm_add_epi32(chain->abef, load(words));
    chain->cdgh = _mm_add_epi32(chain->cdgh, load(words + 4));
    store_chain(words, *chain);
}

/* Message words plus round constants of the four rounds of a step. */
INLINE __m128i round_input(__m128i words[4], const uint8_t *message, unsigned step) {
    if (step < 4) {
        const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
        words[step] = _mm_shuffle_epi8(load(message + 16 * step), big_endian);
    }
    return _mm_add_epi32(words[step % 4], load(ROUND_CONSTANTS[step]));
}

/* One step of the message schedule. words[step % 4] are the words of this step; those of the next
 * are completed, and those of the step before begin to become the words three steps ahead. */
INLINE void schedule(__m128i words[4], unsigned step) {
    __m128i now = words[step % 4], *next = &words[(step + 1) % 4], *before = &words[(step + 3) % 4];
    if (step >= 3 && step <= 14) {
        __m128i seven_back = _mm_alignr_epi8(now, *before, 4);
        *next = _mm_sha256msg2_epu32(_mm_add_epi32(*next, seven_back), now);
    }
    if (step >= 1 && step <= 12)
        *before = _mm_sha256msg1_epu32(*before, now);
}

/* Two rounds. Twice this, with the halves of `input` swapped between, is a step of a chain. */
INLINE void first_rounds(struct chain *chain, __m128i input) {
    chain->cdgh = _mm_sha256rnds2_epu32(chain->cdgh, chain->abef, input);
}

INLINE void last_rounds(struct chain *chain, __m128i input) {
    chain->abef = _mm_sha256rnds2_epu32(chain->abef, chain->cdgh, input);
}

/* The next four counters as AES takes them. With a random nonce the low half wraps in one of 2^32
 * layers of 64 GiB, and a reader who then forgets the carry gets garbage: the slow case is there
 * for it. */
INLINE void next_counters(struct imc_kernel_state *state, __m128i counters[4]) {
    const __m128i big_endian = _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f);
    uint64_t high = state->counter_high, low = state->counter_low;
    if (low <= UINT64_MAX - 3) {
        __m128i first = _mm_set_epi64x((long long)high, (long long)low);
        counters[0] = first;
        counters[1] = _mm_add_epi64(first, _mm_set_epi64x(0, 1));
        counters[2] = _mm_add_epi64(first, _mm_set_epi64x(0, 2));
        counters[3] = _mm_add_epi64(first, _mm_set_epi64x(0, 3));
    } else {
#pragma GCC unroll 4
        for (unsigned i = 0; i < 4; i++) {
            uint64_t sum = low + i;
            counters[i] = _mm_set_epi64x((long long)(high + (sum < low)), (long long)sum);
        }
    }
    state->counter_low = low + 4;
    state->counter_high = high + (low + 4 < low);
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++)
        counters[i] = _mm_shuffle_epi8(counters[i], big_endian);
}

/* The share of AES in a step: four blocks side by side, one round. In place is safe: `in` is read
 * for the hashes in steps 0 to 3, and `out` is written in step 15. */
INLINE void crypt_step(struct lanes *x, struct imc_kernel_state *state, unsigned step,
                       const uint8_t *in, uint8_t *out) {
    __m128i key = load(state->round_keys[step <= IMC_LAYER_AES_ROUNDS ? step : 0]);
    if (step == 0)
        next_counters(state, x->aes);
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++) {
        if (step == 0)
            x->aes[i] = _mm_xor_si128(x->aes[i], key);
        else if (step < IMC_LAYER_AES_ROUNDS)
            x->aes[i] = _mm_aesenc_si128(x->aes[i], key);
        else if (step == IMC_LAYER_AES_ROUNDS)
            x->aes[i] = _mm_aesenclast_si128(x->aes[i], key);
        else
            store(out + 16 * i, _mm_xor_si128(x->aes[i], load(in + 16 * i)));
    }
}

/* The chains take turns, so that each finds the unit free when its 4 cycles are over. */
INLINE void run_step(struct lanes *x, struct imc_kernel_state *state, unsigned work, unsigned step,
                     struct block block) {
    __m128i stored_input, plain_input;
    if (work & HASH_STORED) {
        stored_input = round_input(x->stored_words, block.stored, step);
        first_rounds(&x->digest, stored_input);
        first_rounds(&x->hmac, stored_input);
    }
    if (work & HASH_PLAIN) {
        plain_input = round_input(x->plain_words, block.plain, step);
        first_rounds(&x->plain, plain_input);
        schedule(x->plain_words, step);
    }
    if (work & HASH_STORED) {
        schedule(x->stored_words, step);
        stored_input = _mm_shuffle_epi32(stored_input, 0x0e);
        last_rounds(&x->digest, stored_input);
        last_rounds(&x->hmac, stored_input);
    }
    if (work & HASH_PLAIN)
        last_rounds(&x->plain, _mm_shuffle_epi32(plain_input, 0x0e));
    if (work & CRYPT)
        crypt_step(x, state, step, block.in, block.out);
}

/* Unrolled in full: `step` must be a constant, and gcc leaves loops alone at -O2. */
INLINE void run_steps(struct lanes *x, struct imc_kernel_state *state, unsigned work,
                      struct block block) {
#pragma GCC unroll 16
    for (unsigned step = 0; step < STEPS; step++)
        run_step(x, state, work, step, block);
}

INLINE void run_block(struct lanes *x, struct imc_kernel_state *state, unsigned work,
                      struct block block) {
    run_steps(x, state, work, block);
    if (work & HASH_STORED) {
        end_block(&x->digest, state->digest);
        end_block(&x->hmac, state->hmac);
    }
    if (work & HASH_PLAIN)
        end_block(&x->plain, state->plain);
}

INLINE struct lanes start_lanes(const struct imc_kernel_state *state) {
    return (struct lanes){.digest = load_chain(state->digest),
                          .hmac = load_chain(state->hmac),
                          .plain = load_chain(state->plain)};
}

/* The kernels, over `count` > 0 blocks of 64 bytes. Open hashes the ciphertext as it comes, and the
 * plaintext (K3) one block behind AES; seal hashes the plaintext as it comes, and the ciphertext
 * one block behind AES. What is behind is read back from `out`, and the last block of it hashed
 * alone. One block is lag enough: the four AES blocks of a run are ready long before its rounds. */

INLINE void open_blocks(struct imc_kernel_state *state, const uint8_t *in, uint8_t *out,
                        size_t count, unsigned hash_plain) {
    struct lanes x = start_lanes(state);
    struct block block = {.stored = in, .in = in, .out = out};
    run_block(&x, state, CRYPT | HASH_STORED, block);
    for (size_t i = 1; i < count; i++) {
        block.plain = block.out;
        block.stored = block.in += IMC_LAYER_BLOCK_BYTES;
        block.out += IMC_LAYER_BLOCK_BYTES;
        run_block(&x, state, CRYPT | HASH_STORED | hash_plain, block);
    }
    block.plain = block.out;
    run_block(&x, state, hash_plain, block);
}

INLINE void seal_blocks(struct imc_kernel_state *state, const uint8_t *in, uint8_t *out,
                        size_t count, unsigned hash_plain) {
    struct lanes x = start_lanes(state);
    struct block block = {.plain = in, .in = in, .out = out};
    run_block(&x, state, CRYPT | hash_plain, block);
    for (size_t i = 1; i < count; i++) {
        block.stored = block.out;
        block.plain = block.in += IMC_LAYER_BLOCK_BYTES;
        block.out += IMC_LAYER_BLOCK_BYTES;
        run_block(&x, state, CRYPT | HASH_STORED | hash_plain, block);
    }
    block.stored = block.out;
    run_block(&x, state, HASH_STORED, block);
}

/* Bytes are left where and what they are. */
STITCHED static void k1_check(struct imc_kernel_state *state, const uint8_t *in, uint8_t *out,
                              size_t count) {
    struct lanes x = start_lanes(state);
    (void)out;
    for (size_t i = 0; i < count; i++)
        run_block(&x, state, HASH_STORED, (struct block){.stored = in + IMC_LAYER_BLOCK_BYTES * i});
}

STITCHED static void k2_open(struct imc_kernel_state *state, const uint8_t *in, uint8_t *out,
                             size_t count) {
    open_blocks(state, in, out, count, 0);
}

STITCHED static void k2_seal(struct imc_kernel_state *state, const uint8_t *in, uint8_t *out,
                             size_t count) {
    seal_blocks(state, in, out, count, 0);
}

STITCHED static void k3_open(struct imc_kernel_state *state, const uint8_t *in, uint8_t *out,
                             size_t count) {
    open_blocks(state, in, out, count, HASH_PLAIN);
}

STITCHED static void k3_seal(struct imc_kernel_state *state, const uint8_t *in, uint8_t *out,
                             size_t count) {
    seal_blocks(state, in, out, count, HASH_PLAIN);
}

/* The block that update has assembled from pieces; its bytes are crypted already. */
STITCHED static void hash_assembled_block(struct imc_kernel_state *state) {
    struct lanes x = start_lanes(state);
    struct block block = {.stored = state->stored_block, .plain = state->plain_block};
    run_block(&x, state, HASH_STORED, block);
    if (state->wants_plain_digest)
        run_block(&x, state, HASH_PLAIN, block);
}

/* One chain alone: what HMAC puts before the message, and the padding after it. */
STITCHED static void hash_one_chain(uint32_t words[8], const uint8_t *message, size_t count) {
    struct lanes x = {.plain = load_chain(words)};
    for (size_t i = 0; i < count; i++) {
        struct block block = {.plain = message + IMC_LAYER_BLOCK_BYTES * i};
        run_steps(&x, NULL, HASH_PLAIN, block);
        end_block(&x.plain, words);
    }
}

/* The keystream of the next 64 bytes, and the counter behind it. */
STITCHED static void make_keystream(struct imc_kernel_state *state) {
    static const uint8_t zeros[IMC_LAYER_BLOCK_BYTES];
    struct lanes x = start_lanes(state);
    run_block(&x, state, CRYPT, (struct block){.in = zeros, .out = state->keystream});
}

/* FIPS 197, 5.2. Even round keys take RotWord and a round constant, odd ones SubWord alone; both
 * are results of aeskeygenassist, whose own round constant is an immediate and so 0 here. */
STITCHED static void expand_key(uint8_t round_keys[IMC_LAYER_AES_ROUNDS + 1][16],
                                const uint8_t key[IMC_LAYER_KEY_BYTES]) {
    __m128i two_back = load(key), one_back = load(key + 16);
    store(round_keys[0], two_back);
    store(round_keys[1], one_back);
    for (unsigned i = 2; i <= IMC_LAYER_AES_ROUNDS; i++) {
        __m128i assist = _mm_aeskeygenassist_si128(one_back, 0), next = two_back;
        if (i % 2 == 0)
            assist =
                _mm_xor_si128(_mm_shuffle_epi32(assist, 0xff), _mm_set1_epi32(1 << (i / 2 - 1)));
        else
            assist = _mm_shuffle_epi32(assist, 0xaa);
        /* Each word is xored with all words before it. */
        next = _mm_xor_si128(next, _mm_slli_si128(next, 4));
        next = _mm_xor_si128(next, _mm_slli_si128(next, 8));
        two_back = one_back;
        one_back = _mm_xor_si128(next, assist);
        store(round_keys[i], one_back);
    }
}

/* The empty assembly may read what memset wrote, as far as the compiler can know. */
static void wipe(void *secret, size_t size) {
    memset(secret, 0, size);
    __asm__ volatile("" : : "r"(secret) : "memory");
}

static uint64_t load_big_endian(const uint8_t from[8]) {
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value = value << 8 | from[i];
    return value;
}

static void store_big_endian(uint8_t to[8], uint64_t value) {
    for (unsigned i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> (56 - 8 * i));
}

/* A chain begun with the block key ^ pad (RFC 2104, section 2). */
static void start_hmac_chain(uint32_t words[8], const uint8_t key[IMC_LAYER_KEY_BYTES],
                             uint8_t pad) {
    uint8_t block[IMC_LAYER_BLOCK_BYTES];
    memset(block, pad, sizeof block);
    for (unsigned i = 0; i < IMC_LAYER_KEY_BYTES; i++)
        block[i] ^= key[i];
    memcpy(words, INITIAL, sizeof INITIAL);
    hash_one_chain(words, block, 1);
    wipe(block, sizeof block);
}

/* Pad and end a chain of `length` bytes, of which the last `length % 64` are at `tail`. */
static void finish_chain(uint32_t words[8], const uint8_t *tail, uint64_t length,
                         uint8_t digest[IMC_LAYER_DIGEST_BYTES]) {
    uint8_t blocks[2 * IMC_LAYER_BLOCK_BYTES] = {0};
    size_t used = length % IMC_LAYER_BLOCK_BYTES;
    size_t count = used + 1 + 8 <= IMC_LAYER_BLOCK_BYTES ? 1 : 2;
    memcpy(blocks, tail, used);
    blocks[used] = 0x80;
    store_big_endian(blocks + count * IMC_LAYER_BLOCK_BYTES - 8, length * 8);
    hash_one_chain(words, blocks, count);
    for (unsigned i = 0; i < 8; i++)
        for (unsigned j = 0; j < 4; j++)
            digest[4 * i + j] = (uint8_t)(words[POSITION[i]] >> (24 - 8 * j));
    wipe(blocks, sizeof blocks);
}

static bool init(struct imc_kernel_state *state, const uint8_t key[IMC_LAYER_KEY_BYTES],
                 const uint8_t nonce[IMC_LAYER_NONCE_BYTES], enum imc_direction direction,
                 bool wants_plain_digest) {
    if (direction == IMC_CHECK && wants_plain_digest)
        return false;
    memset(state, 0, sizeof *state);
    if (direction != IMC_CHECK)
        expand_key(state->round_keys, key);
    memcpy(state->digest, INITIAL, sizeof INITIAL);
    memcpy(state->plain, INITIAL, sizeof INITIAL);
    start_hmac_chain(state->hmac, key, 0x36);
    start_hmac_chain(state->hmac_outer, key, 0x5c);
    if (direction != IMC_CHECK) {
        state->counter_high = load_big_endian(nonce);
        state->counter_low = load_big_endian(nonce + 8);
    }
    state->direction = direction;
    state->wants_plain_digest = wants_plain_digest;
    return true;
}

/* Bytes of one block, the first of them at `offset` in it. */
static void crypt_in_block(struct imc_kernel_state *state, const uint8_t *in, uint8_t *out,
                           size_t offset, size_t length) {
    bool sealing = state->direction == IMC_SEAL;
    for (size_t i = 0; i < length; i++) {
        uint8_t before = in[i], after = before ^ state->keystream[offset + i];
        state->stored_block[offset + i] = sealing ? after : before;
        state->plain_block[offset + i] = sealing ? before : after;
        out[i] = after;
    }
}

static bool update(struct imc_kernel_state *state, const uint8_t *in, uint8_t *out, size_t length) {
    static void (*const kernels[3][2])(struct imc_kernel_state *, const uint8_t *, uint8_t *,
                                       size_t) = {
        [IMC_OPEN] = {k2_open, k3_open},
        [IMC_SEAL] = {k2_seal, k3_seal},
        [IMC_CHECK] = {k1_check, NULL},
    };
    bool crypts = state->direction != IMC_CHECK; /* otherwise the keystream is zeros */
    if (length > IMC_LAYER_MAX_BYTES - state->length)
        return false;
    if (length == 0) /* `in` and `out` may be NULL here, and NULL + 0 is undefined */
        return true;
    size_t offset = state->length % IMC_LAYER_BLOCK_BYTES;
    state->length += length;

    if (offset != 0) { /* 1: complete the block that the last piece ended in */
        size_t missing = IMC_LAYER_BLOCK_BYTES - offset;
        size_t part = length < missing ? length : missing;
        crypt_in_block(state, in, out, offset, part);
        if (part < missing)
            return true;
        hash_assembled_block(state);
        in += part;
        out += part;
        length -= part;
    }
    size_t count = length / IMC_LAYER_BLOCK_BYTES; /* 2: whole blocks */
    if (count != 0) {
        kernels[state->direction][state->wants_plain_digest](state, in, out, count);
        in += count * IMC_LAYER_BLOCK_BYTES;
        out += count * IMC_LAYER_BLOCK_BYTES;
        length -= count * IMC_LAYER_BLOCK_BYTES;
    }
    if (length != 0) { /* 3: begin the block that this piece ends in */
        if (crypts)
            make_keystream(state);
        crypt_in_block(state, in, out, 0, length);
    }
    return true;
}

static bool final(struct imc_kernel_state *state, uint8_t digest[IMC_LAYER_DIGEST_BYTES],
                  uint8_t hmac[IMC_LAYER_DIGEST_BYTES],
                  uint8_t plain_digest[IMC_LAYER_DIGEST_BYTES]) {
    uint8_t inner[IMC_LAYER_DIGEST_BYTES];
    finish_chain(state->digest, state->stored_block, state->length, digest);
    finish_chain(state->hmac, state->stored_block, state->length + IMC_LAYER_BLOCK_BYTES, inner);
    finish_chain(state->hmac_outer, inner, IMC_LAYER_BLOCK_BYTES + sizeof inner, hmac);
    if (state->wants_plain_digest)
        finish_chain(state->plain, state->plain_block, state->length, plain_digest);
    return true;
}

static void wipe_state(struct imc_kernel_state *state) {
    wipe(state, sizeof *state);
}

/* A hypervisor that lies here can make a guest slow, or stop it at an illegal instruction; it
 * learns nothing by it. SSE state needs no check of the operating system, as AVX would. */
bool imc_shani_is_supported(void) {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return false;
    if (!(ecx & bit_AES) || !(ecx & bit_SSSE3) || !(ecx & bit_SSE4_1))
        return false;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ebx & bit_SHA);
}

const struct imc_kernel imc_kernel_shani = {
    .name = "shani",
    .is_supported = imc_shani_is_supported,
    .init = init,
    .update = update,
    .final = final,
    .wipe = wipe_state,
};

#else

bool imc_shani_is_supported(void) {
    return false;
}

#endif
