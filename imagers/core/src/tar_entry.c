/* SPDX-License-Identifier: Apache-2.0 */
/* What a header says of an entry, with the records and long names that stand before it. */
#include "tar_impl.h"

#include <string.h>

#define MAX_OWNER UINT32_C(4294967294) /* the last uint32 means "leave it" to chown(2) */
#define MAX_MAJOR 0xFFF                /* dev_t of Linux, linux/kdev_t.h */
#define MAX_MINOR 0xFFFFF

enum imc_fault imc_tar_bad(const struct imc_tar_reader *reader, struct imc_failure *failure,
                           enum imc_fault fault, const void *text, size_t length) {
    return imc_fail_text(failure, fault, text, length, NULL, 0, 0, reader->header_at);
}

enum imc_fault imc_tar_bad_entry(const struct imc_tar_reader *reader, struct imc_failure *failure,
                                 enum imc_fault fault, uint64_t number) {
    return imc_fail_text(failure, fault, reader->name, reader->name_length, NULL, 0, number, 0);
}

struct imc_slice imc_tar_text_of(const uint8_t *at, size_t length) {
    const uint8_t *end = memchr(at, 0, length);
    return (struct imc_slice){at, end == NULL ? length : (size_t)(end - at)};
}

enum imc_fault imc_tar_field(const struct imc_tar_reader *reader, const uint8_t *block, size_t at,
                             size_t length, const char *name, int64_t *value,
                             struct imc_failure *failure) {
    if (!imc_number_of(block + at, length, value)) {
        return imc_tar_bad(reader, failure, IMC_TAR_NUMBER, name, strlen(name));
    }
    return IMC_OK;
}

/* A decimal record in place of *value, if there is one. */
static enum imc_fault pax_number(const struct imc_tar_reader *reader, struct imc_slice records,
                                 const char *name, int64_t *value, bool *too_large,
                                 struct imc_failure *failure) {
    struct imc_slice text = imc_find_record(records, name);
    uint64_t number;
    if (text.at == NULL) {
        return IMC_OK;
    }
    if (!imc_decimal_of(text, &number)) {
        return imc_tar_bad(reader, failure, IMC_TAR_PAX_VALUE, name, strlen(name));
    }
    *too_large = number > INT64_MAX;
    *value = *too_large ? INT64_MAX : (int64_t)number;
    return IMC_OK;
}

static enum imc_fault kind_of(const struct imc_tar_reader *reader, uint8_t type,
                              enum imc_kind *kind, struct imc_failure *failure) {
    size_t length = reader->name_length;
    if (type == 0 && length > 0 && reader->name[length - 1] == '/') {
        *kind = IMC_DIRECTORY; /* before POSIX there was no other way to write one */
    } else if (type == 0 || type == '0' || type == '7' || type == 'S') {
        *kind = IMC_FILE; /* 7 asks to be contiguous, S is a sparse one */
    } else if (type >= '1' && type <= '6') {
        *kind = (enum imc_kind)(type - '0');
    } else {
        return imc_tar_bad_entry(reader, failure, IMC_ENTRY_KIND, type);
    }
    return IMC_OK;
}

