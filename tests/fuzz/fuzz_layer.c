/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as what is in a layer, to be opened: cipher, decompression, tar, unpacking, checks.
 *
 * The first byte says how (enum how); then it is done twice, one stage after the other and by one
 * to four threads that take what is there to do (the length says how many), and both must come to
 * the same. The bytes are encrypted here where there is a cipher, or nothing behind it would ever
 * see them.
 */
#define _GNU_SOURCE
#include "fuzz.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

enum how {
    CODEC = 3,          /* plain, gzip, zstd, plain again */
    UNPACK = 4,         /* or nothing but checks */
    CIPHER = 8,         /* and HMAC */
    GOOD_DIGEST = 16,   /* of the stored bytes */
    GOOD_TAG = 32,      /* that HMAC */
    HAS_DIFF_ID = 64,   /* a wrong one */
    BY_LIBCRYPTO = 128, /* in the first run, not by the stitched kernels */
};

static const uint8_t key[IMC_KEY_BYTES] = {1};
static const uint8_t nonce[IMC_NONCE_BYTES] = {255, 255, 255, 255, 255, 255, 255, 255,
                                               255, 255, 255, 255, 255, 255, 255, 254};

static void seal(uint8_t *data, size_t size, uint8_t hmac[IMC_MAC_BYTES]) {
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    int written = 0;
    unsigned length = 0;
    must(cipher != NULL && EVP_EncryptInit_ex(cipher, EVP_aes_256_ctr(), NULL, key, nonce) == 1 &&
             EVP_EncryptUpdate(cipher, data, &written, data, (int)size) == 1 &&
             HMAC(EVP_sha256(), key, sizeof key, data, size, hmac, &length) != NULL,
         "libcrypto");
    EVP_CIPHER_CTX_free(cipher);
}

static void feed(struct imc_job *job, const uint8_t *data, size_t size) {
    for (size_t at = 0; at < size;) {
        uint8_t *slot = imc_job_slot(job, 100);
        if (slot != NULL) {
            size_t part = size - at < IMC_PIECE ? size - at : IMC_PIECE;
            memcpy(slot, data + at, part);
            imc_job_commit(job, part);
            at += part;
        } else if (imc_job_wait(job, 0)) {
            return;
        }
    }
    imc_job_end_of_source(job, false);
}

static enum imc_fault run(struct imc_options options, const uint8_t *data, const char *force,
                          bool unpacks, struct imc_result *result) {
    struct imc_job *job = NULL;
    options.force = force;
    options.root_fd = unpacks ? open_root() : -1;
    must(imc_job_new(&options, &job) == IMC_OK && imc_job_start(job) == IMC_OK, "a job");
    feed(job, data, options.size);
    enum imc_fault fault = imc_job_join(job);
    *result = *imc_job_result(job);
    imc_job_free(job);
    if (unpacks) {
        close_root();
    }
    return fault;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    unsigned how = data[0];
    uint8_t hmac[IMC_MAC_BYTES] = {0};
    uint8_t digest[EVP_MAX_MD_SIZE];
    char text[IMC_DIGEST_TEXT] = "sha256:0";
    static const enum imc_compression codecs[] = {IMC_PLAIN, IMC_GZIP, IMC_ZSTD, IMC_PLAIN};
    size--;
    uint8_t *stored = malloc(size + 1);
    must(stored != NULL, "memory");
    memcpy(stored, data + 1, size);
    if (how & CIPHER) {
        seal(stored, size, hmac);
    }
    if (how & GOOD_DIGEST) {
        must(EVP_Digest(stored, size, digest, NULL, EVP_sha256(), NULL) == 1, "libcrypto");
        imc_digest_text("sha256", digest, 32, text);
    }
    hmac[0] ^= how & GOOD_TAG ? 0 : 1;
    struct imc_options options = {
        .has_cipher = (how & CIPHER) != 0,
        .key = key,
        .nonce = nonce,
        .hmac = hmac,
        .digest = text,
        .diff_id = how & HAS_DIFF_ID ? "sha256:0" : NULL,
        .size = size,
        .decode = codecs[how & CODEC],
        .sees_tar = true,
        .gives_tar = true,
        .source_fd = -1,
        .sink_fd = -1,
        .keep_owner = geteuid() == 0,
        .tar_bytes = MAX_TAR_BYTES,
        .window_bytes = 1 << 21,
        .max_entries = MAX_ENTRIES,
        .max_name_bytes = 4095,
        .threads = 1 + (unsigned)(size % 4), /* only where forced: the input is small */
    };
    struct imc_result results[2];
    bool unpacks = (how & UNPACK) != 0;
    enum imc_fault inlined =
        run(options, stored, how & BY_LIBCRYPTO ? "layer=libcrypto" : NULL, unpacks, &results[0]);
    enum imc_fault split = run(options, stored, "split", unpacks, &results[1]);
    free(stored);
    must(inlined == split, "threads change no fault");
    must(inlined != IMC_OK || (results[0].tar_size == results[1].tar_size &&
                               results[0].entries == results[1].entries &&
                               strcmp(results[0].tar_digest, results[1].tar_digest) == 0),
         "threads change no result");
    must((how & GOOD_DIGEST) || inlined == IMC_STORED_DIGEST || inlined == IMC_UNPACK,
         "a wrong digest is what is told");
    must((how & GOOD_TAG) || !(how & CIPHER) || inlined != IMC_OK, "no layer with a wrong tag");
    must(!(how & HAS_DIFF_ID) || inlined != IMC_OK, "no layer with a wrong diff_id");
    return 0;
}
