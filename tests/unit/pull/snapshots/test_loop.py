# SPDX-License-Identifier: Apache-2.0
import os
import stat
import threading

import pytest

from imagers.pull.snapshots.loop import open_loop


@pytest.fixture
def image(folder):
    path = folder / "image"
    path.write_bytes(bytes(range(256)) * 16)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_loop_has_the_bytes_of_the_file_and_ends_with_its_descriptor(image):
    """The fixture waits for that."""
    device = open_loop(image)
    try:
        assert stat.S_ISBLK(os.fstat(device).st_mode)
        assert os.pread(device, 8192, 0) == bytes(range(256)) * 16
    finally:
        os.close(device)


def test_loop_cannot_be_written(image):
    device = open_loop(image)
    writer = os.open(f"/proc/self/fd/{device}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.pwrite(writer, bytes(4096), 0)
    finally:
        os.close(writer)
        os.close(device)


def test_loops_that_are_opened_at_once_are_different(image):
    barrier, devices = threading.Barrier(4), []

    def open_one():
        barrier.wait(timeout=60)
        devices.append(open_loop(image))

    threads = [threading.Thread(target=open_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len({os.fstat(device).st_rdev for device in devices}) == 4
    finally:
        for device in devices:
            os.close(device)


def test_loop_of_no_file_is_an_error_and_takes_no_device(folder):
    with pytest.raises(OSError, match=r"Bad file descriptor|Invalid argument"):
        open_loop(1_000_000)
    assert os.listdir(folder) == []
