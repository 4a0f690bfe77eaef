"""Passphrases from files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.model.keys import SecretKey

__all__ = ["read_passphrase"]


def read_passphrase(path: str | None) -> SecretKey:
    """The passphrase in a file, without its line end; an empty one without a file.

    Raises:
        LocalError, UsageError: the file cannot be read, or is empty.
    """
    from imagers.encrypt.keyfiles import Password, read_password  # noqa: PLC0415
    from imagers.model.keys import SecretKey  # noqa: PLC0415

    if path is None:
        return SecretKey(b"")
    return read_password(Password("file", path=path))
