/* SPDX-License-Identifier: Apache-2.0 */
/* AES-256-CTR, HMAC-SHA256 and digests by libcrypto: the definition, always there.
 *
 * The cipher of ocicrypt (containers/ocicrypt v1.3.2, blockcipher/blockcipher_aes_ctr.go):
 * the 16-byte nonce is the first counter block, counted up as a 128-bit big-endian number,
 * which EVP_aes_256_ctr does; the HMAC has the same key, over the ciphertext only.
 */
#include "impl.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

/* So much stays in the first-level cache between the passes over it. Any size from 4 KiB
 * to 1 MiB was within 2 % of the others. */
#define BLOCK ((size_t)16 * 1024)

struct imc_hasher {
    EVP_MD_CTX *context;
    char algorithm[16];
};

enum imc_fault imc_hasher_new(const char *digest, struct imc_hasher **out) {
    const char *colon = strchr(digest, ':');
    size_t length = colon == NULL ? 0 : (size_t)(colon - digest);
    struct imc_hasher *hasher = calloc(1, sizeof *hasher);
    if (hasher == NULL) {
        return IMC_NO_MEMORY;
    }
    if (length == 0 || length >= sizeof hasher->algorithm) {
        free(hasher);
        return IMC_CRYPTO;
    }
    memcpy(hasher->algorithm, digest, length);
    EVP_MD *md = EVP_MD_fetch(NULL, hasher->algorithm, NULL);
    hasher->context = EVP_MD_CTX_new();
    /* The longest digest text has room for 64 bytes. */
    bool good = md != NULL && hasher->context != NULL && EVP_MD_get_size(md) <= 64 &&
                EVP_DigestInit_ex2(hasher->context, md, NULL) == 1;
    EVP_MD_free(md);
    if (!good) {
        imc_hasher_free(hasher);
        return IMC_CRYPTO;
    }
    *out = hasher;
    return IMC_OK;
}

enum imc_fault imc_hasher_step(struct imc_hasher *hasher, const uint8_t *data, size_t length) {
    return EVP_DigestUpdate(hasher->context, data, length) == 1 ? IMC_OK : IMC_CRYPTO;
}

void imc_digest_text(const char *algorithm, const uint8_t *digest, size_t length,
                     char text[IMC_DIGEST_TEXT]) {
    size_t at = strlen(algorithm);
    memcpy(text, algorithm, at);
    text[at++] = ':';
    for (size_t i = 0; i < length; i++) {
        text[at++] = "0123456789abcdef"[digest[i] >> 4];
        text[at++] = "0123456789abcdef"[digest[i] & 15];
    }
    text[at] = '\0';
}

enum imc_fault imc_hasher_finish(struct imc_hasher *hasher, char text[IMC_DIGEST_TEXT]) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    if (EVP_DigestFinal_ex(hasher->context, digest, &length) != 1) {
        return IMC_CRYPTO;
    }
    imc_digest_text(hasher->algorithm, digest, length, text);
    return IMC_OK;
}

void imc_hasher_free(struct imc_hasher *hasher) {
    if (hasher != NULL) {
        EVP_MD_CTX_free(hasher->context);
        free(hasher);
    }
}

struct state {
    bool sealing;
    /* Each NULL where it is not wanted. */
    EVP_CIPHER_CTX *cipher;
    EVP_MAC_CTX *mac;
    struct imc_hasher *stored;
    struct imc_hasher *plain;
};

static void layer_wipe(void *opaque) {
    struct state *state = opaque;
    if (state == NULL) {
        return;
    }
    /* libcrypto cleanses key schedules and the keyed states of the HMAC in these. */
    EVP_CIPHER_CTX_free(state->cipher);
    EVP_MAC_CTX_free(state->mac);
    imc_hasher_free(state->stored);
    imc_hasher_free(state->plain);
    free(state);
}

static bool init_cipher(struct state *state, const struct imc_layer_config *config) {
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
    state->cipher = EVP_CIPHER_CTX_new();
    bool good = cipher != NULL && state->cipher != NULL &&
                EVP_CipherInit_ex2(state->cipher, cipher, config->key, config->nonce,
                                   config->sealing ? 1 : 0, NULL) == 1;
    EVP_CIPHER_free(cipher);
    return good;
}

