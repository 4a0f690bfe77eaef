# SPDX-License-Identifier: Apache-2.0
"""Whether a machine was started with an init data document, by its own hardware."""

from hashlib import sha384

import pytest

from imagers.errors import EvidenceRejected, LocalError, NoTEE, Unsupported
from imagers.evidence.own import check_own_init_data
from imagers.evidence.tdx.collect import TDXAttester
from imagers.model.evidence import Evidence
from imagers.testing.evidence import SNPWorld, TDXWorld, TPMWorld

SEED = b"imagers.evidence.own is tested ."[:32]
DIGEST = sha384(b"init data").digest()
OTHER = sha384(b"other").digest()


class Machine:
    """Gives evidence of a machine that was started so."""

    def __init__(self, world, init_data):
        self.tee = world.tee
        self._world = world(SEED)
        self._init_data = init_data

    def collect(self, report_data):
        init_data = self._init_data[:32] if self.tee == "snp" else self._init_data
        body = self._world.evidence(report_data=report_data.digest, init_data=init_data)
        return Evidence(self.tee, body, report_data)


@pytest.mark.parametrize("world", [SNPWorld, TPMWorld], ids=lambda one: one.tee)
def test_machine_knows_the_document_that_it_was_started_with(world):
    check_own_init_data(Machine(world, DIGEST), DIGEST)
    for wrong in (OTHER, b""):
        with pytest.raises(EvidenceRejected, match=r"init data: .* of this machine: expected"):
            check_own_init_data(Machine(world, wrong), DIGEST)


def test_guest_of_tdx_asks_its_module(tmp_path):
    machine = TDXAttester(registers=tmp_path)
    register = tmp_path / "mrconfigid"
    with pytest.raises(NoTEE, match=r"there is no .*/mrconfigid"):
        check_own_init_data(machine, DIGEST)
    register.write_bytes(DIGEST)
    check_own_init_data(machine, DIGEST)
    for wrong in (OTHER, bytes(48)):
        register.write_bytes(wrong)
        with pytest.raises(EvidenceRejected, match="init data: MRCONFIGID of this machine"):
            check_own_init_data(machine, DIGEST)
    register.write_bytes(DIGEST[:32])
    with pytest.raises(LocalError, match="expected 48 bytes, got 32"):
        check_own_init_data(machine, DIGEST)


def test_quote_of_tdx_is_the_hosts_word():
    """The host gives it, and nobody here looks at its signature."""
    with pytest.raises(Unsupported, match="by a quote, which the host gives"):
        check_own_init_data(Machine(TDXWorld, DIGEST), DIGEST)


@pytest.mark.parametrize("tee", ["sample", "csv", "nitro"])
def test_tee_of_which_it_cannot_be_told_is_said(tee):
    class Other:
        pass

    Other.tee = tee
    with pytest.raises(Unsupported, match=f"for the TEE '{tee}': expected one of snp, tdx, tpm"):
        check_own_init_data(Other(), DIGEST)
