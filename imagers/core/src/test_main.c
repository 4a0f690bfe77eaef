/* SPDX-License-Identifier: Apache-2.0 */
/* The plain half by itself: known answers and round trips, without Python.
 *
 *     core-test                                          everything below
 *     core-test split                                    what has several threads
 *     core-test unpack ROOT FILE DIGEST CODEC DIFF_ID    one layer into a directory; prints
 *                                                        the name of the fault, or OK
 *
 * Built with and without ISA-L and under sanitizers by tests/unit/core/test_c_half.py.
 */
#define _GNU_SOURCE
#include "imagers_core.h"
#include "test_kernel.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *force;    /* the entry of the layer table that is tested */
static unsigned threads = 1; /* of a job */

static void check(bool good, const char *what, size_t number) {
    if (!good) {
        fprintf(stderr, "core-test: failed: %s (%zu) with %s\n", what, number, force);
        exit(1);
    }
}

/* A file in memory that holds `data`. */
static int file_of(const uint8_t *data, size_t length) {
    int fd = memfd_create("core-test", MFD_CLOEXEC);
    check(fd >= 0, "memfd_create", length);
    for (size_t at = 0; at < length;) {
        ssize_t written = write(fd, data + at, length - at);
        check(written > 0, "write", at);
        at += (size_t)written;
    }
    check(lseek(fd, 0, SEEK_SET) == 0, "lseek", length);
    return fd;
}

/* All bytes of a file; the caller frees them. */
static uint8_t *read_back(int fd, size_t *length) {
    struct stat status;
    check(fstat(fd, &status) == 0, "fstat", 0);
    *length = (size_t)status.st_size;
    uint8_t *data = malloc(*length + 1);
    check(data != NULL, "malloc", *length);
    for (size_t at = 0; at < *length;) {
        ssize_t got = pread(fd, data + at, *length - at, (off_t)at);
        check(got > 0, "pread", at);
        at += (size_t)got;
    }
    return data;
}

static struct imc_options options_of(bool sealing) {
    return (struct imc_options){
        .sealing = sealing,
        .source_fd = -1,
        .sink_fd = -1,
        .root_fd = -1,
        .sees_tar = true,
        .gives_tar = true,
        .tar_bytes = UINT64_C(1) << 40,
        .window_bytes = UINT64_C(1) << 22,
        .max_entries = 1000000,
        .max_name_bytes = 4095,
        .threads = threads,
        .force = force,
    };
}

/* Hands `data` to a job that is fed, as the binding does. */
static void feed(struct imc_job *job, const uint8_t *data, size_t length) {
    size_t at = 0;
    while (at < length) {
        uint8_t *slot = imc_job_slot(job, 100);
        if (slot == NULL) {
            if (imc_job_wait(job, 0)) {
                return;
            }
            continue;
        }
        size_t part = length - at < IMC_PIECE ? length - at : IMC_PIECE;
        memcpy(slot, data + at, part);
        imc_job_commit(job, part);
        at += part;
    }
    imc_job_end_of_source(job, false);
}

static size_t used; /* by the last job, where a sanitizer knows every allocation */

#ifdef __SANITIZE_ADDRESS__
extern size_t __sanitizer_get_current_allocated_bytes(void);
#define allocated __sanitizer_get_current_allocated_bytes
#else
static size_t allocated(void) {
    return 0;
}
#endif

/* Runs a job over `data`; feeds it where there is no source. */
static enum imc_fault run(const struct imc_options *options, const uint8_t *data, size_t length,
                          struct imc_result *result) {
    struct imc_job *job = NULL;
    size_t before = allocated();
    enum imc_fault fault = imc_job_new(options, &job);
    if (fault != IMC_OK) {
        return fault;
    }
    if (imc_job_start(job) == IMC_OK && options->source_fd < 0) {
        feed(job, data, length);
    }
    while (!imc_job_wait(job, 100)) {
    }
    fault = imc_job_join(job);
    *result = *imc_job_result(job);
    used = allocated() - before; /* nothing that counts was freed yet */
    check(used <= imc_job_memory(options), "memory above what was said", used);
    imc_job_free(job);
    return fault;
}

