/* SPDX-License-Identifier: Apache-2.0 */
/* imagers_core: one container layer through hashing, cipher, codec and tar.
 *
 * The plain half of the extension: no Python.h here or in anything that this declares.
 *
 *     seal   source -> [decode] -> [tar digest] -> [encode] -> cipher + mac -> sink
 *     open   source -> digest + mac + cipher -> [decode] -> [tar digest] -> sink or unpack
 *
 * The latter in two jobs where nothing may be looked at before it is known to be right:
 *
 *     check  source -> codes of its pieces -> digest + mac -> [sink]
 *     open   source -> the same codes? -> cipher -> [decode] -> [tar digest] -> sink or unpack
 *
 * A job is made, started, perhaps fed, waited for, joined, asked, and freed, in that order
 * and by one thread; cancel and progress may be called by any thread in between. The job
 * owns its threads, all of which end before imc_job_join returns.
 */
#ifndef IMAGERS_CORE_H
#define IMAGERS_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMC_KEY_BYTES 32
#define IMC_NONCE_BYTES 16
#define IMC_MAC_BYTES 32
#define IMC_DIGEST_TEXT 137   /* "sha512:" and 128 hex digits and a NUL, with two bytes to spare */
#define IMC_FAILURE_TEXT 1024 /* bytes of a foreign name that a failure keeps */
#define IMC_PIECE ((size_t)256 * 1024)
#define IMC_CODE_BYTES 16 /* of a piece: see pieces.c */
#define IMC_BEGINNING 512 /* bytes of a source that a check keeps */

/* What is wrong; imagers/core/failures.py has the same numbers and the words. */
enum imc_fault {
    IMC_OK = 0,
    IMC_CANCELLED = 1,
    IMC_NO_MEMORY = 2,
    IMC_CRYPTO = 3,
    IMC_READ = 4,
    IMC_WRITE = 5,
    IMC_KEEP = 6,
    IMC_STORED_SHORT = 10,
    IMC_STORED_LONG = 11,
    IMC_STORED_DIGEST = 12,
    IMC_TAG = 13,
    IMC_DIFF_ID = 14,
    IMC_CHANGED = 15,
    IMC_NOT_GZIP = 20,
    IMC_BAD_GZIP = 21,
    IMC_SHORT_GZIP = 22,
    IMC_GZIP_TRAILER = 23,
    IMC_NOT_ZSTD = 24,
    IMC_BAD_ZSTD = 25,
    IMC_SHORT_ZSTD = 26,
    IMC_ZSTD_TRAILER = 27,
    IMC_ZSTD_WINDOW = 28,
    IMC_TAR_BYTES = 30,
    IMC_ENTRIES = 31,
    IMC_NAME_BYTES = 32,
    IMC_TAR_CHECKSUM = 40,
    IMC_TAR_NUMBER = 41,
    IMC_TAR_SHORT = 42,
    IMC_TAR_LONE_ZERO = 43,
    IMC_TAR_PAX = 44,
    IMC_TAR_PAX_VALUE = 45,
    IMC_TAR_PAX_GLOBAL = 46,
    IMC_TAR_EXTENSION_TWICE = 47,
    IMC_TAR_EXTENSION_SIZE = 48,
    IMC_TAR_NUL = 49,
    IMC_ENTRY_DOTDOT = 61,
    IMC_ENTRY_ROOT = 62,
    IMC_ENTRY_OWNER = 63,
    IMC_ENTRY_TARGET = 64,
    IMC_ENTRY_TARGET_DOTDOT = 65,
    IMC_ENTRY_TARGET_DIRECTORY = 66,
    IMC_ENTRY_WHITEOUT = 67,
    IMC_ENTRY_PARENT = 68,
    IMC_ENTRY_LOOP = 69,
    IMC_ENTRY_LONG_COMPONENT = 70,
    IMC_ENTRY_KIND = 71,
    IMC_ENTRY_SPARSE = 72,
    IMC_ENTRY_XATTR = 73,
    IMC_ENTRY_XATTRS = 74,
    IMC_ENTRY_SPARSE_MAP = 75,
    IMC_ENTRY_EMPTY_TARGET = 76,
    IMC_ENTRY_DEPTH = 77,
    IMC_ENTRY_DEVICE = 78,
    IMC_UNPACK = 80,
};

