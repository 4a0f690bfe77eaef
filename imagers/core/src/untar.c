/* SPDX-License-Identifier: Apache-2.0 */
/* Unpacking below a directory descriptor. Nothing outside of it is ever touched.
 *
 * - A name is relative to the root, also where it starts with `/`, as docker and umoci have
 *   it. A `..` in the name of an entry or in the target of a hard link is refused: no tool
 *   writes one into a layer.
 * - The directories of a name are resolved inside the root (openat2, RESOLVE_IN_ROOT):
 *   symbolic links of this layer or lower ones are followed, absolute ones and `..` from
 *   the root, and cannot leave it. Missing ones are made, 0755, with the time of the entry
 *   that needed them.
 * - The last part of a name is never followed. What is there is replaced, except that a
 *   directory stays a directory and only changes its owner, mode and time.
 * - A whiteout removes what lower layers put there, and not what this layer did.
 * - Owner, then extended attributes (chown clears file capabilities), then mode (chown clears
 *   set-user-id), then time. A directory that gets new content gets its time back when the
 *   next directory is worked on, so that none has to be remembered.
 * - What cannot or must not be made is left out and counted. What had its name goes all the
 *   same, and so do hard links to a device that was left out.
 *
 * imagers/core/plain_unpack.py does the same, and is what this is tested against. Nobody
 * else changes the tree meanwhile: it is in a staging place.
 */
#define _GNU_SOURCE
#include "untar_impl.h"

#include <stdlib.h>

enum imc_fault imc_untar_new(const struct imc_options *options, const atomic_bool *over,
                             struct imc_untar **out) {
    struct imc_untar *untar = calloc(1, sizeof *untar);
    if (untar == NULL) {
        return IMC_NO_MEMORY;
    }
    untar->root = options->root_fd;
    untar->keep = options->keep_owner;
    untar->privileged = geteuid() == 0;
    untar->walks = options->force != NULL && strcmp(options->force, "walk") == 0;
    untar->over = over;
    untar->max_entries = options->max_entries;
    untar->parent.fd = -1;
    untar->file = -1;
    enum imc_fault fault = imc_path_set_new(&untar->made);
    if (fault != IMC_OK) {
        free(untar);
        return fault;
    }
    *out = untar;
    return IMC_OK;
}

void imc_untar_free(struct imc_untar *untar) {
    if (untar == NULL) {
        return;
    }
    if (untar->file >= 0) {
        close(untar->file);
    }
    if (untar->parent.fd >= 0) {
        close(untar->parent.fd);
    }
    imc_path_set_free(untar->made);
    free(untar);
}

uint64_t imc_untar_entries(const struct imc_untar *untar) {
    return untar->entries;
}

const struct imc_left_out *imc_untar_left_out(const struct imc_untar *untar) {
    return untar->left_out;
}

/* Parents */

static enum imc_fault leave(struct imc_untar *untar, struct imc_failure *failure) {
    struct parent *parent = &untar->parent;
    if (parent->fd < 0) {
        return IMC_OK;
    }
    bool good = imc_untar_lock(&parent->lock) &&
                (!parent->changed || restore_time(parent->fd, &parent->before));
    enum imc_fault fault = good ? IMC_OK : imc_untar_fail_errno(untar, failure);
    close(parent->fd);
    parent->fd = -1;
    return fault;
}

/* The directory `path` as untar->parent; untar->parent.fd is -1 if it is not there, which
 * it always is with an `entry`. */
static enum imc_fault enter(struct imc_untar *untar, const char *path, size_t length,
                            const struct imc_entry *entry, struct imc_failure *failure) {
    struct parent *parent = &untar->parent;
    if (parent->fd >= 0 && parent->path_length == length &&
        memcmp(parent->path, path, length) == 0) {
        return IMC_OK;
    }
    enum imc_fault fault = leave(untar, failure);
    int fd = -1;
    if (fault == IMC_OK) {
        fault = imc_untar_resolve(untar, path, length, entry, &fd, failure);
    }
    if (fault != IMC_OK || fd < 0) {
        return fault;
    }
    if (fstat(fd, &parent->before) != 0 || !imc_untar_unlock(untar, fd, &parent->lock)) {
        fault = imc_untar_fail_errno(untar, failure);
        close(fd);
        return fault;
    }
    parent->changed = false;
    parent->fd = fd;
    memcpy(parent->path, path, length); /* a part of a name of at most MAX_PATH - 1 bytes */
    parent->path_length = length;
    return IMC_OK;
}

