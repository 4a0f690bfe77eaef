# SPDX-License-Identifier: Apache-2.0
"""Evidence of a TPM with one thing wrong.

A field of the quote is changed after it was signed, which the signature has to show if no earlier
step does; or before, so that the field itself is judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.model.base64 import decode_base64, encode_base64
from imagers.testing.evidence.eventlog import EV_IPL, Event
from imagers.testing.evidence.tpm import ALL, PCR_BOOT, pcr_log
from imagers.testing.evidence.wrongs.wrong import (
    INIT_DATA,
    MALFORMED,
    NO,
    REPORT_DATA,
    Wrong,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from imagers.errors import ImagersError
    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.tpm import TPMWorld

__all__ = ["CLAIMS", "FIELDS", "wrongs"]

_FORM, _SIGNATURE, _REGISTERS = "1, form", "2, signature", "3, registers"
_LOG, _BOUND = "4, event log", "5, bound"
_SHA1, _SHA256, _SHA384 = 0x0004, 0x000B, 0x000C
_NONCE = 32
_CERTIFY = 0x8017

CLAIMS = (
    ("clock", 1 << 40),
    ("reset_count", 1 << 30),
    ("restart_count", 9),
    ("safe", 0),
    ("firmware_version", 1),
    ("qualified_signer", b"s" * 34),
)
"""Fields that a genuine quote may have so, signed: which of them are good is for others to say."""

FIELDS = {
    "magic": (0, _FORM),
    "type": (5, _FORM),
    "qualified signer": (10, _SIGNATURE),
    "nonce": (44, _SIGNATURE),
    "clock": (-80, _SIGNATURE),
    "resets": (-70, _SIGNATURE),
    "restarts": (-66, _SIGNATURE),
    "firmware version": (-55, _SIGNATURE),
    "digest": (-1, _SIGNATURE),
}
"""Where one bit is changed, from the begin or from the end of what is signed: who has to see it."""


def wrongs(world: TPMWorld) -> Iterator[Wrong]:
    """All of it; which steps refuse it are those of `imagers.evidence.tpm.verify`."""

    def good(**fields: Any) -> dict[str, Any]:
        return world.evidence(**{"report_data": REPORT_DATA, "init_data": INIT_DATA, **fields})

    def make(
        name: str,
        step: str,
        error: type[ImagersError] = NO,
        *,
        body: JSON = None,
        **fields: Any,
    ) -> Wrong:
        return Wrong(name, step, body or good(**fields), {}, None, error)

    yield from _changed_after(good, make)
    yield from _signed_so(world, make)
    yield from _parts(good, make)
    yield from _logs(make)


def _changed_after(
    good: Callable[..., dict[str, Any]], make: Callable[..., Wrong]
) -> Iterator[Wrong]:
    body = good()
    message = decode_base64(body["tpm_quote"]["message"], what="message", where="$")
    for name, (at, step) in FIELDS.items():
        raw = bytearray(message)
        raw[at] ^= 1
        quote = {**body["tpm_quote"], "message": encode_base64(bytes(raw))}
        told = f"{name}, changed after signing"
        yield make(told, step, body={**body, "tpm_quote": quote})


def _signed_so(world: TPMWorld, make: Callable[..., Wrong]) -> Iterator[Wrong]:
    yield make("magic of something that no TPM made", _FORM, magic=0x00544347)
    yield make("another kind of attestation", _FORM, kind=_CERTIFY)
    yield make("key of somebody else", _SIGNATURE, signer=world.key("another"))
    yield make("signed with SHA-1", _SIGNATURE, scheme=_SHA1)
    other = _SHA256 if world.digest == _SHA384 else _SHA384
    yield make("signed with a hash of another size", _SIGNATURE, scheme=other)
    for name, selections in {
        "no registers": (),
        "none of the bank": ((_SHA256, ()),),
        "a register less": ((_SHA256, range(23)),),
        "a bank of SHA-1": ((_SHA1, range(24)),),
        "a bank of SHA-384": ((_SHA384, range(24)),),
        "a bank of SHA-1 beside it": (*ALL, (_SHA1, range(24))),
        "a bank of SHA-1 before it": ((_SHA1, range(24)), *ALL),
        "the bank twice": (*ALL, *ALL),
    }.items():
        yield make(f"selection of {name}", _REGISTERS, selections=selections)
    yield make("digest of other values", _REGISTERS, pcr_digest=b"d" * 32)
    yield make("no digest", _REGISTERS, pcr_digest=b"")
    for register in range(24):
        yield make(f"register {register} shown as another", _REGISTERS, shown={register: b"v" * 32})
    yield make("nonce of another handshake", _BOUND, report_data=b"x" * 48)
    yield make("nonce that is all of the report data", _BOUND, extra_data=REPORT_DATA)
    yield make("nonce that is half of it", _BOUND, extra_data=REPORT_DATA[: _NONCE // 2])
    yield make("nonce with zeros behind it", _BOUND, extra_data=REPORT_DATA[:_NONCE] + bytes(32))
    yield make("no nonce", _BOUND, extra_data=b"")
    yield make("other init data", _BOUND, init_data=b"x" * 32)
    yield make("no init data", _BOUND, init_data=b"")


def _parts(good: Callable[..., dict[str, Any]], make: Callable[..., Wrong]) -> Iterator[Wrong]:
    body = good()
    quote = body["tpm_quote"]

    def changed(**parts: JSON) -> dict[str, JSON]:
        return {**body, "tpm_quote": {**quote, **parts}}

    def bytes_of(text: str) -> bytes:
        return decode_base64(text, what="part", where="$")

    message, signature = bytes_of(quote["message"]), bytes_of(quote["signature"])
    key = bytes_of(body["ak_public"])
    for name, parts in {
        "message with a byte behind it": {"message": encode_base64(message + b"\0")},
        "message that is cut": {"message": encode_base64(message[:-1])},
        "signature with a byte behind it": {"signature": encode_base64(signature + b"\0")},
        "signature that is cut": {"signature": encode_base64(signature[:-1])},
        "signature by another scheme": {"signature": encode_base64(b"\0\x16" + signature[2:])},
        "a register less beside it": {"pcrs": quote["pcrs"][:-1]},
        "a register more beside it": {"pcrs": [*quote["pcrs"], "00" * 32]},
        "a register that is too short": {"pcrs": ["00" * 20, *quote["pcrs"][1:]]},
        "a register that is no hex": {"pcrs": ["zz" * 32, *quote["pcrs"][1:]]},
    }.items():
        yield make(name, "", MALFORMED, body=changed(**parts))
    for name, der in {
        "key with a byte behind it": key + b"\0",
        "key that is cut": key[:-1],
    }.items():
        yield make(name, "", MALFORMED, body={**body, "ak_public": encode_base64(der)})
    flipped = bytearray(signature)
    flipped[-1] ^= 1
    yield make("signature, changed", _SIGNATURE, body=changed(signature=encode_base64(flipped)))
    pcrs = quote["pcrs"]
    swapped = [pcrs[1], pcrs[0], *pcrs[2:]]
    yield make("two registers in each other's place", _REGISTERS, body=changed(pcrs=swapped))


def _logs(make: Callable[..., Wrong]) -> Iterator[Wrong]:
    for at, event in enumerate(PCR_BOOT):
        if event.register < 8:
            rest = (*PCR_BOOT[:at], *PCR_BOOT[at + 1 :])
            yield make(f"log without event {at}", _LOG, log=pcr_log(rest))
    more = Event(4, EV_IPL, b"another kernel")
    yield make("log with an event that was not", _LOG, log=pcr_log((*PCR_BOOT, more)))
    yield make("log of nobody", "", MALFORMED, log=b"x" * 99)
    yield make("log that is cut", "", MALFORMED, log=pcr_log(PCR_BOOT)[:-1])
