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
 * - Owner, then mode (chown clears set-user-id), then time. A directory that gets new
 *   content gets its time back when the next directory is worked on, so that none has to
 *   be remembered.
 *
 * imagers/core/plain_unpack.py does the same, and is what this is tested against. Nobody
 * else changes the tree meanwhile: it is in a staging place.
 */
#define _GNU_SOURCE
#include "untar_impl.h"

#include <stdlib.h>

#define WHITEOUT ".wh." /* OCI image-spec v1.1, layer.md, "Whiteouts" */
#define AUFS ".wh..wh." /* reserved by the file system that the prefix comes from */

enum imc_fault imc_untar_new(const struct imc_options *options, const atomic_bool *cancelled,
                             struct imc_untar **out) {
    struct imc_untar *untar = calloc(1, sizeof *untar);
    if (untar == NULL) {
        return IMC_NO_MEMORY;
    }
    untar->root = options->root_fd;
    untar->keep = options->keep_owner;
    untar->privileged = geteuid() == 0;
    untar->walks = options->force != NULL && strcmp(options->force, "walk") == 0;
    untar->cancelled = cancelled;
    untar->max_entries = options->max_entries;
    untar->parent.fd = -1;
    untar->file = -1;
    enum imc_fault fault = imc_marks_new(&untar->made);
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
    imc_marks_free(untar->made);
    free(untar);
}

uint64_t imc_untar_entries(const struct imc_untar *untar) {
    return untar->entries;
}

/* Faults */

enum imc_fault imc_untar_fail(const struct imc_untar *untar, struct imc_failure *failure,
                              enum imc_fault fault, uint64_t number) {
    return imc_fail_text(failure, fault, untar->name, untar->name_length, NULL, 0, number, 0);
}

static enum imc_fault fail_target(const struct imc_untar *untar, struct imc_failure *failure,
                                  enum imc_fault fault, const struct imc_entry *entry) {
    return imc_fail_text(failure, fault, untar->name, untar->name_length, entry->target,
                         entry->target_length, 0, 0);
}

/* What errno says of the entry at hand. */
enum imc_fault imc_untar_fail_errno(const struct imc_untar *untar, struct imc_failure *failure) {
    int code = errno;
    switch (code) {
    case ELOOP:
        return imc_untar_fail(untar, failure, IMC_ENTRY_LOOP, (uint64_t)code);
    case ENAMETOOLONG:
        return imc_untar_fail(untar, failure, IMC_ENTRY_LONG_COMPONENT, (uint64_t)code);
    case ENOTDIR:
        return imc_untar_fail(untar, failure, IMC_ENTRY_PARENT, (uint64_t)code);
    default:
        return imc_untar_fail(untar, failure, IMC_UNPACK, (uint64_t)code);
    }
}

enum imc_fault imc_untar_count(struct imc_untar *untar, struct imc_failure *failure) {
    untar->entries++;
    if (untar->entries > untar->max_entries) {
        return imc_fail(failure, IMC_ENTRIES, untar->max_entries, 0);
    }
    return IMC_OK;
}

enum imc_fault imc_untar_mark(struct imc_untar *untar, const struct stat *directory,
                              const char *name) {
    return imc_marks_add(untar->made, (uint64_t)directory->st_dev, (uint64_t)directory->st_ino,
                         name, strlen(name));
}

bool imc_untar_is_made(const struct imc_untar *untar, const struct stat *directory,
                       const char *name) {
    return imc_marks_has(untar->made, (uint64_t)directory->st_dev, (uint64_t)directory->st_ino,
                         name, strlen(name));
}

static bool set_attributes(const struct imc_untar *untar, int fd, const struct imc_entry *entry) {
    if (untar->keep && fchown(fd, entry->uid, entry->gid) != 0) {
        return false;
    }
    return fchmod(fd, (mode_t)entry->mode) == 0 && set_time(fd, time_of(entry));
}

/* Parents */

