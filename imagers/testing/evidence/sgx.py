# SPDX-License-Identifier: Apache-2.0
"""Intel SGX for tests: quotes of version 3.

    world = SGXWorld(seed)
    body = world.evidence(measurement=mr_enclave, report_data=digest)

What else there is, and what is the same each time, is in `intel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from imagers.model.base64 import encode_base64
from imagers.model.strict_json import View
from imagers.testing.evidence.intel import SGX_BODY, SGX_BODY_BYTES, IntelWorld, filled
from imagers.testing.evidence.keys import octets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Literal

    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.guests import World
    from imagers.testing.evidence.intel import Field
    from imagers.testing.evidence.wrongs.wrong import Wrong

__all__ = ["SGXWorld"]

_ATTRIBUTES = bytes.fromhex("0500000000000000e700000000000000")  # initialised, 64 bit; no debug


class SGXWorld(IntelWorld):
    """Intel, and one machine that runs enclaves.

    Attributes:
        measurement: MRENCLAVE.
    """

    tee: ClassVar[Literal["sgx", "tdx"]] = "sgx"
    qe_product: ClassVar[int] = 1
    qe_svn: ClassVar[int] = 8
    _qe_id: ClassVar[str] = "QE"
    _measurement_bytes: ClassVar[int] = 32

    @property
    def signer(self) -> bytes:
        """MRSIGNER of the enclave whose quote names no other."""
        return octets(self._seed, "Intel SGX signer", 32)

    def quote(
        self,
        *,
        header: Mapping[str, Field] | None = None,
        sealed: Mapping[str, Any] | None = None,
        **fields: Field,
    ) -> bytes:
        """A good quote with these fields changed, and then signed.

        Args:
            header: fields of it: `version`, `tee_type`, `vendor_id`, `user_data` and others.
            sealed: what vouches for the signature, in place of the right things: `key`, `qe`,
                `qe_key`, `qe_data`, `chain` of `IntelWorld`.
            fields: of the body: numbers, or bytes, with zeros added.

        Raises:
            TypeError, ValueError, OverflowError: there is no such field, or a value does not fit.
        """
        values: dict[str, Field] = {
            "cpu_svn": bytes(self.components),
            "attributes": _ATTRIBUTES,
            "mr_enclave": self.measurement,
            "mr_signer": self.signer,
            "isv_prod_id": 1,
            "isv_svn": 1,
        }
        body = filled(SGX_BODY, SGX_BODY_BYTES, values | fields)
        versions = self.qe_svn.to_bytes(2, "little") + self.pce_svn.to_bytes(2, "little")
        told = {"version": 3, "reserved": versions, **(header or {})}
        return self._sealed(told, body, is_nested=False, **(sealed or {}))

    def evidence(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes = b"",
        init_data: bytes = b"",
        **fields: Any,
    ) -> dict[str, JSON]:
        """Good evidence in the JSON of the protocol: a fresh quote.

        Args:
            measurement: MRENCLAVE; None: the world's.
            init_data: digest of the init data, for CONFIGID.
            fields: as in `quote`.
        """
        told: dict[str, Any] = {
            "mr_enclave": measurement or self.measurement,
            "report_data": report_data,
            "config_id": init_data,
        }
        quote = self.quote(**{**told, **fields})
        return {"quote": encode_base64(quote)}

    def wrongs(self) -> Iterator[Wrong]:
        """Evidence with one thing wrong, for each thing."""
        from imagers.testing.evidence.wrongs.intel import wrongs

        return wrongs(self)

    def raw_files(self, evidence: JSON) -> dict[str, bytes]:
        """Evidence as the platform gives it: the quote."""
        return {"quote.bin": View(evidence, what="SGX evidence").bytes64("quote")}


if TYPE_CHECKING:
    _world: World = SGXWorld(bytes(32))
