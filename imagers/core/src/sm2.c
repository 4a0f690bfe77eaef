/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures by SM2 with SM3 (GB/T 32918.2, parameters of GB/T 32918.5), by libcrypto.
 *
 * The hash that is signed is over the message and Z, in which the signer's user id, the curve and
 * the public key are: libcrypto makes Z from the id that it is given.
 */
#include "imagers_core.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>

enum { POINT = 2 * IMC_SM2_NUMBER };

/* A key of an uncompressed point. IMC_OK with NULL: the point is none of the curve. */
static enum imc_fault key_of(const uint8_t *point, EVP_PKEY **key) {
    char group[] = "SM2";
    uint8_t encoded[1 + POINT] = {4}; /* SEC 1: uncompressed */
    for (size_t i = 0; i < POINT; i++) {
        encoded[1 + i] = point[i];
    }
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, encoded, sizeof encoded),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "SM2", NULL);
    bool works = context != NULL && EVP_PKEY_fromdata_init(context) == 1;
    if (works && EVP_PKEY_fromdata(context, key, EVP_PKEY_PUBLIC_KEY, parameters) != 1) {
        *key = NULL;
    }
    EVP_PKEY_CTX_free(context);
    return works ? IMC_OK : IMC_CRYPTO;
}

/* The signature as libcrypto takes it: DER of r and s, which the caller frees. */
static int der_of(const uint8_t *signature, uint8_t **der) {
    BIGNUM *r = BN_bin2bn(signature, IMC_SM2_NUMBER, NULL);
    BIGNUM *s = BN_bin2bn(signature + IMC_SM2_NUMBER, IMC_SM2_NUMBER, NULL);
    ECDSA_SIG *both = ECDSA_SIG_new();
    int length = -1;
    if (r == NULL || s == NULL || both == NULL || ECDSA_SIG_set0(both, r, s) != 1) {
        BN_free(r);
        BN_free(s);
    } else {
        length = i2d_ECDSA_SIG(both, der); /* which owns r and s now */
    }
    ECDSA_SIG_free(both);
    return length;
}

static enum imc_fault verify(EVP_PKEY *key, const struct imc_sm2 *signed_by, const uint8_t *der,
                             size_t der_length, bool *good) {
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    bool works = hash != NULL && context != NULL;
    if (works) {
        EVP_MD_CTX_set_pkey_ctx(hash, context); /* stays ours */
        /* libcrypto copies the id and only reads it; its length has been checked. */
        works = EVP_PKEY_CTX_set1_id(context, signed_by->user_id, (int)signed_by->user_id_length) ==
                    1 &&
                EVP_DigestVerifyInit_ex(hash, NULL, "SM3", NULL, NULL, key, NULL) == 1 &&
                EVP_DigestVerifyUpdate(hash, signed_by->message, signed_by->message_length) == 1;
    }
    /* Below 0 is, for instance, a number out of range: no less a "no". */
    *good = works && EVP_DigestVerifyFinal(hash, der, der_length) == 1;
    EVP_MD_CTX_free(hash);
    EVP_PKEY_CTX_free(context);
    return works ? IMC_OK : IMC_CRYPTO;
}

enum imc_fault imc_sm2_verify(const struct imc_sm2 *signed_by, bool *good) {
    *good = false;
    if (signed_by->user_id_length < 1 || signed_by->user_id_length > IMC_SM2_USER_ID) {
        return IMC_CRYPTO;
    }
    /* What libcrypto says on the way is not left to whoever asks it next in this thread. */
    ERR_set_mark();
    EVP_PKEY *key = NULL;
    uint8_t *der = NULL;
    enum imc_fault fault = key_of(signed_by->public_key, &key);
    if (fault == IMC_OK && key != NULL) {
        int length = der_of(signed_by->signature, &der);
        fault = length < 0 ? IMC_NO_MEMORY : verify(key, signed_by, der, (size_t)length, good);
    }
    OPENSSL_free(der);
    EVP_PKEY_free(key);
    ERR_pop_to_mark();
    return fault;
}
