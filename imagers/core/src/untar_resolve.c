/* SPDX-License-Identifier: Apache-2.0 */
/* Names to directories, inside the root and nowhere else. */
#define _GNU_SOURCE
#include "untar_impl.h"

#include <stdlib.h>
#include <sys/syscall.h>

#define MAX_LINKS 40     /* MAXSYMLINKS of Linux */
#define MAX_STEPS 100000 /* for one name: see step */
#define IMPLIED_MODE 0755

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

bool imc_untar_unlock(const struct imc_untar *untar, int fd, struct lock *lock) {
    struct stat status;
    *lock = (struct lock){.fd = -1};
    if (untar->keep || untar->privileged) {
        return true;
    }
    if (fstat(fd, &status) != 0) {
        return false;
    }
    mode_t mode = status.st_mode & 07777;
    if ((mode & 0700) == 0700) {
        return true;
    }
    *lock = (struct lock){fd, mode};
    return fchmod(fd, mode | 0700) == 0;
}

bool imc_untar_lock(struct lock *lock) {
    bool good = lock->fd < 0 || fchmod(lock->fd, lock->mode) == 0;
    lock->fd = -1;
    return good;
}

int imc_untar_open_directory(const struct imc_untar *untar, int parent, const char *name) {
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

static bool make_implied(const struct imc_untar *untar, int at, const struct stat *before,
                         const char *name, const struct imc_entry *entry) {
    if (mkdirat(at, name, 0700) != 0) {
        return false;
    }
    int fd = imc_untar_open_directory(untar, at, name);
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
    enum imc_fault fault = imc_untar_count(untar, failure);
    if (fault != IMC_OK) {
        return fault;
    }
    if (fstat(at, &before) != 0 || !make_implied(untar, at, &before, name, entry)) {
        return imc_untar_fail_errno(untar, failure);
    }
    return imc_untar_add_made(untar, &before, name);
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

static int open_root(const struct imc_untar *untar) {
    struct lock lock;
    int fd =
        imc_untar_unlock(untar, untar->root, &lock) ? openat(untar->root, ".", OPEN_DIRECTORY) : -1;
    if (!imc_untar_lock(&lock) && fd >= 0) {
        close_quietly(fd);
        fd = -1;
    }
    return fd;
}

struct walk {
    int at;           /* the directory that was reached */
    struct lock lock; /* of that one */
    struct text todo; /* what is left of the path, from `next` on */
    size_t next;
    struct text done; /* the parts that led to `at`, without links */
    unsigned links;
    unsigned steps;
};

/* Before each directory that is opened. Links may lead up as often as they have room for, and from
 * a deep directory each time costs its depth: ten million steps for a name, where a layer wants to
 * keep us busy. Without that a name has some hundred. */
static bool step(const struct imc_untar *untar, struct walk *walk) {
    if (++walk->steps > MAX_STEPS) {
        errno = ELOOP;
        return false;
    }
    errno = EINTR; /* no one will see it: the job is over */
    return !is_over(untar);
}

/* The directory `done`, of which no part is a link. */
static int open_again(const struct imc_untar *untar, struct walk *walk) {
    const struct text *done = &walk->done;
    int fd = open_root(untar);
    size_t at = 0;
    const char *part;
    size_t length;
    while (fd >= 0 && imc_untar_next_part(done->at, done->length, &at, &part, &length)) {
        char name[MAX_COMPONENT + 1];
        memcpy(name, part, length); /* was opened under this name before */
        name[length] = '\0';
        struct lock above;
        bool good = imc_untar_unlock(untar, fd, &above) && step(untar, walk);
        int child = good ? imc_untar_open_directory(untar, fd, name) : -1;
        if (!imc_untar_lock(&above) && child >= 0) {
            close_quietly(child);
            child = -1;
        }
        close_quietly(fd);
        fd = child;
    }
    return fd;
}

/* `at` becomes `fd`, which may be the same directory. */
static bool move_to(const struct imc_untar *untar, struct walk *walk, int fd) {
    bool good = imc_untar_lock(&walk->lock);
    close_quietly(walk->at);
    walk->at = fd;
    return good && imc_untar_unlock(untar, fd, &walk->lock);
}

/* `at` becomes the directory `done`. */
static bool walk_again(const struct imc_untar *untar, struct walk *walk) {
    int fresh = open_again(untar, walk);
    return fresh >= 0 && move_to(untar, walk, fresh);
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
    int child = imc_untar_open_directory(untar, walk->at, name); /* ENOTDIR where it is none */
    if (child < 0) {
        return false;
    }
    if (!move_to(untar, walk, child)) {
        return false;
    }
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
    bool good = step(untar, walk);
    if (!good) {
        return imc_untar_fail_errno(untar, failure);
    }
    if (strcmp(name, "..") == 0) {
        good = walk_up(untar, walk);
        return good ? IMC_OK : imc_untar_fail_errno(untar, failure);
    }
    if (fstatat(walk->at, name, &there, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno != ENOENT) {
            return imc_untar_fail_errno(untar, failure);
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
    return good ? IMC_OK : imc_untar_fail_errno(untar, failure);
}

/* openat2 with RESOLVE_IN_ROOT by hand, and with missing directories made on the way. */
static enum imc_fault resolve_by_walking(struct imc_untar *untar, const char *path, size_t length,
                                         const struct imc_entry *entry, int *fd,
                                         struct imc_failure *failure) {
    struct walk walk = {.at = open_root(untar)};
    if (walk.at < 0) {
        return imc_untar_fail_errno(untar, failure);
    }
    enum imc_fault fault = IMC_OK;
    bool missing = false;
    if (!imc_untar_unlock(untar, walk.at, &walk.lock)) {
        fault = imc_untar_fail_errno(untar, failure);
    } else if (!put_in_front(&walk.todo, path, length, 0)) {
        fault = IMC_NO_MEMORY;
    }
    const char *part;
    size_t part_length;
    while (fault == IMC_OK && !missing &&
           imc_untar_next_part(walk.todo.at, walk.todo.length, &walk.next, &part, &part_length)) {
        char name[MAX_COMPONENT + 1];
        if (part_length > MAX_COMPONENT) {
            errno = ENAMETOOLONG;
            fault = imc_untar_fail_errno(untar, failure);
            break;
        }
        memcpy(name, part, part_length);
        name[part_length] = '\0';
        fault = walk_part(untar, &walk, name, entry, &missing, failure);
    }
    if (!imc_untar_lock(&walk.lock) && fault == IMC_OK) {
        fault = imc_untar_fail_errno(untar, failure);
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

enum imc_fault imc_untar_resolve(struct imc_untar *untar, const char *path, size_t length,
                                 const struct imc_entry *entry, int *fd,
                                 struct imc_failure *failure) {
    *fd = -1;
    if (length == 0) {
        *fd = open_root(untar);
        return *fd >= 0 ? IMC_OK : imc_untar_fail_errno(untar, failure);
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
            return imc_untar_fail_errno(untar, failure);
        }
    }
    return resolve_by_walking(untar, path, length, entry, fd, failure);
}
