# SPDX-License-Identifier: Apache-2.0
"""Init data of Confidential Containers: what a host hands to a guest, bound by its digest.

    document = parse_init_data(toml)
    document.digest                       # over the very bytes of the document
    digest_for("snp", document.digest)    # as the TEE has it: HOSTDATA
    text = to_annotation(toml)            # for Kubernetes; of_annotation(text) is toml again

    version = "0.1.0"
    algorithm = "sha384"                  # sha256, sha384, sha512, sm3
    [data]
    "aa.toml" = '''...'''                 # texts, by the names of files in the guest

Spec: Trustee key broker protocol 0.4.0, init data; Kata Containers, the annotation
`io.katacontainers.config.hypervisor.cc_init_data` (gzip, base64).
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
import zlib
from base64 import b64decode, b64encode
from binascii import Error
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes

from imagers.errors import FormatError
from imagers.model.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.strict_json import JSON, JSONObject

__all__ = [
    "ALGORITHMS",
    "ANNOTATION",
    "FIELDS",
    "MAX_INIT_DATA",
    "InitData",
    "digest_for",
    "init_data_claims",
    "make_init_data",
    "of_annotation",
    "parse_init_data",
    "to_annotation",
]

ANNOTATION = "io.katacontainers.config.hypervisor.cc_init_data"
MAX_INIT_DATA = 1024 * 1024
ALGORITHMS = ("sha256", "sha384", "sha512", "sm3")
_REGISTER = "PCR8"
FIELDS = {
    "snp": ("HOSTDATA", 32),
    "tdx": ("MRCONFIGID", 48),
    "sgx": ("CONFIGID", 64),
    "cca": ("RPV", 64),
    "tpm": (_REGISTER, 32),
    "az-snp-vtpm": (_REGISTER, 32),
    "az-tdx-vtpm": (_REGISTER, 32),
}
"""The field of each TEE that has the digest, and its bytes."""
_SETTINGS = ("aa.toml", "cdh.toml")
_AGENT_POLICY, _POLICY_DATA = "policy.rego", "policy_data := {"
_MAX_SETTINGS, _MAX_SETTINGS_DOTS = 64 * 1024, 1024
_VERSION = "0.1.0"
_WHAT = "init data"
_MAX_DOTS = 32  # outside of texts: a key of n parts takes memory in the square of n
# What has no dots of keys, and a dot. A text that does not end takes the rest, as for `tomllib`.
_DOTS = re.compile(
    rb'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5})?+'
    rb"|'''(?:[^']|'(?!''))*+(?:'{3,5})?+"
    rb'|"(?:[^"\\\n]|\\.)*+"?+'
    rb"|'[^'\n]*+'?+|#[^\n]*+|\.",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class InitData:
    """A document.

    Attributes:
        data: texts by name. They may have secrets.
        digest: of the document, as it was written.
    """

    version: str
    algorithm: str
    data: Mapping[str, str] = field(repr=False)
    digest: bytes


def init_data_claims(data: Mapping[str, str]) -> JSONObject:
    """What policies see of init data: its texts, those that are known in parts.

    `aa.toml` and `cdh.toml` are their TOML as JSON, where they are any. A `policy.rego` that ends
    with `policy_data := ` and a JSON object has the name `agent_policy_claims` and is that object.

    Spec: Trustee, `init_data_claims`.
    """
    claims: JSONObject = {}
    for name, text in data.items():
        if name in _SETTINGS:
            claims[name] = _settings(text)
        elif name == _AGENT_POLICY and (found := _policy_data(text)) is not None:
            claims["agent_policy_claims"] = found
        else:
            claims[name] = text
    return claims


def _settings(text: str) -> JSON:
    try:
        if len(text) > _MAX_SETTINGS or text.count(".") > _MAX_SETTINGS_DOTS:
            return text
        # Dates have no form of their own in JSON.
        found: JSON = json.loads(json.dumps(tomllib.loads(text), default=str, allow_nan=False))
    except (ValueError, RecursionError):
        return text
    return found


def _policy_data(text: str) -> JSONObject | None:
    _, mark, rest = text.partition(_POLICY_DATA)
    if not mark:
        return None
    try:
        found = parse_json(("{" + rest).encode(), what=_WHAT, max_bytes=MAX_INIT_DATA)
    except (FormatError, UnicodeEncodeError):
        return None
    return found if isinstance(found, dict) else None


def parse_init_data(document: bytes) -> InitData:
    """Read a document.

    Raises:
        FormatError: it is none, or has members that are none.
    """
    if len(document) > MAX_INIT_DATA:
        raise FormatError(
            f"expected at most {MAX_INIT_DATA} bytes, got {len(document)}", what=_WHAT
        )
    if document.count(b".") > _MAX_DOTS:
        dots = sum(token[0] == b"." for token in _DOTS.finditer(document))
        if dots > _MAX_DOTS:
            raise FormatError(f"expected at most {_MAX_DOTS} dots in keys, got {dots}", what=_WHAT)
    try:
        found = tomllib.loads(document.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"is no TOML: {str(error)[:200]}", what=_WHAT) from None
    version, algorithm, data = (found.pop(name, None) for name in ("version", "algorithm", "data"))
    if found:
        raise FormatError(
            f"expected version, algorithm and data, got {next(iter(found))[:80]!r}", what=_WHAT
        )
    if not isinstance(version, str):
        raise FormatError("expected a text", what=_WHAT, where="version")
    if algorithm not in ALGORITHMS:
        raise FormatError(
            f"expected one of {', '.join(ALGORITHMS)}, got {str(algorithm)[:80]!r}",
            what=_WHAT,
            where="algorithm",
        )
    if not isinstance(data, dict):
        raise FormatError("expected a table of texts", what=_WHAT, where="data")
    for name, value in data.items():
        if not isinstance(value, str):
            raise FormatError("expected a text", what=_WHAT, where=f"data.{name[:80]}")
    return InitData(version, algorithm, data, _digest(algorithm, document))


def make_init_data(data: Mapping[str, str], algorithm: str = "sha384") -> bytes:
    """A document with these texts, in their order.

    Raises:
        FormatError: it would be too long, or TOML cannot say a text.
    """
    lines = [f'version = "{_VERSION}"', f'algorithm = "{algorithm}"', "", "[data]"]
    try:
        lines += [f"{_basic(name)} = {_text(value)}" for name, value in data.items()]
        document = "\n".join([*lines, ""]).encode()
    except UnicodeEncodeError:
        raise FormatError("expected text", what=_WHAT) from None
    if parse_init_data(document).data != dict(data):
        raise FormatError("a text cannot be written as TOML", what=_WHAT)
    return document


def digest_for(tee: str, digest: bytes) -> bytes:
    """The digest in the field of a TEE: zeros behind it, or cut; a register is extended with it."""
    name, size = FIELDS[tee]
    fitted = digest[:size].ljust(size, b"\0")
    return hashlib.sha256(bytes(size) + fitted).digest() if name == _REGISTER else fitted


def to_annotation(document: bytes) -> str:
    """The value of the annotation; the same for the same document."""
    packer = zlib.compressobj(9, wbits=31)  # no name and no time in it
    return b64encode(packer.compress(document) + packer.flush()).decode()


def of_annotation(text: str) -> bytes:
    """The document of an annotation.

    Raises:
        FormatError: it has none.
    """
    try:
        packed = b64decode("".join(text.split()), validate=True)
        unpacker = zlib.decompressobj(wbits=31)
        document = unpacker.decompress(packed, MAX_INIT_DATA + 1)
    except (Error, ValueError, zlib.error):
        raise FormatError("expected gzip in base64", what="annotation") from None
    if len(document) > MAX_INIT_DATA:
        raise FormatError(f"expected at most {MAX_INIT_DATA} bytes in it", what="annotation")
    if not unpacker.eof or unpacker.unused_data:
        raise FormatError("expected one whole gzip", what="annotation")
    return document


def _text(value: str) -> str:
    """A text as it stands, where TOML can say it so."""
    is_plain = all(c.isprintable() or c in "\n\t" for c in value)
    if "\n" in value and is_plain and "'''" not in value and not value.endswith("'"):
        return f"'''\n{value}'''"
    return _basic(value)


def _basic(value: str) -> str:
    # Escapes of JSON are those of TOML, but for DEL, which stands as it is in JSON.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _digest(algorithm: str, document: bytes) -> bytes:
    if algorithm == "sm3":  # hashlib has it only where OpenSSL was built with it
        state = hashes.Hash(hashes.SM3())
        state.update(document)
        return state.finalize()
    return hashlib.new(algorithm, document).digest()
