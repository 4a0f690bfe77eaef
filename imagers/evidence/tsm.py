# SPDX-License-Identifier: Apache-2.0
"""Evidence by the kernel's own interface, configfs-tsm: the same files for SNP, TDX and CCA.

    report = read_tsm(Path("/sys/kernel/config/tsm/report"), bytes(64), provider="sev_guest")

    mkdir NAME           an instance of our own, with these files:
    NAME/inblob          report data, 64 bytes in one write
    NAME/privlevel       of SNP: the level that the report speaks for
    NAME/outblob         the report or quote, made when it is read
    NAME/auxblob         of SNP: certificates that the host gives
    NAME/provider        who makes it: sev_guest, tdx_guest, arm_cca_guest
    NAME/generation      counts the writes: another's write in between would be seen
    rmdir NAME

Spec: Linux, Documentation/ABI/testing/configfs-tsm-report (6.7 and newer).
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from imagers.errors import LocalError, NoTEE
from imagers.files import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TSM_ROOT", "Kernel", "TSMReport", "missing_tsm", "read_tsm"]

TSM_ROOT = Path("/sys/kernel/config/tsm/report")
_INBLOB_BYTES = 64
_MAX_BLOB = 1024 * 1024
_ATTEMPTS = 8
_AGAIN = frozenset({errno.EWOULDBLOCK, errno.EBUSY, errno.EINTR})


class _System(Protocol):
    """What is done with a path of the kernel's."""

    def mkdir(self, path: Path) -> None: ...
    def rmdir(self, path: Path) -> None: ...
    def read(self, path: Path) -> bytes: ...
    def write(self, path: Path, data: bytes) -> None: ...


class Kernel:
    """The files of the kernel, where an `mkdir` makes files and a `rmdir` removes them."""

    def mkdir(self, path: Path) -> None:
        """Make an instance."""
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        """Remove it with its files."""
        os.rmdir(path)

    def read(self, path: Path) -> bytes:
        """All of a file."""
        with open(path, "rb", buffering=0) as file:
            return b"".join(_pieces(file.fileno(), path))

    def write(self, path: Path, data: bytes) -> None:
        """Write a file at once."""
        with open(path, "wb", buffering=0) as file:
            if file.write(data) != len(data):
                raise OSError(errno.EIO, "written in part", str(path))


def _pieces(fd: int, path: Path) -> Iterator[bytes]:
    total = 0
    while piece := os.read(fd, 65536):
        total += len(piece)
        if total > _MAX_BLOB:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        yield piece


@dataclass(frozen=True, slots=True)
class TSMReport:
    """What the kernel gave.

    Attributes:
        outblob: report or quote.
        auxblob: b"" where the provider has none.
    """

    outblob: bytes = field(repr=False)
    auxblob: bytes = field(repr=False)


def read_tsm(
    root: Path, report_data: bytes, *, provider: str, kernel: _System | None = None
) -> TSMReport:
    """A fresh report that binds `report_data`, zeros behind it.

    Args:
        root: the directory of reports.
        provider: that is wanted.

    Raises:
        NoTEE: there is no such interface here, or it is of another TEE.
        LocalError: the kernel refuses; root may use it.
    """
    kernel = kernel or Kernel()
    here = root / f"imagers-{os.getpid()}-{os.urandom(4).hex()}"
    _make(kernel, here)
    try:
        told = kernel.read(here / "provider").strip().decode("ascii", "replace")
        if told != provider:
            raise NoTEE(f"{root} is of '{told[:40]}', and not of {provider}")
        for _ in range(_ATTEMPTS):
            report = _try(kernel, here, report_data.ljust(_INBLOB_BYTES, b"\0"))
            if report is not None:
                return report
        raise LocalError(
            f"somebody else wrote into it each time, in {_ATTEMPTS} attempts", path=str(here)
        )
    except OSError as error:
        raise LocalError(f"no report: {reason_of(error)}", path=str(here)) from error
    finally:
        with suppress(OSError):
            kernel.rmdir(here)


def _try(kernel: _System, here: Path, inblob: bytes) -> TSMReport | None:
    """A report; None: somebody wrote in between."""
    try:
        before = _generation(kernel, here)
        writes = 1
        with suppress(FileNotFoundError):  # of other TEEs than SNP
            kernel.write(here / "privlevel", b"0")
            writes += 1
        kernel.write(here / "inblob", inblob)
        outblob = kernel.read(here / "outblob")
        auxblob = b""
        with suppress(FileNotFoundError):
            auxblob = kernel.read(here / "auxblob")
        return TSMReport(outblob, auxblob) if _generation(kernel, here) == before + writes else None
    except OSError as error:
        if error.errno in _AGAIN:
            return None
        raise


def _generation(kernel: _System, here: Path) -> int:
    text = kernel.read(here / "generation").strip()
    if not text.isdigit():
        raise LocalError("expected a number", path=str(here / "generation"))
    return int(text[:20])


def _make(kernel: _System, here: Path) -> None:
    try:
        kernel.mkdir(here)
    except PermissionError as error:
        raise LocalError(
            "may not be written", path=str(here.parent), hint="evidence is for root to ask for"
        ) from error
    except OSError as error:
        raise NoTEE(f"{here.parent}: {reason_of(error)}") from error


def missing_tsm(root: Path, provider: str, kernel: _System | None = None) -> str:
    """Why the interface is not there, or not of this TEE; "" if it is."""
    kernel = kernel or Kernel()
    here = root / f"imagers-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        _make(kernel, here)
    except (NoTEE, LocalError) as error:
        return str(error)
    try:
        told = kernel.read(here / "provider").strip().decode("ascii", "replace")
    except OSError as error:
        return f"{here}: {reason_of(error)}"
    finally:
        with suppress(OSError):
            kernel.rmdir(here)
    return "" if told == provider else f"{root} is of '{told[:40]}', and not of {provider}"
