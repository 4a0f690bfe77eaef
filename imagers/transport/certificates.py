# SPDX-License-Identifier: Apache-2.0
"""Directories with certificates for registries, as skopeo and docker read them.

    found = find_certificates([Path("/etc/containers/certs.d/registry.example.org:5000")])

| file             | is                                                        |
|------------------|-----------------------------------------------------------|
| `NAME.crt`       | a CA that is trusted beside the system's                   |
| `NAME.cert`      | a certificate of ours, with its key in `NAME.key`          |

Spec: containers-certs.d(5).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import LocalError
from imagers.files import local_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Certificates", "certificate_directories", "find_certificates"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files for TLS."""

    ca_files: tuple[Path, ...] = ()
    client_pairs: tuple[tuple[Path, Path], ...] = ()


def certificate_directories(roots: Sequence[Path], registry: str) -> list[Path]:
    """Where the certificates for a registry may be, below directories such as certs.d."""
    return [root / registry for root in roots]


def find_certificates(directories: Sequence[Path]) -> Certificates:
    """What is in the first directory that exists.

    Raises:
        LocalError: it cannot be read, or a certificate has no key, or a key no certificate.
    """
    for directory in directories:
        with local_errors(directory, "could not be read"):
            try:
                names = sorted(directory.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                continue
        for own, other, kind in ((".cert", ".key", "key"), (".key", ".cert", "certificate")):
            for path in names:
                if path.suffix == own and path.with_suffix(other) not in names:
                    raise LocalError(
                        f"expected the {kind} beside it, {path.stem}{other}, got none",
                        path=str(path),
                        hint="a CA is named NAME.crt, a certificate of ours NAME.cert",
                    )
        _log.debug("certificates of %s", directory)
        return Certificates(
            tuple(path for path in names if path.suffix == ".crt"),
            tuple((path, path.with_suffix(".key")) for path in names if path.suffix == ".cert"),
        )
    _log.debug("no certificates in %s", ", ".join(map(str, directories)) or "any directory")
    return Certificates()
