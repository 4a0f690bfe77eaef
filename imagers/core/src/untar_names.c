/* SPDX-License-Identifier: Apache-2.0 */
/* Names of entries: their parts, and which of them are reserved. */
#define _GNU_SOURCE
#include "untar_impl.h"

#define AUFS ".wh..wh." /* reserved by the file system that the prefix comes from */

bool imc_untar_next_part(const char *path, size_t length, size_t *at, const char **part,
                         size_t *part_length) {
    for (;;) {
        while (*at < length && path[*at] == '/') {
            (*at)++;
        }
        if (*at == length) {
            return false;
        }
        *part = path + *at;
        while (*at < length && path[*at] != '/') {
            (*at)++;
        }
        *part_length = (size_t)(path + *at - *part);
        if (*part_length != 1 || **part != '.') {
            return true;
        }
    }
}

enum imc_fault imc_untar_split(const struct imc_untar *untar, const char *name, size_t length,
                               char *buffer, enum imc_fault dotdot, const struct imc_entry *entry,
                               struct imc_parts *parts, struct imc_failure *failure) {
    size_t at = 0;
    size_t filled = 0;
    const char *part;
    size_t part_length;
    bool has_dotdot = false;
    bool too_long = false;
    *parts = (struct imc_parts){.path = buffer};
    while (imc_untar_next_part(name, length, &at, &part, &part_length)) {
        has_dotdot = has_dotdot || (part_length == 2 && memcmp(part, "..", 2) == 0);
        too_long = too_long || part_length > MAX_COMPONENT;
        parts->directory = filled;
        if (filled > 0) {
            buffer[filled++] = '/';
        }
        parts->last = buffer + filled;
        memcpy(buffer + filled, part, part_length);
        filled += part_length;
    }
    buffer[filled] = '\0';
    if (has_dotdot) {
        return dotdot == IMC_ENTRY_DOTDOT ? imc_untar_fail(untar, failure, dotdot, 0)
                                          : imc_untar_fail_target(untar, failure, dotdot, entry);
    }
    if (too_long) {
        return imc_untar_fail(untar, failure, IMC_ENTRY_LONG_COMPONENT, 0);
    }
    return IMC_OK;
}

void imc_untar_cut(char *buffer, const struct imc_parts *parts) {
    if (parts->directory > 0) {
        buffer[parts->directory] = '\0';
    }
}

static bool is_part(const char *part, size_t length, const char *name) {
    return length == strlen(name) && memcmp(part, name, length) == 0;
}

enum imc_fault imc_untar_check_reserved(struct imc_untar *untar, const struct imc_parts *parts,
                                        enum imc_kind kind, bool *left_out,
                                        struct imc_failure *failure) {
    bool whiteout = false;
    bool is_link = false;
    *left_out = false;
    for (const char *part = parts->path; part != NULL;) {
        const char *slash = strchr(part, '/');
        size_t length = slash == NULL ? strlen(part) : (size_t)(slash - part);
        bool is_links = part == parts->path && slash != NULL && slash + 1 == parts->last &&
                        kind == IMC_FILE && is_part(part, length, LINKS) &&
                        !starts_with(parts->last, WHITEOUT);
        bool is_aufs =
            length >= strlen(AUFS) && starts_with(part, AUFS) && !is_part(part, length, OPAQUE);
        is_link = is_link || is_links;
        *left_out = *left_out || (is_aufs && !is_links);
        whiteout = whiteout || (slash != NULL && starts_with(part, WHITEOUT) && !is_links);
        part = slash == NULL ? NULL : slash + 1;
    }
    if (is_link || *left_out) {
        imc_untar_leave_out(untar, IMC_LEFT_AUFS, NULL);
        untar->has_links = untar->has_links || !*left_out;
        return IMC_OK;
    }
    return whiteout ? imc_untar_fail(untar, failure, IMC_ENTRY_WHITEOUT, 0) : IMC_OK;
}
