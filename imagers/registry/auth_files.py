# SPDX-License-Identifier: Apache-2.0
"""Logins in files: what podman, skopeo and docker keep in auth.json and config.json. No IO.

    file = parse_auth_file(raw, what=path)
    file.find("registry.example.org", "team/app")

    {"auths":       {"HOST[/NAMESPACE...]": {"auth": BASE64 of USER:PASSWORD}
                     or {"username": USER, "password": PASSWORD}
                     or {"identitytoken": TOKEN}    which a token server exchanges
                     or {"registrytoken": TOKEN}    which the registry takes as it is
                     or {} (a helper has it)},
     "credHelpers": {"HOST": "NAME"},     docker-credential-NAME has the logins of HOST
     "credsStore":  "NAME"}               ... and those of all other hosts

The old ~/.dockercfg is what stands under "auths", by host only; no login is put into it.

Spec: containers-auth.json(5); docker/cli v28, cli/config/configfile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.model.base64 import decode_base64
from imagers.model.reference import normal_name
from imagers.model.strict_json import View, dump_json
from imagers.registry.credentials import Credentials, IdentityToken, RegistryToken

if TYPE_CHECKING:
    from imagers.registry.credentials import Login

__all__ = [
    "HUB_SERVER",
    "LEGACY_NAME",
    "MAX_AUTH_FILE",
    "AuthFile",
    "HelperName",
    "helper_of",
    "keys_of",
    "parse_auth_file",
]

MAX_AUTH_FILE = 4 * 1024 * 1024
LEGACY_NAME = ".dockercfg"
_HUB = "docker.io"
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
HUB_SERVER = "https://index.docker.io/v1/"  # what docker calls it in files and to helpers
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class HelperName:
    """The login is kept by the program `docker-credential-NAME`.

    Attributes:
        server: what the program calls the registry.
    """

    name: str
    server: str


@dataclass(frozen=True, slots=True)
class AuthFile:
    """One parsed file.

    Attributes:
        is_legacy: of the old form, in which keys are hosts and URLs only.
    """

    document: View = field(repr=False)
    is_legacy: bool = False

    def __str__(self) -> str:
        """Its name in messages: a path, or where else it was read."""
        return self.document.what

    @property
    def names_helpers(self) -> bool:
        """Whether it leaves logins to programs."""
        return bool(self._object("credHelpers").value or self.document.value.get("credsStore"))

    def find(self, registry: str, repository: str) -> Login | HelperName | None:
        """The login for a repository: the most specific key wins.

        Raises:
            FormatError: the entry that counts is malformed; others are not looked at.
        """
        helper = self._helper("credHelpers", registry)
        if helper is not None:
            return helper
        auths = self._object("auths")
        spelt = _spelt(auths)
        for name in [registry] if self.is_legacy else keys_of(registry, repository):
            key = spelt.get(name)
            if key is not None:
                found = self._login(auths, key)
                if found is not None:
                    return found
        host = _host(registry)
        for key in auths.value:
            # As docker writes hosts: with a scheme, and a path behind.
            if _host(re.sub(r"\Ahttps?://", "", key).partition("/")[0]) == host and (
                self.is_legacy or "://" in key or "/" not in key
            ):
                found = self._login(auths, key)
                if found is not None:
                    return found
        return self._store(registry)

    def helper_for(self, registry: str) -> HelperName | None:
        """The program that keeps the logins of `registry`, if one does."""
        return self._helper("credHelpers", registry) or self._store(registry)

    def with_login(self, key: str, login: Credentials) -> bytes:
        """The file with this login for `key`, in place of what was there."""
        auths = dict(self._object("auths").value)
        auths[key] = {"auth": login.authorization().removeprefix("Basic ")}
        return dump_json({**self.document.value, "auths": auths})

    def without_login(self, key: str) -> bytes | None:
        """The file without what `key` has; None if it has nothing."""
        auths = dict(self._object("auths").value)
        host = _host(key)
        gone = [
            one
            for one in auths
            if normal_name(one) == key
            or ("/" not in key and "://" in one and _host_of_url(one) == host)
        ]
        if not gone:
            return None
        for one in gone:
            del auths[one]
        return dump_json(auths if self.is_legacy else {**self.document.value, "auths": auths})

    def _store(self, registry: str) -> HelperName | None:
        name = self.document.optional_text("credsStore")
        return self._named(name, registry) if name else None

    def _helper(self, member: str, registry: str) -> HelperName | None:
        helpers = self._object(member)
        spelt = _spelt(helpers)
        for one in (registry, *(_HUB_NAMES if registry in _HUB_NAMES else ())):
            key = spelt.get(one, one)
            name = helpers.optional_text(key)
            if name:
                return self._named(name, registry)
        return None

    def _named(self, name: str, registry: str) -> HelperName:
        # The name becomes that of a program.
        if not _HELPER.match(name):
            raise self.document.error(f"expected the name of a helper, got {name[:80]!r}")
        return helper_of(name, registry)

    def _object(self, member: str) -> View:
        return self.document.object(member, null_is_empty=True)

    def _login(self, auths: View, key: str) -> Login | None:
        value = auths.value[key]
        if value is None:
            return None
        entry = View(value, what=auths.what, where=f"{auths.where}[{key[:160]!r}]")
        if token := entry.optional_text("identitytoken"):
            return IdentityToken(token)
        if bearer := entry.optional_text("registrytoken"):
            return RegistryToken(bearer)
        if packed := entry.optional_text("auth"):
            return self._packed_login(entry, packed)
        username, password = entry.optional_text("username"), entry.optional_text("password")
        return Credentials(username, password) if username and password else None

    @staticmethod
    def _packed_login(entry: View, packed: str) -> Credentials:
        try:
            # Some who write such a file by hand leave the line breaks of base64(1) in.
            text = decode_base64("".join(packed.split()), what=entry.what).decode()
        except (FormatError, UnicodeDecodeError):
            text = ""
        username, colon, password = text.partition(":")
        if not colon:
            # The value is not repeated: it is a password, somehow.
            raise entry.error("expected Base64 of USER:PASSWORD", "auth")
        return Credentials(username, password.rstrip("\0"))


def _spelt(members: View) -> dict[str, str]:
    """The key in the file for each name: a host counts in any spelling, the usual one first."""
    found = {normal_name(key): key for key in reversed(members.value)}
    return found | {key: key for key in members.value if normal_name(key) == key}


def helper_of(name: str, registry: str) -> HelperName:
    """The helper `name`, asked about `registry`; the name was checked."""
    return HelperName(name, HUB_SERVER if registry in _HUB_NAMES else registry)


def parse_auth_file(raw: bytes | None, *, what: str, is_legacy: bool = False) -> AuthFile:
    """The file in `raw`; None for an empty one.

    Args:
        is_legacy: it is of the form of ~/.dockercfg.

    Raises:
        FormatError: it is no JSON object.
    """
    if raw is None or not raw.strip():
        return AuthFile(View({}, what=what), is_legacy)
    document = View.parse(raw, what=what, max_bytes=MAX_AUTH_FILE)
    if is_legacy:
        document = View({"auths": document.value}, what=what)
    return AuthFile(document, is_legacy)


def keys_of(registry: str, repository: str) -> list[str]:
    """The keys that may hold a login, the most specific first: HOST/a/b, HOST/a, HOST."""
    parts = [part for part in repository.split("/") if part]
    return ["/".join([registry, *parts[:count]]) for count in range(len(parts), -1, -1)]


def _host(registry: str) -> str:
    host = normal_name(registry)
    return _HUB if host in _HUB_NAMES else host


def _host_of_url(key: str) -> str:
    return _host(key.partition("://")[2].partition("/")[0])
