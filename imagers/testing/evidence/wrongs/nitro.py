# SPDX-License-Identifier: Apache-2.0
"""Evidence of AWS Nitro Enclaves with one thing wrong.

A member of the document is changed after it was signed, which the signature or the chain has to
show; or before, so that the member itself is judged.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from imagers.model.base64 import encode_base64
from imagers.testing.evidence.authorities import usage
from imagers.testing.evidence.nitro import CHAIN, NitroWorld, open_ended
from imagers.testing.evidence.wrongs.wrong import BOUND_ALONE, MALFORMED, NO, REPORT_DATA, Wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagers.errors import ImagersError
    from imagers.model.strict_json import JSON

__all__ = ["CLAIMS", "wrongs"]

_CHAIN, _SIGNATURE, _TIME = "1, chain", "2, signature", "3, time"
_ENCLAVE, _BOUND = "4, enclave", "5, bound"
_USER_DATA = 64

CLAIMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("another PCR 0", {"pcrs": {0: b"m" * 48}}),
    ("PCR 3, 4 and 8", {"pcrs": dict.fromkeys((3, 4, 8), b"m" * 48)}),
    ("no PCR from 3 on", {"pcrs": dict.fromkeys(range(3, 16))}),
    ("PCR 31", {"pcrs": {31: b"m" * 48}}),
    ("nonce", {"nonce": b"n" * 512}),
    ("nonce of no length", {"nonce": b""}),
    ("no nonce", {"nonce": ...}),
    ("public key", {"public_key": b"k" * 1024}),
    ("module", {"module_id": "i-0123-enc4567"}),
    ("an hour ago", {"timestamp": 1}),
    ("unknown member", {"unknown": {"a": [1]}}),
)
"""What a genuine document may have so, signed: which of them are good is for others to say."""

# What a member may not be, and still be signed: of the wrong type, length or value.
_UNREADABLE: dict[str, tuple[object, ...]] = {
    "module_id": (..., None, "", 7, "x" * 257),
    "digest": (..., "SHA256", 7),
    "timestamp": (..., 0, -1, "now", True, 2**63),
    "pcrs": (..., {}, [], {0: bytes(48)}, {number: bytes(32) for number in range(3)}),
    "certificate": (..., None, "x", bytes(1025)),
    "cabundle": (..., None, [], {}, [7], [b""], [bytes(1025)], [b"x"] * 9),
    "public_key": (7, "x", bytes(1025)),
    "user_data": (7, "x", bytes(513)),
    "nonce": (7, "x", bytes(513)),
}


class _Maker:
    """Makes evidence of a world that is good but for what it is told."""

    def __init__(self, world: NitroWorld) -> None:
        self.world = world

    def __call__(
        self,
        name: str,
        step: str,
        error: type[ImagersError] = NO,
        *,
        raw: bytes | None = None,
        roots: bytes | None = None,
        **fields: Any,
    ) -> Wrong:
        document = self.good(**fields) if raw is None else raw
        body: JSON = {"document": encode_base64(document)}
        return Wrong(name, step, body, {}, roots or self.world.roots, error, BOUND_ALONE)

    def good(self, **fields: Any) -> bytes:
        return self.world.document(**{"user_data": REPORT_DATA.ljust(_USER_DATA, b"\0"), **fields})

    def edited(self, edit: Callable[[list[Any]], object]) -> bytes:
        """A good document whose four parts were changed after it was signed."""
        parts = list(cbor2.loads(self.good()))
        edit(parts)
        return cbor2.dumps(parts)

    def told(self, **members: object) -> bytes:
        """A good document whose members were changed after it was signed."""

        def change(parts: list[Any]) -> None:
            parts[2] = open_ended({**cbor2.loads(parts[2]), **members})

        return self.edited(change)

    def chain(self, **changes: bytes) -> dict[str, Any]:
        """Certificates as a document has them, those of some roles others."""
        *authorities, leaf = (changes.get(role) or self.world.issue(role) for role in CHAIN)
        return {"certificate": leaf, "cabundle": authorities}


def wrongs(world: NitroWorld) -> Iterator[Wrong]:
    """All of it; which steps refuse it are those of `imagers.evidence.nitro.verify`."""
    make = _Maker(world)
    yield from _changed_after(make)
    yield from _signed_so(make)
    yield from _certificates(make)
    yield from _bundles(make)
    yield from _shapes(make)


def _changed_after(make: _Maker) -> Iterator[Wrong]:
    good = make.world.payload()
    for name, value in (
        ("module_id", good["module_id"] + "x"),
        ("timestamp", good["timestamp"] - 1),
        ("public_key", b"k"),
        ("user_data", b"\1" + good["user_data"][1:]),
        ("nonce", b"n"),
    ):
        raw = make.told(**{name: value})
        yield make(f"{name}, changed after signing", _SIGNATURE, raw=raw)
    for number in (0, 1, 2, 3, 8, 15):
        pcrs = good["pcrs"] | {number: b"\1" + good["pcrs"][number][1:]}
        raw = make.told(pcrs=pcrs)
        yield make(f"PCR {number}, changed after signing", _SIGNATURE, raw=raw)
    leaf = _flipped(good["certificate"])
    yield make("certificate, changed after signing", _CHAIN, raw=make.told(certificate=leaf))
    for number, role in enumerate(CHAIN[:-1]):
        bundle = list(good["cabundle"])
        bundle[number] = _flipped(bundle[number])
        raw = make.told(cabundle=bundle)
        yield make(f"certificate of the {role}, changed after signing", _CHAIN, raw=raw)
    for name, edit in (
        ("signature", lambda parts: parts.__setitem__(3, _flipped(parts[3]))),
        ("signature cut short", lambda parts: parts.__setitem__(3, parts[3][:-1])),
        ("signature of no length", lambda parts: parts.__setitem__(3, b"")),
    ):
        yield make(name, _SIGNATURE, raw=make.edited(edit))


def _flipped(data: bytes) -> bytes:
    """With another last bit: of a certificate the last number of its signature."""
    return data[:-1] + bytes((data[-1] ^ 1,))


def _signed_so(make: _Maker) -> Iterator[Wrong]:
    ahead = int((make.world.now + timedelta(minutes=6)).timestamp() * 1000)
    yield make("document from the future", _TIME, timestamp=ahead)
    for number in range(3):
        yield make(f"PCR {number} of zeros", _ENCLAVE, pcrs={number: bytes(48)})
    yield make("debugging", _ENCLAVE, pcrs=dict.fromkeys(range(3), bytes(48)))
    for name, data in (
        ("of another", b"o" * 64),
        ("with something behind", REPORT_DATA.ljust(64, b"\1")),
        ("without zeros behind", REPORT_DATA),
        ("cut short", REPORT_DATA[:1]),
        ("with more behind", REPORT_DATA.ljust(65, b"\0")),
        ("of no length", b""),
        ("that are null", None),
        ("that are not there", ...),
    ):
        yield make(f"user data {name}", _BOUND, user_data=data)
    yield make("report data as nonce", _BOUND, user_data=None, nonce=REPORT_DATA.ljust(64, b"\0"))
    for member, values in _UNREADABLE.items():
        for number, value in enumerate(values):
            if member == "pcrs":
                told = {**make.world.payload(), "pcrs": value}
                told = {name: one for name, one in told.items() if one is not ...}
                raw = make.edited(
                    lambda parts, told=told: parts.__setitem__(2, open_ended(told))  # type: ignore[misc]
                )
                yield make(f"pcrs, unreadable {number}", "", MALFORMED, raw=raw)
            else:
                change: dict[str, Any] = {member: value}
                yield make(f"{member}, unreadable {number}", "", MALFORMED, **change)
    for label in (32, -1, "0", b"0"):
        yield make(f"PCR {label!r}", "", MALFORMED, pcrs={label: bytes(48)})
    for number in range(3):
        yield make(f"no PCR {number}", "", MALFORMED, pcrs={number: None})


def _certificates(make: _Maker) -> Iterator[Wrong]:
    world, now = make.world, make.world.now
    any_name = x509.DNSName("example.org")
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    past, future = now - timedelta(days=40 * 365), now + timedelta(days=2)
    for role in CHAIN:
        cases: list[tuple[str, dict[str, Any]]] = [
            ("by another", {"signer": "other"}),
            ("of the past", {"begin": past}),
            ("of the future", {"begin": future}),
            ("with an unknown critical extension", {"extensions": [(odd, True)]}),
            ("for signing code", {"extensions": [(usages, False)]}),
            ("with name constraints", {"extensions": [
                (x509.NameConstraints([any_name], None), False)]}),
        ]  # fmt: skip
        if role == "root":  # by itself: whoever trusts it, trusts these bytes
            del cases[0]
        if role == "enclave":
            cases += [
                ("of an authority", {"constraints": x509.BasicConstraints(True, None)}),
                ("that signs certificates", {"key_usage": usage()}),
            ]
        else:
            cases += [
                ("of no authority", {"constraints": x509.BasicConstraints(False, None)}),
                ("that signs no certificates", {"key_usage": usage(leaf=True)}),
            ]
        if role in ("root", "region", "zone"):
            fewer = {"root": 2, "region": 1, "zone": 0}[role]
            constraints = x509.BasicConstraints(True, fewer)
            cases.append(("with a shorter path", {"constraints": constraints}))
        for name, change in cases:
            made = world.issue(role, **change)
            roots = pem(made) if role == "root" else None
            yield make(
                f"certificate of the {role} {name}", _CHAIN, roots=roots,
                **make.chain(**{role: made}),
            )  # fmt: skip
    small = world.key("enclave", ec.SECP256R1)
    told = make.chain(enclave=world.issue("enclave", key=small))
    yield make("key on a smaller curve", _SIGNATURE, key=small, **told)
    for name in ("certificate that is none", "authority that is none"):
        told = make.chain(**{"enclave" if name.startswith("c") else "zone": b"none"})
        yield make(name, "", MALFORMED, **told)
    yield make("another root", _CHAIN, roots=pem(world.issue("root", signer="other")))
    other = NitroWorld(b"o" * 32, now=now)
    yield make("root of another vendor", _CHAIN, roots=other.roots)
    yield make("signed with another key", _SIGNATURE, key=world.key("other"))
    yield make("signed with the key of the machine", _SIGNATURE, key=world.key("instance"))
    told = make.chain(enclave=world.issue("enclave", key=world.key("other")))
    yield make("certificate of another enclave", _SIGNATURE, **told)


def _bundles(make: _Maker) -> Iterator[Wrong]:
    root, region, zone, instance = make.chain()["cabundle"]
    leaf = make.world.issue("enclave")
    for name, bundle in (
        ("backwards", [instance, zone, region, root]),
        ("with two swapped", [root, zone, region, instance]),
        ("without its root", [region, zone, instance]),
        ("of the root alone", [root]),
        ("without an authority", [root, region, instance]),
        ("with one twice", [root, region, region, zone, instance]),
        ("with one more", [root, region, zone, instance, leaf]),
        ("with its root twice", [root, root, region, zone, instance]),
    ):
        yield make(f"bundle {name}", _CHAIN, cabundle=bundle)
    yield make("certificate of the machine", _CHAIN, certificate=instance,
               cabundle=[root, region, zone], key=make.world.key("instance"))  # fmt: skip


def _shapes(make: _Maker) -> Iterator[Wrong]:
    good = make.good()
    for algorithm in (-7, -36, -8, -37, 0, "ES384"):
        told = cbor2.dumps({1: algorithm})
        raw = make.edited(lambda parts, told=told: parts.__setitem__(0, told))  # type: ignore[misc]
        yield make(f"algorithm {algorithm}", _SIGNATURE, raw=raw)
    for name, at, value in (
        ("with headers outside", 1, {4: b"x"}),
        ("with a critical header", 0, cbor2.dumps({1: -35, 2: [99], 99: 1})),
        ("with another header", 0, cbor2.dumps({1: -35, 4: b"x"})),
        ("with its algorithm twice", 0, b"\xa2\x01\x38\x22\x01\x38\x22"),
        ("without its payload", 2, None),
        ("whose payload is none", 2, b"\xbf"),
        ("whose payload is a list", 2, b"\x80"),
        ("with bytes behind its payload", 2, b"\xbf\xff\0"),
    ):
        raw = make.edited(lambda parts, at=at, value=value: parts.__setitem__(at, value))  # type: ignore[misc]
        yield make(f"document {name}", "", MALFORMED, raw=raw)

    def twice(parts: list[Any]) -> None:
        parts[2] = parts[2][:-1] + cbor2.dumps("digest") + cbor2.dumps("SHA384") + b"\xff"

    yield make("document with a member twice", "", MALFORMED, raw=make.edited(twice))
    for name, raw in (
        ("nothing", b""),
        ("bytes behind it", good + b"\0"),
        ("cut short", good[:-1]),
        ("a tag", b"\xd2" + good),
        ("a part more", cbor2.dumps([*cbor2.loads(good), b""])),
        ("no length", b"\x9f" + good[1:] + b"\xff"),
        ("too long", good + bytes(16 * 1024)),
    ):
        yield make(f"document: {name}", "", MALFORMED, raw=raw)


def pem(certificate: bytes) -> bytes:
    """A certificate as a file of a root."""
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)
