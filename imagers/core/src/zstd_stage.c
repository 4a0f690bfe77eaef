/* SPDX-License-Identifier: Apache-2.0 */
/* zstd both ways: frames one after the other, as RFC 8878 has them.
 *
 * The magic numbers are read here, so that the end of the last frame is told apart from
 * the beginning of a damaged one; skippable frames are skipped here; libzstd does the rest.
 *
 * It gets the header of a frame in one call, and nothing else in that: where a header is
 * completed by a later call, libzstd (1.5.4) may take what that call begins with for the
 * begin of a frame, and read the bytes after the magic number as another frame, skippable
 * or of a format older than 0.8.
 */
#include "impl.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>
#include <zstd_errors.h>

#define LEVEL 3
#define MAX_HEADER 18 /* section 3.1.1.1, with the magic number */

enum at {
    AT_MAGIC,
    AT_HEADER, /* of a frame, after its magic number */
    AT_SKIP_LENGTH,
    AT_SKIP,
    AT_FRAME,
};

static const uint8_t frame_magic[4] = {0x28, 0xB5, 0x2F, 0xFD}; /* section 3.1.1 */
static const uint8_t skip_magic[3] = {0x2A, 0x4D, 0x18};        /* 3.1.2, after 0x50 to 0x5F */

struct reader {
    struct imc_stage stage;
    ZSTD_DCtx *context;
    uint64_t window_bytes;
    enum at at;
    bool later;  /* a frame was complete */
    size_t held; /* bytes in `hold` */
    uint8_t hold[MAX_HEADER];
    uint32_t skip; /* of a skippable frame */
};

/* Whether what is held is the beginning of a frame. */
static bool is_magic(const uint8_t *bytes, size_t count) {
    if (memcmp(bytes, frame_magic, count) == 0) {
        return true;
    }
    return bytes[0] >= 0x50 && bytes[0] <= 0x5F && memcmp(bytes + 1, skip_magic, count - 1) == 0;
}

static enum imc_fault fault_of(const struct reader *reader, size_t code,
                               struct imc_failure *failure) {
    switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_frameParameter_windowTooLarge:
        return imc_fail(failure, IMC_ZSTD_WINDOW, reader->window_bytes, 0);
    case ZSTD_error_memory_allocation:
        return IMC_NO_MEMORY;
    default:
        return IMC_BAD_ZSTD;
    }
}

static enum imc_fault give(struct reader *reader, struct imc_in *in, struct imc_out *out,
                           struct imc_failure *failure) {
    ZSTD_inBuffer input = {in->at, in->left, 0};
    ZSTD_outBuffer output = {out->at, out->left, 0};
    size_t code = ZSTD_decompressStream(reader->context, &output, &input);
    if (ZSTD_isError(code)) {
        return fault_of(reader, code, failure);
    }
    in->at += input.pos;
    in->left -= input.pos;
    out->at += output.pos;
    out->left -= output.pos;
    if (code == 0) { /* a frame is complete, and all of it was given out */
        reader->later = true;
        reader->at = AT_MAGIC;
        reader->held = 0;
    }
    return IMC_OK;
}

/* Bytes of a header with its magic number, by the descriptor: section 3.1.1.1.1. */
static size_t header_bytes(uint8_t descriptor) {
    static const uint8_t dictionary[4] = {0, 1, 2, 4};
    static const uint8_t content[4] = {0, 2, 4, 8};
    bool single_segment = (descriptor & 0x20) != 0;
    size_t size = sizeof frame_magic + 1 + dictionary[descriptor & 3] + content[descriptor >> 6];
    return size + (!single_segment || descriptor >> 6 == 0 ? 1 : 0);
}

static enum imc_fault step_header(struct reader *reader, struct imc_in *in, struct imc_out *out,
                                  struct imc_failure *failure) {
    reader->hold[reader->held++] = *in->at++;
    in->left--;
    if (reader->held < header_bytes(reader->hold[sizeof frame_magic])) {
        return IMC_OK;
    }
    struct imc_in header = {reader->hold, reader->held};
    reader->at = AT_FRAME;
    enum imc_fault fault = give(reader, &header, out, failure);
    if (fault == IMC_OK && header.left > 0) {
        return IMC_BAD_ZSTD; /* unreachable: a header is taken whole */
    }
    return fault;
}

static enum imc_fault step_magic(struct reader *reader, struct imc_in *in) {
    reader->hold[reader->held++] = *in->at++;
    in->left--;
    if (reader->at == AT_SKIP_LENGTH) {
        if (reader->held == 4) {
            reader->skip = (uint32_t)reader->hold[0] | (uint32_t)reader->hold[1] << 8 |
                           (uint32_t)reader->hold[2] << 16 | (uint32_t)reader->hold[3] << 24;
            reader->at = AT_SKIP;
        }
        return IMC_OK;
    }
    if (!is_magic(reader->hold, reader->held)) {
        return reader->later ? IMC_ZSTD_TRAILER : IMC_NOT_ZSTD;
    }
    if (reader->held < 4) {
        return IMC_OK;
    }
    if (reader->hold[0] != frame_magic[0]) {
        reader->at = AT_SKIP_LENGTH;
        reader->held = 0;
        return IMC_OK;
    }
    reader->at = AT_HEADER; /* which goes on behind what is held */
    return IMC_OK;
}

