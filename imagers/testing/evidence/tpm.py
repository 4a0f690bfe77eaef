# SPDX-License-Identifier: Apache-2.0
"""A TPM for tests: quotes of its registers, with the event log that leads to them.

    world = TPMWorld(seed)
    body = world.evidence(measurement=pcr_11, report_data=digest)
    judge_evidence(load_verifier("tpm"), body, bound=Bound(digest), read={}.get, now=world.now)

There is no vendor: what an operator trusts is the key, `world.trusted_ak`, as a reference value.

Spec: TCG TPM 2.0 Library 1.59, part 2; TCG PC Client Platform Firmware Profile 1.06, 10.2.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import new, sha1, sha256
from struct import pack
from typing import TYPE_CHECKING, ClassVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.model.base64 import encode_base64
from imagers.testing.evidence.eventlog import EV_IPL, EV_SEPARATOR, Event
from imagers.testing.evidence.guests import Vendor
from imagers.testing.evidence.keys import ec_key, octets, rsa_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.guests import World
    from imagers.testing.evidence.wrongs.wrong import Wrong

__all__ = ["ALL", "PCR_BOOT", "TPMWorld", "attest", "pcr_log", "registers", "signed"]

ALL = ((0x000B, range(24)),)
"""What a quote is of: banks, and registers of each."""
_KEYS = {"rsa": 0x000B, "p256": 0x000B, "p384": 0x000C}
_HASHES = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384"}
_EFI_ACTION = 0x80000007  # whose data is any text
PCR_BOOT = (
    Event(0, _EFI_ACTION, b"firmware 1.0"),
    Event(2, _EFI_ACTION, b"a driver"),
    Event(4, _EFI_ACTION, b"a kernel with its initrd and command line"),
    Event(7, _EFI_ACTION, b"secure boot"),
    *(Event(one, EV_SEPARATOR, bytes(4)) for one in range(8)),
    Event(9, EV_IPL, b"an initrd"),
)
"""Of a machine whose evidence names no other events."""


def pcr_log(events: Sequence[Event]) -> bytes:
    """The log of a firmware, with digests of SHA-1 and SHA-256."""
    header = b"Spec ID Event03\0" + pack("<IBBBB", 0, 0, 2, 0, 2)
    header += pack("<IHHHH", 2, 0x0004, 20, 0x000B, 32) + b"\0"
    records = [pack("<II", 0, 3) + bytes(20) + pack("<I", len(header)) + header]
    records += (
        pack("<IIIH", event.register, event.kind, 2, 0x0004)
        + sha1(event.data, usedforsecurity=False).digest()
        + pack("<H", 0x000B)
        + sha256(event.data).digest()
        + pack("<I", len(event.data))
        + event.data
        for event in events
    )
    return b"".join(records)


def registers(events: Sequence[Event], more: Mapping[int, bytes]) -> list[bytes]:
    """The values of all registers after these events.

    Args:
        more: values of some, whatever the events are.
    """
    values = [bytes(32)] * 17 + [b"\xff" * 32] * 6 + [bytes(32)]
    for event in events:
        extended = values[event.register] + sha256(event.data).digest()
        values[event.register] = sha256(extended).digest()
    for register, value in more.items():
        values[register] = value
    return values


def attest(
    values: Sequence[bytes],
    *,
    extra_data: bytes,
    digest: int = 0x000B,
    magic: int = 0xFF544347,
    kind: int = 0x8018,
    qualified_signer: bytes = bytes(34),
    clock: int = 123456,
    reset_count: int = 7,
    restart_count: int = 1,
    safe: int = 1,
    firmware_version: int = 0x2024012500120000,
    selections: Sequence[tuple[int, Sequence[int]]] = ALL,
    pcr_digest: bytes | None = None,
) -> bytes:
    """What a TPM signs.

    Args:
        values: of the registers.
        digest: the hash of the key.
        pcr_digest: None: the one of the values.
    """
    if pcr_digest is None:
        pcr_digest = new(_HASHES[digest], b"".join(values)).digest()
    message = pack(">IHH", magic, kind, len(qualified_signer)) + qualified_signer
    message += pack(">H", len(extra_data)) + extra_data
    message += pack(">QIIBQ", clock, reset_count, restart_count, safe, firmware_version)
    message += pack(">I", len(selections))
    for bank, listed in selections:
        bits = sum(1 << one for one in listed).to_bytes(3, "little")
        message += pack(">HB", bank, 3) + bits
    return message + pack(">H", len(pcr_digest)) + pcr_digest


def signed(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, message: bytes, digest: int = 0x000B
) -> bytes:
    """A TPMT_SIGNATURE."""
    name = {0x0004: hashes.SHA1(), 0x000B: hashes.SHA256(), 0x000C: hashes.SHA384()}[digest]  # noqa: S303
    if isinstance(key, rsa.RSAPrivateKey):
        value = key.sign(message, padding.PKCS1v15(), name)
        return pack(">HHH", 0x0014, digest, len(value)) + value
    size = key.key_size // 8
    pair = utils.decode_dss_signature(key.sign(message, ec.ECDSA(name)))
    parts = (pack(">H", size) + one.to_bytes(size) for one in pair)
    return pack(">HH", 0x0018, digest) + b"".join(parts)


class TPMWorld(Vendor):
    """A machine with a TPM.

    Args:
        seed: 32 bytes.
        key: kind of its attestation key: `rsa`, `p256` or `p384`.
        now: aware. None: the current time.

    Attributes:
        measurement: register 11, of the machine whose evidence names no other.
    """

    tee: ClassVar[str] = "tpm"
    roots: ClassVar[None] = None

    def __init__(self, seed: bytes, key: str = "rsa", *, now: datetime | None = None) -> None:
        self.now = (now or datetime.now(UTC)).replace(microsecond=0)
        self.measurement = octets(seed, "TPM register 11", 32)
        self.digest = _KEYS[key]
        self._kind = key
        self._seed = seed

    def key(
        self, label: str = "TPM attestation key"
    ) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
        """The attestation key; or, by any other word, of nobody known."""
        if self._kind == "rsa":
            return rsa_key(self._seed, label, 2048)
        curve = ec.SECP256R1 if self._kind == "p256" else ec.SECP384R1
        return ec_key(self._seed, label, curve)

    @property
    def ak_public(self) -> bytes:
        """The attestation key in DER."""
        public = self.key().public_key()
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def trusted_ak(self) -> str:
        """The attestation key as the reference value `trusted_aks`."""
        return encode_base64(self.ak_public)

    def collateral(self) -> dict[str, bytes]:
        """None is needed."""
        return {}

    def evidence(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes = b"",
        init_data: bytes = b"",
        events: Sequence[Event] | None = PCR_BOOT,
        shown: Mapping[int, bytes] | None = None,
        log: bytes | None = None,
        signer: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
        scheme: int | None = None,
        **fields: Any,
    ) -> dict[str, JSON]:
        """Good evidence in the JSON of the protocol: a fresh quote, and the event log.

        Args:
            measurement: register 11; None: the world's.
            init_data: digest of the init data, which register 8 is extended with; b"": it is not.
            events: None: those of the quote are `PCR_BOOT`, and no log is sent.
            shown: values of registers beside the quote, in place of those in it.
            log: in place of that of the events.
            signer: in place of the key.
            scheme: the hash that it signs with.
            fields: of what is signed, as in `attest`.
        """
        more = {11: measurement or self.measurement}
        if init_data:
            more[8] = sha256(bytes(32) + init_data[:32].ljust(32, b"\0")).digest()
        values = registers(PCR_BOOT if events is None else events, more)
        told: dict[str, Any] = {"extra_data": report_data[:32].ljust(32, b"\0")}
        message = attest(values, digest=self.digest, **{**told, **fields})
        signature = signed(signer or self.key(), message, scheme or self.digest)
        for register, value in (shown or {}).items():
            values[register] = value
        if log is None and events is not None:
            log = pcr_log(events)
        return {
            "ak_public": self.trusted_ak,
            "tpm_quote": {
                "signature": encode_base64(signature),
                "message": encode_base64(message),
                "pcrs": [one.hex() for one in values],
            },
            "event_log": None if log is None else encode_base64(log),
        }

    def wrongs(self) -> Iterator[Wrong]:
        """Evidence with one thing wrong, for each thing."""
        from imagers.testing.evidence.wrongs.tpm import wrongs

        return wrongs(self)

    def raw_files(self, evidence: JSON) -> dict[str, bytes]:
        """None: a TPM gives parts, which are in the JSON."""
        del evidence
        return {}


if TYPE_CHECKING:
    _world: World = TPMWorld(bytes(32))