/* Kinds of entries. Each but whiteouts has untar->parent open and writes into it. */

static enum imc_fault make_file(struct imc_untar *untar, const char *name,
                                const struct imc_entry *entry, struct imc_failure *failure) {
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(untar->parent.fd, name, flags, 0600);
    if (fd < 0 && errno == EEXIST) {
        enum imc_fault fault = imc_untar_remove_tree(untar, untar->parent.fd, name, failure);
        if (fault != IMC_OK) {
            return fault;
        }
        fd = openat(untar->parent.fd, name, flags, 0600);
    }
    if (fd < 0) {
        return imc_untar_fail_errno(untar, failure);
    }
    untar->file = fd;
    untar->entry = *entry;
    return IMC_OK;
}

static enum imc_fault make_directory(struct imc_untar *untar, const char *name,
                                     const struct imc_entry *entry, struct imc_failure *failure) {
    int parent = untar->parent.fd;
    bool is_old = false;
    if (mkdirat(parent, name, 0700) != 0) {
        struct stat there;
        if (errno != EEXIST || fstatat(parent, name, &there, AT_SYMLINK_NOFOLLOW) != 0) {
            return imc_untar_fail_errno(untar, failure);
        }
        is_old = S_ISDIR(there.st_mode);
        if (!is_old && (unlinkat(parent, name, 0) != 0 || mkdirat(parent, name, 0700) != 0)) {
            return imc_untar_fail_errno(untar, failure);
        }
    }
    int fd = imc_untar_open_directory(untar, parent, name);
    if (fd < 0) {
        return imc_untar_fail_errno(untar, failure);
    }
    enum imc_fault fault = is_old ? imc_untar_clear_extended(untar, fd, failure) : IMC_OK;
    if (fault == IMC_OK) {
        fault = imc_untar_set_attributes(untar, fd, entry, failure);
    }
    close(fd);
    return fault;
}

static enum imc_fault make_symlink(struct imc_untar *untar, const char *name,
                                   const struct imc_entry *entry, struct imc_failure *failure) {
    int parent = untar->parent.fd;
    if (entry->target_length == 0) {
        return imc_untar_fail(untar, failure, IMC_ENTRY_EMPTY_TARGET, 0);
    }
    if (symlinkat(entry->target, parent, name) != 0) {
        if (errno != EEXIST) {
            return imc_untar_fail_errno(untar, failure);
        }
        enum imc_fault fault = imc_untar_remove_tree(untar, parent, name, failure);
        if (fault != IMC_OK) {
            return fault;
        }
        if (symlinkat(entry->target, parent, name) != 0) {
            return imc_untar_fail_errno(untar, failure);
        }
    }
    struct timespec times[2] = {time_of(entry), time_of(entry)};
    if (untar->keep && fchownat(parent, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) != 0) {
        return imc_untar_fail_errno(untar, failure);
    }
    enum imc_fault fault = imc_untar_set_extended(untar, -1, name, entry, failure);
    if (fault == IMC_OK && utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) != 0) {
        fault = imc_untar_fail_errno(untar, failure);
    }
    return fault;
}

