/* SPDX-License-Identifier: Apache-2.0 */
/* Shared inside tar_*.c. */
#ifndef IMAGERS_TAR_IMPL_H
#define IMAGERS_TAR_IMPL_H

#include "impl.h"

#define BLOCK 512          /* bytes */
#define MAX_ATTRIBUTES 256 /* of one entry */

struct imc_slice {
    const uint8_t *at; /* NULL: absent */
    size_t length;
};

struct imc_record {
    struct imc_slice name;
    struct imc_slice value;
};

/* tar_records.c: fields and records. */

/* A numeric field: octal, or base-256 where the first bit is set. False: neither, or no int64. */
bool imc_number_of(const uint8_t *field, size_t length, int64_t *value);
/* The next record at *at of `records`. False: malformed. */
bool imc_next_record(struct imc_slice records, size_t *at, struct imc_record *record);
bool imc_slice_is(struct imc_slice name, const char *text);
bool imc_slice_starts(struct imc_slice name, const char *text);
/* The last record of that name; absent also where its value is empty, which takes it back:
 * POSIX, pax Extended Header. The records are known to be well-formed. */
struct imc_slice imc_find_record(struct imc_slice records, const char *name);
/* 1 to 19 digits, which are below 2**64. */
bool imc_decimal_of(struct imc_slice text, uint64_t *value);
/* `-?digits(.digits)?` as seconds and nanoseconds, the latter cut and never negative. */
bool imc_time_of(struct imc_slice text, int64_t *seconds, uint32_t *nanoseconds);
/* Extended attributes into `found`, which has room for MAX_ATTRIBUTES, then what else must not be
 * lost in silence. No NUL ends the names yet. *more is the name that a fault is about. */
enum imc_fault imc_find_attributes(struct imc_slice records, struct imc_attribute *found,
                                   size_t *count, struct imc_slice *more);

/* tar_sparse.c: where in a file its data goes. */

struct imc_region {
    uint64_t offset;
    uint64_t length; /* never 0 */
};

struct imc_sparse {
    uint64_t size;   /* of the file, with its holes */
    uint64_t stored; /* sum of the lengths */
    uint64_t end;    /* of the last region */
    struct imc_region *regions;
    size_t used;
    size_t room;
    size_t count;    /* with those of length 0 */
    bool is_in_data; /* lines of the map are still to come, before the data */
    uint64_t number; /* the line at hand, and its digits */
    unsigned digits;
    size_t numbers; /* lines that were read */
    size_t wanted;
    uint64_t offset; /* of the pair at hand */
};

void imc_sparse_forget(struct imc_sparse *map);
/* One more region, perhaps of length 0. */
enum imc_fault imc_sparse_add(struct imc_sparse *map, uint64_t offset, uint64_t length);
/* The map of an extended header; *has is false if it has none. */
enum imc_fault imc_sparse_of_records(struct imc_sparse *map, struct imc_slice records, bool *has);
/* Pairs of numbers of 12 bytes. */
enum imc_fault imc_sparse_take_fields(struct imc_sparse *map, const uint8_t *fields, size_t count,
                                      const char **bad_field);
/* The next block of lines; is_in_data is false after the last one. */
enum imc_fault imc_sparse_take_lines(struct imc_sparse *map, const uint8_t *block, size_t length);

/* tar_entry.c: headers. */

enum imc_at { AT_HEADER, AT_EXTENSION, AT_DATA, AT_PADDING, AT_MAP, AT_ENDED };

struct imc_tar_reader {
    struct imc_untar *untar;
    uint64_t max_name_bytes;
    uint64_t tar_bytes; /* the most that holes may have: whoever reads the tree reads them */
    uint64_t hole_bytes;
    enum imc_at at;
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

/* A fault of the tar, where its last header is. */
enum imc_fault imc_tar_bad(const struct imc_tar_reader *reader, struct imc_failure *failure,
                           enum imc_fault fault, const void *text, size_t length);
/* A fault of the entry at hand. */
enum imc_fault imc_tar_bad_entry(const struct imc_tar_reader *reader, struct imc_failure *failure,
                                 enum imc_fault fault, uint64_t number);
/* Text up to the first NUL, or all of it. */
struct imc_slice imc_tar_text_of(const uint8_t *at, size_t length);
/* A numeric field of a header, or the fault that it is none. */
enum imc_fault imc_tar_field(const struct imc_tar_reader *reader, const uint8_t *block, size_t at,
                             size_t length, const char *name, int64_t *value,
                             struct imc_failure *failure);
/* Takes the regions of an old map from `count` pairs of fields. */
enum imc_fault imc_tar_take_fields(struct imc_tar_reader *reader, const uint8_t *fields,
                                   size_t count, struct imc_failure *failure);
/* The entry of the header at hand; its name and its map are the reader's. *continued: more of the
 * map follows. */
enum imc_fault imc_tar_read_entry(struct imc_tar_reader *reader, struct imc_slice records,
                                  struct imc_entry *entry, bool *continued,
                                  struct imc_failure *failure);

#endif
