# SPDX-License-Identifier: Apache-2.0
"""How many threads of work this process may have running at once.

A container may be kept to less than what the machine has: by affinity, or by a quota of
processor time. More threads than that only make each other wait.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

__all__ = ["usable_cores"]

_CGROUP = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def quota_cores(text: str) -> int | None:
    """Whole cores that the content of a `cpu.max` pays for, at least one; None: no quota.

    Spec: Linux, Documentation/admin-guide/cgroup-v2.rst, "cpu.max".
    """
    match text.split():
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period):
            return max(1, int(quota) // int(period))
    return None


def _quotas() -> list[int]:
    """Of the own group and of those around it, as far as they can be seen."""
    found = []
    try:
        lines = _OWN.read_text(encoding="utf-8").splitlines()
        group = next((line[3:] for line in lines if line.startswith("0::")), "/")
        folder = _CGROUP / group.strip("/")
        for one in (folder, *folder.parents):
            if not one.is_relative_to(_CGROUP):
                break
            path = one / "cpu.max"
            cores = quota_cores(path.read_text(encoding="ascii")) if path.exists() else None
            if cores is not None:
                found.append(cores)
    except (OSError, ValueError):
        return found  # no cgroup2: the affinity is all there is
    return found


@cache
def usable_cores() -> int:
    """Cores that this process may use: affinity and the quota of its cgroups, once asked."""
    return max(1, min([len(os.sched_getaffinity(0)), *_quotas()]))
