/* SPDX-License-Identifier: Apache-2.0 */
/* What headers of a tar are made of: numeric fields, and the records of extended headers.
 *
 * Spec: POSIX.1-2017, pax, "pax Extended Header"; GNU tar 1.35 manual, "Basic Tar Format"
 * (base-256 numbers). imagers/core/plain_tar.py is the definition.
 */
#include "tar_impl.h"

#include <string.h>

#define MAX_LENGTH_DIGITS 7       /* of a record: of an extended header of 1 MiB */
#define MAX_ATTRIBUTE_NAME 255    /* XATTR_NAME_MAX of Linux */
#define MAX_ATTRIBUTE_BYTES 65536 /* XATTR_SIZE_MAX */

static bool is_blank(uint8_t byte) {
    return byte == ' ' || byte == 0;
}

bool imc_number_of(const uint8_t *field, size_t length, int64_t *value) {
    if ((field[0] & 0x80) != 0) {
        bool negative = (field[0] & 0x40) != 0;
        /* Two's complement; the first bit is the mark and the second one the sign. */
        uint64_t bits = negative ? UINT64_MAX : 0;
        for (size_t i = 0; i < length; i++) {
            uint8_t byte = field[i];
            if (i == 0) {
                byte = negative ? (byte | 0x80) : (byte & 0x7F);
            }
            /* What is shifted out must be copies of the sign, and the new top bit too. */
            uint64_t top = bits >> 55;
            if (top != (negative ? UINT64_C(0x1FF) : 0)) {
                return false;
            }
            bits = bits << 8 | byte;
        }
        if ((bits >> 63 != 0) != negative) {
            return false;
        }
        *value = (int64_t)bits; /* two's complement on every compiler that builds this */
        return true;
    }
    size_t start = 0;
    size_t end = length;
    while (start < end && is_blank(field[start])) {
        start++;
    }
    while (end > start && is_blank(field[end - 1])) {
        end--;
    }
    int64_t octal = 0;
    for (size_t i = start; i < end; i++) {
        if (field[i] < '0' || field[i] > '7') {
            return false;
        }
        octal = octal * 8 + (field[i] - '0'); /* 12 digits are 36 bits */
    }
    *value = octal;
    return true;
}

/* The next record at *at: `length SP name=value LF`, where length counts all of it. False:
 * malformed. */
bool imc_next_record(struct imc_slice all, size_t *at, struct imc_record *record) {
    const uint8_t *records = all.at;
    size_t length = all.length;
    size_t start = *at;
    size_t digits = 0;
    size_t size = 0;
    while (start + digits < length && digits < MAX_LENGTH_DIGITS &&
           records[start + digits] >= '0' && records[start + digits] <= '9') {
        size = size * 10 + (size_t)(records[start + digits] - '0');
        digits++;
    }
    if (digits == 0 || start + digits >= length || records[start + digits] != ' ') {
        return false;
    }
    if (size > length - start || size < digits + 2 || records[start + size - 1] != '\n') {
        return false;
    }
    const uint8_t *name = records + start + digits + 1;
    size_t body = size - digits - 2; /* without the space and the line feed */
    const uint8_t *equals = memchr(name, '=', body);
    if (equals == NULL || equals == name) {
        return false;
    }
    size_t name_length = (size_t)(equals - name);
    if (memchr(name, 0, name_length) != NULL) {
        return false;
    }
    record->name = (struct imc_slice){name, name_length};
    record->value = (struct imc_slice){equals + 1, body - name_length - 1};
    *at = start + size;
    return true;
}

bool imc_slice_is(struct imc_slice name, const char *text) {
    return name.length == strlen(text) && memcmp(name.at, text, name.length) == 0;
}

bool imc_slice_starts(struct imc_slice name, const char *text) {
    size_t length = strlen(text);
    return name.length >= length && memcmp(name.at, text, length) == 0;
}

struct imc_slice imc_find_record(struct imc_slice records, const char *name) {
    struct imc_slice found = {NULL, 0};
    struct imc_record record;
    for (size_t at = 0; at < records.length;) {
        if (!imc_next_record(records, &at, &record)) {
            break; /* unreachable: checked when they came */
        }
        if (imc_slice_is(record.name, name)) {
            found = record.value.length == 0 ? (struct imc_slice){NULL, 0} : record.value;
        }
    }
    return found;
}

