# SPDX-License-Identifier: Apache-2.0
"""Each step of the verification says yes to what is right, and no to one thing that is wrong."""

from datetime import timedelta
from hashlib import sha256

import dcap_qvl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.intel.certificates import is_signed, verified_pck
from imagers.evidence.intel.collateral import ROOT_CRL, chain_name, identity_name, tcb_info_name
from imagers.evidence.intel.engine import (
    _check_key,
    _check_signature,
    establish,
    root_of,
    wanted,
)
from imagers.evidence.intel.quote import TDX, parse_quote
from tests.real_evidence import real_file
from tests.unit.evidence.intel.conftest import NOW, REAL, World, raw_signature
from tests.unit.evidence.intel.test_quote import QUOTES

SVN_1_5 = bytes((5, 1)) + bytes([5]) * 14  # of module version 1


@pytest.mark.parametrize("path", [path for path in QUOTES if "intel-qvl" not in path])
def test_signatures_of_each_real_quote_are_good(path):
    """Also of those without documents of their time: chain, QE report, its key, and the quote."""
    quote = parse_quote(real_file(path).read_bytes(), tee=QUOTES[path][0])
    pck = verified_pck(quote.chain, root_of(None))
    assert is_signed(quote.qe_signature, pck.key, quote.qe_report)
    assert not is_signed(quote.qe_signature, pck.key, quote.qe_report[:-1])
    _check_key(quote)
    _check_signature(quote)


def judge(world, quote, collateral, *, tee="tdx", now=NOW, without_crl=False):
    told = []
    found = establish(
        quote,
        tee=tee,
        collateral=collateral,
        root=world.root,
        without_crl=without_crl,
        now=now,
        note=told.append,
    )
    return found, told


@pytest.mark.parametrize("case", REAL.values(), ids=REAL)
def test_quote_of_a_real_machine_has_the_status_of_its_time(case):
    told = []
    found = establish(
        case.quote,
        tee=case.tee,
        collateral=case.collateral,
        root=root_of(None),
        without_crl=False,
        now=case.now,
        note=told.append,
    )
    assert (found.status, found.advisories) == (case.status, case.advisories)
    assert [one.partition(",")[0] for one in told] == [f"step {at}" for at in range(1, 10)]
    assert set(wanted(case.quote, case.tee)) == set(case.collateral)
    assert found.collateral[f"{ROOT_CRL} number"] == 1


@pytest.mark.parametrize("case", REAL.values(), ids=REAL)
def test_other_verifier_says_the_same_of_a_real_machine(case):
    theirs = dcap_qvl.QuoteCollateralV3.from_json(case.theirs.decode())
    seconds = int(case.now.timestamp())
    if case is REAL["tdx under debug"]:  # which it refuses always
        with pytest.raises(ValueError, match="Debug mode is enabled"):
            dcap_qvl.verify(case.raw, theirs, seconds)
        return
    report = dcap_qvl.verify(case.raw, theirs, seconds)
    assert (report.status, tuple(report.advisory_ids)) == (case.status, case.advisories)


def their_status(world, quote, collateral, tee="tdx"):
    """What dcap-qvl says, with the root of the world."""
    info = collateral[tcb_info_name(tee, world.fmspc.hex())].decode()
    identity = collateral[identity_name(tee)].decode()
    signers = collateral[chain_name(identity_name(tee))].decode()

    def parts(text, member):
        inner, _, signature = text[len(f'{{"{member}":') :].rpartition(',"signature":"')
        return inner, bytes.fromhex(signature[:128])

    collateral = dcap_qvl.QuoteCollateralV3(
        world.chain(world.authority, world.root).decode(),
        collateral[ROOT_CRL],
        collateral[f"intel/pck-{world.ca}.crl"],
        signers,
        *parts(info, "tcbInfo"),
        signers,
        *parts(identity, "enclaveIdentity"),
    )
    root = world.root.public_bytes(Encoding.DER)
    report = dcap_qvl.verify_with_root_ca(quote, collateral, root, int(NOW.timestamp()))
    return report.status, tuple(report.advisory_ids)


