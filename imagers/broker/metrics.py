# SPDX-License-Identifier: Apache-2.0
"""What a broker counts, in the text format of Prometheus.

    metrics = Metrics()
    metrics.count("attest", 200, seconds=0.004)
    metrics.text()

Labels are names that the broker has for its endpoints, and statuses that it answers with: no path,
no name of a resource, nothing that a caller chooses. So the rows are bounded.

Spec: Prometheus exposition formats, text format 0.0.4.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_REQUESTS = "imagers_broker_requests"
_SECONDS = "imagers_broker_request_seconds"


class Metrics:
    """Requests and how long they took.

    Threads: one, that of the event loop.
    """

    def __init__(self) -> None:
        self._began = time.time()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._within: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(_BOUNDS) + 1))
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def count(self, endpoint: str, status: int, *, seconds: float) -> None:
        """One request was answered."""
        self._requests[endpoint, status] += 1
        self._within[endpoint][bisect_left(_BOUNDS, seconds)] += 1
        self._seconds[endpoint] += seconds

    def text(self) -> bytes:
        """All of it."""
        lines = [
            f"# HELP {_REQUESTS}_total Requests by endpoint and status of the answer.",
            f"# TYPE {_REQUESTS}_total counter",
        ]
        for (endpoint, status), count in sorted(self._requests.items()):
            labels = f'{{endpoint="{endpoint}",status="{status}"}}'
            lines.append(f"{_REQUESTS}_total{labels} {count}")
        lines += [
            f"# HELP {_SECONDS} From the head of a request to its answer.",
            f"# TYPE {_SECONDS} histogram",
        ]
        for endpoint, within in sorted(self._within.items()):
            total = 0
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), within, strict=True):
                total += count
                labels = f'{{endpoint="{endpoint}",le="{bound}"}}'
                lines.append(f"{_SECONDS}_bucket{labels} {total}")
            lines.append(f'{_SECONDS}_sum{{endpoint="{endpoint}"}} {self._seconds[endpoint]:.6f}')
            lines.append(f'{_SECONDS}_count{{endpoint="{endpoint}"}} {total}')
        lines += [
            "# HELP process_start_time_seconds When the broker started, since the epoch.",
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self._began:.3f}",
        ]
        return "\n".join(lines).encode() + b"\n"
