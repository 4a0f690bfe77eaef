/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse files in a tar: where in the file its data goes.
 *
 * The four forms are drawn in imagers/core/plain_sparse.py, which is the definition. A map is
 * refused unless its regions are in order, apart from each other, inside the file and together
 * exactly as long as the data: what else it says depends on the reader.
 *
 * Spec: GNU tar 1.35 manual, "Storing Sparse Files"; Go, archive/tar, validateSparseEntries.
 */
#include "tar_impl.h"

#include <stdlib.h>
#include <string.h>

#define MAX_REGIONS 65536
#define FIELD 12 /* bytes of a number in an old header */

void imc_sparse_forget(struct imc_sparse *map) {
    free(map->regions);
    *map = (struct imc_sparse){0};
}

enum imc_fault imc_sparse_add(struct imc_sparse *map, uint64_t offset, uint64_t length) {
    if (++map->count > MAX_REGIONS || offset < map->end || offset > map->size ||
        length > map->size - offset) {
        return IMC_ENTRY_SPARSE_MAP;
    }
    map->end = offset + length;
    map->stored += length; /* at most `size`: they are apart */
    if (length == 0) {
        return IMC_OK;
    }
    if (map->used == map->room) {
        size_t room = map->room == 0 ? 16 : 2 * map->room;
        struct imc_region *fresh = realloc(map->regions, room * sizeof *fresh);
        if (fresh == NULL) {
            return IMC_NO_MEMORY;
        }
        map->regions = fresh;
        map->room = room;
    }
    map->regions[map->used++] = (struct imc_region){offset, length};
    return IMC_OK;
}

static enum imc_fault number(struct imc_slice text, uint64_t *value) {
    return text.at != NULL && imc_decimal_of(text, value) && *value <= INT64_MAX
               ? IMC_OK
               : IMC_ENTRY_SPARSE_MAP;
}

/* "offset,length,offset,length" */
static enum imc_fault take_list(struct imc_sparse *map, struct imc_slice list, uint64_t *numbers) {
    uint64_t pair[2] = {0, 0};
    enum imc_fault fault = IMC_OK;
    for (size_t at = 0; fault == IMC_OK && at <= list.length; (*numbers)++) {
        const uint8_t *comma = memchr(list.at + at, ',', list.length - at);
        size_t end = comma == NULL ? list.length : (size_t)(comma - list.at);
        fault = number((struct imc_slice){list.at + at, end - at}, &pair[*numbers % 2]);
        if (fault == IMC_OK && *numbers % 2 == 1) {
            fault = imc_sparse_add(map, pair[0], pair[1]);
        }
        at = end + 1;
    }
    return fault;
}

/* Records of offset and length, in turns. */
static enum imc_fault take_pairs(struct imc_sparse *map, struct imc_slice records,
                                 uint64_t *numbers) {
    static const char *const names[] = {"GNU.sparse.offset", "GNU.sparse.numbytes"};
    uint64_t pair[2] = {0, 0};
    struct imc_record record;
    enum imc_fault fault = IMC_OK;
    for (size_t at = 0; fault == IMC_OK && at < records.length;) {
        imc_next_record(records, &at, &record); /* well-formed: checked when they came */
        bool is_offset = imc_slice_is(record.name, names[0]);
        if (!is_offset && !imc_slice_is(record.name, names[1])) {
            continue;
        }
        if (is_offset != (*numbers % 2 == 0)) {
            return IMC_ENTRY_SPARSE_MAP;
        }
        fault = number(record.value, &pair[*numbers % 2]);
        if (fault == IMC_OK && *numbers % 2 == 1) {
            fault = imc_sparse_add(map, pair[0], pair[1]);
        }
        (*numbers)++;
    }
    return fault;
}

/* What the records have of sparse files: anything, and pairs. */
static void look(struct imc_slice records, bool *any, bool *pairs) {
    struct imc_record record;
    *any = *pairs = false;
    for (size_t at = 0; at < records.length;) {
        imc_next_record(records, &at, &record);
        *any = *any || imc_slice_starts(record.name, "GNU.sparse.") ||
               imc_slice_starts(record.name, "SCHILY.realsize");
        *pairs = *pairs || imc_slice_is(record.name, "GNU.sparse.offset") ||
                 imc_slice_is(record.name, "GNU.sparse.numbytes");
    }
}

