/* SPDX-License-Identifier: Apache-2.0 */
/* LayerJob: one job of imagers_core.h as a Python object.
 *
 * run() keeps the calling thread: it feeds the job from a Python source, or waits, without
 * the interpreter's lock. Twenty times a second it takes the lock to let signals in and to
 * call `tick`. Whatever goes wrong on the way, it does not return before the job's thread
 * has ended: no thread of C ever touches Python.
 */
#include "py_module.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 50                           /* a job is cancelled within twice that */
#define FEED_BYTES ((Py_ssize_t)1024 * 1024) /* what HTTP clients like to read at once */

struct layer_job {
    PyObject_HEAD struct imc_job *job; /* NULL in the child of a fork */
    PyObject *what;
    uint64_t size;
    atomic_bool started;
    bool fed;
    pid_t pid;
};

/* A buffer's bytes if it has exactly `length`; NULL with an exception otherwise. */
static const uint8_t *exactly(const Py_buffer *buffer, Py_ssize_t length, const char *name) {
    if (buffer->buf == NULL || buffer->len != length) {
        PyErr_Format(PyExc_ValueError, "%s must have %zd bytes", name, length);
        return NULL;
    }
    return buffer->buf;
}

static bool is_digest(const char *text) {
    return strchr(text, ':') != NULL && strlen(text) < IMC_DIGEST_TEXT;
}

/* A converter of arguments: a descriptor, or None for none. */
static int descriptor_or_none(PyObject *object, void *result) {
    int *fd = result;
    *fd = -1;
    if (object == Py_None) {
        return 1;
    }
    long number = PyLong_AsLong(object);
    if (number < 0 || number > INT_MAX) {
        if (PyErr_Occurred() == NULL) {
            PyErr_Format(PyExc_ValueError, "%ld is no descriptor", number);
        }
        return 0;
    }
    *fd = (int)number;
    return 1;
}

static bool is_compression(int number) {
    return number >= IMC_PLAIN && number <= IMC_ZSTD;
}

/* What both constructors are given, but for the cipher. False with an exception. */
static bool check_options(const struct imc_options *options, int decode, int encode) {
    if (!is_compression(decode) || !is_compression(encode)) {
        PyErr_SetString(PyExc_ValueError, "unknown compression");
        return false;
    }
    if (!is_digest(options->digest) || (options->diff_id != NULL && !is_digest(options->diff_id))) {
        PyErr_SetString(PyExc_ValueError, "not a digest");
        return false;
    }
    return true;
}

/* Key and nonce, where there are any; without copying them. False with an exception. */
static bool take_cipher(struct imc_options *options, const Py_buffer *key, const Py_buffer *nonce) {
    options->has_cipher = key->buf != NULL;
    if (!options->has_cipher) {
        return true;
    }
    options->key = exactly(key, IMC_KEY_BYTES, "key");
    options->nonce = options->key == NULL ? NULL : exactly(nonce, IMC_NONCE_BYTES, "nonce");
    return options->nonce != NULL;
}

/* The key of pieces and their codes, where there are any; as above. False with an exception. */
static bool take_pieces(struct imc_options *options, const Py_buffer *key, const Py_buffer *codes) {
    if (key->buf == NULL) {
        return true;
    }
    uint64_t count = options->size / IMC_PIECE + (options->size % IMC_PIECE != 0);
    if (codes->buf != NULL && (uint64_t)codes->len != count * IMC_CODE_BYTES) {
        PyErr_SetString(PyExc_ValueError, "codes must be those of all pieces");
        return false;
    }
    options->codes = codes->buf;
    options->codes_length = (size_t)codes->len;
    options->piece_key = exactly(key, IMC_KEY_BYTES, "piece_key");
    return options->piece_key != NULL;
}

