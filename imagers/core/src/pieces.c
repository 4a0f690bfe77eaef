/* SPDX-License-Identifier: Apache-2.0 */
/* The codes by which the pieces of a source are known again when it is read a second time.
 *
 * A file may lie on a disk that others write: that it was checked says nothing about what it gives
 * the next time. So who checks it keeps in memory a code of each piece, and who reads it again
 * compares that with the very buffer that it goes on with.
 *
 *     piece    IMC_PIECE bytes of the source, but for the last one
 *     code     GMAC: the tag of AES-256-GCM over the piece as associated data, and no plaintext
 *     key      of its own for each source, random
 *     nonce    number of the piece, from 0: 96 bits, big-endian
 *
 * GCM puts the length into what it authenticates. A nonce is used for one piece when codes are
 * made, and then for as many comparisons as it takes to find one that fails: the last.
 *
 * Spec: NIST SP 800-38D, sections 5.2.1 and 8.2.1.
 */
#include "impl.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define NONCE_BYTES 12
#define FIRST_CODES ((size_t)64)

struct imc_pieces {
    EVP_CIPHER_CTX *context;
    bool makes;
    uint64_t count; /* of the pieces that were here */
    uint8_t *codes;
    size_t length; /* of the codes, in bytes */
    size_t room;   /* for them, where they are made */
    uint8_t beginning[IMC_BEGINNING];
    size_t beginning_length;
};

static enum imc_fault compute(struct imc_pieces *pieces, const uint8_t *data, size_t length,
                              uint8_t code[IMC_CODE_BYTES]) {
    uint8_t nonce[NONCE_BYTES] = {0};
    uint8_t nothing[EVP_MAX_BLOCK_LENGTH];
    int written = 0;
    for (unsigned i = 0; i < 8; i++) {
        nonce[NONCE_BYTES - 1 - i] = (uint8_t)(pieces->count >> (8 * i));
    }
    /* length is at most IMC_PIECE, which an int holds. */
    bool good =
        EVP_EncryptInit_ex2(pieces->context, NULL, NULL, nonce, NULL) == 1 &&
        EVP_EncryptUpdate(pieces->context, NULL, &written, data, (int)length) == 1 &&
        EVP_EncryptFinal_ex(pieces->context, nothing, &written) == 1 &&
        EVP_CIPHER_CTX_ctrl(pieces->context, EVP_CTRL_AEAD_GET_TAG, IMC_CODE_BYTES, code) == 1;
    return good ? IMC_OK : IMC_CRYPTO;
}

/* The table grows with what arrives, not with what was promised. */
static bool make_room(struct imc_pieces *pieces) {
    if (pieces->length < pieces->room) {
        return true;
    }
    size_t room = pieces->room == 0 ? FIRST_CODES * IMC_CODE_BYTES : pieces->room * 2;
    uint8_t *codes = room < pieces->room ? NULL : realloc(pieces->codes, room);
    if (codes == NULL) {
        return false;
    }
    pieces->codes = codes;
    pieces->room = room;
    return true;
}

static enum imc_fault make_code(struct imc_pieces *pieces, const uint8_t *data, size_t length) {
    if (!make_room(pieces)) {
        return IMC_NO_MEMORY;
    }
    if (pieces->count == 0) {
        pieces->beginning_length = length < IMC_BEGINNING ? length : IMC_BEGINNING;
        memcpy(pieces->beginning, data, pieces->beginning_length);
    }
    enum imc_fault fault = compute(pieces, data, length, pieces->codes + pieces->length);
    pieces->length += IMC_CODE_BYTES;
    return fault;
}

static enum imc_fault compare_code(struct imc_pieces *pieces, const uint8_t *data, size_t length) {
    uint8_t code[IMC_CODE_BYTES];
    uint64_t at = pieces->count * IMC_CODE_BYTES;
    if (at >= pieces->length) {
        return IMC_CHANGED;
    }
    enum imc_fault fault = compute(pieces, data, length, code);
    if (fault == IMC_OK && CRYPTO_memcmp(code, pieces->codes + at, IMC_CODE_BYTES) != 0) {
        fault = IMC_CHANGED;
    }
    return fault;
}

enum imc_fault imc_pieces_take(struct imc_pieces *pieces, const uint8_t *data, size_t length) {
    enum imc_fault fault =
        pieces->makes ? make_code(pieces, data, length) : compare_code(pieces, data, length);
    pieces->count++;
    return fault;
}

const uint8_t *imc_pieces_codes(const struct imc_pieces *pieces, size_t *length) {
    *length = pieces->length;
    return pieces->codes;
}

const uint8_t *imc_pieces_beginning(const struct imc_pieces *pieces, size_t *length) {
    *length = pieces->beginning_length;
    return pieces->beginning;
}

enum imc_fault imc_pieces_new(const uint8_t *key, const uint8_t *codes, size_t length,
                              struct imc_pieces **out) {
    struct imc_pieces *pieces = calloc(1, sizeof *pieces);
    if (pieces == NULL) {
        return IMC_NO_MEMORY;
    }
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    pieces->context = EVP_CIPHER_CTX_new();
    pieces->makes = codes == NULL;
    bool good = cipher != NULL && pieces->context != NULL &&
                EVP_EncryptInit_ex2(pieces->context, cipher, key, NULL, NULL) == 1;
    EVP_CIPHER_free(cipher);
    enum imc_fault fault = good ? IMC_OK : IMC_CRYPTO;
    if (good && length > 0) {
        pieces->codes = malloc(length);
        fault = pieces->codes == NULL ? IMC_NO_MEMORY : IMC_OK;
    }
    if (fault != IMC_OK) {
        imc_pieces_free(pieces);
        return fault;
    }
    if (length > 0) {
        memcpy(pieces->codes, codes, length);
        pieces->length = length;
    }
    *out = pieces;
    return IMC_OK;
}

void imc_pieces_free(struct imc_pieces *pieces) {
    if (pieces != NULL) {
        EVP_CIPHER_CTX_free(pieces->context); /* cleanses the key in it */
        free(pieces->codes);
        free(pieces);
    }
}