/* Whether the records say this version; NULL: none. */
static bool is_version(struct imc_slice records, const char *major, const char *minor) {
    const char *const said[] = {major, minor};
    struct imc_slice found[] = {imc_find_record(records, "GNU.sparse.major"),
                                imc_find_record(records, "GNU.sparse.minor")};
    for (size_t i = 0; i < 2; i++) {
        if (said[i] == NULL ? found[i].at != NULL
                            : found[i].at == NULL || !imc_slice_is(found[i], said[i])) {
            return false;
        }
    }
    return true;
}

enum imc_fault imc_sparse_of_records(struct imc_sparse *map, struct imc_slice records, bool *has) {
    bool pairs;
    look(records, has, &pairs);
    if (!*has) {
        return IMC_OK;
    }
    bool is_new = is_version(records, "1", "0");
    if (!is_new && !is_version(records, NULL, NULL) && !is_version(records, "0", "0") &&
        !is_version(records, "0", "1")) {
        return IMC_ENTRY_SPARSE;
    }
    struct imc_slice list = imc_find_record(records, "GNU.sparse.map");
    int forms = is_new + (list.at != NULL) + pairs;
    if (forms != 1) {
        return forms == 0 ? IMC_ENTRY_SPARSE : IMC_ENTRY_SPARSE_MAP;
    }
    struct imc_slice size = imc_find_record(records, "GNU.sparse.size");
    struct imc_slice real = imc_find_record(records, "GNU.sparse.realsize");
    if (size.at == NULL) {
        size = real;
    } else if (real.at != NULL &&
               (size.length != real.length || memcmp(size.at, real.at, size.length) != 0)) {
        return IMC_ENTRY_SPARSE_MAP; /* readers take the one or the other */
    }
    enum imc_fault fault = number(size, &map->size);
    map->is_in_data = is_new;
    if (fault != IMC_OK || is_new) {
        return fault;
    }
    uint64_t numbers = 0;
    uint64_t blocks = 0;
    fault = list.at != NULL ? take_list(map, list, &numbers) : take_pairs(map, records, &numbers);
    if (fault == IMC_OK) {
        fault = number(imc_find_record(records, "GNU.sparse.numblocks"), &blocks);
    }
    bool fits = numbers % 2 == 0 && numbers / 2 == blocks;
    return fault == IMC_OK && !fits ? IMC_ENTRY_SPARSE_MAP : fault;
}

/* The first one that is empty ends them, as in GNU tar and Go. */
enum imc_fault imc_sparse_take_fields(struct imc_sparse *map, const uint8_t *fields, size_t count,
                                      const char **bad_field) {
    enum imc_fault fault = IMC_OK;
    for (size_t i = 0; fault == IMC_OK && i < count; i++, fields += 2 * FIELD) {
        int64_t offset;
        int64_t length;
        if (fields[0] == 0) {
            break;
        }
        if (!imc_number_of(fields, FIELD, &offset)) {
            *bad_field = "offset";
            return IMC_TAR_NUMBER;
        }
        if (!imc_number_of(fields + FIELD, FIELD, &length)) {
            *bad_field = "numbytes";
            return IMC_TAR_NUMBER;
        }
        fault = offset < 0 || length < 0 ? IMC_ENTRY_SPARSE_MAP
                                         : imc_sparse_add(map, (uint64_t)offset, (uint64_t)length);
    }
    return fault;
}

/* A line: how many regions there are, or an offset, or a length. */
static enum imc_fault take_line(struct imc_sparse *map) {
    if (map->digits == 0 || map->number > INT64_MAX) {
        return IMC_ENTRY_SPARSE_MAP;
    }
    map->numbers++;
    if (map->numbers == 1) {
        if (map->number > MAX_REGIONS) {
            return IMC_ENTRY_SPARSE_MAP;
        }
        map->wanted = 1 + 2 * (size_t)map->number;
    } else if (map->numbers % 2 == 0) {
        map->offset = map->number;
    } else {
        enum imc_fault fault = imc_sparse_add(map, map->offset, map->number);
        if (fault != IMC_OK) {
            return fault;
        }
    }
    map->number = map->digits = 0;
    map->is_in_data = map->numbers < map->wanted;
    return IMC_OK;
}

enum imc_fault imc_sparse_take_lines(struct imc_sparse *map, const uint8_t *block, size_t length) {
    enum imc_fault fault = IMC_OK;
    for (size_t i = 0; fault == IMC_OK && i < length && map->is_in_data; i++) {
        if (block[i] == '\n') {
            fault = take_line(map);
        } else if (block[i] < '0' || block[i] > '9' || ++map->digits > 19) {
            fault = IMC_ENTRY_SPARSE_MAP; /* 19 digits are below 2**64 */
        } else {
            map->number = map->number * 10 + (uint64_t)(block[i] - '0');
        }
    }
    return fault;
}
