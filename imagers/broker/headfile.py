# SPDX-License-Identifier: Apache-2.0
"""The number of the newest head that a broker has seen, kept outside of the database.

    {"number": 17, "key": "0123456789abcdef", "mac": HMAC-SHA-256 in hex}

Who can write the database alone cannot write this file, which is beside the master key: a whole old
database in the place of the new one has a lower number. The MAC keeps it from being set by who has
no key. A number that is lost with the machine in a power cut is one of a moment ago.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING

from imagers.broker.keyfiles import check_owner_only, replace_owner_only
from imagers.errors import LocalError
from imagers.files import read_bounded
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from pathlib import Path

    from imagers.broker.keeping.sealed import HeadKeys

__all__ = ["HeadFile"]

_MAX_BYTES = 4096
_LABEL = b"imagers-broker head file v1\0"


class HeadFile:
    """The file of one broker.

    Threads: one at a time.
    """

    def __init__(self, path: Path, keys: HeadKeys) -> None:
        self._path = path
        self._keys = keys

    def read(self) -> int | None:
        """The number; None: there is no such file, since no broker has run here.

        Raises:
            LocalError: it is not what a broker wrote, its key is not here, or it is open to others.
            FormatError: it is no such file.
        """
        if not os.path.lexists(self._path):
            return None
        check_owner_only(self._path)
        file = View.parse(
            read_bounded(self._path, max_bytes=_MAX_BYTES),
            what=str(self._path),
            max_bytes=_MAX_BYTES,
        )
        file.only("number", "key", "mac")
        number, key = file.integer("number"), file.text("key")
        if not hmac.compare_digest(file.text("mac").encode(), self._mac(number, key).encode()):
            raise LocalError("was not written by a broker of this store", path=str(self._path))
        return number

    def write(self, number: int) -> None:
        """Keep a number.

        Raises:
            LocalError: it could not be written; the file is as it was.
        """
        key = self._keys.current
        mac = self._mac(number, key)
        replace_owner_only(self._path, dump_json({"number": number, "key": key, "mac": mac}))

    def _mac(self, number: int, key: str) -> str:
        return self._keys.mac(key, _LABEL + number.to_bytes(8, "big")).hex()