/* Digests are taken from a run whose check fails: its failure says the actual one. */
static void digest_of(const uint8_t *data, size_t length, char text[IMC_DIGEST_TEXT]) {
    struct imc_options options = options_of(false);
    struct imc_job *job = NULL;
    options.digest = "sha256:0";
    options.size = length;
    check(imc_job_new(&options, &job) == IMC_OK, "digest job", length);
    check(imc_job_start(job) == IMC_OK, "digest start", length);
    feed(job, data, length);
    check(imc_job_join(job) == IMC_STORED_DIGEST, "digest fault", length);
    const struct imc_failure *failure = imc_job_failure(job);
    memcpy(text, failure->more, failure->more_length);
    text[failure->more_length] = '\0';
    imc_job_free(job);
}

static void fill(uint8_t *data, size_t length) {
    uint32_t state = 12345;
    for (size_t i = 0; i < length; i++) {
        state = state * 1103515245 + 12345;
        /* Half of it compresses. */
        data[i] = i % 8192 < 4096 ? (uint8_t)(state >> 16) : (uint8_t)(i / 8192);
    }
}

static uint8_t key[IMC_KEY_BYTES];

/* The answers of two independent implementations of the format (tests/unit/core/test_layer.py). */
static void known_answers(void) {
    static const char line[] = "imagers layer test vector\n";
    static const char *const sealed[2] = {
        "fb6dacea46e4f3eb36089f3132121771b92b5b36944940ae1cad3c4c2b10e3fcea4c4d3a6d7d87b80ce05364"
        "b52297ec3d07b127bf9d86457669afd4900221c1c4240fbc0a08da949fee6bb6159c",
        "e999e41d4ca770da5387117b5d8f57eef29000b62a499fd0a9f39a6add2e7780f05d76ae4ab99fe5a6f69b31"
        "48c2363d",
    };
    static const char tag[] = "867de7e6940b42e91352af1f0856335b4046db823c8b103ce3f1c3ab051b46de";
    uint8_t data[2][78] = {{0}};
    uint8_t nonces[2][IMC_NONCE_BYTES];
    size_t lengths[2] = {78, 48};
    for (size_t i = 0; i < 78; i++) {
        data[0][i] = (uint8_t)line[i % (sizeof line - 1)];
    }
    for (size_t i = 0; i < IMC_NONCE_BYTES; i++) {
        nonces[0][i] = (uint8_t)(0xF0 + i);
        nonces[1][i] = 0xFF;
    }
    for (size_t i = 0; i < 2; i++) {
        char digest[IMC_DIGEST_TEXT];
        struct imc_result result;
        struct imc_options options = options_of(true);
        digest_of(data[i], lengths[i], digest);
        options.has_cipher = true;
        options.key = key;
        options.nonce = nonces[i];
        options.digest = digest;
        options.size = lengths[i];
        options.sink_fd = file_of(NULL, 0);
        check(run(&options, data[i], lengths[i], &result) == IMC_OK, "known answer", i);
        size_t length;
        uint8_t *stored = read_back(options.sink_fd, &length);
        char text[200] = "";
        for (size_t j = 0; j < length; j++) {
            snprintf(text + 2 * j, 3, "%02x", stored[j]);
        }
        check(strcmp(text, sealed[i]) == 0, "ciphertext", i);
        for (size_t j = 0; j < IMC_MAC_BYTES; j++) {
            snprintf(text + 2 * j, 3, "%02x", result.hmac[j]);
        }
        check(i == 1 || strcmp(text, tag) == 0, "tag", i);
        free(stored);
        close(options.sink_fd);
    }
}

/* The two passes, over a file that changes after them. */
static void check_then_open(struct imc_options options, const uint8_t *stored, size_t length) {
    struct imc_options checking = options;
    struct imc_result opened;
    struct imc_job *job = NULL;
    checking.piece_key = options.piece_key = key;
    checking.sees_tar = checking.gives_tar = false;
    checking.decode = IMC_PLAIN;
    checking.sink_fd = options.source_fd = file_of(NULL, 0);
    check(imc_job_new(&checking, &job) == IMC_OK, "check job", length);
    check(imc_job_start(job) == IMC_OK, "check start", length);
    feed(job, stored, length);
    check(imc_job_join(job) == IMC_OK, "check", length);
    options.codes = imc_job_codes(job, &options.codes_length);
    check(lseek(options.source_fd, 0, SEEK_SET) == 0, "lseek", length);
    check(run(&options, NULL, 0, &opened) == IMC_OK, "open what was checked", length);
    const uint8_t other = stored[length - 1] ^ 1;
    check(pwrite(options.source_fd, &other, 1, (off_t)length - 1) == 1, "pwrite", length);
    check(lseek(options.source_fd, 0, SEEK_SET) == 0, "lseek", length);
    check(run(&options, NULL, 0, &opened) == IMC_CHANGED, "changed after the check", length);
    imc_job_free(job);
    close(options.source_fd);
}

