# SPDX-License-Identifier: Apache-2.0
r"""What a Trustee keeps in files, put to a broker of ours.

    DIR/repository/…                      secrets, by their paths
    DIR/kbs/resource-policy.rego          the resource policy
    DIR/attestation_service_policy/…      default_cpu.rego, default_gpu.rego
    DIR/reference_value/…                 {"version", "name", "expiration", "value"}

A namespace is a directory, in whose names `\x2F` is a slash, or one file NAME.json of names and
values in base64url; either is found. What cannot be taken is told, each with its reason.

Spec: Trustee at 78962cd, storage back ends `LocalFs` and `LocalJson`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from imagers.errors import FormatError, ImagersError, LocalError, RemoteError
from imagers.files import local_errors, read_bounded
from imagers.kbs.jwe import MAX_RESOURCE_BYTES
from imagers.kbs.resources import parse_resource_path
from imagers.model.base64 import decode_base64url
from imagers.model.keys import SecretKey
from imagers.model.references import parse_references
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from imagers.kbs.admin import BrokerAdmin

__all__ = ["Moved", "move_trustee"]

_RESOURCES, _POLICY, _ATTESTATION, _VALUES = (
    "repository", "kbs", "attestation_service_policy", "reference_value",
)  # fmt: skip
_POLICY_KEY = "resource-policy.rego"
_ATTESTATION_KEYS = {"default_cpu.rego": "cpu", "default_gpu.rego": "gpu"}
_PASSING = ("kbs_protocol_session",)  # sessions, of guests that attest again
_SLASH = "\\x2F"
_MAX_JSON = 256 * 1024 * 1024
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of all that was found.

    Attributes:
        taken: what the broker has now, by name.
        left: what it has not: names and reasons.
    """

    taken: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


def move_trustee(directory: Path, admin: BrokerAdmin) -> Moved:
    """Put what a Trustee keeps to a broker: secrets first, then values, then policies.

    A secret whose name is taken at the broker is left.

    Raises:
        LocalError: there is nothing of a Trustee in the directory, or it cannot be read.
        RemoteError: the broker cannot be reached, or does not accept the admin.
    """
    moved = Moved()
    names = _namespaces(directory)
    for key, value in _entries(directory, _RESOURCES, moved):
        _take(moved, f"kbs:///{key}", partial(_put, admin, key, value))
    for key, value in _entries(directory, _VALUES, moved):
        _take(moved, f"reference value {key}", partial(_set_value, admin, value))
    for key, value in _entries(directory, _ATTESTATION, moved):
        _take(moved, f"attestation policy {key}", partial(_judge_by, admin, key, value))
    for key, value in _entries(directory, _POLICY, moved):
        _take(moved, f"policy {key}", partial(_decide_by, admin, key, value))
    for name in sorted(names - {_RESOURCES, _VALUES, _ATTESTATION, _POLICY, *_PASSING}):
        moved.left.append((name, "a broker has nothing of that kind"))
    return moved


def _namespaces(directory: Path) -> set[str]:
    with local_errors(directory, "cannot be read"):
        found = {
            one.name.removesuffix(".json")
            for one in directory.iterdir()
            if one.is_dir() or one.suffix == ".json"
        }
    if not found & {_RESOURCES, _POLICY, _ATTESTATION, _VALUES}:
        raise LocalError(
            f"expected '{_RESOURCES}' or '{_VALUES}' in it, as a Trustee has them",
            path=str(directory),
            hint="it is what 'storage_backend' of Trustee's configuration names: "
            "dir_path or file_path",
        )
    return found


def _entries(directory: Path, namespace: str, moved: Moved) -> Iterator[tuple[str, bytes]]:
    """The names of a namespace and their values; what cannot be read is left."""
    folder, file = directory / namespace, directory / f"{namespace}.json"
    if folder.is_dir():
        for path in sorted(folder.rglob("*")):
            key = path.relative_to(folder).as_posix().replace(_SLASH, "/")
            if path.is_symlink():
                moved.left.append((f"{namespace}/{key}", "is a symbolic link"))
                continue
            if not path.is_file():
                if not path.is_dir():
                    moved.left.append((f"{namespace}/{key}", "is no file"))
                continue
            try:
                yield key, read_bounded(path, max_bytes=MAX_RESOURCE_BYTES)
            except LocalError as error:
                moved.left.append((f"{namespace}/{key}", str(error)))
    if file.is_file():
        try:
            document = View.parse(
                read_bounded(file, max_bytes=_MAX_JSON), what=str(file), max_bytes=_MAX_JSON
            )
        except (FormatError, LocalError) as error:
            moved.left.append((file.name, str(error)))
            return
        for key in sorted(document.value):
            try:
                text = document.text(key).rstrip("=")
                yield key, decode_base64url(text, what=str(file), max_size=MAX_RESOURCE_BYTES)
            except FormatError as error:
                moved.left.append((f"{namespace}/{key}", str(error)))


def _take(moved: Moved, name: str, put: Callable[[], None]) -> None:
    try:
        put()
    except RemoteError as error:
        if error.code not in ("ResourceExists", "RepositoryDenied"):
            raise  # it would be the same with all others
        moved.left.append((name, str(error)))
    except ImagersError as error:
        moved.left.append((name, str(error)))
    else:
        moved.taken.append(name)


def _put(admin: BrokerAdmin, key: str, value: bytes) -> None:
    path = parse_resource_path(key)
    with SecretKey(value) as secret:
        admin.put_resource(path.uri, secret)


def _set_value(admin: BrokerAdmin, value: bytes) -> None:
    stored = View.parse(value, what="reference value", max_bytes=MAX_RESOURCE_BYTES)
    until = stored.optional_text("expiration")
    try:
        # Trustee's own are in UTC, and only written so.
        expires = None if until is None else datetime.strptime(until, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise stored.error(f"expected a time, got {until!r:.40}", "expiration") from None
    found = stored.value.get("value")
    one = {
        "name": stored.text("name"),
        "values": found if isinstance(found, list) else [found],
        "single": not isinstance(found, list),
        "expires": None if expires is None else expires.isoformat(),
        "source": "a Trustee",
    }
    admin.set_reference_values(parse_references(dump_json({"reference_values": [one]})))


def _judge_by(admin: BrokerAdmin, key: str, value: bytes) -> None:
    if key not in _ATTESTATION_KEYS:
        raise FormatError(f"expected {' or '.join(_ATTESTATION_KEYS)}: the broker asks no other")
    admin.set_policy(_text(value), attestation=_ATTESTATION_KEYS[key], what=key)


def _decide_by(admin: BrokerAdmin, key: str, value: bytes) -> None:
    if key != _POLICY_KEY:
        raise FormatError(f"expected {_POLICY_KEY}: the broker asks no other")
    admin.set_policy(_text(value), what=key)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise FormatError("is not UTF-8") from None
