"""Standard padded base64, read strictly: one text for one sequence of bytes.

Go and Rust differ in what they let pass (line ends, bits after the last byte); what all of
them write is accepted here, and nothing else is.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from imagers.errors import FormatError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["decode_base64", "encode_base64"]


def encode_base64(data: Buffer) -> str:
    """`data` as standard padded base64 on one line."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: str, *, what: str, where: str) -> bytes:
    """The bytes of standard padded base64. The message shows nothing of `text`: it may be secret.

    Raises:
        FormatError: anything that `encode_base64` would not write.
    """
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        data = None
    # strict_mode lets bits after the last byte pass ("QR==" for "QQ==").
    if data is None or encode_base64(data) != text:
        raise FormatError("is not standard padded base64", what=what, where=where)
    return data
