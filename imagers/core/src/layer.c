/* SPDX-License-Identifier: Apache-2.0 */
/* The table of layer functions, and which entry of it a job uses. */
#include "impl.h"

#include <string.h>

/* Fastest first; the last one is the definition, and always usable. */
static const struct imc_layer_ops *const table[] = {
    &imc_layer_shani,
    &imc_layer_libcrypto,
};

#define ENTRIES (sizeof(table) / sizeof(table[0]))

const struct imc_layer_ops *imc_layer_pick(const struct imc_layer_config *config,
                                           const char *force) {
    bool known = force == NULL;
    for (size_t i = 0; i < ENTRIES; i++) {
        bool wanted = force == NULL || strcmp(force, table[i]->name) == 0;
        known = known || wanted;
        if (wanted && table[i]->usable(config)) {
            return table[i];
        }
    }
    return known ? &imc_layer_libcrypto : NULL;
}

const char *imc_layer_name(size_t index) {
    for (size_t i = 0; i < ENTRIES; i++) {
        if (table[i]->usable(NULL) && index-- == 0) {
            return table[i]->name;
        }
    }
    return NULL;
}