static PyObject *make(PyTypeObject *type, const struct imc_options *options, PyObject *what) {
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct layer_job *self = (struct layer_job *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->job = NULL;
    self->what = Py_NewRef(what);
    self->size = options->size;
    self->fed = options->source_fd < 0;
    self->pid = getpid();
    atomic_init(&self->started, false);
    enum imc_fault fault = imc_job_new(options, &self->job);
    if (fault != IMC_OK) {
        struct imc_failure failure = {.fault = fault, .number = (uint64_t)errno};
        struct module_state *state = PyType_GetModuleState(type);
        if (state != NULL) {
            imc_raise(state, &failure, what);
        }
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(seal_doc, "seal(*, ...)\n--\n\nA job that seals; see imagers.core.native.");

static PyObject *layer_job_seal(PyObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"source",  "sink",   "size",   "digest",   "diff_id",   "key",
                            "nonce",   "decode", "encode", "sees_tar", "tar_bytes", "window_bytes",
                            "threads", "what",   "force",  NULL};
    struct imc_options options = {.sealing = true, .root_fd = -1};
    int decode = 0;
    int encode = 0;
    int sees_tar = 0;
    unsigned long long numbers[3] = {0};
    PyObject *what = NULL;
    Py_buffer key = {0};
    Py_buffer nonce = {0};
    PyObject *self = NULL;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "$O&O&Kszz*z*iipKKIUz", names, descriptor_or_none, &options.source_fd,
            descriptor_or_none, &options.sink_fd, &numbers[0], &options.digest, &options.diff_id,
            &key, &nonce, &decode, &encode, &sees_tar, &numbers[1], &numbers[2], &options.threads,
            &what, &options.force)) {
        return NULL;
    }
    options.size = numbers[0];
    options.tar_bytes = numbers[1];
    options.window_bytes = numbers[2];
    options.sees_tar = sees_tar != 0;
    if (options.sink_fd < 0) {
        PyErr_SetString(PyExc_ValueError, "sealing needs a sink");
        goto done;
    }
    if (!check_options(&options, decode, encode) || !take_cipher(&options, &key, &nonce)) {
        goto done;
    }
    options.decode = (enum imc_compression)decode;
    options.encode = (enum imc_compression)encode;
    self = make((PyTypeObject *)type, &options, what);
done:
    PyBuffer_Release(&key);
    PyBuffer_Release(&nonce);
    return self;
}

PyDoc_STRVAR(open_doc, "open(*, ...)\n--\n\nA job that opens; see imagers.core.native.");

static PyObject *layer_job_open(PyObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {
        "source",      "sink",           "root",      "keep_owner", "size",
        "digest",      "diff_id",        "key",       "nonce",      "hmac",
        "decode",      "sees_tar",       "gives_tar", "tar_bytes",  "window_bytes",
        "max_entries", "max_name_bytes", "threads",   "what",       "force",
        "piece_key",   "codes",          NULL};
    struct imc_options options = {.sealing = false};
    int keep_owner = 0;
    int decode = 0;
    int sees_tar = 0;
    int gives_tar = 0;
    unsigned long long numbers[5] = {0};
    PyObject *what = NULL;
    Py_buffer key = {0};
    Py_buffer nonce = {0};
    Py_buffer hmac = {0};
    Py_buffer piece_key = {0};
    Py_buffer codes = {0};
    PyObject *self = NULL;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "$O&O&O&pKszz*z*z*ippKKKKIUzz*z*", names, descriptor_or_none,
            &options.source_fd, descriptor_or_none, &options.sink_fd, descriptor_or_none,
            &options.root_fd, &keep_owner, &numbers[0], &options.digest, &options.diff_id, &key,
            &nonce, &hmac, &decode, &sees_tar, &gives_tar, &numbers[1], &numbers[2], &numbers[3],
            &numbers[4], &options.threads, &what, &options.force, &piece_key, &codes)) {
        return NULL;
    }
    options.keep_owner = keep_owner != 0;
    options.sees_tar = sees_tar != 0;
    options.gives_tar = gives_tar != 0;
    options.size = numbers[0];
    options.tar_bytes = numbers[1];
    options.window_bytes = numbers[2];
    options.max_entries = numbers[3];
    options.max_name_bytes = numbers[4];
    if (options.max_name_bytes == 0 || options.max_name_bytes > 4095) {
        PyErr_SetString(PyExc_ValueError, "max_name_bytes must be from 1 to 4095");
        goto done;
    }
    if (!check_options(&options, decode, IMC_PLAIN) || !take_cipher(&options, &key, &nonce)) {
        goto done;
    }
    options.decode = (enum imc_compression)decode;
    options.hmac = options.has_cipher ? exactly(&hmac, IMC_MAC_BYTES, "hmac") : NULL;
    if ((!options.has_cipher || options.hmac != NULL) &&
        take_pieces(&options, &piece_key, &codes)) {
        self = make((PyTypeObject *)type, &options, what);
    }
done:
    PyBuffer_Release(&key);
    PyBuffer_Release(&nonce);
    PyBuffer_Release(&hmac);
    PyBuffer_Release(&piece_key);
    PyBuffer_Release(&codes);
    return self;
}

