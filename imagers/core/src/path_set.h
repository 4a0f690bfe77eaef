/* SPDX-License-Identifier: Apache-2.0 */
/* A set of names in directories: what a layer made, so that its whiteouts leave it alone.
 *
 * A member is (device, inode of the directory, name). Only a keyed hash of 61 bits is kept:
 * 16 bytes a member at worst, for whatever length of name.
 */
#ifndef IMAGERS_PATH_SET_H
#define IMAGERS_PATH_SET_H

#include "impl.h"

struct imc_path_set;

enum imc_fault imc_path_set_new(struct imc_path_set **set);
void imc_path_set_free(struct imc_path_set *set);
enum imc_fault imc_path_set_add(struct imc_path_set *set, uint64_t device, uint64_t inode,
                                const char *name, size_t length);
bool imc_path_set_has(const struct imc_path_set *set, uint64_t device, uint64_t inode,
                      const char *name, size_t length);
size_t imc_path_set_count(const struct imc_path_set *set);

#endif
