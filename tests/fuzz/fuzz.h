/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets share: a directory to unpack into, and what must not change beside it.
 *
 *     clang -fsanitize=fuzzer,address,undefined ... ; ./target CORPUS
 *
 * A target aborts where something that may be relied on does not hold; the sanitizers see to the
 * rest. Built and run by test_fuzz.py.
 */
#ifndef IMAGERS_FUZZ_H
#define IMAGERS_FUZZ_H

#include "impl.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ENTRIES 300
#define MAX_TAR_BYTES ((uint64_t)1 << 22)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "fuzz: must hold: %s\n", what);
        abort();
    }
}

/* FOLDER/root is made for each run and removed after it; FOLDER/canary and FOLDER itself must
 * not be touched in between. FOLDER is the working directory. */
static struct {
    int folder;
    int root;
    struct stat before; /* of FOLDER, with root in it */
    struct stat canary;
} place = {.folder = -1};

static bool same(const struct stat *one, const struct stat *other) {
    return one->st_mode == other->st_mode && one->st_uid == other->st_uid &&
           one->st_size == other->st_size && one->st_nlink == other->st_nlink &&
           one->st_mtim.tv_sec == other->st_mtim.tv_sec &&
           one->st_mtim.tv_nsec == other->st_mtim.tv_nsec &&
           one->st_ctim.tv_sec == other->st_ctim.tv_sec &&
           one->st_ctim.tv_nsec == other->st_ctim.tv_nsec;
}

/* An empty root, open. */
static inline int open_root(void) {
    if (place.folder < 0) {
        place.folder = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int fd = openat(place.folder, "canary", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        must(place.folder >= 0 && fd >= 0 && close(fd) == 0, "a working directory to write to");
    }
    must(mkdirat(place.folder, "root", 0755) == 0, "mkdir");
    place.root = openat(place.folder, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(place.root >= 0 && fstat(place.folder, &place.before) == 0 &&
             fstatat(place.folder, "canary", &place.canary, AT_SYMLINK_NOFOLLOW) == 0,
         "an empty root");
    return place.root;
}

/* Follows no link: what is in the root came from the fuzzer. */
static void remove_below(int parent, const char *name) {
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && fchmodat(parent, name, 0700, 0) == 0) { /* a directory of this user, mode 0 */
        fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    must(fd >= 0 && fchmod(fd, 0700) == 0, "a directory that can be opened");
    DIR *directory = fdopendir(fd);
    must(directory != NULL, "fdopendir");
    for (struct dirent *one; (one = readdir(directory)) != NULL;) {
        if (strcmp(one->d_name, ".") == 0 || strcmp(one->d_name, "..") == 0) {
            continue;
        }
        struct stat status;
        must(fstatat(fd, one->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0, "fstatat");
        if (S_ISDIR(status.st_mode)) {
            remove_below(fd, one->d_name);
        } else {
            must(unlinkat(fd, one->d_name, 0) == 0, "unlink");
        }
    }
    closedir(directory);
    must(unlinkat(parent, name, AT_REMOVEDIR) == 0, "rmdir");
}

/* Checks that nothing beside the root has changed, and removes it. */
static inline void close_root(void) {
    struct stat folder;
    struct stat canary;
    must(fstat(place.folder, &folder) == 0 && same(&folder, &place.before),
         "the folder around the root is as it was");
    must(fstatat(place.folder, "canary", &canary, AT_SYMLINK_NOFOLLOW) == 0 &&
             same(&canary, &place.canary),
         "the file beside the root is as it was");
    close(place.root);
    remove_below(place.folder, "root");
}

#endif
