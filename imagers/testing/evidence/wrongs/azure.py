# SPDX-License-Identifier: Apache-2.0
"""Evidence of machines of Azure with one thing wrong.

What can be wrong with the hardware's report alone is in `snp` and `intel`; here is what binds it to
the rest, and one thing of each step of it.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

from imagers.testing.evidence.snp import SNPWorld
from imagers.testing.evidence.tpm import ALL
from imagers.testing.evidence.wrongs.tpm import FIELDS
from imagers.testing.evidence.wrongs.wrong import (
    COULD_NOT_LOOK,
    INIT_DATA,
    MALFORMED,
    NO,
    REPORT_DATA,
    Wrong,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from imagers.errors import ImagersError
    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.azure import AzureWorld

__all__ = ["wrongs"]

_FORM, _SIGNATURE, _REGISTERS = "1, form", "2, signature", "3, registers"
_DATA, _BOUND = "4, variable data", "6, bound"
_HASH_AT = {"az-snp-vtpm": 32 + 0x50, "az-tdx-vtpm": 32 + 128}
_DATA_AT = 1236


def wrongs(world: AzureWorld) -> Iterator[Wrong]:
    """All of it; which steps refuse it are those of `imagers.evidence.azure.vtpm`."""
    collateral = world.collateral()

    def good(**fields: Any) -> dict[str, Any]:
        return world.evidence(**{"report_data": REPORT_DATA, "init_data": INIT_DATA, **fields})

    def make(
        name: str,
        step: str,
        error: type[ImagersError] = NO,
        *,
        body: JSON = None,
        documents: Mapping[str, bytes] | None = None,
        **fields: Any,
    ) -> Wrong:
        found = collateral if documents is None else documents
        return Wrong(name, step, body or good(**fields), found, world.roots, error)

    yield from _quotes(world, good, make)
    yield from _reports(world, good, make)
    yield from _variable_data(world, make)
    yield from _parts(good, make)
    yield from _hardware(world, make)


def _quotes(
    world: AzureWorld,
    good: Callable[..., dict[str, Any]],
    make: Callable[..., Wrong],
) -> Iterator[Wrong]:
    body = good()
    # The nonce is as long as the report data here, so that places count from the end.
    for name, (at, step) in FIELDS.items():
        raw = bytearray.fromhex(body["tpm_quote"]["message"])
        raw[at] ^= 1
        quote = {**body["tpm_quote"], "message": raw.hex()}
        yield make(f"{name}, changed after signing", step, body={**body, "tpm_quote": quote})
    yield make("magic of something that no TPM made", _FORM, quote={"magic": 0x00544347})
    yield make("another kind of attestation", _FORM, quote={"kind": 0x8017})
    yield make("key of somebody else", _SIGNATURE, signer=world.key("another"))
    endorsement = world.key("Azure endorsement key")
    yield make("key that is for something else", _SIGNATURE, signer=endorsement)
    for name, selections in {
        "no registers": (),
        "a register less": ((0x000B, range(23)),),
        "a bank of SHA-1": ((0x0004, range(24)),),
        "a bank of SHA-1 beside it": (*ALL, (0x0004, range(24))),
    }.items():
        yield make(f"selection of {name}", _REGISTERS, quote={"selections": selections})
    yield make("digest of other values", _REGISTERS, quote={"pcr_digest": b"d" * 32})
    for register in range(24):
        yield make(f"register {register} shown as another", _REGISTERS, shown={register: b"v" * 32})
    yield make("nonce of another handshake", _BOUND, report_data=b"x" * 48)
    for name, nonce in {
        "with a byte behind it": REPORT_DATA + b"\0",
        "that is cut": REPORT_DATA[:32],
        "that is none": b"",
    }.items():
        yield make(f"nonce {name}", _BOUND, quote={"extra_data": nonce})
    yield make("other init data", _BOUND, init_data=b"x" * 32)
    yield make("no init data", _BOUND, init_data=b"")
    stale = world.variable_data(user_data=b"x" * 48)
    yield make("user data of another handshake", _BOUND, version=2, data=stale)
    behind = world.variable_data(user_data=REPORT_DATA + b"x")
    yield make("user data with something behind it", _BOUND, version=2, data=behind)


def _reports(
    world: AzureWorld,
    good: Callable[..., dict[str, Any]],
    make: Callable[..., Wrong],
) -> Iterator[Wrong]:
    body = good()
    raw = urlsafe_b64decode(body["hcl_report"])

    def changed(at: int, value: int | None = None) -> dict[str, Any]:
        data = bytearray(raw)
        data[at] = data[at] ^ 1 if value is None else value
        return {**body, "hcl_report": urlsafe_b64encode(data).decode()}

    for name, at in {
        "magic": 0,
        "version": 5,
        "size": 8,
        "request": 12,
        "status": 16,
        "first spare number": 20,
        "last spare number": 31,
        "size of the variable data with its head": 1216,
        "version of the variable data": 1220,
        "kind": 1224,
        "hash": 1228,
        "size of the variable data": 1232,
        "last byte": len(raw) - 1,
    }.items():
        yield make(f"{name} of the HCL report", "", MALFORMED, body=changed(at))
    at = _HASH_AT[world.tee]
    yield make("hash in the hardware's report", _DATA, body=changed(at))
    yield make("something behind the hash", _DATA, body=changed(at + 63))
    zeros = raw.rindex(b"00")
    yield make("user data, changed", _DATA, body=changed(zeros, ord("1")))
    yield make("HCL report that is cut", "", MALFORMED, body=_cut(body, raw[:1300]))
    yield make("HCL report without variable data", "", MALFORMED, body=_cut(body, raw[:_DATA_AT]))
    wrong = 4 if world.kind == 2 else 2
    yield make("HCL report of the other hardware", "", MALFORMED, hcl={"kind": wrong})


def _cut(body: Mapping[str, Any], raw: bytes) -> dict[str, Any]:
    return {**body, "hcl_report": urlsafe_b64encode(raw).decode()}


def _variable_data(world: AzureWorld, make: Callable[..., Wrong]) -> Iterator[Wrong]:
    keys = json.loads(world.variable_data())["keys"]
    ak, ek = keys
    for name, listed in {
        "no keys": [],
        "no attestation key": [ek],
        "two attestation keys": [ak, ak, ek],
        "a key that is no RSA key": [{**ak, "kty": "EC"}],
        "a key that is too short": [{**ak, "n": ak["n"][:100]}],
        "a key that is no base64url": [{**ak, "n": ak["n"] + "="}],
    }.items():
        data = world.variable_data(members={"keys": listed})
        yield make(f"variable data with {name}", "", MALFORMED, data=data)
    yield make("variable data that are no JSON", "", MALFORMED, data=b"{")
    twice = world.variable_data()[:-1] + b',"keys":[]}'
    yield make("variable data with keys twice", "", MALFORMED, data=twice)
    odd = world.variable_data(members={"user-data": "0g"})
    yield make("variable data with user data that are no hex", "", MALFORMED, data=odd)


def _parts(good: Callable[..., dict[str, Any]], make: Callable[..., Wrong]) -> Iterator[Wrong]:
    body = good()
    quote = body["tpm_quote"]
    for name, parts in {
        "message with a byte behind it": {"message": quote["message"] + "00"},
        "message that is cut": {"message": quote["message"][:-2]},
        "message with a blank": {"message": " " + quote["message"]},
        "signature that is no hex": {"signature": "zz"},
        "signature that is too long": {"signature": "00" * 2049},
        "a register less beside it": {"pcrs": quote["pcrs"][:-1]},
        "a register more beside it": {"pcrs": [*quote["pcrs"], "00" * 32]},
    }.items():
        yield make(name, "", MALFORMED, body={**body, "tpm_quote": {**quote, **parts}})
    flipped = bytearray.fromhex(quote["signature"])
    flipped[-1] ^= 1
    changed = {**quote, "signature": flipped.hex()}
    yield make("signature, changed", _SIGNATURE, body={**body, "tpm_quote": changed})
    for version in (0, 3, "1", True):
        yield make(f"version {version!r}", "", MALFORMED, body={**body, "version": version})
    report = body["hcl_report"].rstrip("=").replace("_", "/").replace("-", "+")
    yield make("report in another alphabet", "", MALFORMED, body={**body, "hcl_report": report})


def _hardware(world: AzureWorld, make: Callable[..., Wrong]) -> Iterator[Wrong]:
    missing = "5.3, revocation" if world.kind == 2 else "5.2, revocation"
    yield make("no documents", missing, COULD_NOT_LOOK, documents={})
    if isinstance(hardware := world.hardware, SNPWorld):
        plain, debug, agent = 0x30000, 0xB0000, 0x70000
        yield make("report of the guest itself", "5.7, guest", vmpl=1)
        yield make("debugging allowed", "5.7, guest", policy=debug)
        yield make("migration agent allowed", "5.7, guest", policy=agent)
        yield make("policy without its reserved bit", "5.7, guest", policy=plain & ~(1 << 17))
        yield make("report of another chip", "5.4, key", chip_id=b"\1" * 64)
        yield make("report with an unknown algorithm", "5.6, signature", sig_algo=2)
        other = hardware.leaf_key(vlek=True)
        yield make("report signed by another key", "5.6, signature", key=other)
        leaf = hardware.leaf(signer="nobody")
        yield make("VCEK signed by nobody known", "5.2, chain", leaf=leaf)
    else:
        closed = 1 << 28
        yield make("TD under debug", "5.10, guest", td_attributes=closed | 1)
        yield make("TD that may be moved", "5.10, guest", td_attributes=closed | 1 << 29)
        yield make("TD without SEPT_VE_DISABLE", "5.10, guest", td_attributes=0)
        yield make("TDREPORT of something else", _DATA, inner=b"x" * 32)
