# SPDX-License-Identifier: Apache-2.0
"""Ports for servers that have to be told one."""

import contextlib
import random
import socket
from pathlib import Path


def free_port():
    """A port that the system gives no client: one that asks a server which is down could get it.

    On loopback it would then be connected to itself, and the server could not start again.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(first // 2, first), 100):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is no free port")
