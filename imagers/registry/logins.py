# SPDX-License-Identifier: Apache-2.0
"""Finding, keeping and dropping logins, in auth files and credential helpers.

    login = find_login(paths, "registry.example.org", "team/app")

The first file that has a login for the name decides.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from imagers.errors import LocalError, UsageError
from imagers.files import local_errors, read_bounded
from imagers.registry.auth_files import (
    LEGACY_NAME,
    MAX_AUTH_FILE,
    AuthFile,
    HelperName,
    helper_of,
    parse_auth_file,
)
from imagers.registry.helpers import ask_helper, erase_from_helper, store_in_helper
from imagers.registry.mirrors import AUTH_FILES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagers.registry.credentials import Credentials, Login

__all__ = ["find_login", "forget_login", "keep_login"]

_log = logging.getLogger(__name__)


def find_login(
    files: Sequence[Path | AuthFile],
    registry: str,
    repository: str,
    *,
    helpers: Sequence[str] = (AUTH_FILES,),
) -> Login | None:
    """The login that the files have for a repository; None: anonymous.

    Args:
        files: paths; or one that was read already, which was not on the disk.
        helpers: who is asked, in this order: `AUTH_FILES` are the files; all others are names
            of programs, as registries.conf has them in `credential-helpers`.

    Raises:
        FormatError, LocalError: a file that could have it cannot be read.
        PluginError: a helper that has it does not give it.
    """
    for helper in helpers:
        if helper == AUTH_FILES:
            login = _find_in_files(files, registry, repository)
        else:
            login = _ask(helper_of(helper, registry), registry, "registries.conf")
        if login is not None:
            return login
    _log.debug("no login for %s/%s: asks without", registry, repository)
    return None


def _find_in_files(
    files: Sequence[Path | AuthFile], registry: str, repository: str
) -> Login | None:
    for one in files:
        file = one if isinstance(one, AuthFile) else _read(one)
        found = file.find(registry, repository)
        if isinstance(found, HelperName):
            login = _ask(found, registry, file)
        else:
            login = found
            text = "%s: %s has no login" if found is None else "%s: the login of %s"
            _log.debug(text, f"{registry}/{repository}", file)
        if login is not None:
            return login
    return None


def _ask(helper: HelperName, registry: str, named_by: object) -> Login | None:
    login = ask_helper(helper)
    text = "%s: docker-credential-%s has no login, which %s names"
    if login is not None:
        text = "%s: the login of docker-credential-%s, which %s names"
    _log.debug(text, registry, helper.name, named_by)
    return login


def keep_login(
    path: Path, key: str, login: Credentials, *, helpers: Sequence[str] = (AUTH_FILES,)
) -> str:
    """Write a login into a file, or into the helper that it names; where it went.

    Args:
        key: host, or host and namespace.
        helpers: as for `find_login`; the first one gets it.
    """
    if helpers and helpers[0] != AUTH_FILES:
        if "/" in key:
            raise UsageError(
                f"{key}: expected a registry without a namespace: registries.conf has logins kept "
                f"by docker-credential-{helpers[0]}, which knows hosts only"
            )
        store_in_helper(helper_of(helpers[0], key), login)
        return f"docker-credential-{helpers[0]}"
    if path.name == LEGACY_NAME:
        raise UsageError(
            f"{path}: no login is written into a file of this old form",
            hint="config.json and auth.json are the new ones",
        )
    file = _read(path)
    helper = file.helper_for(key) if "/" not in key else None
    if helper is not None:
        store_in_helper(helper, login)
        return f"docker-credential-{helper.name}"
    _write(path, file.with_login(key, login))
    return str(path)


def forget_login(
    paths: Sequence[Path], key: str, *, helpers: Sequence[str] = (AUTH_FILES,)
) -> list[str]:
    """Drop a login from all files and helpers that have it; which they were."""
    dropped = []
    for name in helpers if "/" not in key else ():
        if name != AUTH_FILES and ask_helper(helper_of(name, key)) is not None:
            erase_from_helper(helper_of(name, key))
            dropped.append(f"docker-credential-{name}")
    for path in paths if AUTH_FILES in helpers else ():
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
    raw: bytes | None = None
    hint = "it may hold the login for this registry; --authfile names another file"
    try:
        raw = read_bounded(path, max_bytes=MAX_AUTH_FILE, doing="could not be read", hint=hint)
    except LocalError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise
    return parse_auth_file(raw, what=str(path), is_legacy=path.name == LEGACY_NAME)


def _check_link(path: Path) -> None:
    """A link is followed, as people keep such files elsewhere: their own, or the system's.

    In a directory that others may write to it could lead to any file of the user's.
    """
    try:
        status = path.lstat()
    except OSError:
        return  # there is none, or writing fails in a moment
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
        raise LocalError(
            f"is a symbolic link of user {status.st_uid}, which is not followed",
            path=str(path),
            hint="keep logins in a directory of your own",
        )


def _write(path: Path, data: bytes) -> None:
    """Replace the file at once; only its owner may read it."""
    _check_link(path)
    new = path.with_name(f".imagers-{secrets.token_hex(8)}")
    with local_errors(path, "could not be written"):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            os.replace(new, path.resolve())
        finally:
            with suppress(OSError):  # it is there only after a failure
                new.unlink()
