/* SPDX-License-Identifier: Apache-2.0 */
/* What came of a job, as LayerJob.run() gives it. */
#include "py_module.h"

/* What was left out, as a list of (kind, count, name, attribute). */
static PyObject *left_out_of(const struct imc_job *job) {
    const struct imc_left_out *left = imc_job_left_out(job);
    PyObject *list = PyList_New(0);
    for (int kind = 0; list != NULL && left != NULL && kind < IMC_LEFT_KINDS; kind++) {
        const struct imc_left_out *one = &left[kind];
        if (one->count == 0) {
            continue;
        }
        PyObject *item =
            Py_BuildValue("(iKy#y#)", kind, (unsigned long long)one->count, (const char *)one->name,
                          (Py_ssize_t)one->name_length, (const char *)one->attribute,
                          (Py_ssize_t)one->attribute_length);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

PyObject *imc_py_result(const struct imc_job *job) {
    const struct imc_result *result = imc_job_result(job);
    PyObject *left_out = left_out_of(job);
    if (left_out == NULL) {
        return NULL;
    }
    size_t codes_length;
    size_t beginning_length;
    const char *codes = (const char *)imc_job_codes(job, &codes_length);
    const char *beginning = (const char *)imc_job_beginning(job, &beginning_length);
    return Py_BuildValue("(sKKKsy#sKNy#y#)", result->stored_digest,
                         (unsigned long long)result->stored_size,
                         (unsigned long long)result->tar_size, (unsigned long long)result->entries,
                         result->tar_digest, (const char *)result->hmac,
                         (Py_ssize_t)(result->has_hmac ? IMC_MAC_BYTES : 0), result->opened_digest,
                         (unsigned long long)result->hole_bytes, left_out, codes,
                         (Py_ssize_t)codes_length, beginning, (Py_ssize_t)beginning_length);
}