static bool init_mac(struct state *state, const struct imc_layer_config *config) {
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    state->mac = mac == NULL ? NULL : EVP_MAC_CTX_new(mac);
    bool good =
        state->mac != NULL && EVP_MAC_init(state->mac, config->key, IMC_KEY_BYTES, parameters) == 1;
    EVP_MAC_free(mac);
    return good;
}

static enum imc_fault layer_init(const struct imc_layer_config *config, void **out) {
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return IMC_NO_MEMORY;
    }
    state->sealing = config->sealing;
    enum imc_fault fault = IMC_OK;
    if (config->stored_hash != NULL) {
        fault = imc_hasher_new(config->stored_hash, &state->stored);
    }
    if (fault == IMC_OK && config->plain_hash != NULL) {
        fault = imc_hasher_new(config->plain_hash, &state->plain);
    }
    if (fault == IMC_OK && config->has_cipher && !init_cipher(state, config)) {
        fault = IMC_CRYPTO;
    }
    if (fault == IMC_OK && config->has_mac && !init_mac(state, config)) {
        fault = IMC_CRYPTO;
    }
    if (fault != IMC_OK) {
        layer_wipe(state);
        return fault;
    }
    *out = state;
    return IMC_OK;
}

static enum imc_fault cipher_block(struct state *state, uint8_t *data, size_t length) {
    int written = 0;
    /* length is at most BLOCK, which an int holds. */
    if (EVP_CipherUpdate(state->cipher, data, &written, data, (int)length) != 1 ||
        written != (int)length) {
        return IMC_CRYPTO;
    }
    return IMC_OK;
}

static enum imc_fault step_if_any(struct imc_hasher *hasher, const uint8_t *data, size_t length) {
    return hasher == NULL ? IMC_OK : imc_hasher_step(hasher, data, length);
}

static enum imc_fault stored_block(struct state *state, const uint8_t *data, size_t length) {
    if (state->mac != NULL && EVP_MAC_update(state->mac, data, length) != 1) {
        return IMC_CRYPTO;
    }
    return step_if_any(state->stored, data, length);
}

static enum imc_fault plain_block(struct state *state, const uint8_t *data, size_t length) {
    return step_if_any(state->plain, data, length);
}

static enum imc_fault layer_step(void *opaque, uint8_t *data, size_t length) {
    struct state *state = opaque;
    for (size_t at = 0; at < length;) {
        uint8_t *block = data + at;
        size_t part = length - at < BLOCK ? length - at : BLOCK;
        enum imc_fault fault =
            state->sealing ? plain_block(state, block, part) : stored_block(state, block, part);
        if (fault == IMC_OK && state->cipher != NULL) {
            fault = cipher_block(state, block, part);
        }
        if (fault == IMC_OK) {
            fault =
                state->sealing ? stored_block(state, block, part) : plain_block(state, block, part);
        }
        if (fault != IMC_OK) {
            return fault;
        }
        at += part;
    }
    return IMC_OK;
}

static enum imc_fault layer_finish(void *opaque, struct imc_layer_sums *sums) {
    struct state *state = opaque;
    size_t length = 0;
    if (state->mac != NULL &&
        (EVP_MAC_final(state->mac, sums->hmac, &length, sizeof sums->hmac) != 1 ||
         length != sizeof sums->hmac)) {
        return IMC_CRYPTO;
    }
    enum imc_fault fault = IMC_OK;
    if (state->stored != NULL) {
        fault = imc_hasher_finish(state->stored, sums->stored);
    }
    if (fault == IMC_OK && state->plain != NULL) {
        fault = imc_hasher_finish(state->plain, sums->plain);
    }
    return fault;
}

static bool layer_usable(const struct imc_layer_config *config) {
    (void)config;
    return true;
}

const struct imc_layer_ops imc_layer_libcrypto = {
    .name = "libcrypto",
    .usable = layer_usable,
    .init = layer_init,
    .step = layer_step,
    .finish = layer_finish,
    .wipe = layer_wipe,
};
