/* SPDX-License-Identifier: Apache-2.0 */
/* Raw deflate by zlib, where ISA-L was not found. */
#include "inflate.h"

#include <stdlib.h>

#include <zlib.h>

#define LEVEL 1 /* what is nearest to the other implementation, in speed and in ratio */

struct imc_inflate {
    z_stream stream;
};

struct imc_inflate *imc_inflate_new(void) {
    struct imc_inflate *self = calloc(1, sizeof *self);
    if (self != NULL && inflateInit2(&self->stream, -MAX_WBITS) != Z_OK) {
        free(self);
        return NULL;
    }
    return self;
}

void imc_inflate_reset(struct imc_inflate *self) {
    inflateReset(&self->stream); /* fails only for a stream that was not initialised */
}

void imc_inflate_free(struct imc_inflate *self) {
    if (self != NULL) {
        inflateEnd(&self->stream);
        free(self);
    }
}

enum imc_fault imc_inflate_step(struct imc_inflate *self, struct imc_in *in, struct imc_out *out,
                                bool *ended, uint8_t rest[8], size_t *rest_length) {
    (void)rest; /* zlib gives back what it did not need */
    z_stream *stream = &self->stream;
    /* Both are at most IMC_PIECE. The header lacks a const; input is not written. */
    stream->next_in = (Bytef *)(uintptr_t)in->at;
    stream->avail_in = (uInt)in->left;
    stream->next_out = out->at;
    stream->avail_out = (uInt)out->left;
    int code = inflate(stream, Z_NO_FLUSH);
    in->at = stream->next_in;
    in->left = stream->avail_in;
    out->at = stream->next_out;
    out->left = stream->avail_out;
    *rest_length = 0;
    *ended = code == Z_STREAM_END;
    if (code == Z_MEM_ERROR) {
        return IMC_NO_MEMORY;
    }
    /* Z_BUF_ERROR: no progress was possible, which more input or output changes. */
    return code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR ? IMC_OK : IMC_BAD_GZIP;
}

struct imc_deflate {
    z_stream stream;
};

struct imc_deflate *imc_deflate_new(void) {
    struct imc_deflate *self = calloc(1, sizeof *self);
    /* 31: the largest window, with the header and trailer of gzip. */
    if (self != NULL &&
        deflateInit2(&self->stream, LEVEL, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(self);
        return NULL;
    }
    return self;
}

bool imc_deflate_reset(struct imc_deflate *self) {
    return deflateReset(&self->stream) == Z_OK;
}

void imc_deflate_free(struct imc_deflate *self) {
    if (self != NULL) {
        deflateEnd(&self->stream);
        free(self);
    }
}

enum imc_fault imc_deflate_step(struct imc_deflate *self, struct imc_in *in, struct imc_out *out,
                                bool last, bool *ended) {
    z_stream *stream = &self->stream;
    stream->next_in = (Bytef *)(uintptr_t)in->at;
    stream->avail_in = (uInt)in->left;
    stream->next_out = out->at;
    stream->avail_out = (uInt)out->left;
    int code = deflate(stream, last ? Z_FINISH : Z_NO_FLUSH);
    in->at = stream->next_in;
    in->left = stream->avail_in;
    out->at = stream->next_out;
    out->left = stream->avail_out;
    *ended = code == Z_STREAM_END;
    return code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR ? IMC_OK : IMC_NO_MEMORY;
}

uint32_t imc_crc32(uint32_t crc, const uint8_t *data, size_t length) {
    return (uint32_t)crc32_z(crc, data, length);
}

const char *imc_gzip_library(void) {
    return "zlib";
}
