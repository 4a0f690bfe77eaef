# SPDX-License-Identifier: Apache-2.0
"""Claims as JSON: in tokens, in a broker's store, in what the program prints.

    {"tee": "snp", "class": "cpu", "maker": "AMD, VCEK of a Genoa",
     "measured": [{"snp_launch_measurement": "ab..."}], "firmware": {...}, "configured": {...},
     "tcb_status": "", "advisories": [], "debug": false,
     "report_data": "00...", "init_data": "00...",
     "established_at": "2026-11-29T12:00:00+00:00", "counts_if_measured": false,
     "test_root": false}

The claims as Trustee names them stand beside it where they are wanted. Which machine it was is not
in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from imagers.model.evidence import Claims

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.strict_json import JSON, JSONObject, View

__all__ = ["claims_from_json", "claims_to_json"]


def claims_to_json(claims: Claims) -> JSONObject:
    """The claims in the one schema of all TEEs."""
    return {
        "tee": claims.tee,
        "class": claims.tee_class,
        "maker": claims.maker,
        "measured": [dict(way) for way in claims.measured],
        "firmware": dict(claims.firmware),
        "configured": dict(claims.configured),
        "tcb_status": claims.tcb_status,
        "advisories": list(claims.advisories),
        "debug": claims.debug,
        "report_data": claims.report_data,
        "init_data": claims.init_data,
        "established_at": claims.established_at.isoformat(timespec="seconds"),
        "counts_if_measured": claims.counts_if_measured,
        "test_root": claims.test_root,
    }


def claims_from_json(claims: View, values: Mapping[str, JSON] | None = None) -> Claims:
    """What `claims_to_json` wrote.

    Args:
        values: the claims as Trustee names them, which are kept elsewhere.

    Raises:
        FormatError: it is something else.
    """
    return Claims(
        tee=claims.text("tee"),
        tee_class=claims.text("class"),
        maker=claims.text("maker"),
        measured=tuple(way.value for way in claims.objects("measured")),
        firmware=claims.object("firmware").value,
        configured=claims.object("configured").value,
        tcb_status=claims.text("tcb_status"),
        advisories=claims.texts("advisories"),
        debug=claims.flag("debug"),
        report_data=claims.text("report_data"),
        init_data=claims.text("init_data"),
        values=values or {},
        established_at=_time(claims, "established_at"),
        counts_if_measured=claims.flag("counts_if_measured"),
        test_root=claims.flag("test_root"),
    )


def _time(claims: View, name: str) -> datetime:
    try:
        found = datetime.fromisoformat(claims.text(name))
    except ValueError:
        raise claims.error("expected a time", name) from None
    if found.tzinfo is None:
        raise claims.error("expected a time with its zone", name)
    return found
