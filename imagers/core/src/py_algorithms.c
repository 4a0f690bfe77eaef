/* SPDX-License-Identifier: Apache-2.0 */
/* sm2_verify and kmac256. Lengths are checked by imagers.core.algorithms, and here once more. */
#include "py_module.h"

static PyObject *failed(PyObject *module, enum imc_fault fault, const char *name) {
    struct imc_failure failure = {.fault = fault};
    PyObject *what = PyUnicode_FromString(name);
    if (what != NULL) {
        imc_raise(PyModule_GetState(module), &failure, what);
        Py_DECREF(what);
    }
    return NULL;
}

PyObject *imc_py_sm2_verify(PyObject *module, PyObject *args) {
    Py_buffer key = {0};
    Py_buffer signature = {0};
    Py_buffer message = {0};
    Py_buffer user_id = {0};
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*y*", &key, &signature, &message, &user_id)) {
        return NULL;
    }
    if (key.len != 2 * IMC_SM2_NUMBER || signature.len != 2 * IMC_SM2_NUMBER || user_id.len < 1 ||
        user_id.len > IMC_SM2_USER_ID) {
        PyErr_SetString(PyExc_ValueError, "a length is not what imagers.core.algorithms checks");
        goto done;
    }
    struct imc_sm2 signed_by = {
        .public_key = key.buf,
        .signature = signature.buf,
        .message = message.buf,
        .message_length = (size_t)message.len,
        .user_id = user_id.buf,
        .user_id_length = (size_t)user_id.len,
    };
    bool good = false;
    enum imc_fault fault;
    Py_BEGIN_ALLOW_THREADS /* two milliseconds */
        fault = imc_sm2_verify(&signed_by, &good);
    Py_END_ALLOW_THREADS
    result = fault == IMC_OK ? PyBool_FromLong(good) : failed(module, fault, "SM2");
done:
    PyBuffer_Release(&key);
    PyBuffer_Release(&signature);
    PyBuffer_Release(&message);
    PyBuffer_Release(&user_id);
    return result;
}

PyObject *imc_py_kmac256(PyObject *module, PyObject *args) {
    Py_buffer key = {0};
    Py_buffer data = {0};
    Py_buffer customization = {0};
    Py_ssize_t length = 0;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*n", &key, &data, &customization, &length)) {
        return NULL;
    }
    if (key.len < IMC_KMAC_KEY_MIN || key.len > IMC_KMAC_BYTES ||
        customization.len > IMC_KMAC_BYTES || length < 1 || length > IMC_KMAC_BYTES) {
        PyErr_SetString(PyExc_ValueError, "a length is not what imagers.core.algorithms checks");
        goto done;
    }
    struct imc_kmac input = {
        .key = key.buf,
        .key_length = (size_t)key.len,
        .data = data.buf,
        .data_length = (size_t)data.len,
        .customization = customization.buf,
        .customization_length = (size_t)customization.len,
    };
    result = PyBytes_FromStringAndSize(NULL, length);
    uint8_t *out = result == NULL ? NULL : (uint8_t *)PyBytes_AsString(result);
    if (out == NULL) {
        goto done;
    }
    enum imc_fault fault;
    Py_BEGIN_ALLOW_THREADS
        fault = imc_kmac256(&input, out, (size_t)length);
    Py_END_ALLOW_THREADS
    if (fault != IMC_OK) {
        Py_CLEAR(result);
        failed(module, fault, "KMAC256");
    }
done:
    PyBuffer_Release(&key);
    PyBuffer_Release(&data);
    PyBuffer_Release(&customization);
    return result;
}
