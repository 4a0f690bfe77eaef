/* SPDX-License-Identifier: Apache-2.0 */
/* The tar format: bytes in, entries out, no file touched.
 *
 *     0         100      108   116   124    136     148      156  157        257   265 ... 345 500
 *     name      mode     uid   gid   size   mtime   chksum   type linkname   magic         prefix
 *
 *     329        337        386                  482        483
 *     devmajor   devminor   sparse regions (GNU) continued  real size (GNU)
 *
 * What readers of tars understand differently is refused, because a layer that means two
 * things can be checked as one and run as the other. imagers/core/plain_tar.py is the
 * definition, down to the order in which faults are seen.
 *
 * Spec: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar
 * 1.35 manual, "Basic Tar Format" (long names, base-256 numbers).
 */
#include "tar_impl.h"

#include <stdlib.h>
#include <string.h>

#define MAX_EXTENSION ((uint64_t)1024 * 1024) /* bytes; Go's reader has the same */

enum imc_fault imc_tar_reader_new(struct imc_untar *untar, const struct imc_options *options,
                                  struct imc_tar_reader **out) {
    uint64_t max_name_bytes = options->max_name_bytes;
    struct imc_tar_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        return IMC_NO_MEMORY;
    }
    reader->untar = untar;
    reader->max_name_bytes = max_name_bytes;
    reader->tar_bytes = options->tar_bytes;
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

static void forget_entry(struct imc_tar_reader *reader) {
    free(reader->entry_records);
    reader->entry_records = NULL;
    imc_sparse_forget(&reader->map);
}

void imc_tar_reader_free(struct imc_tar_reader *reader) {
    if (reader != NULL) {
        forget_extensions(reader);
        forget_entry(reader);
        free(reader->extension);
        free(reader->name);
        free(reader->target);
        free(reader);
    }
}

uint64_t imc_tar_reader_hole_bytes(const struct imc_tar_reader *reader) {
    return reader->hole_bytes;
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
    return imc_number_of(block + 148, 8, &expected) &&
           (expected == of_unsigned || expected == of_signed);
}

/* A global header: values for all later entries. Some readers apply them, those of engines do not:
 * what would change what is unpacked is refused. */
