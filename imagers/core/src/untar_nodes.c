/* SPDX-License-Identifier: Apache-2.0 */
/* Devices and FIFOs, which nobody opens here; and devices that are left out. */
#define _GNU_SOURCE
#include "untar_impl.h"

#include <sys/sysmacros.h>

/* Among what was made: no name of a file, because of the slashes. */
static enum imc_fault add_or_find(struct imc_untar *untar, const struct stat *directory,
                                  const char *name, enum imc_left kind, bool *has) {
    char entry[2 + MAX_COMPONENT + 1] = "//";
    size_t start = kind == IMC_LEFT_DEVICE ? 1 : 2;
    memcpy(entry + start, name, strlen(name) + 1); /* at most MAX_COMPONENT */
    if (has == NULL) {
        return imc_untar_add_made(untar, directory, entry);
    }
    *has = imc_untar_is_made(untar, directory, entry);
    return IMC_OK;
}

bool imc_untar_find_left_out(struct imc_untar *untar, int directory, const char *name,
                             enum imc_left *kind) {
    static const enum imc_left kinds[] = {IMC_LEFT_DEVICE, IMC_LEFT_WHITEOUT_DEVICE};
    struct stat status;
    bool has = false;
    for (size_t i = 0; !has && i < 2 && fstat(directory, &status) == 0; i++) {
        *kind = kinds[i];
        add_or_find(untar, &status, name, *kind, &has);
    }
    return has;
}

/* What had its name goes, and links to it are left out too. */
enum imc_fault imc_untar_without_node(struct imc_untar *untar, const char *name, enum imc_left kind,
                                      struct imc_failure *failure) {
    struct parent *parent = &untar->parent;
    struct stat there;
    enum imc_fault fault = IMC_OK;
    imc_untar_leave_out(untar, kind, NULL);
    parent->changed = true;
    if (fstatat(parent->fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0) {
        fault = imc_untar_remove_tree(untar, parent->fd, name, failure);
    } else if (errno != ENOENT) {
        fault = imc_untar_fail_errno(untar, failure);
    }
    return fault == IMC_OK ? add_or_find(untar, &parent->before, name, kind, NULL) : fault;
}

enum imc_fault imc_untar_make_node(struct imc_untar *untar, const char *name,
                                   const struct imc_entry *entry, struct imc_failure *failure) {
    int parent = untar->parent.fd;
    bool is_fifo = entry->kind == IMC_FIFO;
    mode_t kind = is_fifo ? S_IFIFO : entry->kind == IMC_BLOCK_DEVICE ? S_IFBLK : S_IFCHR;
    dev_t device = makedev(entry->major, entry->minor);
    if (kind == S_IFCHR && device == 0) {
        return imc_untar_without_node(untar, name, IMC_LEFT_WHITEOUT_DEVICE, failure);
    }
    if (!is_fifo && !untar->keep) {
        return imc_untar_without_node(untar, name, IMC_LEFT_DEVICE, failure);
    }
    int done = mknodat(parent, name, kind | 0600, device);
    if (done != 0 && errno == EEXIST) {
        enum imc_fault fault = imc_untar_remove_tree(untar, parent, name, failure);
        if (fault != IMC_OK) {
            return fault;
        }
        done = mknodat(parent, name, kind | 0600, device);
    }
    if (done != 0 && errno == EPERM && !is_fifo) {
        /* Root of a user namespace, or of a container that may not. */
        return imc_untar_without_node(untar, name, IMC_LEFT_DEVICE, failure);
    }
    if (done != 0 ||
        (untar->keep && fchownat(parent, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) != 0)) {
        return imc_untar_fail_errno(untar, failure);
    }
    enum imc_fault fault = imc_untar_set_extended(untar, -1, name, entry, failure);
    struct timespec times[2] = {time_of(entry), time_of(entry)};
    /* It is no link: made just now. */
    if (fault == IMC_OK && (fchmodat(parent, name, (mode_t)entry->mode, 0) != 0 ||
                            utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) != 0)) {
        fault = imc_untar_fail_errno(untar, failure);
    }
    return fault;
}
