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

#define BLOCK 512
#define MAX_EXTENSION ((uint64_t)1024 * 1024) /* bytes; Go's reader has the same */
#define MAX_OWNER UINT32_C(4294967294)        /* the last uint32 means "leave it" to chown(2) */
#define MAX_MAJOR 0xFFF                       /* dev_t of Linux, linux/kdev_t.h */
#define MAX_MINOR 0xFFFFF

enum at { AT_HEADER, AT_EXTENSION, AT_DATA, AT_PADDING, AT_MAP, AT_ENDED };

struct imc_tar_reader {
    struct imc_untar *untar;
    uint64_t max_name_bytes;
    uint64_t tar_bytes; /* the most that holes may have: whoever reads the tree reads them */
    uint64_t hole_bytes;
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
    char *name; /* max_name_bytes and a NUL, for the entry at hand; so is what follows */
    char *target;
    size_t name_length;
    uint8_t *entry_records; /* owned; attributes point into it */
    struct imc_attribute attributes[MAX_ATTRIBUTES];
    bool is_sparse;
    struct imc_sparse map;
    uint64_t position; /* in the region that the next data goes to */
    size_t region;
};

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

static enum imc_fault bad(const struct imc_tar_reader *reader, struct imc_failure *failure,
                          enum imc_fault fault, const void *text, size_t length) {
    return imc_fail_text(failure, fault, text, length, NULL, 0, 0, reader->header_at);
}

/* A fault of the entry at hand. */
static enum imc_fault bad_entry(const struct imc_tar_reader *reader, struct imc_failure *failure,
                                enum imc_fault fault, uint64_t number) {
    return imc_fail_text(failure, fault, reader->name, reader->name_length, NULL, 0, number, 0);
}

/* Text up to the first NUL, or all of it. */
static struct imc_slice text_of(const uint8_t *at, size_t length) {
    const uint8_t *end = memchr(at, 0, length);
    return (struct imc_slice){at, end == NULL ? length : (size_t)(end - at)};
}

