/* The tar format: bytes in, entries out, no file touched.
 *
 *     0         100      108   116   124    136     148      156  157        257   265 ... 345 500
 *     name      mode     uid   gid   size   mtime   chksum   type linkname   magic         prefix
 *
 * What readers of tars understand differently is refused, because a layer that means two
 * things can be checked as one and run as the other. imagers/core/plain_tar.py is the
 * definition, down to the order in which faults are seen.
 *
 * Spec: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar
 * 1.35 manual, "Basic Tar Format" (long names, base-256 numbers).
 */
#include "impl.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK 512
#define MAX_EXTENSION ((uint64_t)1024 * 1024) /* bytes; Go's reader has the same */
#define MAX_OWNER UINT32_C(4294967294)        /* the last uint32 means "leave it" to chown(2) */
#define MAX_LENGTH_DIGITS 7                   /* of a record: MAX_EXTENSION has no more */

enum at { AT_HEADER, AT_EXTENSION, AT_DATA, AT_PADDING, AT_ENDED };

struct slice {
    const uint8_t *at; /* NULL: absent */
    size_t length;
};

struct imc_tar_reader {
    struct imc_untar *untar;
    uint64_t max_name_bytes;
    enum at at;
    uint64_t offset;    /* of the next byte in the tar */
    uint64_t header_at; /* offset of the last header */
    uint8_t block[BLOCK];
    size_t held;   /* bytes in `block` */
    uint64_t left; /* of extension, data or padding */
    uint64_t padding;
    bool had_zeros;
    uint8_t extension_type;
    uint8_t *extension; /* being read */
    size_t extension_length;
    /* Owned; what they say is for the next entry. */
    uint8_t *records;
    size_t records_length;
    bool has_records;
    uint8_t *long_name;
    size_t long_name_length;
    bool has_long_name;
    uint8_t *long_target;
    size_t long_target_length;
    bool has_long_target;
    char *name; /* max_name_bytes and a NUL, for the entry at hand; so is target */
    char *target;
};

enum imc_fault imc_tar_reader_new(struct imc_untar *untar, uint64_t max_name_bytes,
                                  struct imc_tar_reader **out) {
    struct imc_tar_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        return IMC_NO_MEMORY;
    }
    reader->untar = untar;
    reader->max_name_bytes = max_name_bytes;
    reader->name = malloc((size_t)max_name_bytes + 1);
    reader->target = malloc((size_t)max_name_bytes + 1);
    if (reader->name == NULL || reader->target == NULL) {
        imc_tar_reader_free(reader);
        return IMC_NO_MEMORY;
    }
    *out = reader;
    return IMC_OK;
}

static void forget_extensions(struct imc_tar_reader *reader) {
    free(reader->records);
    free(reader->long_name);
    free(reader->long_target);
    reader->records = reader->long_name = reader->long_target = NULL;
    reader->has_records = reader->has_long_name = reader->has_long_target = false;
}

void imc_tar_reader_free(struct imc_tar_reader *reader) {
    if (reader != NULL) {
        forget_extensions(reader);
        free(reader->extension);
        free(reader->name);
        free(reader->target);
        free(reader);
    }
}

static enum imc_fault bad(const struct imc_tar_reader *reader, struct imc_failure *failure,
                          enum imc_fault fault, const void *text, size_t length) {
    return imc_fail_text(failure, fault, text, length, NULL, 0, 0, reader->header_at);
}

/* Text up to the first NUL, or all of it. */
static struct slice text_of(const uint8_t *at, size_t length) {
    const uint8_t *end = memchr(at, 0, length);
    return (struct slice){at, end == NULL ? length : (size_t)(end - at)};
}

static bool is_blank(uint8_t byte) {
    return byte == ' ' || byte == 0;
}

/* A numeric field: octal, or base-256 where the first bit is set. False: neither, or no
 * int64. */
static bool number_of(const uint8_t *field, size_t length, int64_t *value) {
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

static enum imc_fault field(const struct imc_tar_reader *reader, const uint8_t *block, size_t at,
                            size_t length, const char *name, int64_t *value,
                            struct imc_failure *failure) {
    if (!number_of(block + at, length, value)) {
        return bad(reader, failure, IMC_TAR_NUMBER, name, strlen(name));
    }
    return IMC_OK;
}

/* The checksum, with bytes as unsigned or, as some old tars have it, signed numbers. */
static bool has_good_checksum(const uint8_t *block) {
    int64_t expected = 0;
    int64_t of_unsigned = 0;
    int64_t of_signed = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        uint8_t byte = i >= 148 && i < 156 ? ' ' : block[i];
        of_unsigned += byte;
        of_signed += byte > 127 ? byte - 256 : byte;
    }
    return number_of(block + 148, 8, &expected) &&
           (expected == of_unsigned || expected == of_signed);
}

