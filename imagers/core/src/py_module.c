/* SPDX-License-Identifier: Apache-2.0 */
/* imagers.core._core: module state, its start and its end. */
#include "py_module.h"

struct faults {
    PyObject *dict; /* NULL after an error */
};

static void add_fault(void *context, enum imc_fault fault) {
    struct faults *faults = context;
    if (faults->dict == NULL) {
        return;
    }
    PyObject *number = PyLong_FromLong((long)fault);
    if (number == NULL || PyDict_SetItemString(faults->dict, imc_fault_name(fault), number) < 0) {
        Py_CLEAR(faults->dict);
    }
    Py_XDECREF(number);
}

/* Adds a new reference, which is NULL after an error. */
static int add_constant(PyObject *module, const char *name, PyObject *value) {
    int result = value == NULL ? -1 : PyModule_AddObjectRef(module, name, value);
    Py_XDECREF(value);
    return result;
}

static PyObject *layer_names(void) {
    PyObject *list = PyList_New(0);
    const char *name;
    for (size_t i = 0; list != NULL && (name = imc_layer_name(i)) != NULL; i++) {
        PyObject *text = PyUnicode_FromString(name);
        if (text == NULL || PyList_Append(list, text) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(text);
    }
    PyObject *tuple = list == NULL ? NULL : PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

PyDoc_STRVAR(memory_doc, "memory_of(*, ...)\n--\n\n"
                         "The most bytes that such a job has at once; see imagers.core.native.");

static PyObject *memory_of(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"sealing", "decode",       "encode",  "fed", "unpacks",
                            "size",    "window_bytes", "threads", NULL};
    int sealing = 0;
    int decode = 0;
    int encode = 0;
    int fed = 0;
    int unpacks = 0;
    unsigned long long size = 0;
    unsigned long long window_bytes = 0;
    unsigned threads = 0;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$piippKKI", names, &sealing, &decode, &encode,
                                     &fed, &unpacks, &size, &window_bytes, &threads)) {
        return NULL;
    }
    struct imc_options options = {
        .sealing = sealing != 0,
        .decode = (enum imc_compression)decode,
        .encode = (enum imc_compression)encode,
        .sees_tar = true, /* at the most */
        .size = size,
        .source_fd = fed ? -1 : 0,
        .root_fd = unpacks ? 0 : -1,
        .window_bytes = window_bytes,
        .threads = threads,
    };
    return PyLong_FromSize_t(imc_job_memory(&options));
}

static PyMethodDef functions[] = {
    {"memory_of", (PyCFunction)(void (*)(void))memory_of, METH_VARARGS | METH_KEYWORDS, memory_doc},
    {"sm2_verify", imc_py_sm2_verify, METH_VARARGS,
     "sm2_verify(public_key, signature, message, user_id, /)\n--\n\n"
     "Whether it is one; see imagers.core.algorithms."},
    {"kmac256", imc_py_kmac256, METH_VARARGS,
     "kmac256(key, data, customization, length, /)\n--\n\n"
     "See imagers.core.algorithms."},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
    struct module_state *state = PyModule_GetState(module);
    struct faults faults = {PyDict_New()};
    imc_each_fault(add_fault, &faults);
    if (add_constant(module, "FAULTS", faults.dict) < 0 ||
        add_constant(module, "LAYER_FUNCTIONS", layer_names()) < 0 ||
        add_constant(module, "GZIP_LIBRARY", PyUnicode_FromString(imc_gzip_library())) < 0) {
        return -1;
    }
    PyObject *failures = PyImport_ImportModule("imagers.core.failures");
    if (failures == NULL) {
        return -1;
    }
    state->failure_of = PyObject_GetAttrString(failures, "failure_of");
    Py_DECREF(failures);
    if (state->failure_of == NULL) {
        return -1;
    }
    state->layer_job = (PyTypeObject *)PyType_FromModuleAndSpec(module, &imc_layer_job_spec, NULL);
    return state->layer_job == NULL ? -1 : PyModule_AddType(module, state->layer_job);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct module_state *state = PyModule_GetState(module);
    Py_VISIT(state->failure_of);
    Py_VISIT(state->layer_job);
    return 0;
}

static int module_clear(PyObject *module) {
    struct module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->failure_of);
    Py_CLEAR(state->layer_job);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)module_exec},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "imagers.core._core",
    .m_doc = "One layer in C; imagers.core.native is its face.",
    .m_size = sizeof(struct module_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&definition);
}
