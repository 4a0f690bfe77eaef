# SPDX-License-Identifier: Apache-2.0
"""Attesters of machines for tests: `snp-test` makes evidence of the TEE `snp`, and so on.

The environment variable IMAGERS_TEST_TEE names a JSON file that says which machine, as
`imagers.testing.evidence.machine` has it; `python -m imagers.testing.evidence make` writes one. For
a machine with devices it names several, with `:` between: one for the TEE, one for each device.
"""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import NoTEE
from imagers.model.strict_json import View
from imagers.testing.evidence import Machine

if TYPE_CHECKING:
    from imagers.model.evidence import Attester

VARIABLE = "IMAGERS_TEST_TEE"
_MAX_BYTES = 16 * 1024


def _attester(tee: str) -> Attester:
    """A guest of a vendor that is none.

    Raises:
        NoTEE: the variable names no file that can be read, or no machine of this TEE.
        FormatError: the file does not say which machine.
    """
    name = os.environ.get(VARIABLE, "")
    if not name:
        make = f"python -m imagers.testing.evidence make --tee {tee}"
        raise NoTEE(
            f"{VARIABLE} is not set",
            hint=f"it names the file tee.json that '{make} --seed FILE --out DIR' writes",
        )
    machines = [_read(one) for one in name.split(os.pathsep)]
    found = [machine for machine in machines if machine.tee == tee]
    if not found:
        got = ", ".join(f"'{machine.tee}'" for machine in machines)
        raise NoTEE(f"{name}: expected a machine of the TEE '{tee}', got {got}")
    # So that nobody takes it for a machine's.
    warnings.warn(
        f"evidence of the TEE '{tee}' is made up, for tests: it proves nothing", stacklevel=3
    )
    return found[0].attester()


def _read(name: str) -> Machine:
    try:
        with Path(name).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "failed").lower()
        raise NoTEE(f"{VARIABLE}: {name}: {reason}") from error
    return Machine.parse(View.parse(data, what=name, max_bytes=_MAX_BYTES))


# One for each entry point.
az_snp_attester = partial(_attester, "az-snp-vtpm")
az_tdx_attester = partial(_attester, "az-tdx-vtpm")
cca_attester = partial(_attester, "cca")
csv_attester = partial(_attester, "csv")
nitro_attester = partial(_attester, "nitro")
nvidia_attester = partial(_attester, "nvidia")
sgx_attester = partial(_attester, "sgx")
snp_attester = partial(_attester, "snp")
tdx_attester = partial(_attester, "tdx")
tpm_attester = partial(_attester, "tpm")