static void layer_job_dealloc(PyObject *object) {
    struct layer_job *self = (struct layer_job *)object;
    PyTypeObject *type = Py_TYPE(object);
    imc_job_free(self->job); /* joined by run(), or never started */
    Py_CLEAR(self->what);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *progress_of(const struct layer_job *self) {
    struct imc_progress progress;
    imc_job_progress(self->job, &progress);
    return Py_BuildValue("(KKK)", (unsigned long long)progress.bytes_in,
                         (unsigned long long)progress.bytes_out,
                         (unsigned long long)progress.entries);
}

/* Whether this is the process that started the job: `tick` or a signal handler may have
 * forked, and then the thread is in the other one. False with an exception. */
static bool is_same_process(struct layer_job *self) {
    if (getpid() == self->pid) {
        return true;
    }
    self->job = NULL; /* what it holds cannot be freed without its thread */
    PyErr_SetString(PyExc_RuntimeError, "the process was forked inside a job");
    return false;
}

/* Lets signals in and calls `tick`, which says whether to cancel. False with an exception. */
static bool look_around(struct layer_job *self, PyObject *tick) {
    if (PyErr_CheckSignals() < 0) {
        return false;
    }
    PyObject *result = NULL;
    if (tick != Py_None) {
        PyObject *progress = progress_of(self);
        result = progress == NULL ? NULL : PyObject_CallObject(tick, progress);
        Py_XDECREF(progress);
        if (result == NULL) {
            return false;
        }
    }
    if (!is_same_process(self)) {
        Py_XDECREF(result);
        return false;
    }
    int cancel = result == NULL ? 0 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (cancel > 0) {
        imc_job_cancel(self->job);
    }
    return cancel >= 0;
}

static bool wait_briefly(struct layer_job *self) {
    bool done;
    Py_BEGIN_ALLOW_THREADS
        done = imc_job_wait(self->job, TICK_MS);
    Py_END_ALLOW_THREADS
    return done;
}

/* Waits for the end of the job. False with an exception. */
static bool wait_long(struct layer_job *self, PyObject *tick) {
    while (!wait_briefly(self)) {
        if (!look_around(self, tick)) {
            return false;
        }
    }
    return true;
}

/* What is being fed from, and into. */
struct feed {
    PyObject *read;
    PyObject *tick;
    PyObject *buffer; /* a bytearray of FEED_BYTES, held in place by `view` */
    PyObject *view;
    uint8_t *slot; /* NULL: none */
    size_t filled; /* bytes in it */
    struct timespec looked;
};

/* Whether TICK_MS have gone since the last time that this was true. */
static bool is_time_to_look(struct feed *feed) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ms = ((int64_t)now.tv_sec - feed->looked.tv_sec) * 1000 +
                 (now.tv_nsec - feed->looked.tv_nsec) / 1000000;
    if (ms < TICK_MS) {
        return false;
    }
    feed->looked = now;
    return true;
}

/* Calls read() for up to `want` bytes into the buffer; their count, or -1 with an exception.
 * The job does not see this buffer, so a source that keeps it can do no harm. */
static Py_ssize_t read_some(const struct feed *feed, Py_ssize_t want) {
    PyObject *part = PySequence_GetSlice(feed->view, 0, want);
    PyObject *result = part == NULL ? NULL : PyObject_CallFunctionObjArgs(feed->read, part, NULL);
    Py_XDECREF(part);
    if (result == NULL) {
        return -1;
    }
    Py_ssize_t count = PyLong_AsSsize_t(result);
    Py_DECREF(result);
    if (count == -1 && PyErr_Occurred() != NULL) {
        return -1;
    }
    if (count < 0 || count > want) {
        PyErr_Format(PyExc_ValueError, "readinto() gave %zd for %zd bytes", count, want);
        return -1;
    }
    return count;
}

/* A slot to fill. *stopped: the job wants no more. False with an exception. */
static bool next_slot(struct layer_job *self, struct feed *feed, bool *stopped) {
    while (feed->slot == NULL) {
        bool done = false;
        Py_BEGIN_ALLOW_THREADS
            feed->slot = imc_job_slot(self->job, TICK_MS);
            if (feed->slot == NULL) {
                /* A stopped ring gives none at once: no turning in circles until the end. */
                done = imc_job_wait(self->job, 10);
            }
        Py_END_ALLOW_THREADS
        feed->filled = 0;
        if (done) {
            *stopped = true;
            return true;
        }
        if (is_time_to_look(feed) && !look_around(self, feed->tick)) {
            return false;
        }
    }
    return true;
}

static void commit(struct layer_job *self, struct feed *feed) {
    if (feed->slot != NULL && feed->filled > 0) {
        imc_job_commit(self->job, feed->filled);
    }
    feed->slot = NULL;
}

/* Moves `count` bytes of the buffer on; slots are handed over when they are full. */
static bool pass_on(struct layer_job *self, struct feed *feed, size_t count, bool *stopped) {
    const char *data = PyByteArray_AsString(feed->buffer);
    for (size_t at = 0; at < count && !*stopped;) {
        if (!next_slot(self, feed, stopped)) {
            return false;
        }
        if (*stopped) {
            break;
        }
        size_t room = IMC_PIECE - feed->filled;
        size_t part = count - at < room ? count - at : room;
        memcpy(feed->slot + feed->filled, data + at, part);
        feed->filled += part;
        at += part;
        if (feed->filled == IMC_PIECE) {
            commit(self, feed);
        }
    }
    return true;
}

