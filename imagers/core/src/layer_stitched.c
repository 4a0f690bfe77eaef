/* SPDX-License-Identifier: Apache-2.0 */
/* The entry "shani" of the table: imagers' layers through the stitched kernels of layer_shani.c.
 *
 * They do SHA-256 and the HMAC of a cipher, with it or without: a layer that has none, another
 * digest, or no need of these is libcrypto's.
 */
#include "impl.h"
#include "layer_kernel.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool supported; /* written before `once` is through, and never after */

static void ask_cpu(void) {
    supported = imc_shani_is_supported();
}

static bool is_sha256(const char *digest) {
    return strncmp(digest, "sha256:", 7) == 0;
}

static bool usable(const struct imc_layer_config *config) {
    pthread_once(&once, ask_cpu); /* CPUID leaves a virtual machine: once a process */
    if (!supported || config == NULL) {
        return supported;
    }
    return config->has_mac && config->stored_hash != NULL && is_sha256(config->stored_hash) &&
           (config->plain_hash == NULL || (config->has_cipher && is_sha256(config->plain_hash)));
}

#if defined(__x86_64__)

static const struct imc_kernel *const kernel = &imc_kernel_shani;

struct state {
    struct imc_kernel_state kernel;
    bool has_plain;
};

static void layer_wipe(void *opaque) {
    struct state *state = opaque;
    if (state != NULL) {
        kernel->wipe(&state->kernel);
        free(state);
    }
}

static enum imc_fault layer_init(const struct imc_layer_config *config, void **out) {
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return IMC_NO_MEMORY;
    }
    state->has_plain = config->plain_hash != NULL;
    enum imc_direction direction = !config->has_cipher ? IMC_CHECK
                                   : config->sealing   ? IMC_SEAL
                                                       : IMC_OPEN;
    if (!kernel->init(&state->kernel, config->key, config->nonce, direction, state->has_plain)) {
        layer_wipe(state);
        return IMC_CRYPTO; /* unreachable: it gives true */
    }
    *out = state;
    return IMC_OK;
}

static enum imc_fault layer_step(void *opaque, uint8_t *data, size_t length) {
    struct state *state = opaque;
    return kernel->update(&state->kernel, data, data, length) ? IMC_OK : IMC_CRYPTO;
}

static enum imc_fault layer_finish(void *opaque, struct imc_layer_sums *sums) {
    struct state *state = opaque;
    uint8_t stored[IMC_LAYER_DIGEST_BYTES];
    uint8_t plain[IMC_LAYER_DIGEST_BYTES];
    if (!kernel->final(&state->kernel, stored, sums->hmac, plain)) {
        return IMC_CRYPTO;
    }
    imc_digest_text("sha256", stored, sizeof stored, sums->stored);
    if (state->has_plain) {
        imc_digest_text("sha256", plain, sizeof plain, sums->plain);
    }
    return IMC_OK;
}

const struct imc_layer_ops imc_layer_shani = {
    .name = "shani",
    .usable = usable,
    .init = layer_init,
    .step = layer_step,
    .finish = layer_finish,
    .wipe = layer_wipe,
};

#else

const struct imc_layer_ops imc_layer_shani = {.name = "shani", .usable = usable};

#endif
