# SPDX-License-Identifier: Apache-2.0
"""Evidence of Arm CCA with one thing wrong.

A claim is changed after it was signed, which the signature or the binding has to show; or before,
so that the claim itself is judged. The operator's trust anchors, step 1, are not part of it: the
platform's key stands in place of all of them.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.testing.evidence.wrongs.wrong import INIT_DATA, MALFORMED, NO, REPORT_DATA, Wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagers.errors import ImagersError
    from imagers.testing.evidence.cca import CCAWorld

__all__ = ["CLAIMS", "wrongs"]

_PLATFORM, _BINDING, _REALM = "2, platform", "3, binding", "4, realm"
_LIFECYCLE, _BOUND = "5, lifecycle", "6, bound"
_TOKENS = {"platform": 44234, "realm": 44241}

CLAIMS: tuple[tuple[str, int, object], ...] = (
    ("platform", 2395, 0x30FF),
    ("platform", 2396, b"i" * 32),
    ("platform", 256, b"\1" + b"i" * 32),
    ("platform", 2401, b""),
    ("platform", 2402, "sha-512"),
    ("platform", 2400, None),
    ("platform", 2399, [{2: bytes(64), 5: bytes(48)}]),
    ("platform", 99, "unknown"),
    ("realm", 44236, "sha-512"),
    ("realm", 44239, [b"m" * 32] * 4),
    ("realm", -70000, {"unknown": 1}),
)
"""Claims that a genuine token may have so, signed: which of them are good is for others to say."""

# What a claim may not be, and still be signed: of the wrong type, length or value.
_UNREADABLE: dict[str, dict[int, tuple[object, ...]]] = {
    "platform": {
        265: (None, 7, "http://arm.com/psa/2.0.0", "tag:arm.com,2023:realm#1.0.0"),
        10: (None, bytes(31), "x" * 32),
        2396: (None, bytes(31), bytes(33)),
        256: (None, b"\1" + bytes(31), b"\2" + bytes(32)),
        2401: (None, 7, bytes(1025)),
        2395: (None, -1, 0x10000, "secured", True),
        2402: (None, "md5", 7),
        2400: (7, "x" * 1025),
        2399: (None, [], {}, [7], [{}], [{2: bytes(32)}], [{5: bytes(32)}], [{2: b"", 5: b""}],
               [{1: 7, 2: bytes(32), 5: bytes(32)}], [{2: bytes(32), 5: bytes(32)}] * 65),
    },
    "realm": {
        265: (7, "tag:arm.com,2023:cca_platform#1.0.0"),
        10: (None, bytes(32), bytes(63)),
        44235: (None, bytes(63), 7),
        44238: (None, bytes(31), bytes(48)),
        44239: (None, [bytes(32)] * 3, [bytes(32)] * 5, [bytes(32)] * 3 + [bytes(48)], {}),
        44236: (None, "sha-1", 7),
        44237: (None, 7, bytes(1025)),
        44240: (None, "sha-1", 7),
    },
}  # fmt: skip


class _Maker:
    """Makes evidence of a world that is good but for what it is told."""

    def __init__(self, world: CCAWorld) -> None:
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
        token = self.good(**fields) if raw is None else raw
        return Wrong(name, step, {"token": [*token]}, {}, roots or self.world.roots, error)

    def good(self, *, realm: dict[int, object] | None = None, **fields: Any) -> bytes:
        told = {10: REPORT_DATA.ljust(64, b"\0"), 44235: INIT_DATA.ljust(64, b"\0")}
        return self.world.token(realm={**told, **(realm or {})}, **fields)

    def edited(self, edit: Callable[[dict[int, Any]], object]) -> bytes:
        """A good token that was changed after it was signed: parts of messages by their labels."""
        parts: dict[int, list[Any]] = {
            label: list(cbor2.loads(raw).value)
            for label, raw in cbor2.loads(self.good()).value.items()
        }
        edit(parts)
        return collection(
            {label: cbor2.dumps(cbor2.CBORTag(18, one)) for label, one in parts.items()}
        )


def collection(parts: object, tag: int = 399) -> bytes:
    """Both tokens in one."""
    return cbor2.dumps(cbor2.CBORTag(tag, parts))


def wrongs(world: CCAWorld) -> Iterator[Wrong]:
    """All of it; which steps refuse it are those of `imagers.evidence.cca.verify`."""
    make = _Maker(world)
    yield from _changed_after(make)
    yield from _signed_so(make)
    yield from _keys(make)
    yield from _shapes(make)


def _changed_after(make: _Maker) -> Iterator[Wrong]:
    for half, label, claims in (
        ("platform", 44234, make.world.platform_claims()),
        ("realm", 44241, make.world.realm_claims()),
    ):
        for claim in claims:
            if claim in (265, 2402, 44236, 44240):  # words, of which there is a list
                continue

            def change(parts: dict[int, Any], label: int = label, claim: int = claim) -> None:
                found = cbor2.loads(parts[label][2])
                is_key = claim == 44237  # has to be one that can be read
                found[claim] = make.world.realm_key("other") if is_key else _other(found[claim])
                parts[label][2] = cbor2.dumps(found)

            step = _PLATFORM if half == "platform" else _BINDING if claim == 44237 else _REALM
            yield make(f"{half} {claim}, changed after signing", step, raw=make.edited(change))

        def words(parts: dict[int, Any], label: int = label) -> None:
            found = cbor2.loads(parts[label][2])
            found |= {one: "sha-384" for one in (2402, 44236) if one in found}
            parts[label][2] = cbor2.dumps(found)

        def flip(parts: dict[int, Any], label: int = label) -> None:
            raw = parts[label][3]
            parts[label][3] = bytes((raw[0] ^ 1,)) + raw[1:]

        def cut(parts: dict[int, Any], label: int = label) -> None:
            parts[label][3] = parts[label][3][:-1]

        step = _PLATFORM if half == "platform" else _REALM
        yield make(f"{half}, its hash, changed after signing", step, raw=make.edited(words))
        yield make(f"{half}, its signature", step, raw=make.edited(flip))
        yield make(f"{half}, its signature cut short", step, raw=make.edited(cut))


def _other(value: object) -> object:
    match value:
        case bytes():
            return value[:-1] + bytes((value[-1] ^ 1,))
        case int():
            return value ^ 1
        case str():
            return value + "x"
        case [dict() as first, *rest]:
            return [{**first, 2: _other(first[2])}, *rest]
        case [first, *rest]:
            return [_other(first), *rest]
    raise TypeError(type(value).__name__)


def _signed_so(make: _Maker) -> Iterator[Wrong]:
    yield make("challenge of another realm", _BINDING, platform={10: bytes(32)})
    digest = sha256(make.world.realm_key()).digest()
    yield make("challenge with zeros behind", _BINDING, platform={10: digest.ljust(48, b"\0")})
    yield make("hash of the realm's key by another name", _BINDING, realm={44240: "sha-512"})
    for state in (0, 0xFF, 0x1000, 0x2000, 0x2FFF, 0x3100, 0x4000, 0x5000, 0x6000, 0xFFFF):
        yield make(f"lifecycle {state:#x}", _LIFECYCLE, platform={2395: state})
    yield make("report data of another", _BOUND, realm={10: b"o" * 64})
    padded = REPORT_DATA.ljust(64, b"\1")
    yield make("report data with something behind", _BOUND, realm={10: padded})
    yield make("init data of another", _BOUND, realm={44235: b"o" * 64})
    for half, claims in _UNREADABLE.items():
        for label, values in claims.items():
            for number, value in enumerate(values):
                change: dict[str, Any] = {half: {label: value}}
                name = f"{half} {label}, unreadable {number}"
                yield make(name, "", MALFORMED, **change)


def _keys(make: _Maker) -> Iterator[Wrong]:
    from imagers.testing.evidence.cca import public_pem

    world = make.world
    yield make("platform signed by another", _PLATFORM, keys=("other", "realm"))
    yield make("realm signed by another", _REALM, keys=("platform", "other"))
    yield make("realm signed by the platform", _REALM, keys=("platform", "platform"))
    yield make("key of another platform", _PLATFORM, roots=public_pem(world.key("other")))
    other = world.realm_key("other")
    yield make("realm key of another", _BINDING, realm={44237: other}, keys=("platform", "other"))
    bound: dict[str, Any] = {"platform": {10: sha256(other).digest()}, "realm": {44237: other}}
    yield make("realm key of another, bound", _REALM, **bound)
    for name, key in _no_keys(world):
        bound = {"platform": {10: sha256(key).digest()}, "realm": {44237: key}}
        yield make(f"realm key {name}", "", MALFORMED, **bound)
    for algorithm in (-7, -36, -8, -37, 0, "ES384"):
        for half, label in _TOKENS.items():
            step = _PLATFORM if half == "platform" else _REALM

            def tell(
                parts: dict[int, Any], label: int = label, algorithm: object = algorithm
            ) -> None:
                parts[label][0] = cbor2.dumps({1: algorithm})

            yield make(f"{half}, algorithm {algorithm}", step, raw=make.edited(tell))


def _no_keys(world: CCAWorld) -> Iterator[tuple[str, bytes]]:
    """What is no key of a realm."""
    if world.is_legacy:
        yield "that is no point", b"\4" + bytes(96)
        yield "in a COSE_Key", cbor2.dumps({1: 2, -1: 2, -2: bytes(48), -3: bytes(48)})
        return
    good = cbor2.loads(world.realm_key())
    yield "that is no point", cbor2.dumps({**good, -2: bytes(48)})
    yield "of another type", cbor2.dumps({**good, 1: 1})
    yield "on another curve", cbor2.dumps({**good, -1: 1})
    yield "with half of its point", cbor2.dumps({**good, -3: True})
    yield "with a short number", cbor2.dumps({**good, -2: bytes(47)})
    yield "with bytes behind", world.realm_key() + b"\0"
    point = world.key("realm").public_key()
    yield "bare", point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    small = ec.derive_private_key(7, ec.SECP256R1()).public_key().public_numbers()
    x, y = (one.to_bytes(32) for one in (small.x, small.y))
    yield "on a smaller curve", cbor2.dumps({1: 2, -1: 1, -2: x, -3: y})


def _shapes(make: _Maker) -> Iterator[Wrong]:
    good = make.good()
    parts = cbor2.loads(good).value

    def both(name: str, edit: Callable[[list[Any]], object]) -> Iterator[Wrong]:
        for half, label in _TOKENS.items():
            raw = make.edited(lambda parts: edit(parts[label]))  # noqa: B023  # called at once
            yield make(f"{half} {name}", "", MALFORMED, raw=raw)

    def twice(message: list[Any]) -> None:
        size = message[2][0] & 0x1F
        message[2] = bytes((0xA0 | size + 1,)) + message[2][1:] + b"\x0a\x40"

    yield from both("with headers outside", lambda one: one.__setitem__(1, {4: b"x"}))
    yield from both("with a critical header", lambda one: one.__setitem__(
        0, cbor2.dumps({1: -35, 2: [99], 99: 1})))  # fmt: skip
    yield from both("with another header", lambda one: one.__setitem__(
        0, cbor2.dumps({1: -35, 4: b"x"})))  # fmt: skip
    yield from both("with its algorithm twice", lambda one: one.__setitem__(
        0, b"\xa2\x01\x38\x22\x01\x38\x22"))  # fmt: skip
    yield from both("with a claim twice", twice)
    yield from both("with bytes behind its claims", lambda one: one.__setitem__(2, one[2] + b"\0"))
    yield from both("without its payload", lambda one: one.__setitem__(2, None))
    yield from both("with a part more", lambda one: one.append(b""))
    for name, raw in (
        ("nothing", b""),
        ("bytes behind it", good + b"\0"),
        ("cut short", good[:-1]),
        ("another tag", collection(parts, 398)),
        ("no tag", cbor2.dumps(parts)),
        ("a list", collection([*parts.values()])),
        ("no realm", collection({44234: parts[44234]})),
        ("no platform", collection({44241: parts[44241]})),
        ("a part more", collection({**parts, 1: b""})),
        ("tokens that are not bytes", collection(dict.fromkeys(parts, 7))),
        ("too long", good + bytes(16 * 1024)),
        ("tokens without tags", collection({
            label: cbor2.dumps(cbor2.loads(raw).value) for label, raw in parts.items()})),
    ):  # fmt: skip
        yield make(f"collection: {name}", "", MALFORMED, raw=raw)
    swapped = {44234: parts[44241], 44241: parts[44234]}
    yield make("collection: tokens swapped", "", MALFORMED, raw=collection(swapped))