/* A second name for what is at `source`; owner, mode and time are those of the first. */
static enum imc_fault link_to(struct imc_untar *untar, int source, const char *target,
                              const struct imc_parts *parts, const struct imc_entry *entry,
                              struct imc_failure *failure) {
    struct stat there;
    struct stat old;
    struct lock lock;
    enum imc_left kind;
    bool is_open = imc_untar_unlock(untar, source, &lock);
    bool has_target = is_open && fstatat(source, target, &there, AT_SYMLINK_NOFOLLOW) == 0;
    bool is_missing = is_open && !has_target && errno == ENOENT;
    /* At once: the directory may be the parent that is left, or the one that is entered. */
    if (!imc_untar_lock(&lock) || !(has_target || is_missing)) {
        return imc_untar_fail_errno(untar, failure);
    }
    if (is_missing) {
        if (!imc_untar_find_left_out(untar, source, target, &kind)) {
            return imc_untar_fail_target(untar, failure, IMC_ENTRY_TARGET, entry);
        }
        enum imc_fault entered = enter(untar, parts->path, parts->directory, entry, failure);
        return entered == IMC_OK ? imc_untar_without_node(untar, parts->last, kind, failure)
                                 : entered;
    }
    if (S_ISDIR(there.st_mode)) {
        return imc_untar_fail_target(untar, failure, IMC_ENTRY_TARGET_DIRECTORY, entry);
    }
    enum imc_fault fault = enter(untar, parts->path, parts->directory, entry, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    struct parent *parent = &untar->parent;
    bool has_old = fstatat(parent->fd, parts->last, &old, AT_SYMLINK_NOFOLLOW) == 0;
    if (!has_old && errno != ENOENT) {
        return imc_untar_fail_errno(untar, failure);
    }
    /* Removing the old name first would lose the file if both are one. */
    if (!has_old || old.st_dev != there.st_dev || old.st_ino != there.st_ino) {
        if (has_old) {
            fault = imc_untar_remove_tree(untar, parent->fd, parts->last, failure);
        }
        if (fault != IMC_OK) {
            return fault;
        }
        parent->changed = true;
        is_open = imc_untar_unlock(untar, source, &lock);
        bool is_linked = is_open && linkat(source, target, parent->fd, parts->last, 0) == 0;
        int why = errno;
        if (!imc_untar_lock(&lock)) {
            return imc_untar_fail_errno(untar, failure);
        }
        errno = why;
        if (!is_linked) {
            /* ENOENT: it was inside what this entry replaces. */
            return errno == ENOENT ? imc_untar_fail_target(untar, failure, IMC_ENTRY_TARGET, entry)
                                   : imc_untar_fail_errno(untar, failure);
        }
    }
    return imc_untar_add_made(untar, &parent->before, parts->last);
}

static enum imc_fault hard_link(struct imc_untar *untar, const struct imc_parts *parts,
                                const struct imc_entry *entry, struct imc_failure *failure) {
    struct imc_parts target;
    int source = -1;
    enum imc_fault fault =
        imc_untar_split(untar, entry->target, entry->target_length, untar->target,
                        IMC_ENTRY_TARGET_DOTDOT, entry, &target, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    if (target.last == NULL) {
        return imc_untar_fail_target(untar, failure, IMC_ENTRY_TARGET_DIRECTORY, entry);
    }
    imc_untar_cut(untar->target, &target);
    fault = imc_untar_resolve(untar, target.path, target.directory, NULL, &source, failure);
    if (fault == IMC_OK && source < 0) {
        return imc_untar_fail_target(untar, failure, IMC_ENTRY_TARGET, entry);
    }
    if (fault == IMC_OK) {
        fault = link_to(untar, source, target.last, parts, entry, failure);
        close(source);
    }
    return fault;
}

static enum imc_fault whiteout(struct imc_untar *untar, const struct imc_parts *parts,
                               const struct imc_entry *entry, struct imc_failure *failure) {
    const char *hidden = parts->last + strlen(WHITEOUT);
    /* On aufs all whiteouts are one file: in a tar of it they are links to the first. */
    bool is_file = entry->kind == IMC_FILE || entry->kind == IMC_HARD_LINK;
    if (hidden[0] == '\0' || is_dot(hidden) || !is_file) {
        return imc_untar_fail(untar, failure, IMC_ENTRY_WHITEOUT, 0);
    }
    enum imc_fault fault = enter(untar, parts->path, parts->directory, NULL, failure);
    struct parent *parent = &untar->parent;
    if (fault != IMC_OK || parent->fd < 0) {
        return fault; /* nothing there, nothing to hide */
    }
    parent->changed = true;
    if (strcmp(parts->last, OPAQUE) == 0) {
        return imc_untar_clear(untar, parent->fd, 0, failure);
    }
    struct stat there;
    if (fstatat(parent->fd, hidden, &there, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? IMC_OK : imc_untar_fail_errno(untar, failure);
    }
    return imc_untar_hide(untar, parent->fd, &parent->before, hidden, &there, 0, failure);
}

static enum imc_fault begin_root(struct imc_untar *untar, const struct imc_entry *entry,
                                 struct imc_failure *failure) {
    if (entry->kind != IMC_DIRECTORY) {
        return imc_untar_fail(untar, failure, IMC_ENTRY_ROOT, 0);
    }
    enum imc_fault fault = leave(untar, failure);
    if (fault == IMC_OK) {
        fault = imc_untar_clear_extended(untar, untar->root, failure);
    }
    return fault == IMC_OK ? imc_untar_set_attributes(untar, untar->root, entry, failure) : fault;
}

enum imc_fault imc_untar_begin(struct imc_untar *untar, const struct imc_entry *entry,
                               struct imc_failure *failure) {
    struct imc_parts parts;
    bool left_out = false;
    untar->name = entry->name;
    untar->name_length = entry->name_length;
    if (is_over(untar)) { /* some hundred entries come in one piece */
        return IMC_CANCELLED;
    }
    enum imc_fault fault = imc_untar_count(untar, failure);
    if (fault == IMC_OK) {
        fault = imc_untar_split(untar, entry->name, entry->name_length, untar->parts,
                                IMC_ENTRY_DOTDOT, entry, &parts, failure);
    }
    if (fault == IMC_OK && parts.last == NULL) {
        return begin_root(untar, entry, failure);
    }
    if (fault == IMC_OK) {
        fault = imc_untar_check_reserved(untar, &parts, entry->kind, &left_out, failure);
    }
    if (fault != IMC_OK || left_out) {
        return fault;
    }
    imc_untar_cut(untar->parts, &parts);
    if (starts_with(parts.last, WHITEOUT)) {
        return whiteout(untar, &parts, entry, failure);
    }
    if (entry->kind == IMC_HARD_LINK) {
        return hard_link(untar, &parts, entry, failure);
    }
    fault = enter(untar, parts.path, parts.directory, entry, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    untar->parent.changed = true;
    switch (entry->kind) {
    case IMC_DIRECTORY:
        fault = make_directory(untar, parts.last, entry, failure);
        break;
    case IMC_SYMLINK:
        fault = make_symlink(untar, parts.last, entry, failure);
        break;
    case IMC_CHARACTER_DEVICE:
    case IMC_BLOCK_DEVICE:
    case IMC_FIFO:
        fault = imc_untar_make_node(untar, parts.last, entry, failure);
        break;
    default: /* hard links were done above */
        fault = make_file(untar, parts.last, entry, failure);
        break;
    }
    return fault == IMC_OK ? imc_untar_add_made(untar, &untar->parent.before, parts.last) : fault;
}

enum imc_fault imc_untar_seek(struct imc_untar *untar, uint64_t offset,
                              struct imc_failure *failure) {
    /* At most the size of the file, which the reader keeps below 2**63. */
    bool good = untar->file < 0 || lseek(untar->file, (off_t)offset, SEEK_SET) >= 0;
    return good ? IMC_OK : imc_untar_fail_errno(untar, failure);
}

enum imc_fault imc_untar_data(struct imc_untar *untar, const uint8_t *data, size_t length,
                              struct imc_failure *failure) {
    while (untar->file >= 0 && length > 0) { /* a whiteout has no file: data is skipped */
        ssize_t written = write(untar->file, data, length);
        if (written < 0) {
            if (errno == EINTR) {
                continue;
            }
            return imc_untar_fail_errno(untar, failure);
        }
        data += written;
        length -= (size_t)written;
    }
    return IMC_OK;
}

enum imc_fault imc_untar_end(struct imc_untar *untar, struct imc_failure *failure) {
    if (untar->file < 0) {
        return IMC_OK;
    }
    int fd = untar->file;
    untar->file = -1;
    const struct imc_entry *entry = &untar->entry;
    enum imc_fault fault = IMC_OK;
    if (entry->is_sparse && ftruncate(fd, (off_t)entry->size) != 0) {
        fault = imc_untar_fail_errno(untar, failure);
    }
    if (fault == IMC_OK) {
        fault = imc_untar_set_attributes(untar, fd, entry, failure);
    }
    if (fault != IMC_OK) {
        close(fd);
        return fault;
    }
    /* close() tells of a quota or a network disk; the descriptor is gone in any case. */
    return close(fd) == 0 || errno == EINTR ? IMC_OK : imc_untar_fail_errno(untar, failure);
}

enum imc_fault imc_untar_finish(struct imc_untar *untar, struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    if (untar->has_links) {
        untar->has_links = false;
        fault = enter(untar, "", 0, NULL, failure);
        if (fault == IMC_OK) {
            untar->parent.changed = true;
            fault = imc_untar_remove_tree(untar, untar->parent.fd, LINKS, failure);
        }
    }
    return fault == IMC_OK ? leave(untar, failure) : fault;
}
