/* SPDX-License-Identifier: Apache-2.0 */
/* KMAC256 (NIST SP 800-185, section 4) by libcrypto. */
#include "imagers_core.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>

enum imc_fault imc_kmac256(const struct imc_kmac *input, uint8_t *out, size_t length) {
    if (input->key_length < IMC_KMAC_KEY_MIN || input->key_length > IMC_KMAC_BYTES ||
        input->customization_length > IMC_KMAC_BYTES || length < 1 || length > IMC_KMAC_BYTES) {
        return IMC_CRYPTO;
    }
    ERR_set_mark();
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &length),
        /* Read only, in spite of the type. Not given where empty: libcrypto refuses that. */
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_CUSTOM,
                                          (void *)(uintptr_t)input->customization,
                                          input->customization_length),
        OSSL_PARAM_construct_end(),
    };
    if (input->customization_length == 0) {
        parameters[1] = OSSL_PARAM_construct_end();
    }
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "KMAC-256", NULL);
    EVP_MAC_CTX *context = mac == NULL ? NULL : EVP_MAC_CTX_new(mac);
    size_t written = 0;
    /* Freeing the context cleanses the key in it. */
    bool good = context != NULL &&
                EVP_MAC_init(context, input->key, input->key_length, parameters) == 1 &&
                EVP_MAC_update(context, input->data, input->data_length) == 1 &&
                EVP_MAC_final(context, out, &written, length) == 1 && written == length;
    EVP_MAC_CTX_free(context);
    EVP_MAC_free(mac);
    ERR_pop_to_mark();
    return good ? IMC_OK : IMC_CRYPTO;
}
