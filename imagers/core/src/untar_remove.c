/* SPDX-License-Identifier: Apache-2.0 */
/* Removal: of what an entry replaces, and of what a whiteout hides. */
#define _GNU_SOURCE
#include "untar_impl.h"

#include <dirent.h>
#include <stdlib.h>

#define MAX_DEPTH 100 /* of what a whiteout hides, where some of it must stay */

/* Removes what is no full directory. *deeper: stopped at one, whose name is in `found`. */
static bool remove_files(struct imc_untar *untar, int fd, char found[MAX_COMPONENT + 1],
                         bool *deeper) {
    *deeper = false;
    if (!untar->keep && fchmod(fd, 0700) != 0) {
        return false;
    }
    bool any = true;
    while (any) { /* until a whole pass finds nothing */
        any = false;
        if (lseek(fd, 0, SEEK_SET) < 0) {
            return false;
        }
        ssize_t length;
        while ((length = getdents64(fd, untar->dents, sizeof untar->dents)) > 0) {
            if (is_over(untar)) {
                errno = ECANCELED;
                return false;
            }
            for (ssize_t at = 0; at < length;) {
                const struct dirent64 *entry =
                    (const struct dirent64 *)(const void *)(untar->dents + at);
                at += entry->d_reclen;
                if (is_dot(entry->d_name)) {
                    continue;
                }
                any = true;
                if (unlinkat(fd, entry->d_name, 0) == 0 ||
                    unlinkat(fd, entry->d_name, AT_REMOVEDIR) == 0) {
                    continue;
                }
                if (errno != ENOTEMPTY && errno != EEXIST) {
                    return false;
                }
                size_t name_length = strlen(entry->d_name);
                if (name_length > MAX_COMPONENT) { /* unreachable on Linux */
                    errno = ENAMETOOLONG;
                    return false;
                }
                memcpy(found, entry->d_name, name_length + 1);
                *deeper = true;
                return true;
            }
        }
        if (length < 0) {
            return false;
        }
    }
    return true;
}

/* Removes a name and all below it. Needs two descriptors and no memory, at any depth: the
 * directory just emptied is removed when its parent is listed again. */
enum imc_fault imc_untar_remove_tree(struct imc_untar *untar, int parent, const char *name,
                                     struct imc_failure *failure) {
    if (unlinkat(parent, name, 0) == 0) {
        return IMC_OK;
    }
    int why = errno;
    if (why != EISDIR && why != EPERM && why != EACCES) {
        return imc_untar_fail_errno(untar, failure);
    }
    int at = imc_untar_open_directory(untar, parent, name);
    if (at < 0 && errno == ENOTDIR) {
        errno = why; /* a file that cannot be removed, such as an immutable one */
    }
    size_t depth = 0;
    char found[MAX_COMPONENT + 1];
    while (at >= 0) {
        bool deeper;
        if (!remove_files(untar, at, found, &deeper)) {
            break;
        }
        if (!deeper && depth == 0) {
            close(at);
            return unlinkat(parent, name, AT_REMOVEDIR) == 0 ? IMC_OK
                                                             : imc_untar_fail_errno(untar, failure);
        }
        /* Nobody moves directories here meanwhile: `..` is where we came from. */
        int next =
            deeper ? imc_untar_open_directory(untar, at, found) : openat(at, "..", OPEN_DIRECTORY);
        depth = deeper ? depth + 1 : depth - 1;
        close_quietly(at);
        at = next;
    }
    enum imc_fault fault = imc_untar_fail_errno(untar, failure);
    if (at >= 0) {
        close(at);
    }
    return fault;
}

/* Removes one name of a directory as far as lower layers put it there. */
enum imc_fault imc_untar_hide(struct imc_untar *untar, int fd, const struct stat *directory,
                              const char *name, const struct stat *there, unsigned depth,
                              struct imc_failure *failure) {
    bool ours = imc_untar_is_made(untar, directory, name);
    if (!S_ISDIR(there->st_mode)) {
        if (!ours && unlinkat(fd, name, 0) != 0) {
            return imc_untar_fail_errno(untar, failure);
        }
        return IMC_OK;
    }
    if (imc_path_set_count(untar->made) == 0) {
        return imc_untar_remove_tree(untar, fd, name, failure);
    }
    int child = imc_untar_open_directory(untar, fd, name);
    if (child < 0) {
        return imc_untar_fail_errno(untar, failure);
    }
    mode_t mode = there->st_mode & 07777;
    enum imc_fault fault = IMC_OK;
    if (!untar->keep && fchmod(child, mode | 0700) != 0) {
        fault = imc_untar_fail_errno(untar, failure);
    }
    if (fault == IMC_OK) {
        fault = imc_untar_clear(untar, child, depth + 1, failure);
    }
    if (fault == IMC_OK && (fchmod(child, mode) != 0 || !restore_time(child, there))) {
        fault = imc_untar_fail_errno(untar, failure);
    }
    close(child);
    if (fault == IMC_OK && !ours && unlinkat(fd, name, AT_REMOVEDIR) != 0 && errno != ENOTEMPTY &&
        errno != EEXIST) {
        fault = imc_untar_fail_errno(untar, failure);
    }
    return fault;
}

/* Removes of a directory's content what lower layers put there. Goes as deep as MAX_DEPTH:
 * each level holds a descriptor and a buffer.
 *
 * Once for each directory: what is in it afterwards is of this layer, and so is all that comes
 * later. A layer of a million entries could have it listed half a million times otherwise. What
 * tells of it is a name that is never made. */
enum imc_fault imc_untar_clear(struct imc_untar *untar, int fd, unsigned depth,
                               struct imc_failure *failure) {
    struct stat directory;
    if (depth > MAX_DEPTH) {
        return imc_untar_fail(untar, failure, IMC_ENTRY_DEPTH, MAX_DEPTH);
    }
    if (fstat(fd, &directory) != 0 || lseek(fd, 0, SEEK_SET) < 0) {
        return imc_untar_fail_errno(untar, failure);
    }
    if (imc_untar_is_made(untar, &directory, OPAQUE)) {
        return IMC_OK;
    }
    char *dents = malloc(DENTS_BYTES);
    if (dents == NULL) {
        return IMC_NO_MEMORY;
    }
    enum imc_fault fault = IMC_OK;
    ssize_t length = 0;
    while (fault == IMC_OK && (length = getdents64(fd, dents, DENTS_BYTES)) > 0) {
        for (ssize_t at = 0; fault == IMC_OK && at < length;) {
            const struct dirent64 *entry = (const struct dirent64 *)(const void *)(dents + at);
            at += entry->d_reclen;
            struct stat there;
            if (is_dot(entry->d_name)) {
                continue;
            }
            if (is_over(untar)) {
                fault = IMC_CANCELLED;
            } else if (fstatat(fd, entry->d_name, &there, AT_SYMLINK_NOFOLLOW) == 0) {
                fault =
                    imc_untar_hide(untar, fd, &directory, entry->d_name, &there, depth, failure);
            } else if (errno != ENOENT) {
                fault = imc_untar_fail_errno(untar, failure);
            }
        }
    }
    if (fault == IMC_OK && length < 0) {
        fault = imc_untar_fail_errno(untar, failure);
    }
    free(dents);
    /* While nothing is made, the directory is empty now, and whole trees may be removed. */
    if (fault == IMC_OK && imc_path_set_count(untar->made) != 0) {
        fault = imc_untar_add_made(untar, &directory, OPAQUE);
    }
    return fault;
}