@pytest.mark.parametrize("ca", ["platform", "processor"])
@pytest.mark.parametrize(
    ("tee", "version", "kind"),
    [("sgx", 3, 1), ("tdx", 4, 2), ("tdx", 5, 2), ("tdx", 5, 3)],
)
def test_quote_made_here_is_good_for_us_and_for_the_other_verifier(
    ca, tee, version, kind, world, processor_world
):
    world = world if ca == "platform" else processor_world
    raw = world.raw_quote(tee, version=version, kind=kind)
    quote, collateral = (
        world.quote(tee, version=version, kind=kind),
        world.collateral(tee),
    )
    found, _ = judge(world, quote, collateral, tee=tee)
    assert (found.status, found.evaluation, found.crls) == ("UpToDate", 17, (7, 7))
    assert found.pck.instance == (b"I" * 16 if ca == "platform" else b"P" * 16)
    assert found.pck.flags == ((True,) * 3 if ca == "platform" else (None,) * 3)
    assert their_status(world, raw, collateral, tee) == ("UpToDate", ())
    assert "pck=" not in repr(found)
    assert "root=" not in repr(found)


def refused(world, error, step, piece, *, quote=None, now=NOW, tee="tdx", **documents):
    with pytest.raises(error) as caught:
        judge(
            world,
            quote or world.quote(tee),
            world.collateral(tee, **documents),
            now=now,
            tee=tee,
        )
    assert str(caught.value).startswith(f"step {step}")
    assert piece in str(caught.value)


@pytest.mark.parametrize("document", ["root_crl", "crl", "info", "identity", "chain"])
def test_missing_document_is_could_not_look(world, document):
    step = {"root_crl": 2, "crl": 2, "info": 3, "identity": 4, "chain": 3}[document]
    refused(world, CouldNotVerify, step, "there is no", **{document: None})


def test_without_lists_where_that_is_allowed(world):
    collateral = world.collateral(root_crl=None, crl=None)
    found, told = judge(world, world.quote(), collateral, without_crl=True)
    assert found.crls is None
    assert "step 2, revocation: not checked" in told
    for one in ("root_crl", "crl"):  # one of two is not enough to say that it was checked
        half = world.collateral(**{one: None})
        found, told = judge(world, world.quote(), half, without_crl=True)
        assert found.crls is None
        assert "step 2, revocation: not checked" in told
    revoking = world.collateral(root_crl=None, crl=world.crl(signer="ca", revoked=[world.pck]))
    with pytest.raises(EvidenceRejected, match=r"step 2, .*Certificate is revoked by Intel"):
        judge(world, world.quote(), revoking, without_crl=True)


def test_document_out_of_date_is_could_not_look(world):
    late = NOW + timedelta(days=31)
    refused(world, CouldNotVerify, 2, "root-ca.crl is not valid at", now=late)
    refused(world, CouldNotVerify, 2, "is not valid at", crl=world.crl(signer="ca", days=-0.5))
    refused(world, CouldNotVerify, 3, "TCB info of TDX is not", info=world.tcb_info(days=-0.5))
    refused(world, CouldNotVerify, 4, "QE identity of TDX is", identity=world.identity(days=-0.5))
    early = world.tcb_info(issueDate="2026-11-30T00:00:00Z")
    refused(world, CouldNotVerify, 3, "TCB info of TDX is not valid at 2026-11-29", info=early)
    signer = world.issue("signer", "Intel SGX TCB Signing", "root", days=-0.5)
    chain = world.chain(signer, world.root)
    refused(world, CouldNotVerify, 3, "certificate Intel SGX TCB Signing is not valid", chain=chain)


def test_certificate_of_a_machine_out_of_date_is_refused(world):
    for certificates in (
        (world.issue_pck(days=-0.5), world.authority),
        (world.pck, world.issue("ca", "Intel SGX PCK Platform CA", "root", is_ca=True, days=-0.5)),
    ):
        quote = world.quote(chain=world.chain(*certificates))
        refused(world, EvidenceRejected, "1, chain", "is not valid at", quote=quote)


