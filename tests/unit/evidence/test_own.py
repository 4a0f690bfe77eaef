# SPDX-License-Identifier: Apache-2.0
"""Whether a machine was started with an init data document, by its own evidence."""

from hashlib import sha384

import pytest

from imagers.errors import EvidenceRejected, Unsupported
from imagers.evidence.init_data import FIELDS
from imagers.evidence.own import check_own_init_data
from imagers.model.evidence import Evidence, ReportData
from imagers.testing.evidence import SNPWorld, TDXWorld, TPMWorld

SEED = b"imagers.evidence.own is tested ."[:32]
DIGEST = sha384(b"init data").digest()


@pytest.mark.parametrize("world", [SNPWorld, TDXWorld, TPMWorld], ids=lambda one: one.tee)
def test_machine_knows_the_document_that_it_was_started_with(world):
    machine = world(SEED)

    def evidence(init_data):
        fitted = init_data if world is TPMWorld else init_data[: FIELDS[machine.tee][1]]
        body = machine.evidence(report_data=bytes(64), init_data=fitted)
        return Evidence(machine.tee, body, ReportData(bytes(64)))

    check_own_init_data(evidence(DIGEST), DIGEST)
    other = sha384(b"other").digest()
    for wrong in (evidence(other), evidence(b"")):
        with pytest.raises(EvidenceRejected, match=r"init data: .* of this machine: expected"):
            check_own_init_data(wrong, DIGEST)


@pytest.mark.parametrize("tee", ["sample", "csv", "nitro"])
def test_tee_of_which_it_cannot_be_told_is_said(tee):
    with pytest.raises(Unsupported, match=f"for the TEE '{tee}': expected one of snp, tdx, tpm"):
        check_own_init_data(Evidence(tee, {}, ReportData(b"")), DIGEST)
