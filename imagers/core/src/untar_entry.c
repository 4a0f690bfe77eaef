/* SPDX-License-Identifier: Apache-2.0 */
/* The entry at hand: its name in every failure, its place in the counts, what was made of it. */
#define _GNU_SOURCE
#include "untar_entry.h"

enum imc_fault imc_untar_fail(const struct imc_untar *untar, struct imc_failure *failure,
                              enum imc_fault fault, uint64_t number) {
    return imc_fail_text(failure, fault, untar->name, untar->name_length, NULL, 0, number, 0);
}

enum imc_fault imc_untar_fail_target(const struct imc_untar *untar, struct imc_failure *failure,
                                     enum imc_fault fault, const struct imc_entry *entry) {
    return imc_fail_text(failure, fault, untar->name, untar->name_length, entry->target,
                         entry->target_length, 0, 0);
}

enum imc_fault imc_untar_fail_errno(const struct imc_untar *untar, struct imc_failure *failure) {
    int code = errno;
    switch (code) {
    case ELOOP:
        return imc_untar_fail(untar, failure, IMC_ENTRY_LOOP, (uint64_t)code);
    case ENAMETOOLONG:
        return imc_untar_fail(untar, failure, IMC_ENTRY_LONG_COMPONENT, (uint64_t)code);
    case ENOTDIR:
        return imc_untar_fail(untar, failure, IMC_ENTRY_PARENT, (uint64_t)code);
    default:
        return imc_untar_fail(untar, failure, IMC_UNPACK, (uint64_t)code);
    }
}

enum imc_fault imc_untar_count(struct imc_untar *untar, struct imc_failure *failure) {
    untar->entries++;
    if (untar->entries > untar->max_entries) {
        return imc_fail(failure, IMC_ENTRIES, untar->max_entries, 0);
    }
    return IMC_OK;
}

enum imc_fault imc_untar_add_made(struct imc_untar *untar, const struct stat *directory,
                                  const char *name) {
    return imc_path_set_add(untar->made, (uint64_t)directory->st_dev, (uint64_t)directory->st_ino,
                            name, strlen(name));
}

bool imc_untar_is_made(const struct imc_untar *untar, const struct stat *directory,
                       const char *name) {
    return imc_path_set_has(untar->made, (uint64_t)directory->st_dev, (uint64_t)directory->st_ino,
                            name, strlen(name));
}

void imc_untar_leave_out(struct imc_untar *untar, enum imc_left kind, const char *attribute) {
    struct imc_left_out *left = &untar->left_out[kind];
    if (left->count++ > 0) {
        return;
    }
    size_t length = untar->name_length;
    left->name_length = length < IMC_FAILURE_TEXT ? length : IMC_FAILURE_TEXT;
    memcpy(left->name, untar->name, left->name_length);
    length = attribute == NULL ? 0 : strnlen(attribute, IMC_FAILURE_TEXT);
    left->attribute_length = length;
    if (length > 0) {
        memcpy(left->attribute, attribute, length);
    }
}
