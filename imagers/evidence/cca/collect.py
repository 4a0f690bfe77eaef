# SPDX-License-Identifier: Apache-2.0
"""Evidence of this machine, a realm of Arm CCA: a token by configfs-tsm.

evidence = CCAAttester().collect(ReportData(digest))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from imagers.errors import NoTEE
from imagers.evidence.tsm import TSM_ROOT, missing_tsm, read_tsm
from imagers.model.evidence import Evidence

if TYPE_CHECKING:
    from pathlib import Path

    from imagers.evidence.tsm import Kernel
    from imagers.model.evidence import Attester, ReportData

__all__ = ["CCAAttester"]

_PROVIDER = "arm_cca_guest"


class CCAAttester:
    """See `Attester`.

    Args:
        tsm: directory of configfs-tsm.
        kernel: what the kernel does; tests have their own.
    """

    tee: ClassVar[str] = "cca"

    def __init__(self, tsm: Path = TSM_ROOT, *, kernel: Kernel | None = None) -> None:
        self._tsm = tsm
        self._kernel = kernel

    def missing(self) -> str:
        """Why this machine is no such guest; "" if it is."""
        return missing_tsm(self._tsm, _PROVIDER, self._kernel)

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`.

        Raises:
            NoTEE: this machine is none.
            LocalError: the kernel refuses.
        """
        found = read_tsm(self._tsm, report_data.digest, provider=_PROVIDER, kernel=self._kernel)
        if not found.outblob:
            raise NoTEE("the realm's manager gives no token")
        return Evidence(self.tee, {"token": [*found.outblob]}, report_data)


if TYPE_CHECKING:
    _attester: Attester = CCAAttester()
