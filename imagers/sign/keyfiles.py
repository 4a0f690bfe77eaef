# SPDX-License-Identifier: Apache-2.0
"""The one place of this package that opens files: keys and policies.

    key = load_private_key("release.key", passphrase)
    save_key_pair(key, "release.key", "release.pub", passphrase)
    policy = load_policy(locate_policy(explicit=None, candidates=[user, system]))

Private keys are written with mode 0600 to a name that did not exist, and never over a file.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from imagers.errors import FormatError, LocalError, Unsupported
from imagers.files import local_errors, read_bounded, write_new
from imagers.model.keys import SecretKey
from imagers.sign.policy_json import MAX_POLICY_BYTES, Policy, parse_policy
from imagers.sign.public_key import MAX_KEY_BYTES
from imagers.sign.sigstore_key import SigstorePrivateKey, open_private_key, seal_private_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.x509 import Certificate

    from imagers.sign.formats.notation.key import NotationKey
    from imagers.sign.registries_d import RegistriesD

__all__ = [
    "MAX_KEYRING_BYTES",
    "find_policy",
    "find_registries_d",
    "load_certificate_chain",
    "load_notation_key",
    "load_policy",
    "load_private_key",
    "load_registries_d",
    "load_trust_store",
    "locate_policy",
    "read_key_file",
    "save_key_pair",
    "write_pair",
]

_log = logging.getLogger(__name__)
_KEY_REFERENCE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|pkcs11:")  # as cosign names keys
MAX_KEYRING_BYTES = 4 * 1024 * 1024  # an OpenPGP key with many certifications
_MAX_CONFIG_FILES = 1024


def _read(path: str, *, max_bytes: int) -> bytes:
    hint = None
    if _KEY_REFERENCE.match(path):
        hint = (
            "expected a file: keys of a KMS (awskms://), a cluster (k8s://), a token (pkcs11:) or "
            "a variable (env://), and URLs, are not supported here"
        )
    return read_bounded(path, max_bytes=max_bytes, hint=hint)


def read_key_file(path: str) -> bytes:
    """The bytes of a public key that a policy names: a path or `file:///path`.

    Raises:
        LocalError: it cannot be read.
        Unsupported: a `kbs:` URI; a caller with a broker passes a reader of its own.
    """
    if path.startswith("kbs:"):
        raise Unsupported(
            f"policy names the key {path[:160]!r}, which only a broker has",
            hint="'imagers pull --broker' asks for it; or put the key into a file and name that",
        )
    if path.startswith("file:///"):
        path = path.removeprefix("file://")
    return _read(path, max_bytes=MAX_KEYRING_BYTES)  # parsers of keys have smaller bounds


def load_private_key(path: str, passphrase: SecretKey) -> SigstorePrivateKey:
    """The signing key in a cosign key file.

    Raises:
        LocalError: a file cannot be read.
        FormatError, Unsupported: it is not such a file, or of another key.
        KeyUnavailable: the passphrase does not open it.
    """
    return open_private_key(
        _read(path, max_bytes=MAX_KEY_BYTES), passphrase, what=f"key file '{path}'"
    )


def load_certificate_chain(path: str) -> tuple[Certificate, ...]:
    """The certificates of a key's owner in a PEM file, as they stand in it.

    Raises:
        LocalError: it cannot be read.
        FormatError: it holds none, or something else too.
    """
    from imagers.pki.chain import parse_certificates

    pem = _read(path, max_bytes=MAX_KEYRING_BYTES)
    return parse_certificates(pem, what=f"certificate chain '{path}'")


def save_key_pair(
    key: SigstorePrivateKey, private_path: str, public_path: str, passphrase: SecretKey
) -> None:
    """Write both halves, each to a name that does not exist yet; on failure neither is left.

    Raises:
        LocalError: one of the names exists, or cannot be written.
    """
    sealed = seal_private_key(key, passphrase)
    write_pair(private_path, sealed, public_path, key.public_key.to_pem())


def write_pair(private_path: str, private: bytes, public_path: str, public: bytes) -> None:
    """Write the two files of a key, the private one for its owner only; as `save_key_pair`."""
    write_new(private_path, private, mode=0o600)
    try:
        write_new(public_path, public, mode=0o644)
    except BaseException:
        with suppress(OSError):
            os.unlink(private_path)  # made by this call, see O_EXCL
        raise


def find_policy(*, explicit: str | None, candidates: Sequence[str]) -> str | None:
    """As `locate_policy`; None where there is none, for what goes on without."""
    if explicit is not None:
        return explicit
    for path in candidates:
        with local_errors(path), suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)
            return path
    _log.debug("no policy at %s", " or ".join(candidates))
    return None


def locate_policy(*, explicit: str | None, candidates: Sequence[str]) -> str:
    """The path of the policy that is in force: `explicit`, else the first candidate there is.

    A candidate that is there and cannot be read is chosen all the same, and reading it fails:
    passing over it would put a weaker policy in force than the user wrote.

    Args:
        candidates: the user's and the system's policy.json, in this order.

    Raises:
        LocalError: there is none. That is never taken for permission.
    """
    found = find_policy(explicit=explicit, candidates=candidates)
    if found is not None:
        return found
    looked = " and ".join(f"'{path}'" for path in candidates) or "nowhere"
    raise LocalError(
        f"no policy is in force: expected a containers policy.json, looked at {looked}",
        hint="write one that trusts your key and nothing else, and name it with --policy: "
        '{"default":[{"type":"reject"}],"transports":{"docker":{"REGISTRY/REPOSITORY":'
        '[{"type":"sigstoreSigned","keyPath":"/path/to/key.pub"}]}}}',
    )


def load_policy(path: str) -> Policy:
    """The policy in the file `path`.

    Raises:
        LocalError: it cannot be read.
        FormatError: anything in it is not what containers-policy.json(5) says.
    """
    _log.debug("the policy is %s", path)
    raw = _read(path, max_bytes=MAX_POLICY_BYTES)
    if raw.lstrip().startswith(b"-----BEGIN"):
        raise FormatError(
            "expected JSON, got a PEM file",
            what=f"policy '{path}'",
            hint=f"'imagers policy init --scope SCOPE --key {path}' writes a policy that trusts a "
            "public key",
        )
    return parse_policy(raw, what=f"policy '{path}'")


def find_registries_d(candidates: Sequence[str]) -> str | None:
    """The first of the directories that is there, None without any."""
    return next((path for path in candidates if os.path.isdir(path)), None)


def load_registries_d(directory: str) -> RegistriesD:
    """The configuration in all `*.yaml` of a directory.

    Raises:
        LocalError: it cannot be read.
        FormatError: a file is not what containers-registries.d(5) says.
    """
    from imagers.sign.registries_d import (
        MAX_CONFIG_BYTES,
        parse_registries_d,
    )

    with local_errors(directory):
        names = sorted(name for name in os.listdir(directory) if name.endswith(".yaml"))
    if len(names) > _MAX_CONFIG_FILES:
        raise LocalError(f"expected at most {_MAX_CONFIG_FILES} files", path=directory)
    paths = [os.path.join(directory, name) for name in names]
    return parse_registries_d([(path, _read(path, max_bytes=MAX_CONFIG_BYTES)) for path in paths])


def load_trust_store(directory: str, name: str) -> tuple[Certificate, ...]:
    """The certificates of one trust store of notation, PEM or DER.

    Args:
        directory: that has `x509` in it.
        name: such as `ca:acme`, checked by the parser of trust policies.

    Raises:
        LocalError: it cannot be read, is empty, or has a symbolic link in it.
        FormatError: a file holds no certificate.
    """
    from imagers.pki.chain import (
        load_certificate,
        parse_certificates,
    )

    kind, _, store = name.partition(":")
    folder = os.path.join(directory, "x509", kind, store)
    with local_errors(folder):
        if os.path.islink(folder):
            raise LocalError("expected a directory, got a symbolic link", path=folder)
        names = sorted(os.listdir(folder))
    found: list[Certificate] = []
    for one in names:
        path = os.path.join(folder, one)
        # A link could be turned to another certificate by somebody who may not write here.
        if os.path.islink(path):
            raise LocalError("expected a file, got a symbolic link", path=path)
        if not one.endswith((".pem", ".crt", ".cer")):
            continue
        data = _read(path, max_bytes=MAX_KEYRING_BYTES)
        if data.lstrip().startswith(b"-----BEGIN"):
            found += parse_certificates(data, what=path)
        else:
            found.append(load_certificate(data, what=path))
    if not 1 <= len(found) <= _MAX_CONFIG_FILES:
        raise LocalError("expected certificates in *.pem, *.crt or *.cer, found none", path=folder)
    return tuple(found)


def load_notation_key(key_path: str, chain_path: str, passphrase: SecretKey | None) -> NotationKey:
    """A private key in PEM, with the certificates of its owner, leaf first.

    Raises:
        LocalError: a file cannot be read.
        FormatError, Unsupported: it holds something else.
        KeyUnavailable: the passphrase does not open the key.
    """
    from imagers.sign.formats.notation.key import parse_notation_key

    return parse_notation_key(
        _read(key_path, max_bytes=MAX_KEY_BYTES),
        _read(chain_path, max_bytes=MAX_KEYRING_BYTES),
        passphrase,
        what=f"key file '{key_path}'",
        chain_what=f"certificate chain '{chain_path}'",
    )