struct record {
    struct slice name;
    struct slice value;
};

/* The next record at *at: `length SP name=value LF`, where length counts all of it. False:
 * malformed. */
static bool next_record(const uint8_t *records, size_t length, size_t *at, struct record *record) {
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
    record->name = (struct slice){name, name_length};
    record->value = (struct slice){equals + 1, body - name_length - 1};
    *at = start + size;
    return true;
}

static bool is_name(struct slice name, const char *text) {
    return name.length == strlen(text) && memcmp(name.at, text, name.length) == 0;
}

static bool starts_with(struct slice name, const char *text) {
    size_t length = strlen(text);
    return name.length >= length && memcmp(name.at, text, length) == 0;
}

/* The last record of that name; absent also where its value is empty, which takes it back:
 * POSIX, pax Extended Header. The records are known to be well-formed. */
static struct slice find_record(const struct imc_tar_reader *reader, const char *name) {
    struct slice found = {NULL, 0};
    struct record record;
    for (size_t at = 0; at < reader->records_length && reader->has_records;) {
        if (!next_record(reader->records, reader->records_length, &at, &record)) {
            break; /* unreachable: checked when they came */
        }
        if (is_name(record.name, name)) {
            found = record.value.length == 0 ? (struct slice){NULL, 0} : record.value;
        }
    }
    return found;
}

/* A global header: values for all later entries. Some readers apply them, some do not. */
static enum imc_fault check_global(const struct imc_tar_reader *reader, const uint8_t *records,
                                   size_t length, struct imc_failure *failure) {
    struct record record;
    for (size_t at = 0; at < length;) {
        if (!next_record(records, length, &at, &record)) {
            return bad(reader, failure, IMC_TAR_PAX, NULL, 0);
        }
    }
    for (size_t at = 0; at < length;) {
        next_record(records, length, &at, &record);
        if (!is_name(record.name, "comment")) {
            return bad(reader, failure, IMC_TAR_PAX_GLOBAL, record.name.at, record.name.length);
        }
    }
    return IMC_OK;
}

static enum imc_fault take_extension(struct imc_tar_reader *reader, struct imc_failure *failure) {
    uint8_t *payload = reader->extension;
    size_t length = reader->extension_length;
    bool twice = false;
    reader->extension = NULL; /* owned by this function from here on */
    switch (reader->extension_type) {
    case 'g': {
        enum imc_fault fault = check_global(reader, payload, length, failure);
        free(payload);
        return fault;
    }
    case 'x': {
        twice = reader->has_records;
        struct record record;
        for (size_t at = 0; !twice && at < length;) {
            if (!next_record(payload, length, &at, &record)) {
                free(payload);
                return bad(reader, failure, IMC_TAR_PAX, NULL, 0);
            }
        }
        if (!twice) {
            reader->records = payload;
            reader->records_length = length;
            reader->has_records = true;
            return IMC_OK;
        }
        break;
    }
    case 'L':
        twice = reader->has_long_name;
        if (!twice) {
            reader->long_name = payload;
            reader->long_name_length = text_of(payload, length).length;
            reader->has_long_name = true;
            return IMC_OK;
        }
        break;
    default:
        twice = reader->has_long_target;
        if (!twice) {
            reader->long_target = payload;
            reader->long_target_length = text_of(payload, length).length;
            reader->has_long_target = true;
            return IMC_OK;
        }
        break;
    }
    free(payload);
    return bad(reader, failure, IMC_TAR_EXTENSION_TWICE, NULL, 0);
}

/* The extension, the data or the padding is complete. */
static enum imc_fault end_of_part(struct imc_tar_reader *reader, struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    if (reader->at == AT_EXTENSION) {
        fault = take_extension(reader, failure);
    } else if (reader->at == AT_DATA) {
        fault = imc_untar_end(reader->untar, failure);
    }
    if (reader->at != AT_PADDING && reader->padding > 0) {
        reader->at = AT_PADDING;
        reader->left = reader->padding;
    } else {
        reader->at = AT_HEADER;
    }
    return fault;
}

