/* SPDX-License-Identifier: Apache-2.0 */
/* The one way from the enum to our exception classes: the table is in Python, so that the plain
 * implementation raises from it too. */
#include "py_module.h"

PyObject *imc_raise(struct module_state *state, const struct imc_failure *failure, PyObject *what) {
    if (failure->fault == IMC_NO_MEMORY) {
        return PyErr_NoMemory();
    }
    PyObject *exception = NULL;
    PyObject *arguments = Py_BuildValue("(i)", (int)failure->fault);
    PyObject *keywords = Py_BuildValue(
        "{s:O,s:y#,s:y#,s:K,s:K}", "what", what, "text", (const char *)failure->text,
        (Py_ssize_t)failure->text_length, "more", (const char *)failure->more,
        (Py_ssize_t)failure->more_length, "number", (unsigned long long)failure->number, "other",
        (unsigned long long)failure->other);
    if (arguments != NULL && keywords != NULL) {
        exception = PyObject_Call(state->failure_of, arguments, keywords);
    }
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    }
    Py_XDECREF(exception);
    Py_XDECREF(arguments);
    Py_XDECREF(keywords);
    return NULL;
}
