# SPDX-License-Identifier: Apache-2.0
"""What a broker has seen of its store, kept outside of the database.

    {"number": 17, "lasting": [["images", …], …], "key": "0123456789abcdef", "mac": "…"}

The number of the newest head, and rows that stay for ever, such as revoked images: they are put
into an older state that is accepted. MAC: HMAC-SHA-256 over a label and the JSON of the first two.

Who can write the database alone cannot write this file, which is beside the master key: a whole old
database in the place of the new one has a lower number. The MAC keeps it from being set by who has
no key. A number that is lost with the machine in a power cut is one of a moment ago.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING

from imagers.broker.keeping.head import Seen
from imagers.broker.keyfiles import check_owner_only, replace_owner_only
from imagers.errors import LocalError
from imagers.files import read_bounded
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from pathlib import Path

    from imagers.broker.keeping.head import Value
    from imagers.broker.keeping.sealed import HeadKeys

__all__ = ["HeadFile", "OtherKey"]

_MAX_BYTES = 64 * 1024 * 1024
_LABEL = b"imagers-broker head file v1\0"


class OtherKey(LocalError):
    """What was seen is sealed with a master key that is not here, so nobody knows what it is."""


class HeadFile:
    """The file of one broker.

    Threads: one at a time.
    """

    def __init__(self, path: Path, keys: HeadKeys) -> None:
        self._path = path
        self._keys = keys
        self._lasting: dict[tuple[Value, ...], None] = {}

    def read(self) -> Seen | None:
        """What was seen; None: there is no such file, since no broker has run here.

        Raises:
            OtherKey: its key is not here.
            LocalError: it is not what a broker wrote, or it is open to others.
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
        file.only("number", "lasting", "key", "mac")
        number, key, lasting = file.integer("number"), file.text("key"), file.value.get("lasting")
        try:
            mac = self._mac(number, lasting, key)
        except LocalError as error:
            raise OtherKey(
                str(error),
                path=str(self._path),
                hint="where an older backup is put back, put the master key that was in force "
                "later beside it as master.next; where this broker was stopped while the key was "
                "rotated, move this file away",
            ) from None
        if not hmac.compare_digest(file.text("mac").encode(), mac.encode()):
            raise LocalError("was not written by a broker of this store", path=str(self._path))
        assert isinstance(lasting, list)  # a broker wrote it
        self._lasting = dict.fromkeys(tuple(row) for row in lasting)  # type: ignore[arg-type]
        return Seen(number, tuple(self._lasting))

    def write(self, seen: Seen) -> None:
        """Keep what was seen, beside all rows that were kept before.

        Raises:
            LocalError: it could not be written; the file is as it was.
        """
        self._lasting |= dict.fromkeys(seen.lasting)
        key, lasting = self._keys.current, [list(row) for row in self._lasting]
        mac = self._mac(seen.number, lasting, key)
        document = {"number": seen.number, "lasting": lasting, "key": key, "mac": mac}
        replace_owner_only(self._path, dump_json(document))

    def _mac(self, number: int, lasting: object, key: str) -> str:
        return self._keys.mac(key, _LABEL + dump_json([number, lasting])).hex()
