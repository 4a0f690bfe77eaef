# SPDX-License-Identifier: Apache-2.0
"""What the layers of one image may use together: threads, memory, and how many at once.

    results = run_layers(sizes, Budget(jobs=2), work)

where `work(index, means, cancellation)` does one layer with the `Resources` that it gets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from imagers.core.cores import usable_cores
from imagers.core.together import run_together
from imagers.core.values import Resources
from imagers.errors import UsageError, WindowTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagers.waiting import Cancellation

__all__ = ["DEFAULT_MEMORY", "Budget", "run_layers"]

_T = TypeVar("_T")

_MIB = 1024 * 1024
DEFAULT_MEMORY = 64 * _MIB
_LEAST_MEMORY = 16 * _MIB  # of one layer: its rings, and the 8 MiB window of zstd's level 19
# Held against `imagers.core.native.memory_of` by a test:
_RINGS = 7 * _MIB  # and the other buffers of an opened layer, but for the window
_COMPRESSION = 11 * _MIB  # of several threads that compress, and for each of them
_COMPRESSOR = 13 * _MIB  # frames before and after, and an encoder
_LARGEST_WINDOW = 1 << 31  # ZSTD_WINDOWLOG_MAX of libzstd
# Of a core: so much more than its fair share of the bytes makes a layer worth two.
_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Budget:
    """What the layers of one image may use together.

    Attributes:
        jobs: layers at the same time, at least 1. None: one for each core that this process
            may use. Fewer where there is no memory for them.
        memory_bytes: working memory of all of them together, at least 16 MiB.
    """

    jobs: int | None = None
    memory_bytes: int = DEFAULT_MEMORY

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ValueError("jobs must be at least 1")
        if self.memory_bytes < _LEAST_MEMORY:
            raise UsageError(
                f"expected at least {_LEAST_MEMORY // _MIB} MiB of memory to work with, "
                f"got {self.memory_bytes} bytes"
            )

    def jobs_for(self, layers: int) -> int:
        """How many of so many layers are worked on at once; at least 1."""
        wanted = usable_cores() if self.jobs is None else self.jobs
        return max(1, min(wanted, layers, self.memory_bytes // _LEAST_MEMORY))

    def resources_of(self, part: float, *, jobs: int) -> Resources:
        """What a layer may use that has this part of all bytes, beside others or alone.

        A layer with no more than a core's share of the bytes is done in one thread: all cores
        have work, and nothing is handed from one to another. A larger one is the one that
        all wait for, and is split.
        """
        cores = usable_cores()
        memory = self.memory_bytes // jobs
        threads = cores if jobs == 1 else min(cores, max(1, math.ceil(part * cores - _TOLERANCE)))
        window = min(1 << ((memory - _RINGS).bit_length() - 1), _LARGEST_WINDOW)
        return Resources(threads, window, max(1, (memory - _COMPRESSION) // _COMPRESSOR))


def run_layers(
    sizes: Sequence[int],
    budget: Budget,
    work: Callable[[int, Resources, Cancellation], _T],
    *,
    on_done: Callable[[_T], None] | None = None,
    cancellation: Cancellation | None = None,
) -> list[_T]:
    """What `work` returns for each layer, in their order; large ones are begun first.

    A layer whose zstd window does not fit beside others is done again after them, alone,
    with all the memory.

    Args:
        sizes: of the layers, in bytes.
        work: is given the number of the layer. It runs in threads of its own where several
            layers are done at once.
        on_done: is called in this thread as layers get ready, in any order.

    Raises:
        As `run_together`; `WindowTooLarge` if the memory is not enough for a layer alone.
    """
    jobs = budget.jobs_for(len(sizes))
    total = max(1, sum(sizes))
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])

    def together(index: int, stop: Cancellation) -> tuple[_T] | None:
        try:
            resources = budget.resources_of(sizes[index] / total, jobs=jobs)
            return (work(index, resources, stop),)
        except WindowTooLarge:
            if jobs == 1:
                raise
            return None

    results: dict[int, _T] = {}

    def note(number: int, result: tuple[_T] | None) -> None:
        if result is not None:
            results[order[number]] = result[0]
            if on_done is not None:
                on_done(result[0])

    run_together(
        [partial(together, index) for index in order],
        jobs=jobs,
        on_done=note,
        cancellation=cancellation,
    )
    left = [index for index in range(len(sizes)) if index not in results]
    alone = budget.resources_of(1, jobs=1)
    for index, result in zip(
        left,
        run_together(
            [partial(work, index, alone) for index in left], jobs=1, cancellation=cancellation
        ),
        strict=True,
    ):
        results[index] = result
        if on_done is not None:
            on_done(result)
    return [results[index] for index in range(len(sizes))]
