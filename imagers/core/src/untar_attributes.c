/* SPDX-License-Identifier: Apache-2.0 */
/* Owner, extended attributes, mode and time of what was made. Which extended ones are set, and what
 * is left out, imagers/core/plain_attributes.py defines. */
#define _GNU_SOURCE
#include "untar_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>

#define CAPABILITY "security.capability"
#define IMA "security.ima" /* a signature of the content: containers/storage keeps it too */
#define MAX_LIST ((size_t)64 * 1024) /* XATTR_LIST_MAX of Linux */

/* What an attribute of this name counts as where it is left out. */
static enum imc_left left_of(const char *name) {
    static const struct {
        const char *start;
        enum imc_left kind;
    } starts[] = {
        {"user.overlay.", IMC_LEFT_OVERLAY},
        {"user.fuseoverlayfs.", IMC_LEFT_OVERLAY},
        {"user.containers.", IMC_LEFT_OVERLAY}, /* fuse-overlayfs: owner, mode, kind of a file */
        {"trusted.overlay.", IMC_LEFT_OVERLAY},
        {"trusted.SGI_ACL_", IMC_LEFT_ACL}, /* what XFS keeps its access control lists in */
        {"system.posix_acl_", IMC_LEFT_ACL},
        {"system.nfs4_acl", IMC_LEFT_ACL},
        {"SCHILY.acl.", IMC_LEFT_ACL},
        {"security.", IMC_LEFT_LABEL},
    };
    if (strcmp(name, CAPABILITY) == 0) {
        return IMC_LEFT_CAPABILITY;
    }
    if (strcmp(name, IMA) == 0) {
        return IMC_LEFT_ATTRIBUTE;
    }
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        if (starts_with(name, starts[i].start)) {
            return starts[i].kind;
        }
    }
    return IMC_LEFT_ATTRIBUTE;
}

/* Access control lists are not set: a default one would be passed on to files that a layer makes
 * without any. Labels and what overlayfs keeps are the machine's. */
static bool is_set(const struct imc_untar *untar, const char *name) {
    enum imc_left kind = left_of(name);
    if (kind == IMC_LEFT_CAPABILITY) {
        return untar->keep;
    }
    if (kind != IMC_LEFT_ATTRIBUTE) {
        return false;
    }
    return starts_with(name, "user.") ||
           (untar->keep && (strcmp(name, IMA) == 0 || starts_with(name, "trusted.")));
}

/* No file can have its value. */
static enum imc_fault fail_attribute(const struct imc_untar *untar, struct imc_failure *failure,
                                     const struct imc_attribute *one) {
    return imc_fail_text(failure, IMC_ENTRY_XATTR, untar->name, untar->name_length, one->name,
                         one->name_length, 0, 0);
}

/* `fd`, or where that is -1 what has this name in the parent: it is not opened, nor followed. */
enum imc_fault imc_untar_set_extended(struct imc_untar *untar, int fd, const char *name,
                                      const struct imc_entry *entry, struct imc_failure *failure) {
    char path[sizeof "/proc/self/fd/2147483647/" + MAX_COMPONENT];
    if (fd < 0 && entry->attribute_count > 0) {
        snprintf(path, sizeof path, "/proc/self/fd/%d/%s", untar->parent.fd, name);
    }
    for (size_t i = 0; i < entry->attribute_count; i++) {
        const struct imc_attribute *one = &entry->attributes[i];
        if (one->value == NULL || !is_set(untar, one->name)) {
            imc_untar_leave_out(untar, left_of(one->name), one->name);
            continue;
        }
        if (one->value_length == 0 && strcmp(one->name, CAPABILITY) == 0) {
            /* Linux takes it, and then does not run the program. */
            return fail_attribute(untar, failure, one);
        }
        int done = fd >= 0 ? fsetxattr(fd, one->name, one->value, one->value_length, 0)
                           : lsetxattr(path, one->name, one->value, one->value_length, 0);
        if (done == 0) {
            continue;
        }
        switch (errno) {
        case EPERM: /* not this user, or not on this kind of file */
        case ENOTSUP:
            imc_untar_leave_out(untar, left_of(one->name), one->name);
            break;
        case EINVAL:
        case ERANGE:
        case E2BIG:
            return fail_attribute(untar, failure, one);
        default:
            return imc_untar_fail_errno(untar, failure);
        }
    }
    return IMC_OK;
}

/* Takes what a lower layer gave a directory: an entry says all that it has. */
enum imc_fault imc_untar_clear_extended(struct imc_untar *untar, int fd,
                                        struct imc_failure *failure) {
    ssize_t length = flistxattr(fd, NULL, 0);
    if (length == 0 || (length < 0 && errno == ENOTSUP)) {
        return IMC_OK;
    }
    char *names = malloc(MAX_LIST);
    if (names == NULL) {
        return IMC_NO_MEMORY;
    }
    length = flistxattr(fd, names, MAX_LIST);
    bool good = length >= 0;
    bool writable = untar->keep;
    for (ssize_t at = 0; good && at < length; at += (ssize_t)strlen(names + at) + 1) {
        if (!is_set(untar, names + at)) {
            continue;
        }
        if (!writable) {
            good = fchmod(fd, 0700) == 0;
            writable = true;
        }
        good = good && fremovexattr(fd, names + at) == 0;
    }
    enum imc_fault fault = good ? IMC_OK : imc_untar_fail_errno(untar, failure);
    free(names);
    return fault;
}

enum imc_fault imc_untar_set_attributes(struct imc_untar *untar, int fd,
                                        const struct imc_entry *entry,
                                        struct imc_failure *failure) {
    enum imc_fault fault = IMC_OK;
    if (untar->keep && fchown(fd, entry->uid, entry->gid) != 0) {
        return imc_untar_fail_errno(untar, failure);
    }
    if (entry->attribute_count > 0) {
        /* Of a file that may not be written none can be set. */
        if (!untar->keep && fchmod(fd, 0700) != 0) {
            return imc_untar_fail_errno(untar, failure);
        }
        fault = imc_untar_set_extended(untar, fd, NULL, entry, failure);
    }
    if (fault == IMC_OK &&
        (fchmod(fd, (mode_t)entry->mode) != 0 || !set_time(fd, time_of(entry)))) {
        fault = imc_untar_fail_errno(untar, failure);
    }
    return fault;
}
