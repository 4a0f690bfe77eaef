# SPDX-License-Identifier: Apache-2.0
"""How long a pull may take: each of its phases, and all of it.

    >>> parse_time_limits("10m,keys=30s").total
    600.0

An image of any size on a line of any speed is right, so the layers have no limit of their own, and
neither has the whole. The other phases move little: what takes them a quarter of an hour hangs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

from imagers.errors import UsageError

__all__ = ["TimeLimits", "parse_time_limits"]

_SHORT_S = 900.0
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(h|ms|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+\Z")
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?\Z")
_MAX_S = 10.0**9


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """See the module. Seconds; None: no limit.

    Attributes:
        total: of all phases together.
        trust: manifest, signatures, policy, config.
        keys: evidence of this machine, the answers of brokers and key providers.
        layers: download, checks, unpacking; a server must not be silent longer than
            `read_timeout_s` of the settings of HTTP in any case.
        bundle: root file system, measurement, until the bundle is written. What the disk takes
            to have all of it is the kernel's, and not counted.
    """

    total: float | None = None
    trust: float | None = _SHORT_S
    keys: float | None = _SHORT_S
    layers: float | None = None
    bundle: float | None = _SHORT_S

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not 0 < value <= _MAX_S:
                raise ValueError(f"{one.name}: expected more than 0 and at most {_MAX_S:g} s")


def parse_time_limits(text: str) -> TimeLimits:
    """Limits as a user writes them: `5m`, `trust=30s,layers=2h`, or both.

    A duration is that of Go, as skopeo takes it (`1h30m`, `90s`, `250ms`), or a number of seconds;
    0 is no limit. One without a phase is for all together.

    Raises:
        UsageError: it is none.
    """
    phases = [one.name for one in fields(TimeLimits) if one.name != "total"]
    found: dict[str, float | None] = {}
    for part in text.split(","):
        name, equals, duration = part.partition("=")
        if not equals:
            name, duration = "total", part
        if (equals and name not in phases) or name in found:
            raise UsageError(
                f"expected DURATION or PHASE=DURATION, each once, got {part[:80]!r}",
                hint=f"PHASE is one of {', '.join(phases)}",
            )
        found[name] = _parse_duration(duration)
    return replace(TimeLimits(), **found)


def _parse_duration(text: str) -> float | None:
    if _SECONDS.match(text):
        seconds = float(text)
    elif _DURATION.match(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        raise UsageError(
            f"expected a duration, got {text[:80]!r}",
            hint="write 90s, 5m, 1h30m, or seconds; 0 is no limit",
        )
    if seconds > _MAX_S:
        raise UsageError(f"expected at most {_MAX_S:.0f} s, got {text[:80]!r}")
    return seconds or None
