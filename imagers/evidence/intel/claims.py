# SPDX-License-Identifier: Apache-2.0
"""Claims that evidence of TDX and of SGX has in common, as Trustee names them.

The platform instance id, which Trustee has too, is none: it identifies a machine, and claims reach
tokens and logs. `Claims.instance` is a hash of it.
"""

from __future__ import annotations

from hashlib import sha256, sha384
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.evidence.intel.quote import HEADER_FIELDS

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from imagers.evidence.intel.engine import Established
    from imagers.evidence.intel.quote import Quote
    from imagers.model.strict_json import JSON

__all__ = ["header_values", "instance_of", "tcb_values"]


def header_values(quote: Quote) -> dict[str, JSON]:
    """The header of a quote, field by field, in hex as it is in memory."""
    return {name: quote.header(name).hex() for name in HEADER_FIELDS}


def tcb_values(established: Established) -> dict[str, JSON]:
    """What was established of the machine."""
    pck_number, root_number = established.crls or (None, None)
    dynamic, cached, smt = established.pck.flags
    return {
        "tcb_status": established.status,
        "tcb_date": established.date,
        "advisory_ids": list(established.advisories),
        "collateral_expiration_status": "0",  # expired ones are not believed
        "earliest_issue_date": _time(min(established.begins)),
        "latest_issue_date": _time(max(established.begins)),
        "earliest_expiration_date": _time(min(established.ends)),
        "tcb_eval_num": established.evaluation,
        "pck_crl_num": pck_number,
        "root_ca_crl_num": root_number,
        "root_key_id": _key_id(established.root),
        "sgx_type": established.pck.sgx_type,
        "is_dynamic_platform": dynamic,
        "is_cached_keys": cached,
        "is_smt_enabled": smt,
        "crl": "checked" if established.crls is not None else "not checked",
    }


def instance_of(established: Established) -> str:
    """Which machine it is, as a hash: equal for equal machines, and no way back."""
    return sha256(established.pck.instance).hexdigest()


def _key_id(certificate: x509.Certificate) -> str:
    """The SHA-384 of a key, as a point that is not compressed."""
    key = certificate.public_key()
    return sha384(key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)).hexdigest()


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
