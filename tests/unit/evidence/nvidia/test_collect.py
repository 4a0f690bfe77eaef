# SPDX-License-Identifier: Apache-2.0
"""Evidence by doubles of NVIDIA's library: the verifier says yes to it."""

from datetime import UTC, datetime

import pytest

from imagers.errors import LocalError, NoTEE
from imagers.evidence.judge import judge_evidence
from imagers.evidence.nvidia.collect import NVIDIAAttester
from imagers.evidence.nvidia.verify import NVIDIAVerifier
from imagers.evidence.plugins import load_attester
from imagers.model.evidence import Bound, ReportData
from imagers.testing.evidence import NVIDIAWorld

NOW = datetime(2026, 11, 30, tzinfo=UTC)
DIGEST = ReportData(b"d" * 48)


class NVMLError(Exception):
    pass


class Structure:
    """What the library's C structures are to who reads them."""

    def __init__(self, **fields):
        vars(self).update(fields)


class Library:
    """`pynvml`, over the GPUs of worlds."""

    NVMLError = NVMLError

    def __init__(self, *worlds, architecture=9, broken=""):
        self.worlds, self.architecture, self.broken = worlds, architecture, broken
        self.open = 0

    def nvmlInit(self):  # noqa: N802
        if self.broken == "init":
            raise NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.worlds)

    def nvmlDeviceGetHandleByIndex(self, number):  # noqa: N802
        return self.worlds[number]

    def nvmlDeviceGetArchitecture(self, _):  # noqa: N802
        return self.architecture

    def nvmlDeviceGetUUID(self, _):  # noqa: N802
        return "GPU-1"

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, world, nonce):  # noqa: N802
        if self.broken == "report":
            raise NVMLError("Not Supported")
        assert len(nonce) == 32
        raw = world.report(nonce=nonce)
        return Structure(attestationReport=[*raw, *bytes(100)], attestationReportSize=len(raw))

    def nvmlDeviceGetConfComputeGpuCertificate(self, world):  # noqa: N802
        chain = world.chain()
        return Structure(
            attestationCertChain=[*chain, *bytes(100)], attestationCertChainSize=len(chain)
        )


def worlds(count):
    return [NVIDIAWorld(bytes(32), now=NOW, number=number) for number in range(count)]


def test_evidence_of_all_gpus_verifies():
    gpus = worlds(2)
    library = Library(*gpus)
    attester = NVIDIAAttester(lambda: library)
    assert attester.missing() == ""
    evidence = attester.collect(DIGEST)
    assert library.open == 0
    verifier = NVIDIAVerifier(gpus[0].roots)
    bodies = verifier.split(evidence.body)
    assert len(bodies) == 2
    for body in bodies:
        judge_evidence(verifier, body, bound=Bound(DIGEST.digest), read=lambda _: None, now=NOW)


def test_machine_without_the_library_has_none():
    attester = load_attester("nvidia")
    assert attester.tee == "nvidia"

    def absent():
        raise ImportError

    attester = NVIDIAAttester(absent)
    assert attester.missing() == "there is no pynvml"
    with pytest.raises(NoTEE, match="there is no pynvml") as caught:
        attester.collect(DIGEST)
    assert "the package nvidia-ml-py" in caught.value.hint


@pytest.mark.parametrize(
    ("library", "piece"),
    [
        (Library(), "there is no GPU of NVIDIA's"),
        (Library(broken="init"), "Driver Not Loaded"),
    ],
    ids=["no GPU", "no driver"],
)
def test_machine_without_a_gpu_has_none(library, piece):
    attester = NVIDIAAttester(lambda: library)
    assert piece in attester.missing()
    with pytest.raises(NoTEE, match=piece):
        attester.collect(DIGEST)


@pytest.mark.parametrize(
    ("library", "piece"),
    [
        (Library(*worlds(1), architecture=10), "another line than Hopper"),
        (Library(*worlds(1), broken="report"), "no report of a GPU: Not Supported"),
        (Library(*worlds(17)), "expected at most 16 GPUs, got 17"),
    ],
    ids=["Blackwell", "no confidential mode", "seventeen"],
)
def test_gpu_that_gives_no_report_is_told(library, piece):
    attester = NVIDIAAttester(lambda: library)
    with pytest.raises(LocalError, match=piece):
        attester.collect(DIGEST)
    assert library.open == 0
