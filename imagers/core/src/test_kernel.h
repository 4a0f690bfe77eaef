/* SPDX-License-Identifier: Apache-2.0 */
/* The test of the stitched kernels alone, which test_main.c runs. */
#ifndef IMAGERS_TEST_KERNEL_H
#define IMAGERS_TEST_KERNEL_H

#include <stdint.h>

/* 0, or does not return: what is wrong is on stderr then. */
int imc_test_kernel(uint64_t seed);

#endif
