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
#include "impl.h"
#include "marks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_COMPONENT 255 /* NAME_MAX of Linux */
#define MAX_PATH 4096     /* PATH_MAX of Linux, which counts the NUL */
#define MAX_LINKS 40      /* MAXSYMLINKS of Linux */
#define MAX_DEPTH 100     /* of what a whiteout hides, where some of it must stay */
#define IMPLIED_MODE 0755
#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define DENTS_BYTES ((size_t)16 * 1024)

#define WHITEOUT ".wh." /* OCI image-spec v1.1, layer.md, "Whiteouts" */
#define AUFS ".wh..wh." /* reserved by the file system that the prefix comes from */
#define OPAQUE ".wh..wh..opq"

/* Linux UAPI, linux/openat2.h: older headers do not have it. */
struct how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};
#define NO_MAGICLINKS 0x02
#define IN_ROOT 0x10
#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* An open directory whose content changes; it gets its time and mode back. */
struct parent {
    int fd; /* -1: none */
    struct stat before;
    bool changed;
    bool has_mode; /* `before` has the mode that it gets back */
    size_t path_length;
    char path[MAX_PATH];
};

struct imc_untar {
    int root;
    bool keep;
    bool privileged;
    bool walks; /* openat2 is not there */
    const atomic_bool *cancelled;
    uint64_t entries;
    uint64_t max_entries;
    const char *name; /* of the entry at hand, for messages */
    size_t name_length;
    struct parent parent;
    struct imc_marks *made; /* what this layer made */
    int file;               /* being written; -1: none */
    struct imc_entry entry; /* whose it is */
    char parts[MAX_PATH];
    char target[MAX_PATH];
    char dents[DENTS_BYTES];
};

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

static void close_quietly(int fd) {
    int saved = errno;
    close(fd);
    errno = saved;
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

static enum imc_fault fail(const struct imc_untar *untar, struct imc_failure *failure,
                           enum imc_fault fault, uint64_t number) {
    return imc_fail_text(failure, fault, untar->name, untar->name_length, NULL, 0, number, 0);
}

static enum imc_fault fail_target(const struct imc_untar *untar, struct imc_failure *failure,
                                  enum imc_fault fault, const struct imc_entry *entry) {
    return imc_fail_text(failure, fault, untar->name, untar->name_length, entry->target,
                         entry->target_length, 0, 0);
}

/* What errno says of the entry at hand. */
static enum imc_fault fail_errno(const struct imc_untar *untar, struct imc_failure *failure) {
    int code = errno;
    switch (code) {
    case ELOOP:
        return fail(untar, failure, IMC_ENTRY_LOOP, (uint64_t)code);
    case ENAMETOOLONG:
        return fail(untar, failure, IMC_ENTRY_LONG_COMPONENT, (uint64_t)code);
    case ENOTDIR:
        return fail(untar, failure, IMC_ENTRY_PARENT, (uint64_t)code);
    default:
        return fail(untar, failure, IMC_UNPACK, (uint64_t)code);
    }
}

static bool is_cancelled(const struct imc_untar *untar) {
    return atomic_load_explicit(untar->cancelled, memory_order_relaxed);
}

static enum imc_fault count(struct imc_untar *untar, struct imc_failure *failure) {
    untar->entries++;
    if (untar->entries > untar->max_entries) {
        return imc_fail(failure, IMC_ENTRIES, untar->max_entries, 0);
    }
    return IMC_OK;
}

static enum imc_fault mark(struct imc_untar *untar, const struct stat *directory,
                           const char *name) {
    return imc_marks_add(untar->made, (uint64_t)directory->st_dev, (uint64_t)directory->st_ino,
                         name, strlen(name));
}

static bool is_made(const struct imc_untar *untar, const struct stat *directory, const char *name) {
    return imc_marks_has(untar->made, (uint64_t)directory->st_dev, (uint64_t)directory->st_ino,
                         name, strlen(name));
}

/* Attributes */

static struct timespec time_of(const struct imc_entry *entry) {
    return (struct timespec){.tv_sec = (time_t)entry->mtime,
                             .tv_nsec = (long)entry->mtime_nanoseconds};
}

static bool set_time(int fd, struct timespec time) {
    struct timespec times[2] = {time, time};
    return futimens(fd, times) == 0;
}

static bool set_attributes(const struct imc_untar *untar, int fd, const struct imc_entry *entry) {
    if (untar->keep && fchown(fd, entry->uid, entry->gid) != 0) {
        return false;
    }
    return fchmod(fd, (mode_t)entry->mode) == 0 && set_time(fd, time_of(entry));
}

static bool restore_time(int fd, const struct stat *before) {
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, before->st_mtim};
    return futimens(fd, times) == 0;
}