static enum imc_fault check_global(const struct imc_tar_reader *reader, struct imc_slice records,
                                   struct imc_failure *failure) {
    static const char *const names[] = {"path", "linkpath", "size", "uid", "gid"};
    static const char *const starts[] = {"GNU.sparse.", "SCHILY.xattr.", "SCHILY.realsize"};
    struct imc_record record;
    for (size_t at = 0; at < records.length;) {
        if (!imc_next_record(records, &at, &record)) {
            return imc_tar_bad(reader, failure, IMC_TAR_PAX, NULL, 0);
        }
    }
    for (size_t at = 0; at < records.length;) {
        imc_next_record(records, &at, &record);
        bool refused = false;
        for (size_t i = 0; i < 5; i++) {
            refused = refused || imc_slice_is(record.name, names[i]);
        }
        for (size_t i = 0; i < 3; i++) {
            refused = refused || imc_slice_starts(record.name, starts[i]);
        }
        if (refused) {
            return imc_tar_bad(reader, failure, IMC_TAR_PAX_GLOBAL, record.name.at,
                               record.name.length);
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
        enum imc_fault fault = check_global(reader, (struct imc_slice){payload, length}, failure);
        free(payload);
        return fault;
    }
    case 'x': {
        twice = reader->has_records;
        struct imc_record record;
        for (size_t at = 0; !twice && at < length;) {
            if (!imc_next_record((struct imc_slice){payload, length}, &at, &record)) {
                free(payload);
                return imc_tar_bad(reader, failure, IMC_TAR_PAX, NULL, 0);
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
            reader->long_name_length = imc_tar_text_of(payload, length).length;
            reader->has_long_name = true;
            return IMC_OK;
        }
        break;
    default:
        twice = reader->has_long_target;
        if (!twice) {
            reader->long_target = payload;
            reader->long_target_length = imc_tar_text_of(payload, length).length;
            reader->has_long_target = true;
            return IMC_OK;
        }
        break;
    }
    free(payload);
    return imc_tar_bad(reader, failure, IMC_TAR_EXTENSION_TWICE, NULL, 0);
}

/* The extension, the data or the padding is complete. */
static enum imc_fault end_of_part(struct imc_tar_reader *reader, struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    if (reader->at == AT_EXTENSION) {
        fault = take_extension(reader, failure);
    } else if (reader->at == AT_DATA) {
        fault = imc_untar_end(reader->untar, failure);
        forget_entry(reader);
    }
    if (reader->at != AT_PADDING && reader->padding > 0) {
        reader->at = AT_PADDING;
        reader->left = reader->padding;
    } else {
        reader->at = AT_HEADER;
    }
    return fault;
}

static enum imc_fault expect(struct imc_tar_reader *reader, enum imc_at at, uint64_t size,
                             struct imc_failure *failure) {
    reader->at = at;
    reader->left = size;
    reader->padding = (BLOCK - size % BLOCK) % BLOCK;
    return size == 0 ? end_of_part(reader, failure) : IMC_OK;
}

/* The entry began, and its map is complete if it has one. */
static enum imc_fault expect_data(struct imc_tar_reader *reader, struct imc_failure *failure) {
    const struct imc_sparse *map = &reader->map;
    reader->position = reader->region = 0;
    if (reader->is_sparse) {
        if (map->stored != reader->left) {
            return imc_tar_bad_entry(reader, failure, IMC_ENTRY_SPARSE_MAP, 0);
        }
        /* Both are below 2**63: the sum of all before was below a limit of 2**62. */
        reader->hole_bytes += map->size - map->stored;
        if (reader->hole_bytes > reader->tar_bytes) {
            return imc_fail(failure, IMC_TAR_BYTES, reader->tar_bytes, 0);
        }
    }
    return expect(reader, AT_DATA, reader->left, failure);
}

/* A block of the map that stands behind the header. */
static enum imc_fault take_map(struct imc_tar_reader *reader, struct imc_failure *failure) {
    struct imc_sparse *map = &reader->map;
    enum imc_fault fault = IMC_OK;
    if (!map->is_in_data) {
        fault = imc_tar_take_fields(reader, reader->block, 21, failure);
        return fault != IMC_OK || reader->block[504] != 0 ? fault : expect_data(reader, failure);
    }
    fault = reader->left < BLOCK ? IMC_ENTRY_SPARSE_MAP
                                 : imc_sparse_take_lines(map, reader->block, BLOCK);
    if (fault != IMC_OK) {
        return imc_tar_bad_entry(reader, failure, fault, 0);
    }
    reader->left -= BLOCK;
    return map->is_in_data ? IMC_OK : expect_data(reader, failure);
}

static enum imc_fault take_entry(struct imc_tar_reader *reader, struct imc_failure *failure) {
    struct imc_entry entry = {.kind = IMC_FILE};
    bool continued = false;
    struct imc_slice records = {reader->records, reader->has_records ? reader->records_length : 0};
    reader->entry_records = reader->records; /* until the entry ends */
    reader->records = NULL;
    enum imc_fault fault = imc_tar_read_entry(reader, records, &entry, &continued, failure);
    forget_extensions(reader);
    if (fault != IMC_OK) {
        return fault;
    }
    for (size_t i = 0; i < entry.attribute_count; i++) {
        /* Over the '=' behind the name: nobody reads the records again. */
        const char *name = reader->attributes[i].name;
        size_t at = (size_t)(name - (const char *)reader->entry_records);
        reader->entry_records[at + reader->attributes[i].name_length] = 0;
    }
    entry.name = reader->name;
    entry.name_length = reader->name_length;
    entry.target = reader->target;
    /* Only files have data, whatever the field says: Go's and Python's readers agree. */
    reader->left = entry.kind == IMC_FILE ? entry.size : 0;
    entry.is_sparse = reader->is_sparse;
    entry.size = reader->is_sparse ? reader->map.size : reader->left;
    fault = imc_untar_begin(reader->untar, &entry, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    if (continued) {
        reader->at = AT_MAP;
        return IMC_OK;
    }
    return expect_data(reader, failure);
}

/* Data of a file, to where its map says. */
static enum imc_fault put(struct imc_tar_reader *reader, const uint8_t *data, size_t length,
                          struct imc_failure *failure) {
    if (!reader->is_sparse) {
        return imc_untar_data(reader->untar, data, length, failure);
    }
    enum imc_fault fault = IMC_OK;
    while (fault == IMC_OK && length > 0) {
        /* There is one: the regions are as long as the data. */
        const struct imc_region *region = &reader->map.regions[reader->region];
        uint64_t left = region->length - reader->position;
        size_t part = left < length ? (size_t)left : length;
        if (reader->position == 0) {
            fault = imc_untar_seek(reader->untar, region->offset, failure);
        }
        if (fault == IMC_OK) {
            fault = imc_untar_data(reader->untar, data, part, failure);
        }
        data += part;
        length -= part;
        reader->position += part;
        if (reader->position == region->length) {
            reader->position = 0;
            reader->region++;
        }
    }
    return fault;
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
        return imc_tar_bad(reader, failure, IMC_TAR_LONE_ZERO, NULL, 0);
    }
    if (!has_good_checksum(block)) {
        return imc_tar_bad(reader, failure, IMC_TAR_CHECKSUM, NULL, 0);
    }
    uint8_t type = block[156];
    if (type != 'x' && type != 'g' && type != 'L' && type != 'K') {
        return take_entry(reader, failure);
    }
    int64_t size = 0;
    enum imc_fault fault = imc_tar_field(reader, block, 124, 12, "size", &size, failure);
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
        if (reader->at == AT_HEADER || reader->at == AT_MAP) {
            size_t part = BLOCK - reader->held < rest ? BLOCK - reader->held : rest;
            memcpy(reader->block + reader->held, data + at, part);
            reader->held += part;
            at += part;
            if (reader->held == BLOCK) {
                reader->held = 0;
                reader->offset += BLOCK;
                if (reader->at == AT_MAP) {
                    fault = take_map(reader, failure);
                } else {
                    reader->header_at = reader->offset - BLOCK;
                    fault = take_header(reader, failure);
                }
            }
            continue;
        }
        size_t part = reader->left < rest ? (size_t)reader->left : rest;
        if (reader->at == AT_EXTENSION) {
            memcpy(reader->extension + reader->extension_length, data + at, part);
            reader->extension_length += part;
        } else if (reader->at == AT_DATA) {
            fault = put(reader, data + at, part, failure);
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
    /* Padding behind the last entry is of no use to anybody: Go's reader does not ask for it. */
    bool between = reader->at == AT_HEADER || reader->at == AT_PADDING || reader->at == AT_ENDED;
    if (!between || reader->held > 0 || has_pending(reader)) {
        return imc_fail(failure, IMC_TAR_SHORT, 0, 0);
    }
    return imc_untar_finish(reader->untar, failure);
}
