/* A set of names in directories: what a layer made, so that its whiteouts leave it alone.
 *
 * A member is (device, inode of the directory, name). Only a keyed hash of 61 bits is kept:
 * 16 bytes a member at worst, for whatever length of name.
 */
#ifndef IMAGERS_MARKS_H
#define IMAGERS_MARKS_H

#include "impl.h"

struct imc_marks;

enum imc_fault imc_marks_new(struct imc_marks **marks);
void imc_marks_free(struct imc_marks *marks);
enum imc_fault imc_marks_add(struct imc_marks *marks, uint64_t device, uint64_t inode,
                             const char *name, size_t length);
bool imc_marks_has(const struct imc_marks *marks, uint64_t device, uint64_t inode, const char *name,
                   size_t length);
size_t imc_marks_count(const struct imc_marks *marks);

#endif