/* Removal */

static int open_directory(const struct imc_untar *untar, int parent, const char *name) {
    struct stat there;
    int fd = openat(parent, name, OPEN_DIRECTORY);
    if (fd >= 0 || errno != EACCES || untar->keep ||
        fstatat(parent, name, &there, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(there.st_mode)) {
        return fd;
    }
    /* Ours, and made unreadable by a layer: readable for as long as it takes to open it. */
    if (fchmodat(parent, name, 0700, 0) == 0) {
        fd = openat(parent, name, OPEN_DIRECTORY);
    }
    if (fd >= 0 && fchmod(fd, there.st_mode & 07777) != 0) {
        close_quietly(fd);
        fd = -1;
    }
    return fd;
}

static bool is_dot(const char *name) {
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

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
            if (is_cancelled(untar)) {
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
static enum imc_fault remove_tree(struct imc_untar *untar, int parent, const char *name,
                                  struct imc_failure *failure) {
    if (unlinkat(parent, name, 0) == 0) {
        return IMC_OK;
    }
    int why = errno;
    if (why != EISDIR && why != EPERM && why != EACCES) {
        return fail_errno(untar, failure);
    }
    int at = open_directory(untar, parent, name);
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
            return unlinkat(parent, name, AT_REMOVEDIR) == 0 ? IMC_OK : fail_errno(untar, failure);
        }
        /* Nobody moves directories here meanwhile: `..` is where we came from. */
        int next = deeper ? open_directory(untar, at, found) : openat(at, "..", OPEN_DIRECTORY);
        depth = deeper ? depth + 1 : depth - 1;
        close_quietly(at);
        at = next;
    }
    enum imc_fault fault = fail_errno(untar, failure);
    if (at >= 0) {
        close(at);
    }
    return fault;
}

static enum imc_fault clear(struct imc_untar *untar, int fd, unsigned depth,
                            struct imc_failure *failure);

/* Removes one name of a directory as far as lower layers put it there. */
static enum imc_fault hide(struct imc_untar *untar, int fd, const struct stat *directory,
                           const char *name, const struct stat *there, unsigned depth,
                           struct imc_failure *failure) {
    bool ours = is_made(untar, directory, name);
    if (!S_ISDIR(there->st_mode)) {
        if (!ours && unlinkat(fd, name, 0) != 0) {
            return fail_errno(untar, failure);
        }
        return IMC_OK;
    }
    if (imc_marks_count(untar->made) == 0) {
        return remove_tree(untar, fd, name, failure);
    }
    int child = open_directory(untar, fd, name);
    if (child < 0) {
        return fail_errno(untar, failure);
    }
    mode_t mode = there->st_mode & 07777;
    enum imc_fault fault = IMC_OK;
    if (!untar->keep && fchmod(child, mode | 0700) != 0) {
        fault = fail_errno(untar, failure);
    }
    if (fault == IMC_OK) {
        fault = clear(untar, child, depth + 1, failure);
    }
    if (fault == IMC_OK && (fchmod(child, mode) != 0 || !restore_time(child, there))) {
        fault = fail_errno(untar, failure);
    }
    close(child);
    if (fault == IMC_OK && !ours && unlinkat(fd, name, AT_REMOVEDIR) != 0 && errno != ENOTEMPTY &&
        errno != EEXIST) {
        fault = fail_errno(untar, failure);
    }
    return fault;
}

/* Removes of a directory's content what lower layers put there. Goes as deep as MAX_DEPTH:
 * each level holds a descriptor and a buffer. */
static enum imc_fault clear(struct imc_untar *untar, int fd, unsigned depth,
                            struct imc_failure *failure) {
    struct stat directory;
    if (depth > MAX_DEPTH) {
        return fail(untar, failure, IMC_ENTRY_DEPTH, MAX_DEPTH);
    }
    if (fstat(fd, &directory) != 0 || lseek(fd, 0, SEEK_SET) < 0) {
        return fail_errno(untar, failure);
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
            if (is_cancelled(untar)) {
                fault = IMC_CANCELLED;
            } else if (fstatat(fd, entry->d_name, &there, AT_SYMLINK_NOFOLLOW) == 0) {
                fault = hide(untar, fd, &directory, entry->d_name, &there, depth, failure);
            } else if (errno != ENOENT) {
                fault = fail_errno(untar, failure);
            }
        }
    }
    if (fault == IMC_OK && length < 0) {
        fault = fail_errno(untar, failure);
    }
    free(dents);
    return fault;
}