def test_root_out_of_date_is_refused(world):
    late = NOW + timedelta(days=4000)
    piece = "certificate Intel SGX Root CA is not valid at"
    refused(world, EvidenceRejected, "1, chain", piece, now=late)


def test_revoked_certificates_are_refused(world):
    crl = world.crl(signer="ca", revoked=[world.pck])
    refused(world, EvidenceRejected, 2, "Intel SGX PCK Certificate is revoked", crl=crl)
    crl = world.crl(revoked=[world.authority])
    refused(world, EvidenceRejected, 2, "Intel SGX PCK Platform CA is revoked", root_crl=crl)
    crl = world.crl(revoked=[world.signer])
    refused(world, EvidenceRejected, 3, "Intel SGX TCB Signing is revoked", root_crl=crl)


def test_documents_of_another_signer_are_refused(world):
    other = World()
    for step, documents in (
        (2, {"root_crl": other.crl()}),
        (2, {"crl": other.crl(signer="ca")}),
        (3, {"info": other.tcb_info()}),
        (3, {"info": world.tcb_info(key="other")}),
        (4, {"identity": other.identity()}),
        (3, {"chain": other.chain(other.signer, other.root)}),
        (3, {"chain": other.chain(other.signer)}),
        (3, {"chain": world.chain(world.authority, world.root)}),
        (1, {"quote": other.quote()}),
        (1, {"quote": world.quote(chain=world.chain(world.pck, other.authority))}),
        (1, {"quote": world.quote(chain=world.chain(world.pck, world.authority, other.root))}),
    ):
        refused(world, EvidenceRejected, step, "", **documents)


def test_tcb_info_of_another_machine_is_refused(world):
    info = world.tcb_info(fmspc="00A06D080001")
    refused(world, EvidenceRejected, 3, "FMSPC of the TCB info: expected 00a06d080000", info=info)
    refused(world, EvidenceRejected, 3, "PCE id", info=world.tcb_info(pceId="0001"))
    lower = world.tcb_info(fmspc="00a06d080000")
    assert judge(world, world.quote(), world.collateral(info=lower))[0].status == "UpToDate"


def test_report_of_a_quoting_enclave_that_is_not_this_machines_is_refused(world):
    quote = world.quote(qe_key="other")
    refused(world, EvidenceRejected, 5, "not signed with the key of this PCK", quote=quote)
    quote = world.quote(qe_report=world.qe_report(qe_data=b"x"))
    refused(world, EvidenceRejected, 6, "report data of the QE", quote=quote)
    tail = world.qe_report()[:383] + b"\1"
    refused(world, EvidenceRejected, 6, "report data of the QE", quote=world.quote(qe_report=tail))


@pytest.mark.parametrize(
    ("field", "value", "piece"),
    [
        ("mr_signer", b"x" * 32, "signer of the QE"),
        ("isv_prod_id", b"\3\0", "product of the QE: expected 2, got 3"),
        ("misc_select", b"\1\0\0\0", "miscselect of the QE"),
        ("attributes__flags", b"\x17", "attributes of the QE"),
        ("isv_svn", b"\3\0", "version of the QE: expected at least 4, got 3"),
    ],
)
def test_quoting_enclave_that_is_not_intels_is_refused(world, field, value, piece):
    quote = world.quote(qe_report=world.qe_report(**{field: value}))
    refused(world, EvidenceRejected, 7, piece, quote=quote)


def test_revoked_version_of_the_quoting_enclave_is_refused(world):
    levels = [world.enclave_level(5), world.enclave_level(1, "Revoked")]
    identity = world.identity(tcbLevels=levels)
    refused(world, EvidenceRejected, 7, "version 4 of the QE is revoked", identity=identity)


def test_quote_by_another_key_is_refused(world):
    raw = bytearray(world.raw_quote())
    raw[200] ^= 1
    refused(world, EvidenceRejected, 8, "", quote=parse_quote(bytes(raw), tee=TDX))


