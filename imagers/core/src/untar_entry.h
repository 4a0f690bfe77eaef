/* SPDX-License-Identifier: Apache-2.0 */
/* What untar*.c know of the tree and of the entry at hand. */
#ifndef IMAGERS_UNTAR_ENTRY_H
#define IMAGERS_UNTAR_ENTRY_H

#include "impl.h"
#include "path_set.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_COMPONENT 255 /* NAME_MAX of Linux */
#define MAX_PATH 4096     /* PATH_MAX of Linux, which counts the NUL */
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
    const atomic_bool *over;
    uint64_t entries;
    uint64_t max_entries;
    const char *name; /* of the entry at hand, for messages */
    size_t name_length;
    struct parent parent;
    struct imc_path_set *made; /* what this layer made */
    int file;                  /* being written; -1: none */
    struct imc_entry entry;    /* whose it is */
    bool has_links;            /* files in LINKS, see untar_names.c */
    struct imc_left_out left_out[IMC_LEFT_KINDS];
    char parts[MAX_PATH];
    char target[MAX_PATH];
    char dents[DENTS_BYTES];
};

/* The name of the entry at hand goes into every failure. */
enum imc_fault imc_untar_fail(const struct imc_untar *untar, struct imc_failure *failure,
                              enum imc_fault fault, uint64_t number);
/* What errno says of it. */
enum imc_fault imc_untar_fail_errno(const struct imc_untar *untar, struct imc_failure *failure);
/* With the target of `entry`. */
enum imc_fault imc_untar_fail_target(const struct imc_untar *untar, struct imc_failure *failure,
                                     enum imc_fault fault, const struct imc_entry *entry);
enum imc_fault imc_untar_count(struct imc_untar *untar, struct imc_failure *failure);
/* What this layer made, by the directory that it is in. */
enum imc_fault imc_untar_add_made(struct imc_untar *untar, const struct stat *directory,
                                  const char *name);
bool imc_untar_is_made(const struct imc_untar *untar, const struct stat *directory,
                       const char *name);
/* Counts what is left out of the entry at hand; `attribute` may be NULL. */
void imc_untar_leave_out(struct imc_untar *untar, enum imc_left kind, const char *attribute);

static inline void close_quietly(int fd) {
    int saved = errno;
    close(fd);
    errno = saved;
}

static inline bool is_over(const struct imc_untar *untar) {
    return atomic_load_explicit(untar->over, memory_order_relaxed);
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