/* Seals and opens `length` bytes, through a file or fed, and damages them in some ways. */
static void round_trip(const uint8_t *data, size_t length, enum imc_compression codec, bool fed) {
    char digest[IMC_DIGEST_TEXT];
    char stored_digest[IMC_DIGEST_TEXT];
    uint8_t nonce[IMC_NONCE_BYTES] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
                                      0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE};
    struct imc_result sealed;
    struct imc_result opened;
    digest_of(data, length, digest);
    struct imc_options options = options_of(true);
    options.has_cipher = true;
    options.key = key;
    options.nonce = nonce;
    options.digest = digest;
    options.diff_id = digest;
    options.size = length;
    options.encode = codec;
    options.sink_fd = file_of(NULL, 0);
    options.source_fd = fed ? -1 : file_of(data, length);
    check(run(&options, data, length, &sealed) == IMC_OK, "seal", length);
    check(strcmp(sealed.tar_digest, digest) == 0, "sealed diff_id", length);
    size_t stored_length;
    uint8_t *stored = read_back(options.sink_fd, &stored_length);
    check(stored_length == sealed.stored_size, "stored size", length);
    digest_of(stored, stored_length, stored_digest);
    check(strcmp(sealed.stored_digest, stored_digest) == 0, "stored digest", length);
    close(options.sink_fd);
    if (!fed) {
        close(options.source_fd);
    }

    options = options_of(false);
    options.has_cipher = true;
    options.key = key;
    options.nonce = nonce;
    options.hmac = sealed.hmac;
    options.digest = stored_digest;
    options.diff_id = digest;
    options.size = stored_length;
    options.decode = codec;
    options.sink_fd = file_of(NULL, 0);
    options.source_fd = fed ? -1 : file_of(stored, stored_length);
    check(run(&options, stored, stored_length, &opened) == IMC_OK, "open", length);
    size_t tar_length;
    uint8_t *tar = read_back(options.sink_fd, &tar_length);
    check(tar_length == length && memcmp(tar, data, length) == 0, "opened bytes", length);
    check(opened.tar_size == length, "tar size", length);
    free(tar);
    close(options.sink_fd);
    options.sink_fd = -1;
    if (!fed) {
        check(lseek(options.source_fd, 0, SEEK_SET) == 0, "lseek", length);
    }

    uint8_t wrong[IMC_MAC_BYTES];
    memcpy(wrong, sealed.hmac, sizeof wrong);
    wrong[31] ^= 1;
    options.hmac = wrong;
    check(run(&options, stored, stored_length, &opened) == IMC_TAG, "wrong tag", length);
    if (!fed) {
        close(options.source_fd);
        options.source_fd = -1;
    }
    options.hmac = sealed.hmac;
    if (stored_length > 0) {
        if (fed) {
            check_then_open(options, stored, stored_length);
        }
        check(run(&options, stored, stored_length - 1, &opened) == IMC_STORED_SHORT, "short",
              length);
        stored[stored_length / 2] ^= 1;
        check(run(&options, stored, stored_length, &opened) == IMC_STORED_DIGEST, "flipped",
              length);
    }
    free(stored);
}

/* What is said of memory is not far above the truth either, and the bytes are the same for any
 * number of threads. */
static void memory_and_threads(enum imc_compression codec) {
    size_t length = (size_t)21 * 1024 * 1024; /* more frames than are under way at once */
    uint8_t *data = malloc(length);
    char digest[IMC_DIGEST_TEXT];
    struct imc_result first;
    check(data != NULL, "malloc", length);
    uint64_t state = 1;
    for (size_t i = 0; i < length; i += 8) { /* does not compress: the worst case */
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        memcpy(data + i, &state, 8);
    }
    memset(data, 'x', IMC_PIECE);
    digest_of(data, length, digest);
    for (unsigned count = 1; count <= 9; count *= 3) {
        struct imc_options options = options_of(true);
        struct imc_result result;
        options.threads = count;
        options.force = NULL;
        options.digest = digest;
        options.size = length;
        options.encode = codec;
        options.source_fd = file_of(data, length);
        options.sink_fd = file_of(NULL, 0);
        check(run(&options, NULL, 0, &result) == IMC_OK, "many threads", count);
        first = count == 1 ? result : first;
        check(strcmp(result.stored_digest, first.stored_digest) == 0, "same bytes", count);
        /* A frame may have been written before another one was filled. */
        check(allocated() == 0 || used >= imc_job_memory(&options) / 2,
              "memory far below what was said", used);
        close(options.source_fd);
        close(options.sink_fd);
    }
    free(data);
}