def test_attestation_key_that_is_no_point_is_refused(world):
    raw = bytearray(world.raw_quote())
    at = 636 + 64
    raw[at : at + 64] = bytes(63) + b"\1"
    report = world.qe_report(report_data=sha256(bytes(63) + b"\1" + b"d" * 32).digest())
    found = raw.find(world.qe_report())
    raw[found : found + 448] = report + raw_signature(world.keys["pck"], report)
    quote = parse_quote(bytes(raw), tee=TDX)
    refused(world, EvidenceRejected, 8, "is no point of P-256", quote=quote)


# Status of the level, of the module, of the QE: status of all.
STATUSES = [
    ("UpToDate", "UpToDate", "UpToDate", "UpToDate"),
    ("SWHardeningNeeded", "UpToDate", "UpToDate", "SWHardeningNeeded"),
    ("ConfigurationNeeded", "UpToDate", "UpToDate", "ConfigurationNeeded"),
    (
        "ConfigurationAndSWHardeningNeeded",
        "UpToDate",
        "UpToDate",
        "ConfigurationAndSWHardeningNeeded",
    ),
    ("OutOfDate", "UpToDate", "UpToDate", "OutOfDate"),
    ("OutOfDateConfigurationNeeded", "UpToDate", "UpToDate", "OutOfDateConfigurationNeeded"),
    ("UpToDate", "OutOfDate", "UpToDate", "OutOfDate"),
    ("UpToDate", "UpToDate", "OutOfDate", "OutOfDate"),
    ("SWHardeningNeeded", "UpToDate", "OutOfDate", "OutOfDate"),
    ("ConfigurationNeeded", "OutOfDate", "UpToDate", "OutOfDateConfigurationNeeded"),
    ("ConfigurationNeeded", "UpToDate", "OutOfDate", "OutOfDateConfigurationNeeded"),
    (
        "ConfigurationAndSWHardeningNeeded",
        "UpToDate",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ),
    ("OutOfDate", "OutOfDate", "OutOfDate", "OutOfDate"),
    (
        "OutOfDateConfigurationNeeded",
        "OutOfDate",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ),
]


@pytest.mark.parametrize(("level", "module", "qe", "status"), STATUSES)
def test_status_is_the_worst_of_machine_module_and_quoting_enclave(
    world, level, module, qe, status
):
    quote = {"tcb_svn": SVN_1_5}
    info = world.tcb_info(
        levels=[world.level(level, advisories=["A"])],
        modules=[world.module(1, world.enclave_level(5, module, ["A", "B"]))],
    )
    identity = world.identity(tcbLevels=[world.enclave_level(4, qe, ["C"])])
    collateral = world.collateral(info=info, identity=identity)
    found, _ = judge(world, world.quote(**quote), collateral)
    assert (found.status, found.advisories) == (status, ("A", "B", "C"))
    theirs, advisories = their_status(world, world.raw_quote(**quote), collateral)
    assert (theirs, set(advisories)) == (status, {"A", "B", "C"})


def test_levels_are_tried_from_the_newest(world):
    levels = [
        world.level("UpToDate", sgx=6),
        world.level("SWHardeningNeeded", pce=12),
        world.level("ConfigurationNeeded", tdx=6),
        world.level("OutOfDate", sgx=5, tdx=5),
        world.level("Revoked", sgx=0, tdx=0),
    ]
    collateral = world.collateral(info=world.tcb_info(levels=levels))
    assert judge(world, world.quote(), collateral)[0].status == "OutOfDate"
    assert their_status(world, world.raw_quote(), collateral)[0] == "OutOfDate"


def test_one_component_that_is_lower_is_enough(world):
    for at in range(16):
        sgx = [6 if one == at else 0 for one in range(16)]
        info = world.tcb_info(levels=[world.level(sgx=sgx)])
        refused(world, EvidenceRejected, "9, TCB", "of the firmware reaches no level", info=info)
        info = world.tcb_info(levels=[world.level(tdx=sgx)])
        refused(world, EvidenceRejected, "9, TCB", "module reaches no level", info=info)