/* Resolution */

/* Whether content of a directory with this mode cannot be changed by its owner, us. */
static bool is_locked(const struct imc_untar *untar, mode_t mode) {
    return !untar->keep && !untar->privileged && (mode & 0300) != 0300;
}

static bool make_implied(const struct imc_untar *untar, int at, const struct stat *before,
                         const char *name, const struct imc_entry *entry) {
    mode_t mode = before->st_mode & 07777;
    bool locked = is_locked(untar, mode);
    if (locked && fchmod(at, mode | 0700) != 0) {
        return false;
    }
    if (mkdirat(at, name, 0700) != 0 || (locked && fchmod(at, mode) != 0)) {
        return false;
    }
    int fd = open_directory(untar, at, name);
    bool good = fd >= 0 && fchmod(fd, IMPLIED_MODE) == 0 && set_time(fd, time_of(entry)) &&
                restore_time(at, before);
    if (fd >= 0) {
        close_quietly(fd);
    }
    return good;
}

/* Makes a directory that a name needs and no entry describes. */
static enum imc_fault imply(struct imc_untar *untar, int at, const char *name,
                            const struct imc_entry *entry, struct imc_failure *failure) {
    struct stat before;
    enum imc_fault fault = count(untar, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    if (fstat(at, &before) != 0 || !make_implied(untar, at, &before, name, entry)) {
        return fail_errno(untar, failure);
    }
    return mark(untar, &before, name);
}

/* Text that grows. */
struct text {
    char *at; /* NULL: nothing was ever put in */
    size_t length;
};

/* text = front + "/" + the text from `from` on. */
static bool put_in_front(struct text *text, const char *front, size_t length, size_t from) {
    size_t rest = text->length - from;
    char *fresh = malloc(length + 1 + rest + 1); /* each is a few thousand bytes */
    if (fresh == NULL) {
        return false;
    }
    memcpy(fresh, front, length);
    fresh[length] = '/';
    if (rest > 0) {
        memcpy(fresh + length + 1, text->at + from, rest);
    }
    fresh[length + 1 + rest] = '\0';
    free(text->at);
    *text = (struct text){fresh, length + 1 + rest};
    return true;
}

static bool append(struct text *text, const char *part) {
    size_t length = strlen(part);
    char *fresh = realloc(text->at, text->length + 1 + length + 1);
    if (fresh == NULL) {
        return false;
    }
    fresh[text->length] = '/';
    memcpy(fresh + text->length + 1, part, length + 1);
    *text = (struct text){fresh, text->length + 1 + length};
    return true;
}

/* The next part of a path that is neither empty nor `.`. False: there is none. */
static bool next_part(const char *path, size_t length, size_t *at, const char **part,
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

static int open_root(const struct imc_untar *untar) {
    return openat(untar->root, ".", OPEN_DIRECTORY);
}

/* The directory `done`, of which no part is a link. */
static int open_again(const struct imc_untar *untar, const struct text *done) {
    int fd = open_root(untar);
    size_t at = 0;
    const char *part;
    size_t length;
    while (fd >= 0 && next_part(done->at, done->length, &at, &part, &length)) {
        char name[MAX_COMPONENT + 1];
        memcpy(name, part, length); /* was opened under this name before */
        name[length] = '\0';
        int child = open_directory(untar, fd, name);
        close_quietly(fd);
        fd = child;
    }
    return fd;
}

struct walk {
    int at;           /* the directory that was reached */
    struct text todo; /* what is left of the path, from `next` on */
    size_t next;
    struct text done; /* the parts that led to `at`, without links */
    unsigned links;
};

/* `at` becomes the directory `done`. */
static bool walk_again(const struct imc_untar *untar, struct walk *walk) {
    int fresh = open_again(untar, &walk->done);
    if (fresh < 0) {
        return false;
    }
    close(walk->at);
    walk->at = fresh;
    return true;
}

static bool walk_up(const struct imc_untar *untar, struct walk *walk) {
    if (walk->done.length == 0) {
        return true; /* above the root is the root */
    }
    while (walk->done.length > 0 && walk->done.at[--walk->done.length] != '/') {
    }
    return walk_again(untar, walk);
}

static bool walk_link(const struct imc_untar *untar, struct walk *walk, const char *name) {
    char target[MAX_PATH];
    if (++walk->links > MAX_LINKS) {
        errno = ELOOP;
        return false;
    }
    ssize_t length = readlinkat(walk->at, name, target, sizeof target);
    if (length < 0) {
        return false;
    }
    if (length > 0 && target[0] == '/') {
        walk->done.length = 0;
        if (!walk_again(untar, walk)) {
            return false;
        }
    }
    if (!put_in_front(&walk->todo, target, (size_t)length, walk->next)) {
        errno = ENOMEM;
        return false;
    }
    walk->next = 0;
    return true;
}

static bool walk_down(const struct imc_untar *untar, struct walk *walk, const char *name) {
    int child = open_directory(untar, walk->at, name); /* ENOTDIR where it is none */
    if (child < 0) {
        return false;
    }
    close(walk->at);
    walk->at = child;
    if (!append(&walk->done, name)) {
        errno = ENOMEM;
        return false;
    }
    return true;
}

/* One part of the path. *missing: it is not there, and `entry` is NULL. */
static enum imc_fault walk_part(struct imc_untar *untar, struct walk *walk, const char *name,
                                const struct imc_entry *entry, bool *missing,
                                struct imc_failure *failure) {
    struct stat there;
    bool good = true;
    if (strcmp(name, "..") == 0) {
        good = walk_up(untar, walk);
        return good ? IMC_OK : fail_errno(untar, failure);
    }
    if (fstatat(walk->at, name, &there, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno != ENOENT) {
            return fail_errno(untar, failure);
        }
        *missing = entry == NULL;
        if (*missing) {
            return IMC_OK;
        }
        enum imc_fault fault = imply(untar, walk->at, name, entry, failure);
        if (fault != IMC_OK) {
            return fault;
        }
        good = walk_down(untar, walk, name);
    } else {
        good = S_ISLNK(there.st_mode) ? walk_link(untar, walk, name) : walk_down(untar, walk, name);
    }
    return good ? IMC_OK : fail_errno(untar, failure);
}

/* openat2 with RESOLVE_IN_ROOT by hand, and with missing directories made on the way. */
static enum imc_fault resolve_by_walking(struct imc_untar *untar, const char *path, size_t length,
                                         const struct imc_entry *entry, int *fd,
                                         struct imc_failure *failure) {
    struct walk walk = {.at = open_root(untar)};
    if (walk.at < 0) {
        return fail_errno(untar, failure);
    }
    enum imc_fault fault = IMC_OK;
    bool missing = false;
    if (!put_in_front(&walk.todo, path, length, 0)) {
        fault = IMC_NO_MEMORY;
    }
    const char *part;
    size_t part_length;
    while (fault == IMC_OK && !missing &&
           next_part(walk.todo.at, walk.todo.length, &walk.next, &part, &part_length)) {
        char name[MAX_COMPONENT + 1];
        if (part_length > MAX_COMPONENT) {
            errno = ENAMETOOLONG;
            fault = fail_errno(untar, failure);
            break;
        }
        memcpy(name, part, part_length);
        name[part_length] = '\0';
        fault = walk_part(untar, &walk, name, entry, &missing, failure);
    }
    free(walk.todo.at);
    free(walk.done.at);
    if (fault != IMC_OK || missing) {
        close(walk.at);
    } else {
        *fd = walk.at;
    }
    return fault;
}

/* A descriptor of the directory `path` inside the root. Without `entry` it is not made;
 * *fd is -1 if it is not there then. */
static enum imc_fault resolve(struct imc_untar *untar, const char *path, size_t length,
                              const struct imc_entry *entry, int *fd, struct imc_failure *failure) {
    *fd = -1;
    if (length == 0) {
        *fd = open_root(untar);
        return *fd >= 0 ? IMC_OK : fail_errno(untar, failure);
    }
    if (!untar->walks) {
        struct how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                          .resolve = IN_ROOT | NO_MAGICLINKS};
        long opened = syscall(SYS_openat2, untar->root, path, &how, sizeof how);
        if (opened >= 0) {
            *fd = (int)opened; /* a descriptor */
            return IMC_OK;
        }
        switch (errno) {
        case ENOENT:
            if (entry == NULL) {
                return IMC_OK;
            }
            break;
        case ENOSYS:
        case EPERM: /* a seccomp filter that does not know the call */
        case EINVAL:
        case E2BIG:
            untar->walks = true;
            break;
        case EAGAIN: /* a rename somewhere on the machine while it went through `..` */
        case EACCES: /* perhaps one that is ours, see open_directory */
            break;
        default:
            return fail_errno(untar, failure);
        }
    }
    return resolve_by_walking(untar, path, length, entry, fd, failure);
}

/* Parents */

static enum imc_fault leave(struct imc_untar *untar, struct imc_failure *failure) {
    struct parent *parent = &untar->parent;
    if (parent->fd < 0) {
        return IMC_OK;
    }
    bool good = (!parent->has_mode || fchmod(parent->fd, parent->before.st_mode & 07777) == 0) &&
                (!parent->changed || restore_time(parent->fd, &parent->before));
    enum imc_fault fault = good ? IMC_OK : fail_errno(untar, failure);
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
        fault = resolve(untar, path, length, entry, &fd, failure);
    }
    if (fault != IMC_OK || fd < 0) {
        return fault;
    }
    if (fstat(fd, &parent->before) != 0) {
        fault = fail_errno(untar, failure);
        close(fd);
        return fault;
    }
    parent->changed = false;
    parent->has_mode = false;
    mode_t mode = parent->before.st_mode & 07777;
    if (is_locked(untar, mode)) {
        if (fchmod(fd, mode | 0700) != 0) {
            fault = fail_errno(untar, failure);
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
    while (next_part(name, length, &at, &part, &part_length)) {
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
        return dotdot == IMC_ENTRY_DOTDOT ? fail(untar, failure, dotdot, 0)
                                          : fail_target(untar, failure, dotdot, entry);
    }
    if (too_long) {
        return fail(untar, failure, IMC_ENTRY_LONG_COMPONENT, 0);
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
            return fail(untar, failure, IMC_ENTRY_AUFS, 0);
        }
        whiteout = whiteout || (slash != NULL && starts_with(part, WHITEOUT));
        part = slash == NULL ? NULL : slash + 1;
    }
    return whiteout ? fail(untar, failure, IMC_ENTRY_WHITEOUT, 0) : IMC_OK;
}

/* Kinds of entries. Each but whiteouts has untar->parent open and writes into it. */

static enum imc_fault make_file(struct imc_untar *untar, const char *name,
                                const struct imc_entry *entry, struct imc_failure *failure) {
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(untar->parent.fd, name, flags, 0600);
    if (fd < 0 && errno == EEXIST) {
        enum imc_fault fault = remove_tree(untar, untar->parent.fd, name, failure);
        if (fault != IMC_OK) {
            return fault;
        }
        fd = openat(untar->parent.fd, name, flags, 0600);
    }
    if (fd < 0) {
        return fail_errno(untar, failure);
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
            return fail_errno(untar, failure);
        }
        if (!S_ISDIR(there.st_mode) &&
            (unlinkat(parent, name, 0) != 0 || mkdirat(parent, name, 0700) != 0)) {
            return fail_errno(untar, failure);
        }
    }
    int fd = open_directory(untar, parent, name);
    if (fd < 0) {
        return fail_errno(untar, failure);
    }
    enum imc_fault fault = set_attributes(untar, fd, entry) ? IMC_OK : fail_errno(untar, failure);
    close(fd);
    return fault;
}

