# SPDX-License-Identifier: Apache-2.0
"""Loop devices: files as block devices, for kernels that mount nothing else.

device = open_loop(image)      # for reading; ends with its last user, a mount among them
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

__all__ = ["open_loop"]

# Linux UAPI, linux/loop.h.
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
# struct loop_config: fd, block size (0: the usual), struct loop_info64, reserved.
_CONFIG = struct.Struct("=II 52x I 176x 64x")
_ATTEMPTS = 64  # others may take the device that was free


def open_loop(image: int) -> int:
    """A block device with the bytes of an open file.

    Raises:
        OSError: there are no loop devices here, or not for this user.
    """
    config = _CONFIG.pack(image, 0, _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "loop devices are taken as fast as they come")
