/* SPDX-License-Identifier: Apache-2.0 */
/* Shared inside the plain half of imagers_core; nothing of this is an interface. */
#ifndef IMAGERS_IMPL_H
#define IMAGERS_IMPL_H

#include "imagers_core.h"

#include <pthread.h>
#include <stdatomic.h>

#define IMC_FRAME_BYTES ((size_t)4 * 1024 * 1024) /* of tar in one frame that we write */

/* error.c. Each stores the facts and returns the fault; `text` and `more` may be NULL. */
enum imc_fault imc_fail(struct imc_failure *failure, enum imc_fault fault, uint64_t number,
                        uint64_t other);
enum imc_fault imc_fail_text(struct imc_failure *failure, enum imc_fault fault, const void *text,
                             size_t text_length, const void *more, size_t more_length,
                             uint64_t number, uint64_t other);
/* Whether a fault is one of the data, which waits for the checks of the stored bytes. */
bool imc_is_of_data(enum imc_fault fault);

/* thread.c: a thread with signals blocked, false if there is none to be had; a condition variable
 * that counts in CLOCK_MONOTONIC, and its waiting. */
bool imc_spawn(pthread_t *thread, void *(*body)(void *), void *argument);
int imc_cond_init(pthread_cond_t *cond);
void imc_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, unsigned milliseconds);

/* Whose work line.c and frames.c do. */
struct imc_owner {
    void *context;                  /* for all that they call */
    const atomic_bool *over;        /* the work ends without a result */
    void (*abandon)(void *context); /* from a thread that cannot go on: stops all others */
};

/* layer.c: digests, and the table of functions that hash and cipher. */

struct imc_hasher; /* an incremental hash by libcrypto */
/* `digest` is "algorithm:...". */
enum imc_fault imc_hasher_new(const char *digest, struct imc_hasher **hasher);
enum imc_fault imc_hasher_step(struct imc_hasher *hasher, const uint8_t *data, size_t length);
enum imc_fault imc_hasher_finish(struct imc_hasher *hasher, char text[IMC_DIGEST_TEXT]);
void imc_hasher_free(struct imc_hasher *hasher);
/* "algorithm:" and hex digits; at most 64 bytes of an algorithm that fits. */
void imc_digest_text(const char *algorithm, const uint8_t *digest, size_t length,
                     char text[IMC_DIGEST_TEXT]);

struct imc_layer_config {
    bool sealing;
    bool has_cipher;
    bool has_mac;
    const uint8_t *key;      /* of both */
    const uint8_t *nonce;    /* of the cipher */
    const char *stored_hash; /* "algorithm:..." of the bytes on the registry's side; NULL: none */
    const char *plain_hash;  /* of the bytes on the other side of the cipher; NULL: none */
};

struct imc_layer_sums {
    char stored[IMC_DIGEST_TEXT]; /* empty without stored_hash */
    char plain[IMC_DIGEST_TEXT];  /* empty without plain_hash */
    uint8_t hmac[IMC_MAC_BYTES];  /* only with a mac */
};

/* Everything that is done to each byte of a layer at one end of the pipeline, so that a
 * faster entry can do it in one pass: AES-256-CTR in place, HMAC-SHA256 over the
 * ciphertext, the digest of the stored bytes, the digest of the plain ones. */
struct imc_layer_ops {
    const char *name;
    bool (*usable)(const struct imc_layer_config *config); /* NULL: asks for the machine only */
    enum imc_fault (*init)(const struct imc_layer_config *config, void **state);
    /* Lengths are multiples of 64 but for the last one. */
    enum imc_fault (*step)(void *state, uint8_t *data, size_t length);
    enum imc_fault (*finish)(void *state, struct imc_layer_sums *sums);
    void (*wipe)(void *state); /* and free; NULL is fine */
};

extern const struct imc_layer_ops imc_layer_shani;
extern const struct imc_layer_ops imc_layer_libcrypto;
/* The first usable entry of the table. Forced: the one of that name, or the definition for
 * what that cannot do; NULL if there is none of that name. */
const struct imc_layer_ops *imc_layer_pick(const struct imc_layer_config *config,
                                           const char *force);

/* pieces.c: codes of the pieces of a source, made or compared. */

struct imc_pieces;

/* `codes` NULL: they are made. */
enum imc_fault imc_pieces_new(const uint8_t *key, const uint8_t *codes, size_t length,
                              struct imc_pieces **pieces);
/* The next piece. IMC_CHANGED: it is another one than when the codes were made. */
enum imc_fault imc_pieces_take(struct imc_pieces *pieces, const uint8_t *data, size_t length);
const uint8_t *imc_pieces_codes(const struct imc_pieces *pieces, size_t *length);
/* The first bytes of the source, where codes are made. */
const uint8_t *imc_pieces_beginning(const struct imc_pieces *pieces, size_t *length);
void imc_pieces_free(struct imc_pieces *pieces); /* NULL is fine */

/* gzip_stage.c, zstd_stage.c. A stage owns no thread and no file. A step takes input and
 * gives output until one of them is used up; the caller comes back with more of it. */

struct imc_in {
    const uint8_t *at;
    size_t left;
};

struct imc_out {
    uint8_t *at;
    size_t left;
};

