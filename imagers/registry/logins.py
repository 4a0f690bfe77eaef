"""Finding, keeping and dropping logins, in auth files and credential helpers.

    login = find_login(paths, "registry.example.org", "team/app")

The first file that has a login for the name decides.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from imagers.errors import FormatError, LocalError
from imagers.registry.auth_files import (
    MAX_AUTH_FILE,
    AuthFile,
    HelperName,
    parse_auth_file,
)
from imagers.registry.helpers import ask_helper, erase_from_helper, store_in_helper

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagers.registry.auth import Credentials, IdentityToken

__all__ = ["find_login", "forget_login", "keep_login"]


def find_login(
    paths: Sequence[Path], registry: str, repository: str
) -> Credentials | IdentityToken | None:
    """The login that the files have for a repository; None: anonymous.

    Raises:
        FormatError, LocalError: a file that could have it cannot be read.
        PluginError: a helper that has it does not give it.
    """
    for path in paths:
        found = _read(path).find(registry, repository)
        login = ask_helper(found) if isinstance(found, HelperName) else found
        if login is not None:
            return login
    return None


def keep_login(path: Path, key: str, login: Credentials) -> str:
    """Write a login into a file, or into the helper that it names; where it went.

    Args:
        key: host, or host and namespace.
    """
    file = _read(path)
    helper = file.helper_for(key) if "/" not in key else None
    if helper is not None:
        store_in_helper(helper, login)
        return f"docker-credential-{helper.name}"
    _write(path, file.with_login(key, login))
    return str(path)


def forget_login(paths: Sequence[Path], key: str) -> list[str]:
    """Drop a login from all files and helpers that have it; which they were."""
    dropped = []
    for path in paths:
        file = _read(path)
        helper = file.helper_for(key) if "/" not in key else None
        if helper is not None and ask_helper(helper) is not None:
            erase_from_helper(helper)
            dropped.append(f"docker-credential-{helper.name}")
        changed = file.without_login(key)
        if changed is not None:
            _write(path, changed)
            dropped.append(str(path))
    return dropped


def _read(path: Path) -> AuthFile:
    try:
        with path.open("rb") as file:
            raw: bytes | None = file.read(MAX_AUTH_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        raw = None
    except OSError as error:
        raise LocalError(
            f"could not be read: {(error.strerror or 'failed').lower()}",
            path=str(path),
            hint="it may hold the login for this registry; --authfile names another file",
        ) from error
    if raw is not None and len(raw) > MAX_AUTH_FILE:
        raise FormatError(f"expected at most {MAX_AUTH_FILE} bytes, got more", what=str(path))
    return parse_auth_file(raw, what=str(path))


def _write(path: Path, data: bytes) -> None:
    """Replace the file at once; only its owner may read it."""
    new = path.with_name(f".imagers-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(new, path.resolve())
    except OSError as error:
        new.unlink(missing_ok=True)
        raise LocalError(
            f"could not be written: {(error.strerror or 'failed').lower()}", path=str(path)
        ) from error
