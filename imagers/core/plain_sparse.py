# SPDX-License-Identifier: Apache-2.0
"""Sparse files in a tar: where in the file its data goes.

    old GNU   type S: four regions and the real size in the header, 21 in each block after it
    PAX 0.0   records GNU.sparse.offset and GNU.sparse.numbytes, again and again
    PAX 0.1   record GNU.sparse.map, "offset,length,offset,length"
    PAX 1.0   lines before the data, padded to blocks: the number of regions, then offset, length

A map is refused unless its regions are in order, apart from each other, inside the file and
together exactly as long as the data: what else it says depends on the reader.

Spec: GNU tar 1.35 manual, "Storing Sparse Files"; Go, archive/tar, validateSparseEntries.
"""

from __future__ import annotations

import re

__all__ = ["BadMap", "SparseMap", "UnknownForm", "map_of_records"]

_MAX_INT64 = 2**63 - 1
MAX_REGIONS = 65536
_DECIMAL = re.compile(rb"[0-9]{1,19}\Z")
_OFFSET, _LENGTH = b"GNU.sparse.offset", b"GNU.sparse.numbytes"


class BadMap(Exception):  # a signal to the reader, which knows the entry's name
    """A malformed map."""


class UnknownForm(Exception):  # as above
    """Records of a sparse file, of none of the forms above."""


def decimal(text: bytes | None) -> int:
    """A number of a map.

    Raises:
        BadMap: it is none, or above 63 bits.
    """
    if text is None or not _DECIMAL.match(text) or int(text) > _MAX_INT64:
        raise BadMap
    return int(text)


class SparseMap:
    """The regions of one file that have data.

    Args:
        size: of the file, with its holes.

    Attributes:
        regions: (offset, length), none of length 0.
        is_in_data: lines of the map are still to come, before the data.
    """

    def __init__(self, size: int, *, is_in_data: bool = False) -> None:
        self.size = size
        self.regions: list[tuple[int, int]] = []
        self.is_in_data = is_in_data
        self.stored = 0  # sum of the lengths
        self._count = 0
        self._end = 0
        self._numbers: list[int] = []
        self._digits = b""

    def add(self, offset: int, length: int) -> None:
        """One more region, perhaps of length 0.

        Raises:
            BadMap: it is outside of the file, or not behind those before it; or one too many.
        """
        self._count += 1
        if self._count > MAX_REGIONS:
            raise BadMap
        if offset < self._end or length < 0 or offset + length > self.size:
            raise BadMap
        self._end = offset + length
        self.stored += length
        if length:
            self.regions.append((offset, length))

    def take_lines(self, block: bytes) -> bool:
        """Take the next block of lines; whether the last one was in it, with padding behind."""
        for byte in block:
            if byte != ord("\n"):
                self._digits += bytes([byte])
                if not _DECIMAL.match(self._digits):
                    raise BadMap
                continue
            self._numbers.append(decimal(self._digits))
            self._digits = b""
            if len(self._numbers) == 1 and self._numbers[0] > MAX_REGIONS:
                raise BadMap
            if len(self._numbers) > 1 and len(self._numbers) % 2:
                self.add(self._numbers[-2], self._numbers[-1])
            if len(self._numbers) == 1 + 2 * self._numbers[0]:
                return True
        return False


def map_of_records(records: list[tuple[bytes, bytes]]) -> SparseMap | None:
    """The map that an extended header has; None if it has none.

    Args:
        records: in their order; of 0.0 the same two come for each region.

    Raises:
        BadMap, UnknownForm: see there.
    """
    last = dict(records)
    found = {name for name, _ in records if name.startswith((b"GNU.sparse.", b"SCHILY.realsize"))}
    if not found:
        return None
    version = (last.get(b"GNU.sparse.major", b""), last.get(b"GNU.sparse.minor", b""))
    text = last.get(b"GNU.sparse.map") or None
    pairs = [(name, value) for name, value in records if name in (_OFFSET, _LENGTH)]
    if version not in ((b"", b""), (b"0", b"0"), (b"0", b"1"), (b"1", b"0")):
        raise UnknownForm
    is_new = version == (b"1", b"0")
    forms = is_new + (text is not None) + bool(pairs)
    if forms == 0:
        raise UnknownForm
    if forms > 1:
        raise BadMap
    sizes = {last.get(b"GNU.sparse.size"), last.get(b"GNU.sparse.realsize")} - {b"", None}
    if len(sizes) != 1:
        raise BadMap
    sparse = SparseMap(decimal(sizes.pop()), is_in_data=is_new)
    if is_new:
        return sparse
    if text is not None:
        numbers = [decimal(one) for one in text.split(b",")]
    else:
        if any(name != (_OFFSET, _LENGTH)[at % 2] for at, (name, _) in enumerate(pairs)):
            raise BadMap
        numbers = [decimal(value) for _, value in pairs]
    if len(numbers) != 2 * decimal(last.get(b"GNU.sparse.numblocks")):
        raise BadMap
    for at in range(0, len(numbers), 2):
        sparse.add(numbers[at], numbers[at + 1])
    return sparse