/* A job in each state of waiting ends when it is cancelled. */
static void cancellation(void) {
    int ends[2];
    check(pipe(ends) == 0, "pipe", 0);
    for (size_t i = 0; i < 3; i++) {
        struct imc_options options = options_of(false);
        struct imc_job *job = NULL;
        options.digest = "sha256:0";
        options.size = UINT64_C(1) << 50;
        options.tar_bytes = UINT64_C(1) << 50;
        options.source_fd = i == 0 ? -1 : i == 1 ? ends[0] : open("/dev/zero", O_RDONLY);
        check(imc_job_new(&options, &job) == IMC_OK, "cancelled job", i);
        check(imc_job_start(job) == IMC_OK, "cancelled start", i);
        check(!imc_job_wait(job, 30), "waiting", i);
        imc_job_cancel(job);
        check(imc_job_join(job) == IMC_CANCELLED, "cancelled", i);
        check(imc_job_join(job) == IMC_CANCELLED, "joined twice", i);
        imc_job_free(job);
        if (i == 2) {
            close(options.source_fd);
        }
    }
    close(ends[0]);
    close(ends[1]);
    for (size_t i = 0; i < 6; i++) { /* and in the middle of work */
        struct imc_options options = options_of(i > 1);
        struct imc_job *job = NULL;
        options.threads = i % 2 == 0 ? 1 : 3;
        options.force = NULL;
        options.digest = "sha256:0";
        options.size = UINT64_C(1) << 50;
        options.tar_bytes = UINT64_C(1) << 50;
        options.encode = i < 2 ? IMC_PLAIN : i < 4 ? IMC_GZIP : IMC_ZSTD;
        options.source_fd = open("/dev/zero", O_RDONLY);
        options.sink_fd = open("/dev/null", O_WRONLY);
        check(imc_job_new(&options, &job) == IMC_OK, "busy job", i);
        check(imc_job_start(job) == IMC_OK, "busy start", i);
        check(!imc_job_wait(job, 30), "busy", i);
        imc_job_cancel(job);
        check(imc_job_join(job) == IMC_CANCELLED, "busy, cancelled", i);
        imc_job_free(job);
        close(options.source_fd);
        close(options.sink_fd);
    }
}

static void self_test(void) {
    static const size_t lengths[] = {0,
                                     1,
                                     15,
                                     16,
                                     63,
                                     64,
                                     65,
                                     129,
                                     8 * 64,
                                     8 * 64 + 1,
                                     16384 + 1,
                                     99999,
                                     IMC_PIECE,
                                     IMC_PIECE - 1,
                                     IMC_PIECE + 1,
                                     10 * IMC_PIECE + 77};
    size_t most = 10 * IMC_PIECE + 77;
    uint8_t *data = malloc(most);
    check(data != NULL, "malloc", most);
    fill(data, most);
    known_answers();
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (int codec = IMC_PLAIN; codec <= IMC_ZSTD; codec++) {
            round_trip(data, lengths[i], (enum imc_compression)codec, false);
            round_trip(data, lengths[i], (enum imc_compression)codec, true);
        }
    }
    free(data);
    cancellation();
}

static int unpack(char **arguments) {
    struct imc_options options = options_of(false);
    struct imc_result result;
    struct stat status;
    options.root_fd = open(arguments[0], O_RDONLY | O_DIRECTORY);
    options.source_fd = open(arguments[1], O_RDONLY);
    check(options.root_fd >= 0 && fstat(options.source_fd, &status) == 0, "open", 0);
    options.size = (uint64_t)status.st_size;
    options.digest = arguments[2];
    options.decode = strcmp(arguments[3], "gzip") == 0   ? IMC_GZIP
                     : strcmp(arguments[3], "zstd") == 0 ? IMC_ZSTD
                                                         : IMC_PLAIN;
    options.diff_id = arguments[4];
    enum imc_fault fault = run(&options, NULL, 0, &result);
    puts(imc_fault_name(fault));
    close(options.root_fd);
    close(options.source_fd);
    return 0;
}