static enum imc_fault expect(struct imc_tar_reader *reader, enum at at, uint64_t size,
                             struct imc_failure *failure) {
    reader->at = at;
    reader->left = size;
    reader->padding = (BLOCK - size % BLOCK) % BLOCK;
    return size == 0 ? end_of_part(reader, failure) : IMC_OK;
}

/* What would be lost if it were ignored. */
static enum imc_fault refuse_records(const struct imc_tar_reader *reader, struct slice name,
                                     struct imc_failure *failure) {
    static const char *const xattrs[] = {"SCHILY.xattr.", "LIBARCHIVE.xattr."};
    struct record record;
    for (size_t at = 0; at < reader->records_length && reader->has_records;) {
        if (!next_record(reader->records, reader->records_length, &at, &record)) {
            break; /* unreachable: checked when they came */
        }
        if (starts_with(record.name, "GNU.sparse.") ||
            starts_with(record.name, "SCHILY.realsize")) {
            return imc_fail_text(failure, IMC_ENTRY_SPARSE, name.at, name.length, NULL, 0, 0, 0);
        }
        struct slice xattr = {NULL, 0};
        for (size_t i = 0; i < 2; i++) {
            size_t start = strlen(xattrs[i]);
            if (starts_with(record.name, xattrs[i])) {
                xattr = (struct slice){record.name.at + start, record.name.length - start};
            }
        }
        if (starts_with(record.name, "RHT.security.")) {
            xattr = record.name;
        }
        if (xattr.at != NULL) {
            return imc_fail_text(failure, IMC_ENTRY_XATTR, name.at, name.length, xattr.at,
                                 xattr.length, 0, 0);
        }
        if (starts_with(record.name, "SCHILY.acl.")) {
            return imc_fail_text(failure, IMC_ENTRY_ACL, name.at, name.length, NULL, 0, 0, 0);
        }
    }
    return IMC_OK;
}

/* A decimal record in place of *value, if there is one. */
static enum imc_fault pax_number(const struct imc_tar_reader *reader, const char *name,
                                 int64_t *value, bool *too_large, struct imc_failure *failure) {
    struct slice text = find_record(reader, name);
    if (text.at == NULL) {
        return IMC_OK;
    }
    uint64_t number = 0;
    for (size_t i = 0; i < text.length; i++) {
        /* 19 digits are below 2**64. */
        if (text.at[i] < '0' || text.at[i] > '9' || text.length > 19) {
            return bad(reader, failure, IMC_TAR_PAX_VALUE, name, strlen(name));
        }
        number = number * 10 + (uint64_t)(text.at[i] - '0');
    }
    *too_large = number > INT64_MAX;
    *value = *too_large ? INT64_MAX : (int64_t)number;
    return IMC_OK;
}

