# SPDX-License-Identifier: Apache-2.0
"""Hygon's documents: what they say, who gives them, and how other tools keep them.

| name | document | path at Hygon's service |
|---|---|---|
| `csv/HASH.hsk_cek` | HSK and CEK of a chip | `/hsk_cek?snumber=SERIAL` |

The serial number of the chip is in the URL, which logs and messages do not show. It is in neither
certificate: a file of both does not tell which chip it is of.

Spec: openanolis/csv-rs; Trustee, verifier of CSV.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlencode

from imagers.errors import FormatError
from imagers.evidence.collateral.directory import MAX_DOCUMENT, Document
from imagers.evidence.csv.certificates import root_of
from imagers.evidence.csv.verify import check_issuers, issuers_name, parse_issuers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.evidence.collateral.directory import Vendor
    from imagers.evidence.csv.verify import CSVEvidence
    from imagers.net.http import HTTPClient

__all__ = ["Hygon"]

_NAME = re.compile(r"csv/[0-9a-f]{32}\.hsk_cek\Z", re.ASCII)
_WHAT = "Hygon collateral"
# Their certificates have no dates.
_ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))


class Hygon:
    """See `Vendor`.

    Args:
        roots: an HRK, armored, in place of Hygon's: for tests only.
    """

    sources: ClassVar[tuple[str, ...]] = ("https://cert.hygon.cn",)

    def __init__(self, roots: bytes | None = None) -> None:
        self._roots = roots

    def beside(self, name: str) -> tuple[str, ...]:
        """See `Vendor`: Hygon's root comes with imagers."""
        del name
        return ()

    def describe(self, name: str, documents: Mapping[str, bytes]) -> Document:
        """See `Vendor`. Of which chip they are nothing in them says."""
        _check_name(name)
        check_issuers(root_of(self._roots), *parse_issuers(documents[name]))
        return Document("HSK and CEK of a chip", *_ALWAYS)

    def ask(
        self, client: HTTPClient, source: str, name: str, evidence: CSVEvidence
    ) -> dict[str, bytes]:
        """See `Vendor`."""
        _check_name(name)
        serial = evidence.report.serial
        if issuers_name(serial) != name:
            raise FormatError("is of another chip than the evidence", what=name)
        url = f"{source.rstrip('/')}/hsk_cek?{urlencode({'snumber': serial})}"
        return {name: client.request("GET", url, max_bytes=MAX_DOCUMENT).body}

    def find(self, data: bytes) -> dict[str, bytes]:
        """See `Vendor`: HSK and CEK do not tell of which chip they are."""
        parse_issuers(data)
        raise FormatError(
            "HSK and CEK do not say of which chip they are",
            what=_WHAT,
            hint="import them alone, with their name: --name csv/HASH.hsk_cek, as "
            "'imagers attest collateral fetch' tells it",
        )


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise FormatError(f"there is no document {name[:100]!r}", what=_WHAT)


if TYPE_CHECKING:
    _vendor: Vendor = Hygon()