struct imc_stage;

struct imc_stage_ops {
    enum imc_fault (*step)(struct imc_stage *stage, struct imc_in *in, struct imc_out *out,
                           struct imc_failure *failure);
    /* Is told that there is no more input. *done is false if output is left to give. */
    enum imc_fault (*finish)(struct imc_stage *stage, struct imc_out *out, bool *done,
                             struct imc_failure *failure);
    void (*free)(struct imc_stage *stage);
};

struct imc_stage {
    const struct imc_stage_ops *ops;
};

enum imc_fault imc_gzip_reader(struct imc_stage **stage);
enum imc_fault imc_gzip_writer(struct imc_stage **stage);
enum imc_fault imc_zstd_reader(uint64_t window_bytes, struct imc_stage **stage);
enum imc_fault imc_zstd_writer(struct imc_stage **stage);

/* The most that one of them allocates; for a reader of zstd, with the window besides. */
#define IMC_READER_BYTES ((size_t)512 * 1024)
#define IMC_GZIP_WRITER_BYTES ((size_t)512 * 1024)
#define IMC_ZSTD_WRITER_BYTES ((size_t)4 * 1024 * 1024)

/* ring.c: pieces from one thread to another, in order, with bounded memory. */

#define IMC_SLOTS 8

struct imc_ring;

enum imc_fault imc_ring_new(struct imc_ring **ring);
void imc_ring_free(struct imc_ring *ring);
/* Producer. NULL: no slot was free within that time, or the ring was stopped. */
uint8_t *imc_ring_acquire(struct imc_ring *ring, unsigned milliseconds);
void imc_ring_commit(struct imc_ring *ring, size_t length);
void imc_ring_close(struct imc_ring *ring, bool surplus);
/* Consumer: waits; false at the end or when the ring was stopped. The piece is in *buffer then, and
 * the one that was there, of IMC_PIECE bytes too, in the ring. */
bool imc_ring_take(struct imc_ring *ring, uint8_t **buffer, size_t *length);
bool imc_ring_is_ready(struct imc_ring *ring); /* `take` would not wait */
bool imc_ring_surplus(struct imc_ring *ring);  /* after the end */
/* Either side: wakes both, for good. */
void imc_ring_stop(struct imc_ring *ring);

size_t imc_ring_bytes(void);

/* tar_reader.c: the format. untar.c: the files. */

enum imc_kind { /* as ustar counts them */
                IMC_FILE = 0,
                IMC_HARD_LINK = 1,
                IMC_SYMLINK = 2,
                IMC_CHARACTER_DEVICE = 3,
                IMC_BLOCK_DEVICE = 4,
                IMC_DIRECTORY = 5,
                IMC_FIFO = 6,
};

struct imc_attribute {
    const char *name; /* ended by a NUL */
    size_t name_length;
    const uint8_t *value; /* NULL: a record of something that is never set */
    size_t value_length;
};

struct imc_entry {
    enum imc_kind kind;
    const char *name; /* ended by a NUL; `name_length` long, without one inside */
    size_t name_length;
    const char *target;
    size_t target_length;
    uint32_t mode;
    uint32_t uid;
    uint32_t gid;
    uint64_t size; /* of the file, with its holes */
    bool is_sparse;
    int64_t mtime; /* seconds */
    uint32_t mtime_nanoseconds;
    uint32_t major;
    uint32_t minor;
    const struct imc_attribute *attributes; /* until the entry ends */
    size_t attribute_count;
};

struct imc_untar;
struct imc_tar_reader;

enum imc_fault imc_untar_new(const struct imc_options *options, const atomic_bool *over,
                             struct imc_untar **untar);
void imc_untar_free(struct imc_untar *untar);
enum imc_fault imc_untar_begin(struct imc_untar *untar, const struct imc_entry *entry,
                               struct imc_failure *failure);
/* Up to here there is a hole. */
enum imc_fault imc_untar_seek(struct imc_untar *untar, uint64_t offset,
                              struct imc_failure *failure);
enum imc_fault imc_untar_data(struct imc_untar *untar, const uint8_t *data, size_t length,
                              struct imc_failure *failure);
enum imc_fault imc_untar_end(struct imc_untar *untar, struct imc_failure *failure);
enum imc_fault imc_untar_finish(struct imc_untar *untar, struct imc_failure *failure);
uint64_t imc_untar_entries(const struct imc_untar *untar);
/* IMC_LEFT_KINDS of them. */
const struct imc_left_out *imc_untar_left_out(const struct imc_untar *untar);

/* `untar` stays the caller's. */
enum imc_fault imc_tar_reader_new(struct imc_untar *untar, const struct imc_options *options,
                                  struct imc_tar_reader **reader);
void imc_tar_reader_free(struct imc_tar_reader *reader);
/* Of sparse files, on top of what the tar has of them. */
uint64_t imc_tar_reader_hole_bytes(const struct imc_tar_reader *reader);
enum imc_fault imc_tar_reader_step(struct imc_tar_reader *reader, const uint8_t *data,
                                   size_t length, struct imc_failure *failure);
enum imc_fault imc_tar_reader_finish(struct imc_tar_reader *reader, struct imc_failure *failure);

#endif