bool imc_decimal_of(struct imc_slice text, uint64_t *value) {
    uint64_t number = 0;
    if (text.length == 0 || text.length > 19) {
        return false;
    }
    for (size_t i = 0; i < text.length; i++) {
        if (text.at[i] < '0' || text.at[i] > '9') {
            return false;
        }
        number = number * 10 + (uint64_t)(text.at[i] - '0');
    }
    *value = number;
    return true;
}

bool imc_time_of(struct imc_slice text, int64_t *seconds, uint32_t *nanoseconds) {
    size_t at = 0;
    bool negative = text.length > 0 && text.at[0] == '-';
    if (negative) {
        at++;
    }
    size_t start = at;
    int64_t whole = 0;
    while (at < text.length && text.at[at] >= '0' && text.at[at] <= '9') {
        if (at - start == 18) { /* digits, which an int64 holds */
            return false;
        }
        whole = whole * 10 + (text.at[at++] - '0');
    }
    if (at == start) {
        return false;
    }
    uint32_t fraction = 0;
    if (at < text.length) {
        if (text.at[at++] != '.') {
            return false;
        }
        uint32_t unit = 100000000;
        for (; at < text.length; at++, unit /= 10) {
            if (text.at[at] < '0' || text.at[at] > '9') {
                return false;
            }
            fraction += (uint32_t)(text.at[at] - '0') * unit;
        }
    }
    *seconds = negative ? -whole : whole;
    *nanoseconds = fraction;
    if (negative && fraction > 0) {
        *seconds -= 1;
        *nanoseconds = 1000000000 - fraction;
    }
    return true;
}

/* Puts an attribute in, or its later value; `value` is NULL for what is never set. */
static enum imc_fault put(struct imc_attribute *found, size_t *count, struct imc_slice name,
                          struct imc_slice value) {
    for (size_t i = 0; i < *count; i++) {
        if (found[i].name_length == name.length &&
            memcmp(found[i].name, name.at, name.length) == 0) {
            if (value.at != NULL) {
                found[i].value = value.at;
                found[i].value_length = value.length;
            }
            return IMC_OK;
        }
    }
    if (*count == MAX_ATTRIBUTES) {
        return IMC_ENTRY_XATTRS;
    }
    found[(*count)++] = (struct imc_attribute){.name = (const char *)name.at,
                                               .name_length = name.length,
                                               .value = value.at,
                                               .value_length = value.length};
    return IMC_OK;
}

static struct imc_slice behind(struct imc_slice name, const char *start) {
    size_t length = strlen(start);
    return (struct imc_slice){name.at + length, name.length - length};
}

enum imc_fault imc_find_attributes(struct imc_slice records, struct imc_attribute *found,
                                   size_t *count, struct imc_slice *more) {
    static const char schily[] = "SCHILY.xattr.";
    static const char libarchive[] = "LIBARCHIVE.xattr.";
    static const struct imc_slice none = {NULL, 0};
    struct imc_record record;
    enum imc_fault fault = IMC_OK;
    *count = 0;
    /* An empty value is a value here: so GNU tar writes an empty attribute. */
    for (size_t at = 0; fault == IMC_OK && at < records.length;) {
        imc_next_record(records, &at, &record); /* well-formed: checked when they came */
        if (imc_slice_starts(record.name, schily)) {
            *more = behind(record.name, schily);
            if (more->length == 0 || more->length > MAX_ATTRIBUTE_NAME ||
                record.value.length > MAX_ATTRIBUTE_BYTES) {
                return IMC_ENTRY_XATTR;
            }
            fault = put(found, count, *more, record.value);
        }
    }
    for (size_t at = 0; fault == IMC_OK && at < records.length;) {
        imc_next_record(records, &at, &record);
        if (imc_slice_starts(record.name, libarchive)) {
            /* libarchive writes both, and engines read only the other one. */
            fault = put(found, count, behind(record.name, libarchive), none);
        } else if (imc_slice_starts(record.name, "RHT.security.")) {
            /* GNU tar and star, beside the other one. */
            fault = put(found, count, behind(record.name, "RHT."), none);
        } else if (imc_slice_starts(record.name, "SCHILY.acl.")) {
            fault = put(found, count, record.name, none);
        }
    }
    return fault;
}