/* A fault with its facts: failures.py says which go with which. No NUL ends text or more. */
struct imc_failure {
    enum imc_fault fault;
    uint64_t number;
    uint64_t other;
    size_t text_length;
    size_t more_length;
    uint8_t text[IMC_FAILURE_TEXT];
    uint8_t more[IMC_FAILURE_TEXT];
};

/* What unpacking leaves out; imagers/core/left_out.py has the same numbers, the words and why. */
enum imc_left {
    IMC_LEFT_DEVICE = 0,
    IMC_LEFT_WHITEOUT_DEVICE = 1,
    IMC_LEFT_CAPABILITY = 2,
    IMC_LEFT_LABEL = 3,
    IMC_LEFT_OVERLAY = 4,
    IMC_LEFT_ATTRIBUTE = 5,
    IMC_LEFT_ACL = 6,
    IMC_LEFT_AUFS = 7,
    IMC_LEFT_KINDS = 8,
};

/* Things of one kind: how many, and the first one's name and attribute. No NUL ends these. */
struct imc_left_out {
    uint64_t count;
    size_t name_length;
    size_t attribute_length;
    uint8_t name[IMC_FAILURE_TEXT];
    uint8_t attribute[IMC_FAILURE_TEXT];
};

enum imc_compression { IMC_PLAIN = 0, IMC_GZIP = 1, IMC_ZSTD = 2 };

/* What is to be done. Nothing behind a pointer is needed after imc_job_new returns. */
struct imc_options {
    bool sealing;
    bool has_cipher;
    const uint8_t *key;       /* IMC_KEY_BYTES, with a cipher */
    const uint8_t *nonce;     /* IMC_NONCE_BYTES, with a cipher */
    const uint8_t *hmac;      /* IMC_MAC_BYTES, to open with a cipher */
    const uint8_t *piece_key; /* IMC_KEY_BYTES; opening: a check, or what follows it. NULL: none */
    const uint8_t *codes;     /* of the pieces, in place of digest and hmac; NULL: a check */
    size_t codes_length;      /* in bytes: IMC_CODE_BYTES for each piece of the source */
    const char *digest;       /* "sha256:..." of the source */
    const char *diff_id;      /* of the tar; NULL: computed with SHA-256, not compared */
    uint64_t size;            /* of the source */
    enum imc_compression decode; /* to undo */
    enum imc_compression encode; /* to do, when sealing */
    bool sees_tar;               /* the decoded bytes are the tar, and it is wanted */
    bool gives_tar;              /* when opening: a sink that is a file gets the tar */
    int source_fd;               /* -1: fed */
    int sink_fd;                 /* -1: none */
    int root_fd;                 /* a directory to unpack into; -1: none */
    bool keep_owner;
    uint64_t tar_bytes;
    uint64_t window_bytes; /* a power of two */
    uint64_t max_entries;
    uint64_t max_name_bytes; /* at most 4095 */
    unsigned threads;        /* the most that work on it at once; below 2: one, piece by piece */
    /* For tests, NULL otherwise: "layer=NAME" forces an entry of the table of layer functions,
     * "walk" resolves paths without openat2, "split" has several threads also for what is small. */
    const char *force;
};

struct imc_progress {
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t entries;
};

/* What came of it; meaningful after imc_job_join returned IMC_OK. */
struct imc_result {
    uint64_t stored_size; /* of what was written when sealing, of the source when opening */
    uint64_t tar_size;
    uint64_t entries;
    uint64_t hole_bytes; /* of sparse files that were unpacked */
    char stored_digest[IMC_DIGEST_TEXT];
    char tar_digest[IMC_DIGEST_TEXT]; /* empty: no tar was seen */
    /* SHA-256 of what a sink got, when opening without decompression; empty otherwise. */
    char opened_digest[IMC_DIGEST_TEXT];
    bool has_hmac;
    uint8_t hmac[IMC_MAC_BYTES];
};

