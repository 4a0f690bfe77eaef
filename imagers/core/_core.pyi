# SPDX-License-Identifier: Apache-2.0
# tests/unit/core/test_native.py holds this and the built module together.

from collections.abc import Callable
from typing import final

FAULTS: dict[str, int]
LAYER_FUNCTIONS: tuple[str, ...]
GZIP_LIBRARY: str

def memory_of(
    *,
    sealing: bool,
    decode: int,
    encode: int,
    fed: bool,
    unpacks: bool,
    size: int,
    window_bytes: int,
    threads: int,
) -> int: ...
def sm2_verify(public_key: bytes, signature: bytes, message: bytes, user_id: bytes, /) -> bool: ...
def kmac256(
    key: bytes | bytearray | memoryview, data: bytes, customization: bytes, length: int, /
) -> bytes: ...

@final
class LayerJob:
    @classmethod
    def seal(
        cls,
        *,
        source: int | None,
        sink: int,
        size: int,
        digest: str,
        diff_id: str | None,
        key: memoryview | None,
        nonce: bytes | None,
        decode: int,
        encode: int,
        sees_tar: bool,
        tar_bytes: int,
        window_bytes: int,
        threads: int,
        what: str,
        force: str | None,
    ) -> LayerJob: ...
    @classmethod
    def open(
        cls,
        *,
        source: int | None,
        sink: int | None,
        root: int | None,
        keep_owner: bool,
        size: int,
        digest: str,
        diff_id: str | None,
        key: memoryview | None,
        nonce: bytes | None,
        hmac: bytes | None,
        decode: int,
        sees_tar: bool,
        gives_tar: bool,
        tar_bytes: int,
        window_bytes: int,
        max_entries: int,
        max_name_bytes: int,
        threads: int,
        what: str,
        force: str | None,
        piece_key: memoryview | None,
        codes: bytes | None,
    ) -> LayerJob: ...
    def run(
        self,
        read: Callable[[memoryview], int] | None,
        tick: Callable[[int, int, int], bool] | None,
        /,
    ) -> tuple[
        str,
        int,
        int,
        int,
        str,
        bytes,
        str,
        int,
        list[tuple[int, int, bytes, bytes]],
        bytes | None,
        bytes | None,
    ]: ...