def test_components_of_the_module_are_those_of_its_identity_from_version_1_on(world):
    tdx = [255, 255] + [5] * 14
    module = world.module(1, world.enclave_level(5))
    info = world.tcb_info(levels=[world.level(tdx=tdx)], modules=[module])
    found, _ = judge(world, world.quote(tcb_svn=SVN_1_5), world.collateral(info=info))
    assert found.status == "UpToDate"
    refused(world, EvidenceRejected, 9, "module reaches no level", info=info)
    for at in range(2, 16):
        tdx = [6 if one == at else 0 for one in range(16)]
        info = world.tcb_info(levels=[world.level(tdx=tdx)], modules=[module])
        quote = world.quote(tcb_svn=SVN_1_5)
        refused(world, EvidenceRejected, 9, "module reaches no level", info=info, quote=quote)


def test_module_that_intel_does_not_know_is_refused(world):
    quote = world.quote(tcb_svn=SVN_1_5)
    info = world.tcb_info(modules=[world.module(3, world.enclave_level(1))])
    refused(world, EvidenceRejected, 9, "(TDX_03), got TDX_01", info=info, quote=quote)
    info = world.tcb_info()
    refused(world, EvidenceRejected, 9, "(none), got TDX_01", info=info, quote=quote)
    info = world.tcb_info(modules=[world.module(1, world.enclave_level(6))])
    refused(world, EvidenceRejected, 9, "version of the TDX module", info=info, quote=quote)
    info = world.tcb_info(modules=[world.module(1, world.enclave_level(0, "Revoked"))])
    refused(world, EvidenceRejected, 9, "TDX module is revoked", info=info, quote=quote)
    for fields in ({"mrsigner_seam": b"x"}, {"seam_attributes": b"\1"}):
        refused(world, EvidenceRejected, 9, "of the TDX module", quote=world.quote(**fields))


def test_attribute_of_the_module_outside_of_the_mask_is_refused_too(world):
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "00" * 8}
    quote = world.quote(seam_attributes=b"\1")
    info = world.tcb_info(tdxModule=module)
    refused(world, EvidenceRejected, 9, "attributes of the TDX module", info=info, quote=quote)


def test_document_that_was_believed_is_known_by_number_and_time(world):
    """So that no older one is believed afterwards."""
    found, _ = judge(world, world.quote(), world.collateral(root_crl=world.crl(number=None)))
    time = int((NOW - timedelta(days=1)).timestamp())
    assert found.collateral == {
        "intel/root-ca.crl time": time,
        "intel/pck-platform.crl time": time,
        "intel/pck-platform.crl number": 7,
        "intel/tdx-00A06D080000.json time": time,
        "intel/tdx-00A06D080000.json evaluation": 18,
        "intel/tdx-qe-identity.json time": time,
        "intel/tdx-qe-identity.json evaluation": 17,
    }


def test_level_that_is_revoked_for_the_module_or_for_the_machine_is_refused(world):
    for newer, older in (("UpToDate", "Revoked"), ("Revoked", "OutOfDate")):
        levels = [world.level(newer, tdx=6), world.level(older, tdx=5)]
        info = world.tcb_info(levels=levels)
        refused(world, EvidenceRejected, 9, "this version of the firmware is revoked", info=info)


@pytest.mark.parametrize("tee", ["tdx", "sgx"])
def test_revoked_level_is_refused(world, tee):
    info = world.tcb_info(tee, levels=[world.level("Revoked", tdx=5 if tee == "tdx" else None)])
    refused(world, EvidenceRejected, 9, "is revoked by Intel", info=info, tee=tee)