static void bytes_of(const char *hex, uint8_t *out, size_t length) {
    for (size_t i = 0; i < length; i++) {
        unsigned value = 0;
        check(sscanf(hex + 2 * i, "%2x", &value) == 1, "sscanf", i);
        out[i] = (uint8_t)value;
    }
}

/* GB/T 32918.5-2017, annex A.2. */
static void sm2(void) {
    static const char message[] = "message digest";
    uint8_t point[2 * IMC_SM2_NUMBER], signature[2 * IMC_SM2_NUMBER];
    bytes_of("09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
             "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13",
             point, sizeof point);
    bytes_of("f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3"
             "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa",
             signature, sizeof signature);
    struct imc_sm2 signed_by = {
        .public_key = point,
        .signature = signature,
        .message = (const uint8_t *)message,
        .message_length = sizeof message - 1,
        .user_id = (const uint8_t *)"1234567812345678",
        .user_id_length = 16,
    };
    bool good = false;
    check(imc_sm2_verify(&signed_by, &good) == IMC_OK && good, "SM2, as published", 0);
    for (size_t i = 0; i < sizeof signature; i++) {
        signature[i] ^= 1;
        check(imc_sm2_verify(&signed_by, &good) == IMC_OK && !good, "SM2, signature", i);
        signature[i] ^= 1;
        point[i] ^= 1;
        check(imc_sm2_verify(&signed_by, &good) == IMC_OK && !good, "SM2, key", i);
        point[i] ^= 1;
    }
    signed_by.user_id_length = 0;
    check(imc_sm2_verify(&signed_by, &good) == IMC_CRYPTO && !good, "SM2, no user id", 0);
}

/* NIST, samples of SP 800-185: KMAC256, sample 5. */
static void kmac(void) {
    uint8_t code[64], expected[64], sample_key[32], data[200];
    bytes_of("75358cf39e41494e949707927cee0af20a3ff553904c86b08f21cc414bcfd691"
             "589d27cf5e15369cbbff8b9a4c2eb17800855d0235ff635da82533ec6b759b69",
             expected, sizeof expected);
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)i;
        sample_key[i % sizeof sample_key] = (uint8_t)(0x40 + i % sizeof sample_key);
    }
    struct imc_kmac input = {
        .key = sample_key,
        .key_length = sizeof sample_key,
        .data = data,
        .data_length = sizeof data,
    };
    check(imc_kmac256(&input, code, sizeof code) == IMC_OK &&
              memcmp(code, expected, sizeof code) == 0,
          "KMAC256, sample 5", 0);
    check(imc_kmac256(&input, code, 0) == IMC_CRYPTO, "KMAC256, no length", 0);
    input.key_length = IMC_KMAC_KEY_MIN - 1;
    check(imc_kmac256(&input, code, sizeof code) == IMC_CRYPTO, "KMAC256, short key", 0);
}

int main(int count, char **arguments) {
    if (count == 7 && strcmp(arguments[1], "unpack") == 0) {
        return unpack(arguments + 2);
    }
    for (size_t i = 0; i < sizeof key; i++) {
        key[i] = (uint8_t)i;
    }
    force = "sm2.c, kmac.c";
    sm2();
    kmac();
    force = "split";
    for (threads = 2; threads <= 4; threads += 2) {
        self_test();
        printf("core-test: good: %s, %u threads\n", force, threads);
    }
    threads = 1;
    memory_and_threads(IMC_GZIP);
    memory_and_threads(IMC_ZSTD);
    if (count == 2 && strcmp(arguments[1], "split") == 0) {
        return 0;
    }
    imc_test_kernel(UINT64_C(0x696d6167657273));
    for (size_t i = 0; imc_layer_name(i) != NULL; i++) {
        char text[64];
        snprintf(text, sizeof text, "layer=%s", imc_layer_name(i));
        force = text;
        self_test();
        printf("core-test: good: %s, %s\n", imc_layer_name(i), imc_gzip_library());
    }
    return 0;
}
