/* SPDX-License-Identifier: Apache-2.0 */
/* K2 and K3 against sequential passes of libcrypto over the same pieces of 64 KiB, one thread.
 *
 *     bench_kernel [--json]              all contestants, and the floor against `openssl speed`
 *     bench_kernel --rate NAME [MIB]     one contestant alone, as the floor programs print
 *
 * The contestants take turns within one run and are timed by thread CPU time, so that a busy
 * machine changes all alike; a ratio is the median of the ratios of neighbouring samples. The floor
 * is itself checked against `openssl speed`, which takes its turn after each group of samples and
 * is timed by user CPU time: a slow floor would flatter us, and the program then fails with 1.
 *
 * The bare rounds are the bound from the other side: as many sha256rnds2 as K2 and K3 need, two or
 * three chains, and nothing else. Where the CPU starts one every 3 cycles (Intel Xeon) K2 cannot be
 * much above 1.5 times the passes; where every 2 (AMD), it can.
 */
#include "floors/floor.h"

#include "layer_kernel.h"

#include <string.h>

#include <immintrin.h>
#include <openssl/evp.h>

enum {
    PIECE = 64 * 1024,
    PIECES = 16, /* 1 MiB of source: pieces come from L2, as from a ring slot just filled */
    ROUNDS = 12, /* over the source, for one sample: about 10 ms */
    GROUPS = 5,  /* of samples, with a turn of `openssl speed` after each */
    SAMPLES = 5 * GROUPS, /* of each contestant; the median counts */
    SPEED_OFF = 5,        /* per cent that the floor may be slower than `openssl speed` */
};

static uint8_t source[PIECES][PIECE], target[PIECE];
static const uint8_t key[IMC_LAYER_KEY_BYTES] = {1}, nonce[IMC_LAYER_NONCE_BYTES] = {2};

static struct {
    EVP_CIPHER_CTX *cipher;
    EVP_MD_CTX *digest, *plain;
    EVP_MAC_CTX *mac;
} library;

static void open_library(void) {
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    char sha256[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", sha256, 0),
                           OSSL_PARAM_construct_end()};
    library.cipher = EVP_CIPHER_CTX_new();
    library.digest = EVP_MD_CTX_new();
    library.plain = EVP_MD_CTX_new();
    library.mac = EVP_MAC_CTX_new(hmac);
    EVP_MAC_free(hmac);
    need(EVP_EncryptInit_ex(library.cipher, EVP_aes_256_ctr(), NULL, key, nonce) &&
             EVP_DigestInit_ex(library.digest, EVP_sha256(), NULL) &&
             EVP_DigestInit_ex(library.plain, EVP_sha256(), NULL) &&
             EVP_MAC_init(library.mac, key, sizeof key, params),
         "init");
}

static void crypt(const uint8_t *piece) {
    int written;
    need(EVP_EncryptUpdate(library.cipher, target, &written, piece, PIECE), "libcrypto");
}

static void digest(const uint8_t *piece) {
    need(EVP_DigestUpdate(library.digest, piece, PIECE), "libcrypto");
}

static void three_passes(const uint8_t *piece) {
    digest(piece);
    need(EVP_MAC_update(library.mac, piece, PIECE), "libcrypto");
    crypt(piece);
}

static void four_passes(const uint8_t *piece) {
    three_passes(piece);
    need(EVP_DigestUpdate(library.plain, target, PIECE), "libcrypto");
}

static struct imc_kernel_state states[2][2]; /* direction, wants_plain_digest */

static void k2_open(const uint8_t *piece) {
    need(imc_kernel_shani.update(&states[IMC_OPEN][0], piece, target, PIECE), "kernel");
}

static void k2_seal(const uint8_t *piece) {
    need(imc_kernel_shani.update(&states[IMC_SEAL][0], piece, target, PIECE), "kernel");
}

static void k3_open(const uint8_t *piece) {
    need(imc_kernel_shani.update(&states[IMC_OPEN][1], piece, target, PIECE), "kernel");
}

static void k3_seal(const uint8_t *piece) {
    need(imc_kernel_shani.update(&states[IMC_SEAL][1], piece, target, PIECE), "kernel");
}

/* No message and no result, so that only the unit and its latency count. */
__attribute__((target("sha,sse4.1"))) static void bare_rounds(unsigned chains) {
    __m128i chain[3] = {_mm_setzero_si128(), _mm_set1_epi32(1), _mm_set1_epi32(2)};
    const __m128i input = _mm_set1_epi32(3);
    for (unsigned i = 0; i < PIECE / IMC_LAYER_BLOCK_BYTES * 32; i++) {
        chain[0] = _mm_sha256rnds2_epu32(chain[0], chain[0], input);
        chain[1] = _mm_sha256rnds2_epu32(chain[1], chain[1], input);
        if (chains == 3)
            chain[2] = _mm_sha256rnds2_epu32(chain[2], chain[2], input);
    }
    chain[0] = _mm_xor_si128(chain[0], _mm_xor_si128(chain[1], chain[2]));
    __asm__ volatile("" : : "x"(chain[0])); /* or all of it would be dropped */
}

static void bare_two(const uint8_t *piece) {
    (void)piece;
    bare_rounds(2);
}

static void bare_three(const uint8_t *piece) {
    (void)piece;
    bare_rounds(3);
}

enum {
    THREE,
    K2_OPEN,
    K2_SEAL,
    BARE_TWO,
    FOUR,
    K3_OPEN,
    K3_SEAL,
    BARE_THREE,
    SHA,
    AES,
    CONTESTANTS
};