/* Name and target of the entry, copied so that nothing else is needed for them. */
static enum imc_fault take_names(struct imc_tar_reader *reader, const uint8_t *block,
                                 struct imc_slice records, size_t *target_length,
                                 struct imc_failure *failure) {
    uint8_t joined[100 + 1 + 155];
    struct imc_slice name = imc_tar_text_of(block, 100);
    /* POSIX ustar only: GNU keeps times where the prefix would be. */
    if (memcmp(block + 257, "ustar", 6) == 0) {
        struct imc_slice prefix = imc_tar_text_of(block + 345, 155);
        if (prefix.length > 0) {
            memcpy(joined, prefix.at, prefix.length);
            joined[prefix.length] = '/';
            memcpy(joined + prefix.length + 1, name.at, name.length);
            name = (struct imc_slice){joined, prefix.length + 1 + name.length};
        }
    }
    struct imc_slice target = imc_tar_text_of(block + 157, 100);
    /* Of a sparse file; the other one is for those who do not know sparse files. */
    struct imc_slice path = imc_find_record(records, "GNU.sparse.name");
    if (path.at == NULL) {
        path = imc_find_record(records, "path");
    }
    struct imc_slice linkpath = imc_find_record(records, "linkpath");
    if ((path.at != NULL && reader->has_long_name) ||
        (linkpath.at != NULL && reader->has_long_target)) {
        return imc_tar_bad(reader, failure, IMC_TAR_EXTENSION_TWICE, NULL, 0);
    }
    if (reader->has_long_name) {
        name = (struct imc_slice){reader->long_name, reader->long_name_length};
    } else if (path.at != NULL) {
        name = path;
    }
    if (reader->has_long_target) {
        target = (struct imc_slice){reader->long_target, reader->long_target_length};
    } else if (linkpath.at != NULL) {
        target = linkpath;
    }
    if (memchr(name.at, 0, name.length) != NULL || memchr(target.at, 0, target.length) != NULL) {
        return imc_tar_bad(reader, failure, IMC_TAR_NUL, NULL, 0);
    }
    struct imc_slice both[2] = {name, target};
    for (size_t i = 0; i < 2; i++) {
        if (both[i].length > reader->max_name_bytes) {
            return imc_fail_text(failure, IMC_NAME_BYTES, both[i].at, both[i].length, NULL, 0,
                                 reader->max_name_bytes, 0);
        }
    }
    memcpy(reader->name, name.at, name.length);
    reader->name[name.length] = '\0';
    reader->name_length = name.length;
    memcpy(reader->target, target.at, target.length);
    reader->target[target.length] = '\0';
    *target_length = target.length;
    return IMC_OK;
}

/* Owner, size and time, with the records that stand in for them. */
static enum imc_fault take_numbers(const struct imc_tar_reader *reader, const uint8_t *block,
                                   struct imc_slice records, struct imc_entry *entry,
                                   struct imc_failure *failure) {
    static const struct {
        const char *name;
        size_t at;
        size_t length;
    } fields[] = {{"uid", 108, 8}, {"gid", 116, 8}, {"size", 124, 12}};
    int64_t mode = 0;
    int64_t values[3] = {0, 0, 0};
    bool too_large[3] = {false, false, false};
    enum imc_fault fault = imc_tar_field(reader, block, 100, 8, "mode", &mode, failure);
    for (size_t i = 0; fault == IMC_OK && i < 3; i++) {
        fault = imc_tar_field(reader, block, fields[i].at, fields[i].length, fields[i].name,
                              &values[i], failure);
        if (fault == IMC_OK) {
            fault = pax_number(reader, records, fields[i].name, &values[i], &too_large[i], failure);
        }
    }
    if (fault == IMC_OK) {
        fault = imc_tar_field(reader, block, 136, 12, "mtime", &entry->mtime, failure);
    }
    if (fault != IMC_OK) {
        return fault;
    }
    struct imc_slice mtime = imc_find_record(records, "mtime");
    if (mtime.at != NULL && !imc_time_of(mtime, &entry->mtime, &entry->mtime_nanoseconds)) {
        return imc_tar_bad(reader, failure, IMC_TAR_PAX_VALUE, "mtime", strlen("mtime"));
    }
    if (values[2] < 0 || too_large[2]) {
        return imc_tar_bad(reader, failure, IMC_TAR_NUMBER, "size", strlen("size"));
    }
    for (size_t i = 0; i < 2; i++) {
        if (values[i] < 0 || values[i] > MAX_OWNER) {
            return imc_tar_bad_entry(reader, failure, IMC_ENTRY_OWNER, 0);
        }
    }
    entry->mode = (uint32_t)(mode & 07777);
    entry->uid = (uint32_t)values[0];
    entry->gid = (uint32_t)values[1];
    entry->size = (uint64_t)values[2];
    return IMC_OK;
}