struct imc_job;

/* The most that a job with these options has in memory at once, but for the threads' stacks, for
 * what unpacking remembers of its entries (up to 32 bytes each) and for the codes of pieces (up to
 * 128 bytes for each MiB of the source). Only these count: sealing,
 * decode, encode, sees_tar, size, source_fd, root_fd, window_bytes, threads. */
size_t imc_job_memory(const struct imc_options *options);

/* Makes a job that has copied all it needs, key included. After IMC_READ there is an errno:
 * too many open files. */
enum imc_fault imc_job_new(const struct imc_options *options, struct imc_job **job);
/* Starts the thread. The job is to be joined after that, whatever this returns. */
enum imc_fault imc_job_start(struct imc_job *job);
/* A slot of IMC_PIECE bytes to be filled, or NULL after at most `milliseconds`. */
uint8_t *imc_job_slot(struct imc_job *job, unsigned milliseconds);
/* Hands the slot over; all but the last have IMC_PIECE bytes. */
void imc_job_commit(struct imc_job *job, size_t length);
/* Says that nothing more comes, and whether the source went on after `size` bytes. */
void imc_job_end_of_source(struct imc_job *job, bool surplus);
/* Whether the thread has done all it will do, waiting for that at most `milliseconds`. */
bool imc_job_wait(struct imc_job *job, unsigned milliseconds);
void imc_job_cancel(struct imc_job *job);
void imc_job_progress(const struct imc_job *job, struct imc_progress *progress);
/* Waits for the thread; then result and failure are final. Safe to call twice. */
enum imc_fault imc_job_join(struct imc_job *job);
const struct imc_result *imc_job_result(const struct imc_job *job);
/* Of a check: the codes of all pieces, and the first bytes of the source; NULL of other jobs. */
const uint8_t *imc_job_codes(const struct imc_job *job, size_t *length);
const uint8_t *imc_job_beginning(const struct imc_job *job, size_t *length);
/* IMC_LEFT_KINDS of them, or NULL where nothing was unpacked. */
const struct imc_left_out *imc_job_left_out(const struct imc_job *job);
const struct imc_failure *imc_job_failure(const struct imc_job *job);
/* Wipes and frees; the job is joined or was never started. NULL is fine. */
void imc_job_free(struct imc_job *job);

/* sm2.c: whether a message was signed by a key under a user id. */

#define IMC_SM2_NUMBER 32    /* bytes of a coordinate, of r, of s; big-endian */
#define IMC_SM2_USER_ID 8190 /* its length in bits has to fit 16 bits, and libcrypto's check */

struct imc_sm2 {
    const uint8_t *public_key; /* x, y */
    const uint8_t *signature;  /* r, s */
    const uint8_t *message;
    size_t message_length;
    const uint8_t *user_id;
    size_t user_id_length; /* 1 to IMC_SM2_USER_ID */
};

/* After IMC_OK `good` is the answer; a key that is no point of the curve has signed nothing. */
enum imc_fault imc_sm2_verify(const struct imc_sm2 *signed_by, bool *good);

/* kmac.c: a code, or a derived key, of 1 to IMC_KMAC_BYTES. */

#define IMC_KMAC_KEY_MIN 4
#define IMC_KMAC_BYTES 512 /* the most of key, customization and code: libcrypto's bounds */

struct imc_kmac {
    const uint8_t *key;
    size_t key_length;
    const uint8_t *data;
    size_t data_length;
    const uint8_t *customization;
    size_t customization_length;
};

enum imc_fault imc_kmac256(const struct imc_kmac *input, uint8_t *out, size_t length);

/* For tests and for humans. */
const char *imc_fault_name(enum imc_fault fault);
const char *imc_layer_name(size_t index); /* of the table; NULL after the last usable one */
const char *imc_gzip_library(void);
/* Calls `visit` with each fault but IMC_OK. */
void imc_each_fault(void (*visit)(void *context, enum imc_fault fault), void *context);

#endif