static const struct {
    const char *name;
    void (*run)(const uint8_t *piece);
} contestants[CONTESTANTS] = {
    [THREE] = {"libcrypto, three passes", three_passes},
    [K2_OPEN] = {"K2 open", k2_open},
    [K2_SEAL] = {"K2 seal", k2_seal},
    [BARE_TWO] = {"bare rounds, two chains", bare_two},
    [FOUR] = {"libcrypto, four passes", four_passes},
    [K3_OPEN] = {"K3 open", k3_open},
    [K3_SEAL] = {"K3 seal", k3_seal},
    [BARE_THREE] = {"bare rounds, three", bare_three},
    [SHA] = {"libcrypto, SHA-256", digest},
    [AES] = {"libcrypto, AES-256-CTR", crypt},
};

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double seconds[CONTESTANTS][SAMPLES], sha_speed[GROUPS], aes_speed[GROUPS];

static double median(const double *values, size_t count) {
    double sorted[SAMPLES];
    memcpy(sorted, values, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare);
    return sorted[count / 2];
}

static double times_faster(unsigned who, unsigned floor) {
    double ratios[SAMPLES];
    for (unsigned i = 0; i < SAMPLES; i++)
        ratios[i] = seconds[floor][i] / seconds[who][i];
    return median(ratios, SAMPLES);
}

/* GB/s by `openssl speed`: the last number of its last line, in units of 1000 bytes. */
static double openssl_speed(const char *algorithm) {
    char command[128], line[256], last[256] = "";
    snprintf(command, sizeof command, "openssl speed -seconds 1 -bytes %d -evp %s 2>/dev/null",
             PIECE, algorithm);
    FILE *out = popen(command, "r");
    need(out != NULL, "openssl speed");
    while (fgets(line, sizeof line, out))
        memcpy(last, line, sizeof last);
    const char *number = strrchr(last, ' ');
    need(pclose(out) == 0 && number != NULL, "openssl speed");
    return strtod(number, NULL) * 1e-6;
}

static void run_rounds(unsigned who, unsigned rounds) {
    for (unsigned piece = 0; piece < rounds * PIECES; piece++)
        contestants[who].run(source[piece % PIECES]);
}

static int run_one(int argc, char **argv) {
    uint64_t bytes = parse_bytes(argc, argv, 3, 512);
    for (unsigned who = 0; argc > 2 && who < CONTESTANTS; who++)
        if (strcmp(contestants[who].name, argv[2]) == 0) {
            struct clocks start = start_clocks();
            run_rounds(who, (unsigned)(bytes / sizeof source));
            print_result(bytes, start);
            return 0;
        }
    fprintf(stderr, "bench_kernel: expected the name of a contestant\n");
    return 2;
}

static void sample_all(void) {
    for (unsigned sample = 0; sample < SAMPLES; sample++) {
        for (unsigned who = 0; who < CONTESTANTS; who++) {
            double start = seconds_of(CLOCK_THREAD_CPUTIME_ID);
            run_rounds(who, ROUNDS);
            seconds[who][sample] = seconds_of(CLOCK_THREAD_CPUTIME_ID) - start;
        }
        if ((sample + 1) % (SAMPLES / GROUPS) == 0) {
            sha_speed[sample / (SAMPLES / GROUPS)] = openssl_speed("sha256");
            aes_speed[sample / (SAMPLES / GROUPS)] = openssl_speed("aes-256-ctr");
        }
    }
}

int main(int argc, char **argv) {
    bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
    if (!imc_shani_is_supported()) {
        puts("bench_kernel: skipped: this CPU has no SHA instructions");
        return 77;
    }
    memset(source, 0x5a, sizeof source);
    open_library();
    for (unsigned i = 0; i < 4; i++)
        imc_kernel_shani.init(&states[i / 2][i % 2], key, nonce, (enum imc_direction)(i / 2),
                              i % 2);
    if (argc > 1 && strcmp(argv[1], "--rate") == 0)
        return run_one(argc, argv);
    sample_all();
    double rate[CONTESTANTS];
    for (unsigned who = 0; who < CONTESTANTS; who++)
        rate[who] = (double)ROUNDS * sizeof source / median(seconds[who], SAMPLES) * 1e-9;
    double sha = median(sha_speed, GROUPS), aes = median(aes_speed, GROUPS);
    double three_by_speed = 1 / (2 / sha + 1 / aes), four_by_speed = 1 / (3 / sha + 1 / aes);

    for (unsigned who = 0; who < CONTESTANTS; who++) {
        unsigned floor = who < FOUR ? THREE : FOUR;
        if (json)
            printf("%s\"%s\": {\"gb_per_second\": %.3f, \"times_floor\": %.3f}", who ? ", " : "{",
                   contestants[who].name, rate[who], times_faster(who, floor));
        else if (who == floor || who >= SHA)
            printf("%-24s %6.3f GB/s\n", contestants[who].name, rate[who]);
        else
            printf("%-24s %6.3f GB/s  %.3f times the passes\n", contestants[who].name, rate[who],
                   times_faster(who, floor));
    }
    printf(json ? ", \"openssl speed\": {\"three\": %.3f, \"four\": %.3f}}\n"
                : "by openssl speed, three passes would be %.3f GB/s, four %.3f\n",
           three_by_speed, four_by_speed);
    if (rate[THREE] * 100 < three_by_speed * (100 - SPEED_OFF) ||
        rate[FOUR] * 100 < four_by_speed * (100 - SPEED_OFF)) {
        fprintf(stderr,
                "bench_kernel: the floor is slow: %.3f and %.3f GB/s, openssl speed %.3f, %.3f\n",
                rate[THREE], rate[FOUR], three_by_speed, four_by_speed);
        return 1;
    }
    return 0;
}
