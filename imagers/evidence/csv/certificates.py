# SPDX-License-Identifier: Apache-2.0
"""Certificates of Hygon's chips, which are no X.509.

    HRK, Hygon's root    signs itself                    832 bytes
      HSK                a line of chips                 832
        CEK              this chip                      2084
          PEK            its firmware, since a reset    2084, which signs reports

    authority   version 4, key id 16, signing id 16, usage 4, 24; curve 4, x 72, y 72,
                length of the user id 2, user id 254, 108; r 72, s 72, 112
    chip        version 4, firmware major 1, minor 1, 2; usage 4, algorithm 4, curve 4, x 72, y 72,
                length of the user id 2, user id 254, signing id 16, 608;
                twice: usage 4, algorithm 4, r 72, s 72, 368

Numbers are little-endian, in 72 bytes of which 32 count. A signature is by SM2 with SM3, under the
*signer's* user id, over all before the signatures; of the two places for one, that counts which
names the signer's usage. A PEK has the signature of its owner in the other, which is not looked at.
None has a date, and there are no lists of revoked ones.

Which signatures are good is cached by key, body and signature: they do not change.

Spec: Hygon CSV API; openanolis/csv-rs, `certs`; the JSON is that of its serde.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from asn1crypto import pem

from imagers.core import verify_sm2
from imagers.errors import EvidenceRejected, FormatError, SignatureInvalid
from imagers.evidence.roots import read_root
from imagers.evidence.steps import mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.strict_json import JSON, View

__all__ = [
    "AUTHORITY",
    "CHIP",
    "ROLES",
    "ROOT_LABEL",
    "Certificate",
    "Role",
    "certificate_of_json",
    "certificate_to_json",
    "parse_certificate",
    "root_of",
]

_CACHED = 1024
ROOT_LABEL = "HYGON CERTIFICATE"
"""What stands in the lines around a root."""
_NUMBER = 32  # bytes of a number that count
_SLOT = 72
_SM2, _SM2_SIGNATURES = 3, 4  # the curve, the algorithm

# A field's path in the JSON: offset, length. Those of at most 4 bytes are numbers there.
_Fields = dict[str, tuple[int, int]]
_AUTHORITY: _Fields = {
    "body.preamble.ver": (0, 4),
    "body.preamble.data.kid": (4, 16),
    "body.preamble.data.sid": (20, 16),
    "body.preamble.data.usage": (36, 4),
    "body.preamble.data.reserved": (40, 24),
    "body.pubkey.g": (64, 4),
    "body.pubkey.x": (68, 72),
    "body.pubkey.y": (140, 72),
    "body.uid_size": (212, 2),
    "body.user_id": (214, 254),
    "body.reserved": (468, 108),
    "signature.r": (576, 72),
    "signature.s": (648, 72),
    "_reserved": (720, 112),
}
_CHIP: _Fields = {
    "body.ver": (0, 4),
    "body.data.firmware.major": (4, 1),
    "body.data.firmware.minor": (5, 1),
    "body.data.reserved1": (6, 2),
    "body.data.pubkey.usage": (8, 4),
    "body.data.pubkey.algo": (12, 4),
    "body.data.pubkey.key.g": (16, 4),
    "body.data.pubkey.key.x": (20, 72),
    "body.data.pubkey.key.y": (92, 72),
    "body.data.uid_size": (164, 2),
    "body.data.user_id": (166, 254),
    "body.data.sid": (420, 16),
    "body.data.reserved2": (436, 608),
    **{
        f"sigs.{number}.{name}": (1044 + 520 * number + at, size)
        for number in (0, 1)
        for name, at, size in (
            ("usage", 0, 4),
            ("algo", 4, 4),
            ("signature.r", 8, 72),
            ("signature.s", 80, 72),
            ("_reserved", 152, 368),
        )
    },
}


@dataclass(frozen=True, slots=True)
class _Layout:
    fields: Mapping[str, tuple[int, int]]
    size: int
    body: int
    key: str
    user_id: tuple[str, str]
    usage: str


AUTHORITY = _Layout(
    _AUTHORITY,
    832,
    576,
    "body.pubkey",
    ("body.uid_size", "body.user_id"),
    "body.preamble.data.usage",
)
CHIP = _Layout(
    _CHIP,
    2084,
    1044,
    "body.data.pubkey.key",
    ("body.data.uid_size", "body.data.user_id"),
    "body.data.pubkey.usage",
)


@dataclass(frozen=True, slots=True)
class Role:
    """What a certificate is for.

    Attributes:
        usage: the number of it.
    """

    name: str
    layout: _Layout = field(repr=False)
    usage: int

    @property
    def user_id(self) -> bytes:
        """Under which its key signs."""
        return b"HYGON-SSD-" + self.name.encode()


ROLES = {
    name: Role(name, layout, usage)
    for name, layout, usage in (
        ("HRK", AUTHORITY, 0),
        ("HSK", AUTHORITY, 0x13),
        ("CEK", CHIP, 0x1004),
        ("PEK", CHIP, 0x1002),
    )
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """One of them, in the role that it was given. Nothing of it is verified.

    It prints without its bytes, which say what chip it is.
    """

    role: Role
    raw: bytes = field(repr=False)

    def number(self, path: str) -> int:
        """A field that is a number."""
        return int.from_bytes(self.octets(path), "little")

    def octets(self, path: str) -> bytes:
        """A field."""
        offset, size = self.role.layout.fields[path]
        return self.raw[offset : offset + size]

    @property
    def public_key(self) -> bytes:
        """X and y, big-endian."""
        key = self.role.layout.key
        return _big_endian(self.octets(f"{key}.x"), self.octets(f"{key}.y"))

    @property
    def body(self) -> bytes:
        """What signatures are over."""
        return self.raw[: self.role.layout.body]

    def signature(self, signer: Certificate) -> bytes:
        """The signature that is said to be by that one.

        Raises:
            EvidenceRejected: there is none, or several.
        """
        if self.role.layout is AUTHORITY:
            return _big_endian(self.octets("signature.r"), self.octets("signature.s"))
        found = [
            number for number in (0, 1) if self.number(f"sigs.{number}.usage") == signer.role.usage
        ]
        if len(found) != 1:
            raise EvidenceRejected(
                f"the certificate {self.role.name} has {len(found)} signatures by a "
                f"{signer.role.name}: expected 1"
            )
        at = f"sigs.{found[0]}"
        if self.number(f"{at}.algo") != _SM2_SIGNATURES:
            raise mismatch("algorithm", _SM2_SIGNATURES, self.number(f"{at}.algo"))
        return _big_endian(self.octets(f"{at}.signature.r"), self.octets(f"{at}.signature.s"))

    def check(self, signer: Certificate) -> None:
        """Raise unless it is of its role, and that one signed it.

        Raises:
            EvidenceRejected: it is not, or did not.
        """
        name, layout = self.role.name, self.role.layout
        if self.number(layout.usage) != self.role.usage:
            raise mismatch(f"usage of the {name}", self.role.usage, self.number(layout.usage))
        length, text = (self.octets(one) for one in layout.user_id)
        user_id = text[: int.from_bytes(length, "little")]
        if user_id != self.role.user_id:
            raise mismatch(
                f"user id of the {name}",
                self.role.user_id.decode(),
                user_id.decode("ascii", "backslashreplace"),
            )
        try:
            _verify(signer.public_key, signer.role.user_id, self.body, self.signature(signer))
        except SignatureInvalid:
            raise EvidenceRejected(
                f"the certificate {name} is not signed by this {signer.role.name}"
            ) from None


def _big_endian(first: bytes, second: bytes) -> bytes:
    return first[:_NUMBER][::-1] + second[:_NUMBER][::-1]


@lru_cache(_CACHED)  # of what raises nothing is kept
def _verify(public_key: bytes, user_id: bytes, body: bytes, signature: bytes) -> None:
    verify_sm2(public_key, signature, body, user_id=user_id)


def parse_certificate(raw: bytes, role: str) -> Certificate:
    """A certificate in the role that it is to have; whether it is of it, `check` says.

    Raises:
        FormatError: another length, a key on another curve, or a number that is too long.
    """
    found = Certificate(ROLES[role], bytes(raw))
    layout = found.role.layout
    if len(raw) != layout.size:
        raise FormatError(f"expected {layout.size} bytes, got {len(raw)}", what=role)
    curve = found.number(f"{layout.key}.g")
    if curve != _SM2:
        raise FormatError(f"expected a key on the curve {_SM2} (SM2), got {curve}", what=role)
    if layout is CHIP and found.number("body.data.pubkey.algo") != _SM2_SIGNATURES:
        raise FormatError("expected a key for signatures by SM2", what=role)
    for path, (offset, size) in layout.fields.items():
        # Half of it is signed by nobody.
        if size == _SLOT and any(raw[offset + _NUMBER : offset + size]):
            raise FormatError(f"expected a number of {_NUMBER} bytes in {path}", what=role)
        if path.endswith("_reserved") and any(raw[offset : offset + size]):
            raise FormatError(f"expected zeros in {path}", what=role)
    return found


def certificate_of_json(view: View, role: str) -> Certificate:
    """A certificate in the JSON of the protocol, as its bytes were.

    Raises:
        FormatError: a member is missing, of another type, or says what no certificate has.
    """
    layout = ROLES[role].layout
    raw = bytearray(layout.size)
    if layout is CHIP:
        slots = view.objects("sigs", most=2)
        if len(slots) != 2:
            raise view.error(f"expected 2 signatures, got {len(slots)}", "sigs")
    for path, (offset, size) in layout.fields.items():
        parts = path.split(".")
        at = view
        if parts[0] == "sigs":
            at, parts = slots[int(parts[1])], parts[2:]
        for part in parts[:-1]:
            at = at.object(part)
        raw[offset : offset + size] = _field(at, parts[-1], size)
    return parse_certificate(bytes(raw), role)


def _field(view: View, name: str, size: int) -> bytes:
    if size > 4:
        return view.octets(name, size=size)
    return view.integer(name, maximum=256**size - 1).to_bytes(size, "little")


def certificate_to_json(certificate: Certificate) -> dict[str, JSON]:
    """The certificate in the JSON of the protocol, which `certificate_of_json` reads."""
    document: dict[str, JSON] = {}
    slots: list[dict[str, JSON]] = [{}, {}]
    for path, (_, size) in certificate.role.layout.fields.items():
        data = certificate.octets(path)
        parts = path.split(".")
        at = document
        if parts[0] == "sigs":
            at, parts = slots[int(parts[1])], parts[2:]
        for part in parts[:-1]:
            inner = at.setdefault(part, {})
            assert isinstance(inner, dict)  # unreachable: no path is the begin of another
            at = inner
        at[parts[-1]] = list(data) if size > 4 else int.from_bytes(data, "little")
    if certificate.role.layout is CHIP:
        document["sigs"] = list(slots)
    return document


@lru_cache(4)
def root_of(roots: bytes | None) -> Certificate:
    """Hygon's root, or what stands in its place in tests, armored as PEM is.

    Raises:
        FormatError: it is none.
    """
    try:
        label, _, raw = pem.unarmor(read_root("csv", "hrk.pem") if roots is None else roots)
    except ValueError:
        label, raw = "", b""
    if label != ROOT_LABEL:
        raise FormatError(f"expected '-----BEGIN {ROOT_LABEL}-----'", what="test root")
    return parse_certificate(raw, "HRK")
