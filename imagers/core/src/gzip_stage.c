/* SPDX-License-Identifier: Apache-2.0 */
/* gzip both ways: members one after the other, as RFC 1952 has them.
 *
 * Header and trailer are parsed here and the library does only the deflate data, so that
 * damage, truncation and trailing data are told apart at the same byte by every library
 * (and by imagers/core/plain_codec.py, which is the definition).
 */
#include "inflate.h"

#include <stdlib.h>
#include <string.h>

/* RFC 1952 section 2.3.1 */
#define FHCRC 2
#define FEXTRA 4
#define FNAME 8
#define FCOMMENT 16
#define RESERVED 0xE0 /* section 2.3.1.2: must give an error */
#define DEFLATE 8

enum at {
    AT_FIRST,  /* the first byte of a member, or padding, or the end */
    AT_SECOND, /* its second byte */
    AT_FIXED,  /* eight bytes: method, flags, time, extra flags, system */
    AT_EXTRA_LENGTH,
    AT_EXTRA,
    AT_NAME,
    AT_COMMENT,
    AT_HEADER_CRC,
    AT_DATA,
    AT_TRAILER,
    AT_PADDING, /* zeros to the end, as tape blocks leave them */
};

struct reader {
    struct imc_stage stage;
    struct imc_inflate *inflate;
    enum at at;
    bool later; /* a member was complete */
    uint8_t flags;
    uint32_t crc;  /* of the header, then of the data */
    uint32_t size; /* of the data, modulo 2**32 */
    size_t skip;   /* of the extra field */
    size_t held;   /* bytes in `hold` */
    uint8_t hold[8];
};

static uint32_t little(const uint8_t *bytes, size_t count) {
    uint32_t value = 0;
    for (size_t i = count; i > 0; i--) {
        value = value << 8 | bytes[i - 1];
    }
    return value;
}

/* Whether `count` bytes, at most 8, are in `hold`, taking from the input what is missing. */
static bool hold(struct reader *reader, struct imc_in *in, size_t count) {
    while (reader->held < count && in->left > 0) {
        reader->hold[reader->held++] = *in->at++;
        in->left--;
    }
    return reader->held == count;
}

/* Where the header goes on after the part `done`. */
static enum at next_part(const struct reader *reader, enum at done) {
    if (done < AT_EXTRA_LENGTH && (reader->flags & FEXTRA) != 0) {
        return AT_EXTRA_LENGTH;
    }
    if (done < AT_NAME && (reader->flags & FNAME) != 0) {
        return AT_NAME;
    }
    if (done < AT_COMMENT && (reader->flags & FCOMMENT) != 0) {
        return AT_COMMENT;
    }
    if (done < AT_HEADER_CRC && (reader->flags & FHCRC) != 0) {
        return AT_HEADER_CRC;
    }
    return AT_DATA;
}

static void go(struct reader *reader, enum at at) {
    reader->at = at;
    reader->held = 0;
    if (at == AT_DATA) {
        imc_inflate_reset(reader->inflate);
        reader->crc = 0;
        reader->size = 0;
    }
}

static enum imc_fault step_magic(struct reader *reader, struct imc_in *in) {
    uint8_t byte = *in->at;
    if (reader->at == AT_FIRST && byte == 0 && reader->later) {
        go(reader, AT_PADDING);
        return IMC_OK;
    }
    if (byte != (reader->at == AT_FIRST ? 0x1F : 0x8B)) {
        return reader->later ? IMC_GZIP_TRAILER : IMC_NOT_GZIP;
    }
    in->at++;
    in->left--;
    if (reader->at == AT_SECOND) {
        static const uint8_t magic[2] = {0x1F, 0x8B};
        reader->crc = imc_crc32(0, magic, sizeof magic);
        go(reader, AT_FIXED);
    } else {
        go(reader, AT_SECOND);
    }
    return IMC_OK;
}

/* A text that a NUL ends: the name or the comment. */
static void step_text(struct reader *reader, struct imc_in *in) {
    const uint8_t *end = memchr(in->at, 0, in->left);
    size_t length = end == NULL ? in->left : (size_t)(end - in->at) + 1;
    reader->crc = imc_crc32(reader->crc, in->at, length);
    in->at += length;
    in->left -= length;
    if (end != NULL) {
        go(reader, next_part(reader, reader->at));
    }
}

static enum imc_fault step_header(struct reader *reader, struct imc_in *in) {
    switch (reader->at) {
    case AT_FIXED:
        if (hold(reader, in, 8)) {
            reader->flags = reader->hold[1];
            if (reader->hold[0] != DEFLATE || (reader->flags & RESERVED) != 0) {
                return IMC_BAD_GZIP;
            }
            reader->crc = imc_crc32(reader->crc, reader->hold, 8);
            go(reader, next_part(reader, AT_FIXED));
        }
        return IMC_OK;
    case AT_EXTRA_LENGTH:
        if (hold(reader, in, 2)) {
            reader->skip = little(reader->hold, 2);
            reader->crc = imc_crc32(reader->crc, reader->hold, 2);
            go(reader, AT_EXTRA);
        }
        return IMC_OK;
    case AT_EXTRA: {
        size_t part = reader->skip < in->left ? reader->skip : in->left;
        reader->crc = imc_crc32(reader->crc, in->at, part);
        in->at += part;
        in->left -= part;
        reader->skip -= part;
        if (reader->skip == 0) {
            go(reader, next_part(reader, AT_EXTRA));
        }
        return IMC_OK;
    }
    case AT_HEADER_CRC:
        if (hold(reader, in, 2)) {
            if (little(reader->hold, 2) != (reader->crc & 0xFFFF)) {
                return IMC_BAD_GZIP;
            }
            go(reader, AT_DATA);
        }
        return IMC_OK;
    default:
        step_text(reader, in);
        return IMC_OK;
    }
}