static enum imc_fault leave(struct imc_untar *untar, struct imc_failure *failure) {
    struct parent *parent = &untar->parent;
    if (parent->fd < 0) {
        return IMC_OK;
    }
    bool good = (!parent->has_mode || fchmod(parent->fd, parent->before.st_mode & 07777) == 0) &&
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
    if (fstat(fd, &parent->before) != 0) {
        fault = imc_untar_fail_errno(untar, failure);
        close(fd);
        return fault;
    }
    parent->changed = false;
    parent->has_mode = false;
    mode_t mode = parent->before.st_mode & 07777;
    if (is_locked(untar, mode)) {
        if (fchmod(fd, mode | 0700) != 0) {
            fault = imc_untar_fail_errno(untar, failure);
            close(fd);
            return fault;
        }
        parent->has_mode = true;
    }
    parent->fd = fd;
    memcpy(parent->path, path, length); /* a part of a name of at most MAX_PATH - 1 bytes */
    parent->path_length = length;
    return IMC_OK;
}

/* Names */

struct parts {
    const char *path; /* joined by single slashes */
    size_t directory; /* length of what comes before the last part, without its slash */
    const char *last; /* NULL: the root itself */
};

/* Splits `name` into `buffer`, which has MAX_PATH bytes; a name has fewer. */
static enum imc_fault split(const struct imc_untar *untar, const char *name, size_t length,
                            char *buffer, enum imc_fault dotdot, const struct imc_entry *entry,
                            struct parts *parts, struct imc_failure *failure) {
    size_t at = 0;
    size_t filled = 0;
    const char *part;
    size_t part_length;
    bool has_dotdot = false;
    bool too_long = false;
    *parts = (struct parts){.path = buffer};
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
                                          : fail_target(untar, failure, dotdot, entry);
    }
    if (too_long) {
        return imc_untar_fail(untar, failure, IMC_ENTRY_LONG_COMPONENT, 0);
    }
    return IMC_OK;
}

/* Ends the directory by a NUL, for openat2. Where it is empty nothing looks at it. */
static void cut(char *buffer, const struct parts *parts) {
    if (parts->directory > 0) {
        buffer[parts->directory] = '\0';
    }
}

static bool starts_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

/* Whether a part of the path is reserved: by aufs, or above the last one by whiteouts. */
static enum imc_fault check_reserved(const struct imc_untar *untar, const struct parts *parts,
                                     struct imc_failure *failure) {
    bool whiteout = false;
    for (const char *part = parts->path; part != NULL;) {
        const char *slash = strchr(part, '/');
        size_t length = slash == NULL ? strlen(part) : (size_t)(slash - part);
        bool opaque = length == strlen(OPAQUE) && memcmp(part, OPAQUE, length) == 0;
        if (length >= strlen(AUFS) && starts_with(part, AUFS) && !opaque) {
            return imc_untar_fail(untar, failure, IMC_ENTRY_AUFS, 0);
        }
        whiteout = whiteout || (slash != NULL && starts_with(part, WHITEOUT));
        part = slash == NULL ? NULL : slash + 1;
    }
    return whiteout ? imc_untar_fail(untar, failure, IMC_ENTRY_WHITEOUT, 0) : IMC_OK;
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
    if (mkdirat(parent, name, 0700) != 0) {
        struct stat there;
        if (errno != EEXIST || fstatat(parent, name, &there, AT_SYMLINK_NOFOLLOW) != 0) {
            return imc_untar_fail_errno(untar, failure);
        }
        if (!S_ISDIR(there.st_mode) &&
            (unlinkat(parent, name, 0) != 0 || mkdirat(parent, name, 0700) != 0)) {
            return imc_untar_fail_errno(untar, failure);
        }
    }
    int fd = imc_untar_open_directory(untar, parent, name);
    if (fd < 0) {
        return imc_untar_fail_errno(untar, failure);
    }
    enum imc_fault fault =
        set_attributes(untar, fd, entry) ? IMC_OK : imc_untar_fail_errno(untar, failure);
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
    if ((untar->keep && fchownat(parent, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) != 0) ||
        utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) != 0) {
        return imc_untar_fail_errno(untar, failure);
    }
    return IMC_OK;
}