static enum imc_fault make_symlink(struct imc_untar *untar, const char *name,
                                   const struct imc_entry *entry, struct imc_failure *failure) {
    int parent = untar->parent.fd;
    if (entry->target_length == 0) {
        return fail(untar, failure, IMC_ENTRY_EMPTY_TARGET, 0);
    }
    if (symlinkat(entry->target, parent, name) != 0) {
        if (errno != EEXIST) {
            return fail_errno(untar, failure);
        }
        enum imc_fault fault = remove_tree(untar, parent, name, failure);
        if (fault != IMC_OK) {
            return fault;
        }
        if (symlinkat(entry->target, parent, name) != 0) {
            return fail_errno(untar, failure);
        }
    }
    struct timespec times[2] = {time_of(entry), time_of(entry)};
    if ((untar->keep && fchownat(parent, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) != 0) ||
        utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) != 0) {
        return fail_errno(untar, failure);
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
                               : fail_errno(untar, failure);
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
        return fail_errno(untar, failure);
    }
    /* Removing the old name first would lose the file if both are one. */
    if (!has_old || old.st_dev != there.st_dev || old.st_ino != there.st_ino) {
        if (has_old) {
            fault = remove_tree(untar, parent->fd, parts->last, failure);
        }
        if (fault != IMC_OK) {
            return fault;
        }
        parent->changed = true;
        if (linkat(source, target, parent->fd, parts->last, 0) != 0) {
            /* ENOENT: it was inside what this entry replaces. */
            return errno == ENOENT ? fail_target(untar, failure, IMC_ENTRY_TARGET, entry)
                                   : fail_errno(untar, failure);
        }
    }
    return mark(untar, &parent->before, parts->last);
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
    fault = resolve(untar, target.path, target.directory, NULL, &source, failure);
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
        return fail(untar, failure, IMC_ENTRY_WHITEOUT, 0);
    }
    enum imc_fault fault = enter(untar, parts->path, parts->directory, NULL, failure);
    struct parent *parent = &untar->parent;
    if (fault != IMC_OK || parent->fd < 0) {
        return fault; /* nothing there, nothing to hide */
    }
    parent->changed = true;
    if (strcmp(parts->last, OPAQUE) == 0) {
        return clear(untar, parent->fd, 0, failure);
    }
    struct stat there;
    if (fstatat(parent->fd, hidden, &there, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? IMC_OK : fail_errno(untar, failure);
    }
    return hide(untar, parent->fd, &parent->before, hidden, &there, 0, failure);
}

