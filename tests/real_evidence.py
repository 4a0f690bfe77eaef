# SPDX-License-Identifier: Apache-2.0
"""Real evidence of machines, which belongs to others and is not part of this project.

Where IMAGERS_REAL_EVIDENCE names a directory with it, tests read it: `TEE/ORIGIN/FILE`, of files in
the repositories of confidential-containers/trustee, openanolis/csv-rs, google/go-tdx-guest,
Phala-Network/dcap-qvl, Intel's QVL and openenclave. Without it they are skipped, and evidence of
the factories (`imagers.testing.evidence`) is what the steps are tested with.
"""

import os
from pathlib import Path

import pytest

_FOLDER = os.environ.get("IMAGERS_REAL_EVIDENCE", "")


def real_file(name: str) -> Path:
    """The file of that name; a test that calls this is skipped where there is none."""
    path = Path(_FOLDER, name)
    if not _FOLDER or not path.exists():
        pytest.skip("IMAGERS_REAL_EVIDENCE names no directory with real evidence")
    return path