static enum imc_fault field(const struct imc_tar_reader *reader, const uint8_t *block, size_t at,
                            size_t length, const char *name, int64_t *value,
                            struct imc_failure *failure) {
    if (!imc_number_of(block + at, length, value)) {
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
            return bad(reader, failure, IMC_TAR_PAX, NULL, 0);
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

static enum imc_fault expect(struct imc_tar_reader *reader, enum at at, uint64_t size,
                             struct imc_failure *failure) {
    reader->at = at;
    reader->left = size;
    reader->padding = (BLOCK - size % BLOCK) % BLOCK;
    return size == 0 ? end_of_part(reader, failure) : IMC_OK;
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
        return bad(reader, failure, IMC_TAR_PAX_VALUE, name, strlen(name));
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
        return bad_entry(reader, failure, IMC_ENTRY_KIND, type);
    }
    return IMC_OK;
}

/* Name and target of the entry, copied so that nothing else is needed for them. */
static enum imc_fault take_names(struct imc_tar_reader *reader, const uint8_t *block,
                                 struct imc_slice records, size_t *target_length,
                                 struct imc_failure *failure) {
    uint8_t joined[100 + 1 + 155];
    struct imc_slice name = text_of(block, 100);
    /* POSIX ustar only: GNU keeps times where the prefix would be. */
    if (memcmp(block + 257, "ustar", 6) == 0) {
        struct imc_slice prefix = text_of(block + 345, 155);
        if (prefix.length > 0) {
            memcpy(joined, prefix.at, prefix.length);
            joined[prefix.length] = '/';
            memcpy(joined + prefix.length + 1, name.at, name.length);
            name = (struct imc_slice){joined, prefix.length + 1 + name.length};
        }
    }
    struct imc_slice target = text_of(block + 157, 100);
    /* Of a sparse file; the other one is for those who do not know sparse files. */
    struct imc_slice path = imc_find_record(records, "GNU.sparse.name");
    if (path.at == NULL) {
        path = imc_find_record(records, "path");
    }
    struct imc_slice linkpath = imc_find_record(records, "linkpath");
    if ((path.at != NULL && reader->has_long_name) ||
        (linkpath.at != NULL && reader->has_long_target)) {
        return bad(reader, failure, IMC_TAR_EXTENSION_TWICE, NULL, 0);
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
        return bad(reader, failure, IMC_TAR_NUL, NULL, 0);
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
    enum imc_fault fault = field(reader, block, 100, 8, "mode", &mode, failure);
    for (size_t i = 0; fault == IMC_OK && i < 3; i++) {
        fault = field(reader, block, fields[i].at, fields[i].length, fields[i].name, &values[i],
                      failure);
        if (fault == IMC_OK) {
            fault = pax_number(reader, records, fields[i].name, &values[i], &too_large[i], failure);
        }
    }
    if (fault == IMC_OK) {
        fault = field(reader, block, 136, 12, "mtime", &entry->mtime, failure);
    }
    if (fault != IMC_OK) {
        return fault;
    }
    struct imc_slice mtime = imc_find_record(records, "mtime");
    if (mtime.at != NULL && !imc_time_of(mtime, &entry->mtime, &entry->mtime_nanoseconds)) {
        return bad(reader, failure, IMC_TAR_PAX_VALUE, "mtime", strlen("mtime"));
    }
    if (values[2] < 0 || too_large[2]) {
        return bad(reader, failure, IMC_TAR_NUMBER, "size", strlen("size"));
    }
    for (size_t i = 0; i < 2; i++) {
        if (values[i] < 0 || values[i] > MAX_OWNER) {
            return bad_entry(reader, failure, IMC_ENTRY_OWNER, 0);
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
    enum imc_fault fault = field(reader, block, 329, 8, "devmajor", &major, failure);
    if (fault == IMC_OK) {
        fault = field(reader, block, 337, 8, "devminor", &minor, failure);
    }
    if (fault != IMC_OK) {
        return fault;
    }
    if (major < 0 || major > MAX_MAJOR || minor < 0 || minor > MAX_MINOR) {
        /* mknod(2) would make another one of it. */
        return bad_entry(reader, failure, IMC_ENTRY_DEVICE, 0);
    }
    entry->major = (uint32_t)major;
    entry->minor = (uint32_t)minor;
    return IMC_OK;
}

/* Takes the regions of an old map from `count` pairs of fields. */
static enum imc_fault take_fields(struct imc_tar_reader *reader, const uint8_t *fields,
                                  size_t count, struct imc_failure *failure) {
    const char *name = "";
    enum imc_fault fault = imc_sparse_take_fields(&reader->map, fields, count, &name);
    if (fault == IMC_TAR_NUMBER) {
        return bad(reader, failure, fault, name, strlen(name));
    }
    return fault == IMC_OK ? IMC_OK : bad_entry(reader, failure, fault, 0);
}

/* Takes the map of an old header, if it is one. *continued: more of the map follows. */
static enum imc_fault check_sparse(struct imc_tar_reader *reader, const uint8_t *block,
                                   enum imc_kind kind, bool *continued,
                                   struct imc_failure *failure) {
    int64_t size;
    if (block[156] != 'S') {
        *continued = reader->is_sparse && reader->map.is_in_data;
        return reader->is_sparse && kind != IMC_FILE
                   ? bad_entry(reader, failure, IMC_ENTRY_SPARSE_MAP, 0)
                   : IMC_OK;
    }
    if (reader->is_sparse) {
        return bad_entry(reader, failure, IMC_ENTRY_SPARSE_MAP, 0);
    }
    if (memcmp(block + 257, "ustar  ", 8) != 0) { /* star has an S of its own */
        return bad_entry(reader, failure, IMC_ENTRY_SPARSE, 0);
    }
    enum imc_fault fault = field(reader, block, 483, 12, "realsize", &size, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    if (size < 0) {
        return bad_entry(reader, failure, IMC_ENTRY_SPARSE_MAP, 0);
    }
    reader->is_sparse = true;
    reader->map.size = (uint64_t)size;
    *continued = block[482] != 0;
    return take_fields(reader, block + 386, 4, failure);
}

/* The entry began, and its map is complete if it has one. */
static enum imc_fault expect_data(struct imc_tar_reader *reader, struct imc_failure *failure) {
    const struct imc_sparse *map = &reader->map;
    reader->position = reader->region = 0;
    if (reader->is_sparse) {
        if (map->stored != reader->left) {
            return bad_entry(reader, failure, IMC_ENTRY_SPARSE_MAP, 0);
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
        fault = take_fields(reader, reader->block, 21, failure);
        return fault != IMC_OK || reader->block[504] != 0 ? fault : expect_data(reader, failure);
    }
    fault = reader->left < BLOCK ? IMC_ENTRY_SPARSE_MAP
                                 : imc_sparse_take_lines(map, reader->block, BLOCK);
    if (fault != IMC_OK) {
        return bad_entry(reader, failure, fault, 0);
    }
    reader->left -= BLOCK;
    return map->is_in_data ? IMC_OK : expect_data(reader, failure);
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
    return fault == IMC_OK ? IMC_OK : bad_entry(reader, failure, fault, 0);
}

static enum imc_fault read_entry(struct imc_tar_reader *reader, struct imc_slice records,
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

static enum imc_fault take_entry(struct imc_tar_reader *reader, struct imc_failure *failure) {
    struct imc_entry entry = {.kind = IMC_FILE};
    bool continued = false;
    struct imc_slice records = {reader->records, reader->has_records ? reader->records_length : 0};
    reader->entry_records = reader->records; /* until the entry ends */
    reader->records = NULL;
    enum imc_fault fault = read_entry(reader, records, &entry, &continued, failure);
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
