# SPDX-License-Identifier: Apache-2.0
"""base64, read strictly: one text for one sequence of bytes.

    decode_base64("QUI=", what="answer", where="$.key", size=2)
    decode_base64url("QUI", what="answer", where="$.key", size=2)

Go and Rust differ in what they let pass (line ends, bits after the last byte); what all of
them write is accepted here, and nothing else is. No message shows anything of the text: it may
be secret.

Spec: RFC 4648 sections 4 and 5.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from imagers.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = [
    "decode_base64",
    "decode_base64_lines",
    "decode_base64url",
    "encode_base64",
    "encode_base64url",
]

_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def encode_base64(data: Buffer) -> str:
    """`data` in the standard alphabet, padded, on one line."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def encode_base64url(data: Buffer) -> str:
    """`data` in the URL-safe alphabet, without padding."""
    text = binascii.b2a_base64(data, newline=False)
    return text.translate(_TO_URL).rstrip(b"=").decode("ascii")


def decode_base64(
    text: str, *, what: str, where: str = "", size: int | None = None, max_size: int | None = None
) -> bytes:
    """The bytes of standard padded base64.

    Args:
        size, max_size: how many bytes there must be, or may be at most.

    Raises:
        FormatError: anything that `encode_base64` would not write, or another size.
    """
    return _decode(
        text,
        encode_base64,
        "base64 with padding",
        what=what,
        where=where,
        size=size,
        max_size=max_size,
    )


def decode_base64url(
    text: str, *, what: str, where: str = "", size: int | None = None, max_size: int | None = None
) -> bytes:
    """The bytes of URL-safe base64 without padding; arguments as for `decode_base64`.

    Raises:
        FormatError: anything that `encode_base64url` would not write, or another size.
    """
    return _decode(
        text,
        encode_base64url,
        "base64url without padding",
        what=what,
        where=where,
        size=size,
        max_size=max_size,
    )


def decode_base64_lines(text: str, *, what: str, where: str = "") -> bytes:
    r"""As `decode_base64`, and line ends are passed over.

    Go's decoder ignores \r and \n, so that what base64(1) and PEM writers break into lines works
    with all other readers of such a text.
    """
    return decode_base64(text.replace("\n", "").replace("\r", ""), what=what, where=where)


def _decode(
    text: str,
    encode: Callable[[bytes], str],
    form: str,
    *,
    what: str,
    where: str,
    size: int | None,
    max_size: int | None,
) -> bytes:
    length = len(text.rstrip("=")) * 3 // 4
    if max_size is not None and length > max_size:
        raise FormatError(
            f"expected at most {max_size} bytes, got {length}", what=what, where=where
        )
    padded = text + "=" * (-len(text) % 4)
    try:
        data = binascii.a2b_base64(padded.encode("ascii").translate(_FROM_URL), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        data = None
    # What differs by alphabet, padding or bits after the last byte is another text for the same
    # bytes: two report data for one key, two signatures for one.
    if data is None or encode(data) != text:
        raise FormatError(f"expected {form}", what=what, where=where)
    if size is not None and len(data) != size:
        raise FormatError(f"expected {size} bytes, got {len(data)}", what=what, where=where)
    return data
