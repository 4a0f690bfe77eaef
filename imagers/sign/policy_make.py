# SPDX-License-Identifier: Apache-2.0
"""Policies that need no file: what a key, or the owner of a certificate, may sign.

    policy = policy_of_key("release.pub", read_key_file("release.pub"))
    policy = policy_of_identity(
        "builder@example.org", issuer="https://login.example.org", trusted_root="trusted_root.json"
    )

They are written in the language of policy.json and parsed as a file would be, so that there is
one meaning of each word. An image may be signed in either form of cosign, and a signature of the
index vouches for the images in it, as `cosign sign` without `--recursive` makes it. The name in a
signature must be that of the repository; bundles hold none.

Spec: containers-policy.json(5); docs/policy.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from imagers.errors import FormatError, UsageError
from imagers.model.base64 import encode_base64
from imagers.model.identity import ImageIdentity
from imagers.sign.policy_json import Policy, parse_policy

__all__ = ["policy_of_identity", "policy_of_key", "policy_of_pin", "requirement_of_keys"]

_PACKET = 0x80  # of the first byte of all packets, RFC 9580 section 4.2
_ARMORED = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_REPOSITORY: dict[str, object] = {"signedIdentity": {"type": "matchRepository"}}


def requirement_of_keys(keys: Mapping[str, bytes], signed_identity: str) -> dict[str, object]:
    """A requirement that a signature by one of the keys satisfies.

    Args:
        keys: what each file holds, by the path that the requirement names; at least one.
        signed_identity: type of the comparison of names, such as `matchRepository`.

    Raises:
        UsageError: they are of different kinds.
        FormatError, Unsupported: one of them is no public key that a policy can have.
    """
    kinds = {_kind_of(data, path) for path, data in keys.items()}
    if len(kinds) != 1:
        raise UsageError(
            "expected keys of one kind, got keys of cosign and of gpg",
            hint="a policy with anyOf takes both: docs/policy.md",
        )
    paths = list(keys)
    found: dict[str, object] = {"type": "sigstoreSigned"}
    if "gpg" in kinds:
        found = {"type": "signedBy", "keyType": "GPGKeys"}
    found |= {"keyPath": paths[0]} if len(paths) == 1 else {"keyPaths": paths}
    return found | {"signedIdentity": {"type": signed_identity}}


def policy_of_key(path: str, data: bytes) -> Policy:
    """A policy that demands a signature by one key, of whatever form, from every image.

    Args:
        data: what the file `path` holds, which is not read again: it may be a pipe.

    Raises:
        As `requirement_of_keys`.
    """
    key: dict[str, object] = {"keyData": encode_base64(data)}
    one = requirement_of_keys({path: data}, "matchRepository") | key
    del one["keyPath"]
    if one["type"] == "signedBy":
        return _parse([one], path)
    return _parse([one, {"type": "sigstoreBundle", **key}], path)


def policy_of_identity(
    identity: str, *, issuer: str, trusted_root: str, is_pattern: bool = False
) -> Policy:
    """A policy that demands a signature of somebody who logged in somewhere.

    Args:
        identity: e-mail address or URI in the certificate; or a pattern for the whole of one.
        issuer: where the login was, such as `https://accounts.example.org`.
        trusted_root: path of a trusted root file of sigstore.
        is_pattern: whether `identity` is a regular expression of RE2.

    Raises:
        UsageError: it is neither an address nor a URI.
        FormatError: a pattern that is none.
    """
    if is_pattern:
        subject = "subjectRegexp"
    elif "://" in identity:
        subject = "subjectURI"
    elif "@" in identity:
        subject = "subjectEmail"
    else:
        raise UsageError(
            f"expected an e-mail address or a URI as certificates hold it, got {identity[:160]!r}",
            hint="such as builder@example.org or "
            "https://github.com/ORG/REPOSITORY/.github/workflows/FILE@refs/heads/main",
        )
    login: dict[str, object] = {
        "trustedRootPath": trusted_root,
        "fulcio": {"oidcIssuer": issuer, subject: identity},
    }
    signed: dict[str, object] = {"type": "sigstoreSigned", **login, **_REPOSITORY}
    return _parse([signed, {"type": "sigstoreBundle", **login}], f"identity {identity[:160]!r}")


def policy_of_pin(identity: ImageIdentity) -> Policy | None:
    """A policy for a name with a digest, where there is no other; None for a name without one.

    The digest is all that it demands, and that is compared before any policy is asked.
    """
    if identity.reference is None or identity.reference.digest is None:
        return None
    return parse_policy(b'{"default": [{"type": "insecureAcceptAnything"}]}', what="digest")


def _parse(forms: list[dict[str, object]], what: str) -> Policy:
    """A policy of nothing but these forms: one of them, of the manifest or of the index."""
    on_index: dict[str, object] = {"type": "index", "requirements": [_any_of(forms)]}
    return parse_policy(json.dumps({"default": [_any_of([*forms, on_index])]}).encode(), what=what)


def _any_of(forms: list[dict[str, object]]) -> dict[str, object]:
    return forms[0] if len(forms) == 1 else {"type": "anyOf", "requirements": forms}


def _kind_of(data: bytes, path: str) -> str:
    """Whose key it is: `cosign` or `gpg`.

    Raises:
        FormatError: it is nobody's.
    """
    from imagers.sign.public_key import parse_public_key

    if b"-----BEGIN " not in data:  # openssl writes text before it
        if not data or data[0] < _PACKET:
            raise FormatError(
                "expected a public key in PEM, or an OpenPGP key", what=f"key file '{path}'"
            )
        return "gpg"
    if _ARMORED in data:
        return "gpg"
    if b"BEGIN PGP" in data:
        raise FormatError(
            "expected an OpenPGP public key, got something else of OpenPGP",
            what=f"key file '{path}'",
            hint="'gpg --export FINGERPRINT > FILE' writes it",
        )
    parse_public_key(data, what=f"key file '{path}'")
    return "cosign"
