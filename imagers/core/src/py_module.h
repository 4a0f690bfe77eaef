/* SPDX-License-Identifier: Apache-2.0 */
/* The binding half: Python on one side, imagers_core.h on the other, no algorithm. */
#ifndef IMAGERS_PY_MODULE_H
#define IMAGERS_PY_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "imagers_core.h"

struct module_state {
    PyObject *failure_of; /* imagers.core.failures.failure_of */
    PyTypeObject *layer_job;
};

/* py_failure.c. Raises the exception of a failure; always gives NULL. `what` is a str. */
PyObject *imc_raise(struct module_state *state, const struct imc_failure *failure, PyObject *what);

/* py_result.c. Of a job that was joined and has not failed. */
PyObject *imc_py_result(const struct imc_job *job);

/* py_algorithms.c; METH_VARARGS. */
PyObject *imc_py_sm2_verify(PyObject *module, PyObject *args);
PyObject *imc_py_kmac256(PyObject *module, PyObject *args);

extern PyType_Spec imc_layer_job_spec;

#endif