# Status of the machine, of the level, what runs now: status.
RELAUNCHES = [
    ("UpToDate", "UpToDate", (6, 1, 5), "TDRelaunchAdvised"),
    ("SWHardeningNeeded", "UpToDate", (6, 1, 5), "TDRelaunchAdvised"),
    ("ConfigurationNeeded", "UpToDate", (6, 1, 5), "TDRelaunchAdvisedConfigurationNeeded"),
    (
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        (6, 1, 5),
        "TDRelaunchAdvisedConfigurationNeeded",
    ),
    (
        "UpToDate",
        "ConfigurationNeeded",
        (6, 1, 5),
        "TDRelaunchAdvisedConfigurationNeeded",
    ),
    ("UpToDate", "UpToDate", (5, 1, 5), "OutOfDate"),
    ("UpToDate", "UpToDate", (6, 1, 4), "OutOfDate"),
    ("OutOfDate", "OutOfDate", (6, 1, 5), "OutOfDate"),
    ("UpToDate", "UpToDate", (5, 0, 5), "TDRelaunchAdvised"),
    ("UpToDate", "UpToDate", (4, 0, 5), "OutOfDate"),
    ("UpToDate", "UpToDate", (9, 3, 5), "TDRelaunchAdvised"),
    ("UpToDate", "UpToDate", (8, 3, 5), "OutOfDate"),
]


@pytest.mark.parametrize(("machine", "level", "current", "status"), RELAUNCHES)
def test_guest_below_a_module_that_was_updated_since_is_to_be_relaunched(
    world, machine, level, current, status
):
    quote = {
        "version": 5,
        "kind": 3,
        "tcb_svn": bytes((4, 1)) + bytes([4]) * 14,
        "tee_tcb_svn2": bytes(current) + bytes([5]) * 13,
    }
    info = world.tcb_info(
        levels=[world.level(machine), world.level(level, tdx=4)],
        modules=[
            world.module(1, world.enclave_level(6), world.enclave_level(2, "OutOfDate")),
            world.module(3, world.enclave_level(9), world.enclave_level(1, "OutOfDate")),
        ],
    )
    collateral = world.collateral(info=info)
    assert judge(world, world.quote(**quote), collateral)[0].status == status
    theirs, _ = their_status(world, world.raw_quote(**quote), collateral)
    # Which does not compare the version of a module without an identity, nor the third component.
    assert theirs == status or current in ((6, 1, 4), (4, 0, 5))
    older = {"version": 5, "kind": 2, "tcb_svn": quote["tcb_svn"]}
    assert not judge(world, world.quote(**older), collateral)[0].status.startswith("TDRelaunch")
    identity = world.identity(tcbLevels=[world.enclave_level(4, "OutOfDate")])
    collateral = world.collateral(info=info, identity=identity)
    found, _ = judge(world, world.quote(**quote), collateral)
    assert found.status.startswith("OutOfDate")


@pytest.mark.parametrize(
    ("current", "status"),
    [
        ((6, 0, 7, 0), "TDRelaunchAdvised"),
        ((5, 0, 7, 9), "OutOfDate"),
        ((6, 0, 6, 9), "OutOfDate"),
    ],
)
def test_what_runs_now_is_compared_in_its_first_and_third_component(world, current, status):
    newest = [6, 0, 7, 8, *[1] * 12]
    module = world.module(1, world.enclave_level(6), world.enclave_level(2, "OutOfDate"))
    levels = [world.level(tdx=newest), world.level(tdx=0)]
    info = world.tcb_info(levels=levels, modules=[module])
    quote = world.quote(
        version=5,
        kind=3,
        tcb_svn=bytes((4, 1)) + bytes(14),
        tee_tcb_svn2=bytes(current) + bytes(12),
    )
    assert judge(world, quote, world.collateral(info=info))[0].status == status


def test_update_to_a_module_that_intel_does_not_know_is_refused(world):
    svn = bytes((4, 1)) + bytes([5]) * 14
    current = bytes((9, 7)) + bytes([5]) * 14
    quote = world.quote(version=5, kind=3, tcb_svn=svn, tee_tcb_svn2=current)
    module = world.module(1, world.enclave_level(6), world.enclave_level(2, "OutOfDate"))
    info = world.tcb_info(modules=[module])
    refused(world, EvidenceRejected, 9, "(TDX_01), got TDX_07", info=info, quote=quote)


def test_root_for_tests_is_one_certificate():
    real = root_of(None)
    (common,) = real.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert common.value == "Intel SGX Root CA"
    pem = real.public_bytes(Encoding.PEM)
    assert root_of(pem) == real
    with pytest.raises(FormatError, match="expected one root certificate, got 2"):
        root_of(pem * 2)
