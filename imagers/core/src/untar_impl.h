/* Shared inside untar*.c. */
#ifndef IMAGERS_UNTAR_IMPL_H
#define IMAGERS_UNTAR_IMPL_H

#include "impl.h"
#include "marks.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_COMPONENT 255 /* NAME_MAX of Linux */
#define MAX_PATH 4096     /* PATH_MAX of Linux, which counts the NUL */
#define OPAQUE ".wh..wh..opq"
#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define DENTS_BYTES ((size_t)16 * 1024)

/* The mode that a directory of an ordinary user gets back. */
struct lock {
    int fd; /* -1: it needs none */
    mode_t mode;
};

/* An open directory whose content changes; it gets its time and mode back. */
struct parent {
    int fd; /* -1: none */
    struct stat before;
    bool changed;
    struct lock lock;
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
    bool has_links;         /* files in LINKS, see untar.c */
    struct imc_left_out left_out[IMC_LEFT_KINDS];
    char parts[MAX_PATH];
    char target[MAX_PATH];
    char dents[DENTS_BYTES];
};

/* untar.c. The name of the entry at hand goes into every failure. */
enum imc_fault imc_untar_fail(const struct imc_untar *untar, struct imc_failure *failure,
                              enum imc_fault fault, uint64_t number);
enum imc_fault imc_untar_fail_errno(const struct imc_untar *untar, struct imc_failure *failure);
enum imc_fault imc_untar_count(struct imc_untar *untar, struct imc_failure *failure);
enum imc_fault imc_untar_mark(struct imc_untar *untar, const struct stat *directory,
                              const char *name);
bool imc_untar_is_made(const struct imc_untar *untar, const struct stat *directory,
                       const char *name);

/* untar_resolve.c */

/* Makes a directory one that its owner, us, can read, search and change, until `lock`. */
bool imc_untar_unlock(const struct imc_untar *untar, int fd, struct lock *lock);
bool imc_untar_lock(struct lock *lock);
/* Opens a directory by the last part of its name; also one of ours that is unreadable. */
int imc_untar_open_directory(const struct imc_untar *untar, int parent, const char *name);
/* The next part of a path that is neither empty nor `.`. False: there is none. */
bool imc_untar_next_part(const char *path, size_t length, size_t *at, const char **part,
                         size_t *part_length);
/* A descriptor of the directory `path` inside the root. Without `entry` it is not made;
 * *fd is -1 if it is not there then. `path` is ended by a NUL, but where it is empty. */
enum imc_fault imc_untar_resolve(struct imc_untar *untar, const char *path, size_t length,
                                 const struct imc_entry *entry, int *fd,
                                 struct imc_failure *failure);

/* untar_attributes.c */

/* Counts what is left out of the entry at hand; `attribute` may be NULL. */
void imc_untar_leave_out(struct imc_untar *untar, enum imc_left kind, const char *attribute);
/* `fd`, or where that is -1 what has this name in the parent. */
enum imc_fault imc_untar_set_extended(struct imc_untar *untar, int fd, const char *name,
                                      const struct imc_entry *entry, struct imc_failure *failure);
/* Of a directory that a lower layer made. */
enum imc_fault imc_untar_clear_extended(struct imc_untar *untar, int fd,
                                        struct imc_failure *failure);

/* untar_nodes.c */

/* A device or a FIFO in the parent, or nothing of that name. */
enum imc_fault imc_untar_make_node(struct imc_untar *untar, const char *name,
                                   const struct imc_entry *entry, struct imc_failure *failure);
/* Nothing of that name in the parent, where a device would be. */
enum imc_fault imc_untar_without_node(struct imc_untar *untar, const char *name, enum imc_left kind,
                                      struct imc_failure *failure);
/* Whether a device of that name was left out by this layer, and as what. */
bool imc_untar_find_left_out(struct imc_untar *untar, int directory, const char *name,
                             enum imc_left *kind);

/* untar_remove.c */

/* Removes a name and all below it. */
enum imc_fault imc_untar_remove_tree(struct imc_untar *untar, int parent, const char *name,
                                     struct imc_failure *failure);
/* Removes one name of a directory as far as lower layers put it there. */
enum imc_fault imc_untar_hide(struct imc_untar *untar, int fd, const struct stat *directory,
                              const char *name, const struct stat *there, unsigned depth,
                              struct imc_failure *failure);
/* Removes of a directory's content what lower layers put there. */
enum imc_fault imc_untar_clear(struct imc_untar *untar, int fd, unsigned depth,
                               struct imc_failure *failure);

static inline void close_quietly(int fd) {
    int saved = errno;
    close(fd);
    errno = saved;
}

static inline bool is_cancelled(const struct imc_untar *untar) {
    return atomic_load_explicit(untar->cancelled, memory_order_relaxed);
}

static inline bool starts_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

static inline bool is_dot(const char *name) {
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static inline struct timespec time_of(const struct imc_entry *entry) {
    return (struct timespec){.tv_sec = (time_t)entry->mtime,
                             .tv_nsec = (long)entry->mtime_nanoseconds};
}

static inline bool set_time(int fd, struct timespec time) {
    struct timespec times[2] = {time, time};
    return futimens(fd, times) == 0;
}

static inline bool restore_time(int fd, const struct stat *before) {
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, before->st_mtim};
    return futimens(fd, times) == 0;
}

#endif
