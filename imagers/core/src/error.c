/* SPDX-License-Identifier: Apache-2.0 */
/* Faults with their facts, and their names. */
#include "impl.h"

#include <string.h>

static size_t copy_text(uint8_t *to, const void *from, size_t length) {
    if (from == NULL) {
        return 0;
    }
    size_t kept = length < IMC_FAILURE_TEXT ? length : IMC_FAILURE_TEXT;
    memcpy(to, from, kept);
    return kept;
}

enum imc_fault imc_fail_text(struct imc_failure *failure, enum imc_fault fault, const void *text,
                             size_t text_length, const void *more, size_t more_length,
                             uint64_t number, uint64_t other) {
    failure->fault = fault;
    failure->number = number;
    failure->other = other;
    failure->text_length = copy_text(failure->text, text, text_length);
    failure->more_length = copy_text(failure->more, more, more_length);
    return fault;
}

enum imc_fault imc_fail(struct imc_failure *failure, enum imc_fault fault, uint64_t number,
                        uint64_t other) {
    return imc_fail_text(failure, fault, NULL, 0, NULL, 0, number, other);
}

bool imc_is_of_data(enum imc_fault fault) {
    return fault >= IMC_NOT_GZIP && fault < IMC_UNPACK;
}

static const struct {
    enum imc_fault fault;
    const char *name;
} names[] = {
#define ROW(name)                                                                                  \
    { IMC_##name, #name }
    ROW(CANCELLED),
    ROW(NO_MEMORY),
    ROW(CRYPTO),
    ROW(READ),
    ROW(WRITE),
    ROW(KEEP),
    ROW(STORED_SHORT),
    ROW(STORED_LONG),
    ROW(STORED_DIGEST),
    ROW(TAG),
    ROW(DIFF_ID),
    ROW(CHANGED),
    ROW(NOT_GZIP),
    ROW(BAD_GZIP),
    ROW(SHORT_GZIP),
    ROW(GZIP_TRAILER),
    ROW(NOT_ZSTD),
    ROW(BAD_ZSTD),
    ROW(SHORT_ZSTD),
    ROW(ZSTD_TRAILER),
    ROW(ZSTD_WINDOW),
    ROW(TAR_BYTES),
    ROW(ENTRIES),
    ROW(NAME_BYTES),
    ROW(TAR_CHECKSUM),
    ROW(TAR_NUMBER),
    ROW(TAR_SHORT),
    ROW(TAR_LONE_ZERO),
    ROW(TAR_PAX),
    ROW(TAR_PAX_VALUE),
    ROW(TAR_PAX_GLOBAL),
    ROW(TAR_EXTENSION_TWICE),
    ROW(TAR_EXTENSION_SIZE),
    ROW(TAR_NUL),
    ROW(ENTRY_DOTDOT),
    ROW(ENTRY_ROOT),
    ROW(ENTRY_OWNER),
    ROW(ENTRY_TARGET),
    ROW(ENTRY_TARGET_DOTDOT),
    ROW(ENTRY_TARGET_DIRECTORY),
    ROW(ENTRY_WHITEOUT),
    ROW(ENTRY_PARENT),
    ROW(ENTRY_LOOP),
    ROW(ENTRY_LONG_COMPONENT),
    ROW(ENTRY_KIND),
    ROW(ENTRY_SPARSE),
    ROW(ENTRY_XATTR),
    ROW(ENTRY_XATTRS),
    ROW(ENTRY_SPARSE_MAP),
    ROW(ENTRY_EMPTY_TARGET),
    ROW(ENTRY_DEPTH),
    ROW(ENTRY_DEVICE),
    ROW(UNPACK),
#undef ROW
};

#define NAMES (sizeof(names) / sizeof(names[0]))

const char *imc_fault_name(enum imc_fault fault) {
    for (size_t i = 0; i < NAMES; i++) {
        if (names[i].fault == fault) {
            return names[i].name;
        }
    }
    return fault == IMC_OK ? "OK" : "?";
}

void imc_each_fault(void (*visit)(void *context, enum imc_fault fault), void *context) {
    for (size_t i = 0; i < NAMES; i++) {
        visit(context, names[i].fault);
    }
}