static enum imc_fault step_data(struct reader *reader, struct imc_in *in, struct imc_out *out) {
    const uint8_t *start = out->at;
    bool ended = false;
    uint8_t rest[8];
    size_t rest_length = 0;
    enum imc_fault fault = imc_inflate_step(reader->inflate, in, out, &ended, rest, &rest_length);
    if (fault != IMC_OK) {
        return fault;
    }
    size_t length = (size_t)(out->at - start);
    reader->crc = imc_crc32(reader->crc, start, length);
    reader->size += (uint32_t)length; /* modulo 2**32, as the trailer has it */
    if (ended) {
        go(reader, AT_TRAILER);
        memcpy(reader->hold, rest, rest_length);
        reader->held = rest_length;
    }
    return IMC_OK;
}

static enum imc_fault reader_step(struct imc_stage *stage, struct imc_in *in, struct imc_out *out,
                                  struct imc_failure *failure) {
    struct reader *reader = (struct reader *)stage;
    (void)failure;
    for (;;) {
        enum imc_fault fault = IMC_OK;
        if (reader->at == AT_DATA) {
            const uint8_t *in_before = in->at;
            const uint8_t *out_before = out->at;
            if (out->left == 0) {
                return IMC_OK;
            }
            fault = step_data(reader, in, out);
            /* The library may have output left without input: ask until nothing moves. */
            if (fault == IMC_OK && reader->at == AT_DATA && in->at == in_before &&
                out->at == out_before) {
                return IMC_OK;
            }
        } else if (reader->at == AT_TRAILER && hold(reader, in, 8)) {
            if (little(reader->hold, 4) != reader->crc ||
                little(reader->hold + 4, 4) != reader->size) {
                return IMC_BAD_GZIP;
            }
            reader->later = true;
            go(reader, AT_FIRST);
        } else if (in->left == 0) {
            return IMC_OK;
        } else if (reader->at == AT_FIRST || reader->at == AT_SECOND) {
            fault = step_magic(reader, in);
        } else if (reader->at == AT_PADDING) {
            if (*in->at != 0) {
                return IMC_GZIP_TRAILER;
            }
            in->at++;
            in->left--;
        } else {
            fault = step_header(reader, in);
        }
        if (fault != IMC_OK) {
            return fault;
        }
    }
}

static enum imc_fault reader_finish(struct imc_stage *stage, struct imc_out *out, bool *done,
                                    struct imc_failure *failure) {
    const struct reader *reader = (const struct reader *)stage;
    (void)out;
    (void)failure;
    *done = true;
    bool may_end = reader->later && (reader->at == AT_FIRST || reader->at == AT_PADDING);
    return may_end ? IMC_OK : IMC_SHORT_GZIP;
}

static void reader_free(struct imc_stage *stage) {
    struct reader *reader = (struct reader *)stage;
    imc_inflate_free(reader->inflate);
    free(reader);
}

enum imc_fault imc_gzip_reader(struct imc_stage **out) {
    static const struct imc_stage_ops ops = {reader_step, reader_finish, reader_free};
    struct reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        return IMC_NO_MEMORY;
    }
    reader->stage.ops = &ops;
    reader->inflate = imc_inflate_new();
    if (reader->inflate == NULL) {
        free(reader);
        return IMC_NO_MEMORY;
    }
    *out = &reader->stage;
    return IMC_OK;
}

/* A member, and after `finish` the next. */
struct writer {
    struct imc_stage stage;
    struct imc_deflate *deflate;
    bool open; /* a member is begun and not complete */
};

static enum imc_fault write_some(struct writer *writer, struct imc_in *in, struct imc_out *out,
                                 bool last) {
    if (!writer->open && !imc_deflate_reset(writer->deflate)) {
        return IMC_NO_MEMORY;
    }
    bool ended = false;
    enum imc_fault fault = imc_deflate_step(writer->deflate, in, out, last, &ended);
    writer->open = !ended;
    return fault;
}

static enum imc_fault writer_step(struct imc_stage *stage, struct imc_in *in, struct imc_out *out,
                                  struct imc_failure *failure) {
    (void)failure;
    enum imc_fault fault = IMC_OK;
    while (fault == IMC_OK && in->left > 0 && out->left > 0) {
        fault = write_some((struct writer *)stage, in, out, false);
    }
    return fault;
}

static enum imc_fault writer_finish(struct imc_stage *stage, struct imc_out *out, bool *done,
                                    struct imc_failure *failure) {
    struct writer *writer = (struct writer *)stage;
    struct imc_in none = {(const uint8_t *)"", 0}; /* NULL + 0 is undefined */
    (void)failure;
    enum imc_fault fault = IMC_OK;
    *done = false; /* an empty tar has one member */
    while (fault == IMC_OK && !*done && out->left > 0) {
        fault = write_some(writer, &none, out, true);
        *done = !writer->open;
    }
    return fault;
}

static void writer_free(struct imc_stage *stage) {
    struct writer *writer = (struct writer *)stage;
    imc_deflate_free(writer->deflate);
    free(writer);
}

enum imc_fault imc_gzip_writer(struct imc_stage **out) {
    static const struct imc_stage_ops ops = {writer_step, writer_finish, writer_free};
    struct writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        return IMC_NO_MEMORY;
    }
    writer->stage.ops = &ops;
    writer->deflate = imc_deflate_new();
    if (writer->deflate == NULL) {
        free(writer);
        return IMC_NO_MEMORY;
    }
    *out = &writer->stage;
    return IMC_OK;
}