static enum imc_fault begin_root(struct imc_untar *untar, const struct imc_entry *entry,
                                 struct imc_failure *failure) {
    if (entry->kind != IMC_DIRECTORY) {
        return fail(untar, failure, IMC_ENTRY_ROOT, 0);
    }
    enum imc_fault fault = leave(untar, failure);
    if (fault == IMC_OK && !set_attributes(untar, untar->root, entry)) {
        fault = fail_errno(untar, failure);
    }
    return fault;
}

enum imc_fault imc_untar_begin(struct imc_untar *untar, const struct imc_entry *entry,
                               struct imc_failure *failure) {
    struct parts parts;
    untar->name = entry->name;
    untar->name_length = entry->name_length;
    enum imc_fault fault = count(untar, failure);
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
    return fault == IMC_OK ? mark(untar, &untar->parent.before, parts.last) : fault;
}

enum imc_fault imc_untar_data(struct imc_untar *untar, const uint8_t *data, size_t length,
                              struct imc_failure *failure) {
    while (untar->file >= 0 && length > 0) { /* a whiteout has no file: its data is skipped */
        ssize_t written = write(untar->file, data, length);
        if (written < 0) {
            if (errno == EINTR) {
                continue;
            }
            return fail_errno(untar, failure);
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
        return fail_errno(untar, failure);
    }
    /* close() tells of a quota or a network disk; the descriptor is gone in any case. */
    return close(fd) == 0 || errno == EINTR ? IMC_OK : fail_errno(untar, failure);
}

enum imc_fault imc_untar_finish(struct imc_untar *untar, struct imc_failure *failure) {
    return leave(untar, failure);
}