/* A second name for what is at `source`; owner, mode and time are those of the first. */
static enum imc_fault link_to(struct imc_untar *untar, int source, const char *target,
                              const struct parts *parts, const struct imc_entry *entry,
                              struct imc_failure *failure) {
    struct stat there;
    struct stat old;
    if (fstatat(source, target, &there, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? fail_target(untar, failure, IMC_ENTRY_TARGET, entry)
                               : imc_untar_fail_errno(untar, failure);
    }
    if (S_ISDIR(there.st_mode)) {
        return fail_target(untar, failure, IMC_ENTRY_TARGET_DIRECTORY, entry);
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
        if (linkat(source, target, parent->fd, parts->last, 0) != 0) {
            /* ENOENT: it was inside what this entry replaces. */
            return errno == ENOENT ? fail_target(untar, failure, IMC_ENTRY_TARGET, entry)
                                   : imc_untar_fail_errno(untar, failure);
        }
    }
    return imc_untar_mark(untar, &parent->before, parts->last);
}

static enum imc_fault hard_link(struct imc_untar *untar, const struct parts *parts,
                                const struct imc_entry *entry, struct imc_failure *failure) {
    struct parts target;
    int source = -1;
    enum imc_fault fault = split(untar, entry->target, entry->target_length, untar->target,
                                 IMC_ENTRY_TARGET_DOTDOT, entry, &target, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    if (target.last == NULL) {
        return fail_target(untar, failure, IMC_ENTRY_TARGET_DIRECTORY, entry);
    }
    cut(untar->target, &target);
    fault = imc_untar_resolve(untar, target.path, target.directory, NULL, &source, failure);
    if (fault == IMC_OK && source < 0) {
        return fail_target(untar, failure, IMC_ENTRY_TARGET, entry);
    }
    if (fault == IMC_OK) {
        fault = link_to(untar, source, target.last, parts, entry, failure);
        close(source);
    }
    return fault;
}

static enum imc_fault whiteout(struct imc_untar *untar, const struct parts *parts,
                               const struct imc_entry *entry, struct imc_failure *failure) {
    const char *hidden = parts->last + strlen(WHITEOUT);
    if (hidden[0] == '\0' || is_dot(hidden) || entry->kind != IMC_FILE) {
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
    if (fault == IMC_OK && !set_attributes(untar, untar->root, entry)) {
        fault = imc_untar_fail_errno(untar, failure);
    }
    return fault;
}

enum imc_fault imc_untar_begin(struct imc_untar *untar, const struct imc_entry *entry,
                               struct imc_failure *failure) {
    struct parts parts;
    untar->name = entry->name;
    untar->name_length = entry->name_length;
    if (is_cancelled(untar)) { /* some hundred entries come in one piece */
        return IMC_CANCELLED;
    }
    enum imc_fault fault = imc_untar_count(untar, failure);
    if (fault == IMC_OK) {
        fault = split(untar, entry->name, entry->name_length, untar->parts, IMC_ENTRY_DOTDOT, entry,
                      &parts, failure);
    }
    if (fault == IMC_OK && parts.last == NULL) {
        return begin_root(untar, entry, failure);
    }
    if (fault == IMC_OK) {
        fault = check_reserved(untar, &parts, failure);
    }
    if (fault != IMC_OK) {
        return fault;
    }
    cut(untar->parts, &parts);
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
    if (entry->kind == IMC_DIRECTORY) {
        fault = make_directory(untar, parts.last, entry, failure);
    } else if (entry->kind == IMC_SYMLINK) {
        fault = make_symlink(untar, parts.last, entry, failure);
    } else {
        fault = make_file(untar, parts.last, entry, failure);
    }
    return fault == IMC_OK ? imc_untar_mark(untar, &untar->parent.before, parts.last) : fault;
}

enum imc_fault imc_untar_data(struct imc_untar *untar, const uint8_t *data, size_t length,
                              struct imc_failure *failure) {
    while (untar->file >= 0 && length > 0) { /* a whiteout has no file: its data is skipped */
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
    bool good = set_attributes(untar, fd, &untar->entry);
    if (!good) {
        close_quietly(fd);
        return imc_untar_fail_errno(untar, failure);
    }
    /* close() tells of a quota or a network disk; the descriptor is gone in any case. */
    return close(fd) == 0 || errno == EINTR ? IMC_OK : imc_untar_fail_errno(untar, failure);
}

enum imc_fault imc_untar_finish(struct imc_untar *untar, struct imc_failure *failure) {
    return leave(untar, failure);
}