static bool feed_all(struct layer_job *self, struct feed *feed) {
    uint64_t left = self->size;
    bool stopped = false;
    Py_ssize_t count = 1;
    while (left > 0 && count > 0 && !stopped) {
        Py_ssize_t want = left < (uint64_t)FEED_BYTES ? (Py_ssize_t)left : FEED_BYTES;
        count = read_some(feed, want);
        if (count < 0 || !is_same_process(self) || !pass_on(self, feed, (size_t)count, &stopped)) {
            return false;
        }
        left -= (uint64_t)count;
        if (is_time_to_look(feed)) {
            if (!look_around(self, feed->tick) || !is_same_process(self)) {
                return false;
            }
            /* Not only where a slot is full: a peer may give one byte at a time. */
            stopped = stopped || imc_job_wait(self->job, 0);
        }
    }
    if (stopped) {
        return true;
    }
    commit(self, feed);
    if (left == 0) {
        count = read_some(feed, 1);
        if (count < 0 || !is_same_process(self)) {
            return false;
        }
    }
    imc_job_end_of_source(self->job, left == 0 && count > 0);
    return true;
}

/* Feeds the job to the end of the source. False with an exception. */
static bool feed_from(struct layer_job *self, PyObject *read, PyObject *tick) {
    struct feed feed = {.read = read, .tick = tick};
    clock_gettime(CLOCK_MONOTONIC, &feed.looked);
    feed.buffer = PyByteArray_FromStringAndSize(NULL, FEED_BYTES);
    feed.view = feed.buffer == NULL ? NULL : PyMemoryView_FromObject(feed.buffer);
    bool good = feed.view != NULL && feed_all(self, &feed);
    Py_XDECREF(feed.view);
    Py_XDECREF(feed.buffer);
    return good;
}

PyDoc_STRVAR(run_doc,
             "run(read, tick, /)\n--\n\n"
             "Do the job, once: (stored digest, stored size, tar size, entries, tar digest, hmac,\n"
             "opened digest, bytes of holes, what was left out, codes, beginning).");

/* What came of a job that was joined. */
static PyObject *outcome_of(struct layer_job *self) {
    const struct imc_failure *failure = imc_job_failure(self->job);
    if (failure->fault == IMC_OK) {
        return imc_py_result(self->job);
    }
    struct module_state *state = PyType_GetModuleState(Py_TYPE((PyObject *)self));
    return state == NULL ? NULL : imc_raise(state, failure, self->what);
}

static PyObject *layer_job_run(PyObject *object, PyObject *args) {
    struct layer_job *self = (struct layer_job *)object;
    PyObject *read = NULL;
    PyObject *tick = NULL;
    if (!PyArg_ParseTuple(args, "OO", &read, &tick)) {
        return NULL;
    }
    if (atomic_exchange(&self->started, true) || !is_same_process(self)) {
        if (PyErr_Occurred() == NULL) {
            PyErr_SetString(PyExc_RuntimeError, "a job runs once");
        }
        return NULL;
    }
    bool good = look_around(self, tick);
    if (good && imc_job_start(self->job) == IMC_OK) {
        good = (!self->fed || feed_from(self, read, tick)) && wait_long(self, tick);
    }
    if (self->job == NULL) {
        return NULL; /* forked */
    }
    if (!good) {
        imc_job_cancel(self->job);
    }
    Py_BEGIN_ALLOW_THREADS
        imc_job_join(self->job);
    Py_END_ALLOW_THREADS
    PyObject *result = good ? outcome_of(self) : NULL;
    /* Now and not with the object, which a traceback may keep: it holds descriptors. */
    imc_job_free(self->job);
    self->job = NULL;
    return result;
}

static PyMethodDef methods[] = {
    {"seal", (PyCFunction)(void (*)(void))layer_job_seal, METH_CLASS | METH_VARARGS | METH_KEYWORDS,
     seal_doc},
    {"open", (PyCFunction)(void (*)(void))layer_job_open, METH_CLASS | METH_VARARGS | METH_KEYWORDS,
     open_doc},
    {"run", layer_job_run, METH_VARARGS, run_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "One layer, made by `seal` or `open`; see imagers.core.native."},
    {Py_tp_dealloc, (void *)layer_job_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec imc_layer_job_spec = {
    .name = "imagers.core._core.LayerJob",
    .basicsize = sizeof(struct layer_job),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
