/* SPDX-License-Identifier: Apache-2.0 */
/* Where a job's bytes come from and go to: files, pipes, the ring. Nothing waits for longer
 * than it takes to be cancelled.
 */
#define _GNU_SOURCE
#include "job_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#define WRITE_BACK ((size_t)4 * 1024 * 1024)
#define PIPE_PIECE 4096 /* PIPE_BUF: what a pipe that is ready takes without blocking */

static bool is_over(const struct imc_job *job) {
    return atomic_load_explicit(&job->over, memory_order_relaxed);
}

/* Until the descriptor is ready; IMC_CANCELLED comes first. */
static enum imc_fault wait_for(struct imc_job *job, int fd, short events,
                               struct imc_failure *failure) {
    for (;;) {
        struct pollfd both[2] = {{.fd = fd, .events = events}, {.fd = job->wake, .events = POLLIN}};
        int ready = poll(both, 2, -1);
        if (is_over(job)) {
            return IMC_CANCELLED;
        }
        if (ready > 0 && both[0].revents != 0) {
            return IMC_OK;
        }
        if (ready < 0 && errno != EINTR) {
            return imc_fail(failure, IMC_READ, (uint64_t)errno, 0);
        }
    }
}

/* `length` bytes; fewer only at the end of the file. */
static enum imc_fault read_fully(struct imc_job *job, uint8_t *buffer, size_t length, size_t *got,
                                 struct imc_failure *failure) {
    int fd = job->options.source_fd;
    bool waits = job->source_waits;
    *got = 0;
    while (*got < length) {
        if (is_over(job)) {
            return IMC_CANCELLED;
        }
        if (waits) {
            enum imc_fault fault = wait_for(job, fd, POLLIN, failure);
            if (fault != IMC_OK) {
                return fault;
            }
        }
        ssize_t count = read(fd, buffer + *got, length - *got);
        if (count == 0) {
            break;
        }
        if (count < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                waits = true;
            } else if (errno != EINTR) {
                return imc_fail(failure, IMC_READ, (uint64_t)errno, 0);
            }
            continue;
        }
        *got += (size_t)count;
    }
    return IMC_OK;
}

/* Has what was written go on to its disk meanwhile: who makes an image waits for that at the end
 * (fsync), and no disk is too fast to be waited for. */
static void write_back(struct imc_job *job, size_t count) {
    struct imc_written *written = &job->written;
    written->waiting += count;
    if (written->waiting < WRITE_BACK || !written->is_file) {
        return;
    }
    /* Where it is not done now, fsync does it, and says what went wrong. */
    (void)sync_file_range(job->options.sink_fd, written->from, (off_t)written->waiting,
                          SYNC_FILE_RANGE_WRITE);
    written->from += (off_t)written->waiting;
    written->waiting = 0;
}

enum imc_fault imc_job_write(struct imc_job *job, const uint8_t *data, size_t length,
                             struct imc_failure *failure) {
    int fd = job->options.sink_fd;
    bool waits = job->sink_waits;
    while (length > 0) {
        if (is_over(job)) {
            return IMC_CANCELLED;
        }
        if (waits) {
            enum imc_fault fault = wait_for(job, fd, POLLOUT, failure);
            if (fault != IMC_OK) {
                return fault;
            }
        }
        ssize_t count = write(fd, data, waits && length > PIPE_PIECE ? PIPE_PIECE : length);
        if (count < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                waits = true;
            } else if (errno != EINTR) {
                return imc_fail(failure, job->checks ? IMC_KEEP : IMC_WRITE, (uint64_t)errno, 0);
            }
            continue;
        }
        data += count;
        length -= (size_t)count;
        write_back(job, (size_t)count);
    }
    return IMC_OK;
}

/* Too few bytes or too many: of a source that was checked before, the same as other ones. */
static enum imc_fault fail_size(const struct imc_job *job, enum imc_fault fault, uint64_t actual,
                                struct imc_failure *failure) {
    if (job->is_known) {
        return imc_fail(failure, IMC_CHANGED, job->taken, 0);
    }
    return imc_fail(failure, fault, job->options.size, actual);
}

/* Whether the source goes on after its last byte. */
static enum imc_fault check_end(struct imc_job *job, uint8_t **buffer,
                                struct imc_failure *failure) {
    size_t got = 0;
    enum imc_fault fault = IMC_OK;
    if (job->ring == NULL) {
        fault = read_fully(job, *buffer, 1, &got, failure);
    } else if (imc_ring_take(job->ring, buffer, &got) || imc_ring_surplus(job->ring)) {
        got = 1;
    } else {
        fault = is_over(job) ? IMC_CANCELLED : IMC_OK;
    }
    if (fault == IMC_OK && got > 0) {
        fault = fail_size(job, IMC_STORED_LONG, 0, failure);
    }
    return fault;
}

enum imc_fault imc_job_read(struct imc_job *job, uint8_t **buffer, size_t *length,
                            struct imc_failure *failure) {
    uint64_t left = job->options.size - job->taken;
    size_t want = left < IMC_PIECE ? (size_t)left : IMC_PIECE;
    size_t got = 0;
    enum imc_fault fault = IMC_OK;
    *length = 0;
    if (want == 0) {
        return check_end(job, buffer, failure);
    }
    if (job->ring == NULL) {
        fault = read_fully(job, *buffer, want, &got, failure);
    } else if (!imc_ring_take(job->ring, buffer, &got) && is_over(job)) {
        fault = IMC_CANCELLED;
    }
    if (fault != IMC_OK) {
        return fault;
    }
    if (got < want) {
        return fail_size(job, IMC_STORED_SHORT, job->taken + got, failure);
    }
    if (got > want) { /* a feeder that ignores the size */
        return fail_size(job, IMC_STORED_LONG, 0, failure);
    }
    if (job->pieces != NULL) {
        fault = imc_pieces_take(job->pieces, *buffer, got);
        if (fault != IMC_OK) {
            return imc_fail(failure, fault, job->taken, 0);
        }
    }
    job->taken += got;
    atomic_store_explicit(&job->bytes_in, job->taken, memory_order_relaxed);
    *length = got;
    return IMC_OK;
}