static enum imc_fault take_device(const struct imc_tar_reader *reader, const uint8_t *block,
                                  struct imc_entry *entry, struct imc_failure *failure) {
    int64_t major;
    int64_t minor;
    enum imc_fault fault = imc_tar_field(reader, block, 329, 8, "devmajor", &major, failure);
    if (fault == IMC_OK) {
        fault = imc_tar_field(reader, block, 337, 8, "devminor", &minor, failure);
    }
    if (fault != IMC_OK) {
        return fault;
    }
    if (major < 0 || major > MAX_MAJOR || minor < 0 || minor > MAX_MINOR) {
        /* mknod(2) would make another one of it. */
        return imc_tar_bad_entry(reader, failure, IMC_ENTRY_DEVICE, 0);
    }
    entry->major = (uint32_t)major;
    entry->minor = (uint32_t)minor;
    return IMC_OK;
}

enum imc_fault imc_tar_take_fields(struct imc_tar_reader *reader, const uint8_t *fields,
                                   size_t count, struct imc_failure *failure) {
    const char *name = "";
    enum imc_fault fault = imc_sparse_take_fields(&reader->map, fields, count, &name);
    if (fault == IMC_TAR_NUMBER) {
        return imc_tar_bad(reader, failure, fault, name, strlen(name));
    }
    return fault == IMC_OK ? IMC_OK : imc_tar_bad_entry(reader, failure, fault, 0);
}

/* Takes the map of an old header, if it is one. *continued: more of the map follows. */
static enum imc_fault check_sparse(struct imc_tar_reader *reader, const uint8_t *block,
                                   enum imc_kind kind, bool *continued,
                                   struct imc_failure *failure) {
    int64_t size;
    if (block[156] != 'S') {
        *continued = reader->is_sparse && reader->map.is_in_data;
        return reader->is_sparse && kind != IMC_FILE
                   ? imc_tar_bad_entry(reader, failure, IMC_ENTRY_SPARSE_MAP, 0)
                   : IMC_OK;
    }
    if (reader->is_sparse) {
        return imc_tar_bad_entry(reader, failure, IMC_ENTRY_SPARSE_MAP, 0);
    }
    if (memcmp(block + 257, "ustar  ", 8) != 0) { /* star has an S of its own */
        return imc_tar_bad_entry(reader, failure, IMC_ENTRY_SPARSE, 0);
    }
    enum imc_fault fault = imc_tar_field(reader, block, 483, 12, "realsize", &size, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    if (size < 0) {
        return imc_tar_bad_entry(reader, failure, IMC_ENTRY_SPARSE_MAP, 0);
    }
    reader->is_sparse = true;
    reader->map.size = (uint64_t)size;
    *continued = block[482] != 0;
    return imc_tar_take_fields(reader, block + 386, 4, failure);
}

/* What its extended header says of an entry; the attributes get their NULs. */
static enum imc_fault take_records(struct imc_tar_reader *reader, struct imc_slice records,
                                   struct imc_entry *entry, struct imc_failure *failure) {
    struct imc_slice more = {NULL, 0};
    enum imc_fault fault =
        imc_find_attributes(records, reader->attributes, &entry->attribute_count, &more);
    entry->attributes = reader->attributes;
    if (fault != IMC_OK) {
        return imc_fail_text(failure, fault, reader->name, reader->name_length, more.at,
                             fault == IMC_ENTRY_XATTR ? more.length : 0, MAX_ATTRIBUTES, 0);
    }
    fault = imc_sparse_of_records(&reader->map, records, &reader->is_sparse);
    return fault == IMC_OK ? IMC_OK : imc_tar_bad_entry(reader, failure, fault, 0);
}

enum imc_fault imc_tar_read_entry(struct imc_tar_reader *reader, struct imc_slice records,
                                  struct imc_entry *entry, bool *continued,
                                  struct imc_failure *failure) {
    const uint8_t *block = reader->block;
    enum imc_fault fault = take_names(reader, block, records, &entry->target_length, failure);
    if (fault == IMC_OK) {
        fault = take_records(reader, records, entry, failure);
    }
    if (fault == IMC_OK) {
        fault = take_numbers(reader, block, records, entry, failure);
    }
    if (fault == IMC_OK) {
        fault = kind_of(reader, block[156], &entry->kind, failure);
    }
    if (fault == IMC_OK &&
        (entry->kind == IMC_CHARACTER_DEVICE || entry->kind == IMC_BLOCK_DEVICE)) {
        fault = take_device(reader, block, entry, failure);
    }
    return fault == IMC_OK ? check_sparse(reader, block, entry->kind, continued, failure) : fault;
}