static enum imc_fault reader_step(struct imc_stage *stage, struct imc_in *in, struct imc_out *out,
                                  struct imc_failure *failure) {
    struct reader *reader = (struct reader *)stage;
    for (;;) {
        enum imc_fault fault = IMC_OK;
        if (reader->at == AT_SKIP) {
            size_t part = reader->skip < in->left ? reader->skip : in->left;
            in->at += part;
            in->left -= part;
            reader->skip -= (uint32_t)part;
            if (reader->skip > 0) {
                return IMC_OK;
            }
            reader->later = true;
            reader->at = AT_MAGIC;
            reader->held = 0;
        } else if (reader->at == AT_FRAME) {
            const uint8_t *in_before = in->at;
            const uint8_t *out_before = out->at;
            if (out->left == 0) {
                return IMC_OK;
            }
            fault = give(reader, in, out, failure);
            if (fault == IMC_OK && reader->at == AT_FRAME && in->at == in_before &&
                out->at == out_before) {
                return IMC_OK;
            }
        } else if (in->left == 0) {
            return IMC_OK;
        } else {
            fault = reader->at == AT_HEADER ? step_header(reader, in, out, failure)
                                            : step_magic(reader, in);
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
    bool may_end = reader->later && reader->at == AT_MAGIC && reader->held == 0;
    return may_end ? IMC_OK : IMC_SHORT_ZSTD;
}

static void reader_free(struct imc_stage *stage) {
    struct reader *reader = (struct reader *)stage;
    ZSTD_freeDCtx(reader->context);
    free(reader);
}

enum imc_fault imc_zstd_reader(uint64_t window_bytes, struct imc_stage **out) {
    static const struct imc_stage_ops ops = {reader_step, reader_finish, reader_free};
    int log = 0;
    while (log < 31 && (UINT64_C(1) << (log + 1)) <= window_bytes) {
        log++;
    }
    struct reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        return IMC_NO_MEMORY;
    }
    reader->stage.ops = &ops;
    reader->window_bytes = window_bytes;
    reader->context = ZSTD_createDCtx();
    if (reader->context == NULL ||
        ZSTD_isError(ZSTD_DCtx_setParameter(reader->context, ZSTD_d_windowLogMax, log))) {
        reader_free(&reader->stage);
        return IMC_NO_MEMORY;
    }
    *out = &reader->stage;
    return IMC_OK;
}

/* A frame, and after `finish` the next. */
struct writer {
    struct imc_stage stage;
    ZSTD_CCtx *context;
};

/* *left: what libzstd has still to give. */
static enum imc_fault write_some(struct imc_stage *stage, struct imc_in *in, struct imc_out *out,
                                 ZSTD_EndDirective directive, size_t *left) {
    struct writer *writer = (struct writer *)stage;
    ZSTD_inBuffer input = {in->at, in->left, 0};
    ZSTD_outBuffer output = {out->at, out->left, 0};
    *left = ZSTD_compressStream2(writer->context, &output, &input, directive);
    if (ZSTD_isError(*left)) {
        return IMC_NO_MEMORY; /* every other error is a wrong parameter of ours */
    }
    in->at += input.pos;
    in->left -= input.pos;
    out->at += output.pos;
    out->left -= output.pos;
    return IMC_OK;
}

static enum imc_fault writer_step(struct imc_stage *stage, struct imc_in *in, struct imc_out *out,
                                  struct imc_failure *failure) {
    (void)failure;
    size_t left = 0;
    enum imc_fault fault = IMC_OK;
    while (fault == IMC_OK && in->left > 0 && out->left > 0) {
        fault = write_some(stage, in, out, ZSTD_e_continue, &left);
    }
    return fault;
}

static enum imc_fault writer_finish(struct imc_stage *stage, struct imc_out *out, bool *done,
                                    struct imc_failure *failure) {
    (void)failure;
    struct imc_in none = {(const uint8_t *)"", 0}; /* NULL + 0 is undefined */
    enum imc_fault fault = IMC_OK;
    *done = false; /* an empty tar has one frame */
    while (fault == IMC_OK && !*done && out->left > 0) {
        size_t left = 0;
        fault = write_some(stage, &none, out, ZSTD_e_end, &left);
        *done = fault == IMC_OK && left == 0;
    }
    return fault;
}

static void writer_free(struct imc_stage *stage) {
    struct writer *writer = (struct writer *)stage;
    ZSTD_freeCCtx(writer->context);
    free(writer);
}

enum imc_fault imc_zstd_writer(struct imc_stage **out) {
    static const struct imc_stage_ops ops = {writer_step, writer_finish, writer_free};
    struct writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        return IMC_NO_MEMORY;
    }
    writer->stage.ops = &ops;
    writer->context = ZSTD_createCCtx();
    if (writer->context == NULL ||
        ZSTD_isError(ZSTD_CCtx_setParameter(writer->context, ZSTD_c_compressionLevel, LEVEL)) ||
        /* A content size would have to be known before the frame; a checksum costs nothing. */
        ZSTD_isError(ZSTD_CCtx_setParameter(writer->context, ZSTD_c_contentSizeFlag, 0)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(writer->context, ZSTD_c_checksumFlag, 1))) {
        writer_free(&writer->stage);
        return IMC_NO_MEMORY;
    }
    *out = &writer->stage;
    return IMC_OK;
}
