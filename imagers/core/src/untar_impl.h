/* SPDX-License-Identifier: Apache-2.0 */
/* Shared inside untar*.c. */
#ifndef IMAGERS_UNTAR_IMPL_H
#define IMAGERS_UNTAR_IMPL_H

#include "untar_entry.h"

#define WHITEOUT ".wh." /* OCI image-spec v1.1, layer.md, "Whiteouts" */
#define OPAQUE ".wh..wh..opq"
#define LINKS ".wh..wh.plnk" /* where aufs keeps files that have several names */

/* untar_names.c */

struct imc_parts {
    const char *path; /* joined by single slashes */
    size_t directory; /* length of what comes before the last part, without its slash */
    const char *last; /* NULL: the root itself */
};

/* The next part of a path that is neither empty nor `.`. False: there is none. */
bool imc_untar_next_part(const char *path, size_t length, size_t *at, const char **part,
                         size_t *part_length);
/* Splits `name` into `buffer`, which has MAX_PATH bytes; a name has fewer. */
enum imc_fault imc_untar_split(const struct imc_untar *untar, const char *name, size_t length,
                               char *buffer, enum imc_fault dotdot, const struct imc_entry *entry,
                               struct imc_parts *parts, struct imc_failure *failure);
/* Ends the directory by a NUL, for openat2. Where it is empty nothing looks at it. */
void imc_untar_cut(char *buffer, const struct imc_parts *parts);
/* Whether a part of the path is reserved: by aufs, which is left out, or above the last one by
 * whiteouts. Files in LINKS are targets of hard links: there until the end of the layer. */
enum imc_fault imc_untar_check_reserved(struct imc_untar *untar, const struct imc_parts *parts,
                                        enum imc_kind kind, bool *left_out,
                                        struct imc_failure *failure);

/* untar_resolve.c */

/* Makes a directory one that its owner, us, can read, search and change, until `lock`. */
bool imc_untar_unlock(const struct imc_untar *untar, int fd, struct lock *lock);
bool imc_untar_lock(struct lock *lock);
/* Opens a directory by the last part of its name; also one of ours that is unreadable. */
int imc_untar_open_directory(const struct imc_untar *untar, int parent, const char *name);
/* A descriptor of the directory `path` inside the root. Without `entry` it is not made;
 * *fd is -1 if it is not there then. `path` is ended by a NUL, but where it is empty. */
enum imc_fault imc_untar_resolve(struct imc_untar *untar, const char *path, size_t length,
                                 const struct imc_entry *entry, int *fd,
                                 struct imc_failure *failure);

/* untar_attributes.c */

/* Owner, extended attributes, mode and time, in this order. */
enum imc_fault imc_untar_set_attributes(struct imc_untar *untar, int fd,
                                        const struct imc_entry *entry, struct imc_failure *failure);
/* The extended ones of `fd`, or where that is -1 what has this name in the parent. */
enum imc_fault imc_untar_set_extended(struct imc_untar *untar, int fd, const char *name,
                                      const struct imc_entry *entry, struct imc_failure *failure);
/* Those of a directory that a lower layer made. */
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

#endif
