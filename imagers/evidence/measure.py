# SPDX-License-Identifier: Apache-2.0
"""What a guest measures while it runs: an event in a register, and its record in a log.

    measure = MeasuredLog(PCR(14), path)
    measure.record("PullImage", {"image": "sha256:..."})

The log is the agent's of Confidential Containers: evidence brings it along behind the firmware's,
and verifiers replay both. An event of ours is `imagers OPERATION CONTENT`, CONTENT as canonical
JSON (RFC 8785).

An event is measured once: were it extended at each start, the register would tell how often a
machine was used. Whether it was is for the log and the register to say together. A log whose
replay does not give the register is nobody's word, and nothing is measured behind it.

The record is written first, then the register is extended. Who dies in between leaves a log with
one event too many: without it the log gives the register, so it is taken away again.

Spec: guest-components, Attestation Agent Event Log; `ccel` has its bytes.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from imagers.errors import LocalError
from imagers.evidence.ccel import (
    MAX_LOG,
    NO_ACTION,
    agent_event,
    digest_by,
    make_record,
    parse_event_log,
    parse_records,
    replay,
)
from imagers.evidence.steps import mismatch
from imagers.files import local_errors, reason_of, write_all
from imagers.waiting import lock_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from imagers.evidence.ccel import Event
    from imagers.model.evidence import Measure
    from imagers.model.strict_json import JSON

__all__ = ["AGENT_LOG", "DOMAIN", "MeasuredLog", "Register", "reading_log"]

AGENT_LOG = Path("/run/attestation-agent/eventlog")
DOMAIN = "imagers"
_MODE = 0o600
_HINT = (
    "something else extended the register or wrote the log, or the log is of an earlier start of "
    "this machine: then remove it; else start the machine again"
)


class Register(Protocol):
    """A register that grows while a machine runs."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def index(self) -> int:
        """Its number in a log."""

    @property
    def algorithm(self) -> str:
        """Of the value that evidence has, such as `SHA-256`."""

    @property
    def counts_no_action(self) -> bool:
        """Whether a record of the type EV_NO_ACTION extends it too."""

    def read(self) -> bytes:
        """Its value."""

    def banks(self) -> tuple[str, ...]:
        """The algorithms for which it has a value."""

    def extend(self, digests: Mapping[str, bytes]) -> None:
        """Extend it, for each of its algorithms."""


@contextmanager
def reading_log(path: Path) -> Iterator[bytes]:
    """The agent's records, b"" where there are none; nobody here writes one until the block ends.

    Raises:
        LocalError: they cannot be read, or are too many.
    """
    with ExitStack() as stack:
        data = b""
        try:
            file = stack.enter_context(open(path, "rb"))
            lock_file(file.fileno(), shared=True, what=str(path))
            data = file.read(MAX_LOG + 1)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise LocalError(reason_of(error), path=str(path)) from error
        if len(data) > MAX_LOG:
            raise LocalError(f"expected at most {MAX_LOG} bytes, got more", path=str(path))
        yield data


class MeasuredLog:
    """See `Measure`, and the module.

    Args:
        path: of the agent's log; made where there is none.
        firmware: its log, which may have events of the register; None: there is none.

    Threads: safe, also between processes.
    """

    def __init__(self, register: Register, path: Path, firmware: bytes | None = None) -> None:
        self._register = register
        self._path = path
        self._firmware = firmware

    def record(self, operation: str, content: JSON) -> None:
        """See `Measure`.

        Raises:
            EvidenceRejected: log and register do not agree.
            LocalError: the log cannot be written, or the register not extended.
            FormatError: the firmware's log or the agent's is none.
        """
        import rfc8785  # used once a pull

        data = agent_event(DOMAIN, operation, rfc8785.dumps(content).decode())
        register = self._register
        with self._held() as fd:
            events = self._settle(fd)
            algorithm = register.algorithm
            ours = digest_by(algorithm, data)
            # By the digest: the data of an event that somebody else wrote is bound by nothing.
            if any(
                one.register == register.index
                and compare_digest(one.digests.get(algorithm, b""), ours)
                for one in self._counted(events)
            ):
                return
            digests = {name: digest_by(name, data) for name in register.banks()}
            self._append(fd, make_record(register.index, self._told(digests), data))
            register.extend(digests)
            value = digest_by(algorithm, self._replay(events) + ours)
            self._check(register.read(), value)

    def _told(self, digests: Mapping[str, bytes]) -> dict[str, bytes]:
        """The digests of a record: of the algorithms that the firmware's log has."""
        if self._firmware is None:
            return dict(digests)
        known = {name for one in parse_event_log(self._firmware) for name in one.digests}
        return {name: digest for name, digest in digests.items() if name in known}

    @contextmanager
    def _held(self) -> Iterator[int]:
        """The log, of nobody else until the block ends."""
        with local_errors(self._path):
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            fd = os.open(self._path, flags, _MODE)
        try:
            with local_errors(self._path):
                lock_file(fd, shared=False, what=str(self._path))
            yield fd
        finally:
            os.close(fd)

    def _settle(self, fd: int) -> tuple[Event, ...]:
        """The events that the register has; what a crash left behind them is taken away."""
        with local_errors(self._path), open(os.dup(fd), "rb") as file:
            data = file.read(MAX_LOG + 1)
        if len(data) > MAX_LOG:
            raise LocalError(f"expected at most {MAX_LOG} bytes, got more", path=str(self._path))
        found, ends = parse_records(data)
        firmware = () if self._firmware is None else parse_event_log(self._firmware)
        value = self._register.read()
        keep = len(found)
        if not compare_digest(self._replay((*firmware, *found)), value):
            keep = max(keep - 1, 0)
            self._check(value, self._replay((*firmware, *found[:keep])))
        end = ends[keep - 1] if keep else 0
        if end != len(data):
            with local_errors(self._path):
                os.ftruncate(fd, end)
                os.fsync(fd)
        return (*firmware, *found[:keep])

    def _replay(self, events: Sequence[Event]) -> bytes:
        register = self._register
        return replay(self._counted(events), register.index, register.algorithm)

    def _counted(self, events: Sequence[Event]) -> tuple[Event, ...]:
        """Those that extended a register."""
        everything = self._register.counts_no_action
        return tuple(one for one in events if everything or one.kind != NO_ACTION)

    def _check(self, value: bytes, replayed: bytes) -> None:
        if not compare_digest(replayed, value):
            what = f"{self._register.name} by the event log '{self._path}'"
            raise mismatch(what, value.hex(), replayed.hex(), hint=_HINT)

    def _append(self, fd: int, record: bytes) -> None:
        end = os.lseek(fd, 0, os.SEEK_END)
        if end + len(record) > MAX_LOG:
            raise LocalError(f"would be longer than {MAX_LOG} bytes", path=str(self._path))
        try:
            with local_errors(self._path):
                write_all(fd, record)
                os.fsync(fd)
        except LocalError:
            with suppress(OSError):
                os.ftruncate(fd, end)
            raise


if TYPE_CHECKING:

    def _is_measure(log: MeasuredLog) -> Measure:
        return log