/* `-?digits(.digits)?` as seconds and nanoseconds, the latter cut and never negative. */
static bool time_of(struct slice text, int64_t *seconds, uint32_t *nanoseconds) {
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

static enum imc_fault kind_of(uint8_t type, struct slice name, enum imc_kind *kind,
                              struct imc_failure *failure) {
    switch (type) {
    case 0:
        /* Before POSIX a name that ends in a slash was the only way to write a directory. */
        *kind = name.length > 0 && name.at[name.length - 1] == '/' ? IMC_DIRECTORY : IMC_FILE;
        return IMC_OK;
    case '0':
    case '7': /* a file that asks to be contiguous */
        *kind = IMC_FILE;
        return IMC_OK;
    case '1':
        *kind = IMC_HARD_LINK;
        return IMC_OK;
    case '2':
        *kind = IMC_SYMLINK;
        return IMC_OK;
    case '5':
        *kind = IMC_DIRECTORY;
        return IMC_OK;
    default:
        return imc_fail_text(failure, IMC_ENTRY_KIND, name.at, name.length, NULL, 0, type, 0);
    }
}

/* Name and target of the entry, copied so that nothing else is needed for them. */
static enum imc_fault take_names(struct imc_tar_reader *reader, const uint8_t *block,
                                 struct slice *name, struct slice *target,
                                 struct imc_failure *failure) {
    uint8_t joined[100 + 1 + 155];
    *name = text_of(block, 100);
    /* POSIX ustar only: GNU keeps times where the prefix would be. */
    if (memcmp(block + 257, "ustar", 6) == 0) {
        struct slice prefix = text_of(block + 345, 155);
        if (prefix.length > 0) {
            memcpy(joined, prefix.at, prefix.length);
            joined[prefix.length] = '/';
            memcpy(joined + prefix.length + 1, name->at, name->length);
            *name = (struct slice){joined, prefix.length + 1 + name->length};
        }
    }
    *target = text_of(block + 157, 100);
    struct slice path = find_record(reader, "path");
    struct slice linkpath = find_record(reader, "linkpath");
    if ((path.at != NULL && reader->has_long_name) ||
        (linkpath.at != NULL && reader->has_long_target)) {
        return bad(reader, failure, IMC_TAR_EXTENSION_TWICE, NULL, 0);
    }
    if (reader->has_long_name) {
        *name = (struct slice){reader->long_name, reader->long_name_length};
    } else if (path.at != NULL) {
        *name = path;
    }
    if (reader->has_long_target) {
        *target = (struct slice){reader->long_target, reader->long_target_length};
    } else if (linkpath.at != NULL) {
        *target = linkpath;
    }
    if (memchr(name->at, 0, name->length) != NULL ||
        memchr(target->at, 0, target->length) != NULL) {
        return bad(reader, failure, IMC_TAR_NUL, NULL, 0);
    }
    struct slice both[2] = {*name, *target};
    for (size_t i = 0; i < 2; i++) {
        if (both[i].length > reader->max_name_bytes) {
            return imc_fail_text(failure, IMC_NAME_BYTES, both[i].at, both[i].length, NULL, 0,
                                 reader->max_name_bytes, 0);
        }
    }
    memcpy(reader->name, name->at, name->length);
    reader->name[name->length] = '\0';
    memcpy(reader->target, target->at, target->length);
    reader->target[target->length] = '\0';
    *name = (struct slice){(const uint8_t *)reader->name, name->length};
    *target = (struct slice){(const uint8_t *)reader->target, target->length};
    return IMC_OK;
}

/* Owner, size and time, with the records that stand in for them. */
static enum imc_fault take_numbers(const struct imc_tar_reader *reader, const uint8_t *block,
                                   struct slice name, struct imc_entry *entry,
                                   struct imc_failure *failure) {
    static const struct {
        const char *name;
        size_t at;
        size_t length;
    } fields[] = {{"uid", 108, 8}, {"gid", 116, 8}, {"size", 124, 12}};
    int64_t mode = 0;
    int64_t values[3] = {0, 0, 0};
    bool too_large[3] = {false, false, false};
    enum imc_fault fault = field(reader, block, 100, 8, "mode", &mode, failure);
    for (size_t i = 0; fault == IMC_OK && i < 3; i++) {
        fault = field(reader, block, fields[i].at, fields[i].length, fields[i].name, &values[i],
                      failure);
        if (fault == IMC_OK) {
            fault = pax_number(reader, fields[i].name, &values[i], &too_large[i], failure);
        }
    }
    if (fault == IMC_OK) {
        fault = field(reader, block, 136, 12, "mtime", &entry->mtime, failure);
    }
    if (fault != IMC_OK) {
        return fault;
    }
    struct slice mtime = find_record(reader, "mtime");
    if (mtime.at != NULL && !time_of(mtime, &entry->mtime, &entry->mtime_nanoseconds)) {
        return bad(reader, failure, IMC_TAR_PAX_VALUE, "mtime", strlen("mtime"));
    }
    if (values[2] < 0 || too_large[2]) {
        return bad(reader, failure, IMC_TAR_NUMBER, "size", strlen("size"));
    }
    for (size_t i = 0; i < 2; i++) {
        if (values[i] < 0 || values[i] > MAX_OWNER) {
            return imc_fail_text(failure, IMC_ENTRY_OWNER, name.at, name.length, NULL, 0, 0, 0);
        }
    }
    entry->mode = (uint32_t)(mode & 07777);
    entry->uid = (uint32_t)values[0];
    entry->gid = (uint32_t)values[1];
    entry->size = (uint64_t)values[2];
    return IMC_OK;
}

static enum imc_fault take_entry(struct imc_tar_reader *reader, struct imc_failure *failure) {
    const uint8_t *block = reader->block;
    struct slice name;
    struct slice target;
    struct imc_entry entry = {.kind = IMC_FILE};
    enum imc_fault fault = take_names(reader, block, &name, &target, failure);
    if (fault == IMC_OK) {
        fault = refuse_records(reader, name, failure);
    }
    if (fault == IMC_OK) {
        fault = take_numbers(reader, block, name, &entry, failure);
    }
    if (fault == IMC_OK) {
        fault = kind_of(block[156], name, &entry.kind, failure);
    }
    forget_extensions(reader);
    if (fault != IMC_OK) {
        return fault;
    }
    entry.name = reader->name;
    entry.name_length = name.length;
    entry.target = reader->target;
    entry.target_length = target.length;
    if (entry.kind != IMC_FILE) {
        /* Only files have data, whatever the field says: Go's and Python's readers agree. */
        entry.size = 0;
    }
    fault = imc_untar_begin(reader->untar, &entry, failure);
    return fault == IMC_OK ? expect(reader, AT_DATA, entry.size, failure) : fault;
}

static bool has_pending(const struct imc_tar_reader *reader) {
    return reader->has_records || reader->has_long_name || reader->has_long_target;
}

static enum imc_fault take_header(struct imc_tar_reader *reader, struct imc_failure *failure) {
    const uint8_t *block = reader->block;
    bool zeros = block[0] == 0 && memcmp(block, block + 1, BLOCK - 1) == 0;
    if (zeros) {
        if (reader->had_zeros) {
            if (has_pending(reader)) {
                return imc_fail(failure, IMC_TAR_SHORT, 0, 0);
            }
            /* The rest is covered by the diff_id, and ignored. */
            reader->at = AT_ENDED;
        }
        reader->had_zeros = true;
        return IMC_OK;
    }
    if (reader->had_zeros) {
        return bad(reader, failure, IMC_TAR_LONE_ZERO, NULL, 0);
    }
    if (!has_good_checksum(block)) {
        return bad(reader, failure, IMC_TAR_CHECKSUM, NULL, 0);
    }
    uint8_t type = block[156];
    if (type != 'x' && type != 'g' && type != 'L' && type != 'K') {
        return take_entry(reader, failure);
    }
    int64_t size = 0;
    enum imc_fault fault = field(reader, block, 124, 12, "size", &size, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    if (size < 0 || (uint64_t)size > MAX_EXTENSION) {
        return imc_fail(failure, IMC_TAR_EXTENSION_SIZE, MAX_EXTENSION, reader->header_at);
    }
    free(reader->extension);
    reader->extension = malloc((size_t)size + 1); /* never a malloc of nothing */
    if (reader->extension == NULL) {
        return IMC_NO_MEMORY;
    }
    reader->extension_type = type;
    reader->extension_length = 0;
    return expect(reader, AT_EXTENSION, (uint64_t)size, failure);
}

enum imc_fault imc_tar_reader_step(struct imc_tar_reader *reader, const uint8_t *data,
                                   size_t length, struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    for (size_t at = 0; fault == IMC_OK && at < length && reader->at != AT_ENDED;) {
        size_t rest = length - at;
        if (reader->at == AT_HEADER) {
            size_t part = BLOCK - reader->held < rest ? BLOCK - reader->held : rest;
            memcpy(reader->block + reader->held, data + at, part);
            reader->held += part;
            at += part;
            if (reader->held == BLOCK) {
                reader->held = 0;
                reader->header_at = reader->offset;
                reader->offset += BLOCK;
                fault = take_header(reader, failure);
            }
            continue;
        }
        size_t part = reader->left < rest ? (size_t)reader->left : rest;
        if (reader->at == AT_EXTENSION) {
            memcpy(reader->extension + reader->extension_length, data + at, part);
            reader->extension_length += part;
        } else if (reader->at == AT_DATA) {
            fault = imc_untar_data(reader->untar, data + at, part, failure);
        }
        at += part;
        reader->left -= part;
        reader->offset += part;
        if (fault == IMC_OK && reader->left == 0) {
            fault = end_of_part(reader, failure);
        }
    }
    return fault;
}

enum imc_fault imc_tar_reader_finish(struct imc_tar_reader *reader, struct imc_failure *failure) {
    bool between = reader->at == AT_HEADER || reader->at == AT_ENDED;
    if (!between || reader->held > 0 || has_pending(reader)) {
        return imc_fail(failure, IMC_TAR_SHORT, 0, 0);
    }
    return imc_untar_finish(reader->untar, failure);
}
