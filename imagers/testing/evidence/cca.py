# SPDX-License-Identifier: Apache-2.0
"""Arm CCA for tests: one platform, its firmware, and what it signs for realms.

    world = CCAWorld(seed)
    body = world.evidence(measurement=initial_measurement, report_data=digest)
    body = world.evidence(platform={2395: 0x4000})    # under debugging, signed so

The same each time for a seed: all keys, the ids of the platform, the default measurements.
Signatures are not, as those of ECDSA are random.

Spec: RMM specification 1.0 (DEN0137), section A7.2; draft-ffm-rats-cca-token-01.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.model.base64 import encode_base64url
from imagers.model.strict_json import View, dump_json
from imagers.pki.algorithms import algorithm_of, sign
from imagers.pki.cose import ALG, build_sign1
from imagers.testing.evidence.guests import Vendor
from imagers.testing.evidence.keys import ec_key, octets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.guests import World
    from imagers.testing.evidence.wrongs.wrong import Wrong

    Changes = Mapping[int, object]

__all__ = ["CCAWorld"]

_COLLECTION, _PLATFORM, _REALM = 399, 44234, 44241
_SECURED = 0x3001
_PROFILES = {
    True: ("http://arm.com/CCA-SSD/1.0.0", None),
    False: ("tag:arm.com,2023:cca_platform#1.0.0", "tag:arm.com,2023:realm#1.0.0"),
}
_FIRMWARE = ("RSE_BL2", "AP_BL31", "RMM")


class CCAWorld(Vendor):
    """A maker of platforms, and one of them.

    Args:
        seed: 32 bytes.
        is_legacy: claims as firmware before 2024 writes them: older profile, bare realm key.
        now: aware; None: the current time. Tokens have no times.

    Attributes:
        measurement: the initial one of the realm whose token names no other.
    """

    tee: ClassVar[str] = "cca"

    def __init__(
        self, seed: bytes, *, is_legacy: bool = False, now: datetime | None = None
    ) -> None:
        self.now = (now or datetime.now(UTC)).replace(microsecond=0)
        self.measurement = octets(seed, "CCA realm", 32)
        self.is_legacy = is_legacy
        self._seed = seed

    def key(self, role: str) -> ec.EllipticCurvePrivateKey:
        """The key of `platform` or `realm`; or, by any other word, of nobody known."""
        return ec_key(self._seed, f"CCA {role}", ec.SECP384R1)

    @property
    def roots(self) -> bytes:
        """The platform's public key in PEM."""
        return public_pem(self.key("platform"))

    def trust_anchors(self) -> list[JSON]:
        """The platform's key as settings of an appraisal have it."""
        numbers = self.key("platform").public_key().public_numbers()
        claims = self.platform_claims()
        key: JSON = {
            "kty": "EC",
            "crv": "P-384",
            "x": encode_base64url(numbers.x.to_bytes(48)),
            "y": encode_base64url(numbers.y.to_bytes(48)),
        }
        ids = {"implementation-id": claims[2396], "instance-id": claims[256]}
        return [{**{name: value.hex() for name, value in ids.items()}, "pkey": key}]

    def collateral(self) -> dict[str, bytes]:
        """See `World`: there is none."""
        return {}

    def realm_key(self, role: str = "realm") -> bytes:
        """A realm's public key as the claim has it."""
        public = self.key(role).public_key()
        if self.is_legacy:
            return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        numbers = public.public_numbers()
        x, y = (one.to_bytes(48) for one in (numbers.x, numbers.y))
        return cbor2.dumps({1: 2, -1: 2, -2: x, -3: y})

    def platform_claims(self) -> dict[int, Any]:
        """Of the platform, for the world's realm."""
        signer = octets(self._seed, "CCA signer of firmware", 32)
        return {
            265: _PROFILES[self.is_legacy][0],
            10: sha256(self.realm_key()).digest(),
            2396: octets(self._seed, "CCA implementation", 32),
            256: b"\1" + octets(self._seed, "CCA instance", 32),
            2401: b"\xcf\xcf\xcf\xcf",
            2395: _SECURED,
            2402: "sha-256",
            2400: "https://veraison.example/.well-known/veraison/verification",
            2399: [
                {1: name, 2: octets(self._seed, f"CCA {name}", 32), 4: "1.0", 5: signer}
                for name in _FIRMWARE
            ],
        }

    def realm_claims(self) -> dict[int, Any]:
        """Of the realm whose evidence names nothing else."""
        profile = _PROFILES[self.is_legacy][1]
        return {
            **({} if profile is None else {265: profile}),
            10: bytes(64),
            44235: bytes(64),
            44238: self.measurement,
            44239: [bytes(32)] * 4,
            44236: "sha-256",
            44237: self.realm_key(),
            44240: "sha-256",
        }

    def token(
        self,
        *,
        platform: Changes | None = None,
        realm: Changes | None = None,
        keys: tuple[str, str] = ("platform", "realm"),
        protected: Mapping[int | str, object] | None = None,
        unprotected: Mapping[int | str, object] | None = None,
    ) -> bytes:
        """A good token with these claims changed, and then signed.

        Args:
            platform, realm: by their labels; None: it is left out.
            keys: roles of those who sign, as in `key`.
            protected, unprotected: headers of both, beside the algorithm.
        """
        parts = {}
        for label, claims, changes, role in (
            (_PLATFORM, self.platform_claims(), platform, keys[0]),
            (_REALM, self.realm_claims(), realm, keys[1]),
        ):
            key = self.key(role)
            told = {
                name: one for name, one in (claims | dict(changes or {})).items() if one is not None
            }
            parts[label] = build_sign1(
                {ALG: algorithm_of(key.public_key()).cose, **(protected or {})},
                unprotected or {},
                cbor2.dumps(told),
                lambda data, key=key: sign(key, data),  # type: ignore[misc]  # of this turn
            )
        return cbor2.dumps(cbor2.CBORTag(_COLLECTION, parts))

    def evidence(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes = b"",
        init_data: bytes = b"",
        **fields: Any,
    ) -> dict[str, JSON]:
        """Good evidence in the JSON of the protocol: a fresh token.

        Args:
            measurement: the realm's initial one; None: the world's.
            init_data: digest of the init data, for the personalization value.
            fields: as in `token`.
        """
        told = {
            10: report_data.ljust(64, b"\0"),
            44235: init_data.ljust(64, b"\0"),
            44238: measurement or self.measurement,
            **fields.pop("realm", {}),
        }
        return {"token": [*self.token(realm=told, **fields)]}

    def wrongs(self) -> Iterator[Wrong]:
        """Evidence with one thing wrong, for each thing."""
        from imagers.testing.evidence.wrongs.cca import wrongs

        return wrongs(self)

    def raw_files(self, evidence: JSON) -> dict[str, bytes]:
        """Evidence as the kernel gives it: the token. And the platform's key, as its maker does."""
        token = View(evidence, what="CCA evidence").octets("token")
        return {"token.cbor": token, "trust-anchors.json": dump_json(self.trust_anchors())}


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half of a key."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


if TYPE_CHECKING:
    _world: World = CCAWorld(bytes(32))
