# SPDX-License-Identifier: Apache-2.0
"""Real evidence and what was changed in it: each change ends at the step that its stage names.

A machine that is genuine is nobody's here: no reference value is known, and none is affirming.
"""

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime

import pytest
from asn1crypto import pem

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.intel.collateral import import_documents
from imagers.evidence.judge import judge_evidence, judge_parsed
from imagers.evidence.plugins import find_parser, load_verifier
from imagers.evidence.snp.verify import parse_file
from imagers.model.evidence import Bound
from imagers.model.strict_json import View
from tests.real_evidence import real_file

# The step of ours that a stage is, as far as the words of the stage go.
STEPS = {
    "report signature": "6, signature",
    "TCB versus VCEK extension": "5, version",
    "host_data": "8, bound",
    "chain": "2, chain",
    "quote signature": "8, signature",
    "QE report data binding": "6, attestation key",
    "collateral validity": "2, revocation",
    "tcbInfo signature": "3, TCB info",
}
CHANGES = [
    "snp-sig-1",
    "snp-tcb-1",
    "snp-host-data",
    "snp-ask-ark-swap",
    "tdx-body",
    "tdx-reportdata",
    "tdx-attkey",
    "tdx-time-late",
    "tdx-tcbinfo",
]
AZURE = ["az-hcl-tcb", "az-hcl-var", "az-hcl-ak", "az-pcr", "az-sig", "az-nonce", "az-tdx-var"]
AT = {"snp": datetime(2026, 11, 29, tzinfo=UTC), "tdx": datetime(2025, 6, 20, 12, tzinfo=UTC)}
COLLATERAL = "tdx/dcap-qvl/tdx_quote_collateral.json"
# Its certificate stands beside it.
LEAVES = {"snp/trustee/test-report.bin": "snp/trustee/test-vcek.der"}


def look(tee, evidence, *, documents=None, now=None, bound=None, roots=None):
    # No lists of AMD are among the real files.
    settings = View({"crl": "optional"} if tee == "snp" else {}, what="settings")
    return judge_parsed(
        load_verifier(tee, settings=settings, roots=roots),
        evidence,
        bound=bound or Bound(),
        read=(documents or {}).get,
        now=now or AT[tee],
    )


def parsed(tee, path, change=lambda data: data):
    data = change(real_file(path).read_bytes())
    if path in LEAVES:
        return parse_file(data, real_file(LEAVES[path]).read_bytes())
    return find_parser(tee)(data)


def documents(edit=lambda _: None):
    theirs = json.loads(real_file(COLLATERAL).read_bytes())
    edit(theirs)
    return import_documents(json.dumps(theirs).encode())


def swapped(pem):
    end = b"-----END CERTIFICATE-----\n"
    first, second, *rest = (one + end for one in pem.split(end)[:-1])
    return b"".join((second, first, *rest))


def changed(row):
    """What comes of the evidence with this change in it."""
    tee, base, value = row["tee"], row["base"], row["value"]
    if row["op"] in ("add", "xor"):

        def change(data):
            new = bytearray(data)
            old = new[row["offset"]]
            new[row["offset"]] = (old + value) % 256 if row["op"] == "add" else old ^ value
            return bytes(new)

        found = None if tee == "snp" else documents()
        return look(tee, parsed(tee, base, change), documents=found)
    if row["op"] == "expect-change":
        return look(tee, parsed(tee, base), bound=Bound(init_data=b"x" * 32))
    if row["op"] == "swap-certificates":
        roots = swapped(real_file(base).read_bytes())
        return look(tee, parsed(tee, "snp/trustee/test-report.bin"), roots=roots)
    if row["op"] == "time":
        now = datetime.fromisoformat(value)
        return look(tee, parsed(tee, base), documents=documents(), now=now)

    def replace(theirs):
        assert value[0] in theirs[row["field"]]
        theirs[row["field"]] = theirs[row["field"]].replace(*value)

    quote = base.removesuffix("_collateral.json")
    return look(tee, parsed(tee, quote), documents=documents(replace))


# The step of ours that a stage is; "" where the evidence cannot be read.
AZURE_STEPS = {
    "SNP TCB version versus VCEK": "5.5, version",
    "var-data hash": "4, variable data",
    "AK public key parse": "",
    "PCR digest": "3, registers",
    "TPM signature": "2, signature",
    "nonce": "6, bound",
}


def azure_parts(tee):
    """The paravisor's report, and the evidence without it."""

    def read(part):
        return real_file(f"{tee}/trustee/{part}").read_bytes()

    body = {"version": 1, "tpm_quote": json.loads(read("tpm-quote-v1.json"))}
    if tee == "az-snp-vtpm":
        _, _, vcek = next(iter(pem.unarmor(read("vcek.pem"), multiple=True)))
        body["vcek"] = urlsafe_b64encode(vcek).decode()
    else:
        body["td_quote"] = urlsafe_b64encode(read("td-quote.bin")).decode()
    return bytearray(read("hcl-report.bin")), body


def look_at_azure(tee, hcl, body, nonce=b"challenge"):
    part = {"snp": {"crl": "optional"}} if tee == "az-snp-vtpm" else {"tdx": {"crl": "optional"}}
    verifier = load_verifier(tee, settings=View(part, what="settings"))
    whole = {**body, "hcl_report": urlsafe_b64encode(hcl).decode()}
    return judge_evidence(verifier, whole, bound=Bound(nonce), read={}.get, now=AT["snp"])


def test_parts_of_a_machine_of_azure_are_genuine_as_they_are():
    assert look_at_azure("az-snp-vtpm", *azure_parts("az-snp-vtpm")).tee == "az-snp-vtpm"
    with pytest.raises(CouldNotVerify, match=r"step 5\.3, TCB info"):
        look_at_azure("az-tdx-vtpm", *azure_parts("az-tdx-vtpm"))


@pytest.mark.parametrize("name", AZURE)
def test_change_to_a_machine_of_azure_is_refused_at_the_step_that_its_stage_names(name):
    rows = json.loads(real_file("mutations.json").read_bytes())
    (row,) = (one for one in rows if one["id"] == name)
    hcl, body = azure_parts(row["tee"])
    nonce = b"challenge"
    if row["op"] == "expect-change":
        nonce = nonce[::-1]
    elif row["op"] == "xor-json-hex":
        quote = body["tpm_quote"]
        _, member, *at = row["field"].split("/")
        place, key = (quote[member], int(at[0])) if at else (quote, member)
        data = bytearray.fromhex(place[key])
        data[row["offset"]] ^= row["value"]
        place[key] = data.hex()
    else:
        old = 0 if row["op"] == "set" else hcl[row["offset"]]
        hcl[row["offset"]] = old + row["value"]
    with pytest.raises((EvidenceRejected, FormatError)) as caught:
        look_at_azure(row["tee"], hcl, body, nonce)
    assert getattr(caught.value, "step", "") == AZURE_STEPS[row["stage"]]


@pytest.mark.parametrize("name", CHANGES)
def test_change_is_refused_at_the_step_that_its_stage_names(name):
    rows = json.loads(real_file("mutations.json").read_bytes())
    (row,) = (one for one in rows if one["id"] == name)
    with pytest.raises((EvidenceRejected, CouldNotVerify)) as caught:
        changed(row)
    (step,) = {step for stage, step in STEPS.items() if row["stage"].startswith(stage)}
    assert caught.value.step == step
    if row["op"] == "expect-change":
        assert (caught.value.claim, caught.value.expected) == (
            "init data in host_data",
            (b"x" * 32).hex(),
        )
        assert len(caught.value.found) == 64


def test_all_changes_to_these_tees_are_here():
    rows = json.loads(real_file("mutations.json").read_bytes())
    assert [one["id"] for one in rows if one["tee"] in ("snp", "tdx", "sgx")] == CHANGES
    assert [one["id"] for one in rows if one["tee"].startswith("az-")] == AZURE


@pytest.mark.parametrize("name", ["csv-measure", "csv-anonce"])
def test_change_of_a_csv_report_is_refused(name):
    rows = json.loads(real_file("mutations.json").read_bytes())
    (row,) = (one for one in rows if one["id"] == name)
    data = bytearray(real_file(row["base"]).read_bytes())
    data[row["offset"]] ^= row["value"]
    issuers = real_file("csv/csv-rs/hsk_cek.cert").read_bytes()

    def judge():
        judge_parsed(
            load_verifier("csv"),
            find_parser("csv")(bytes(data)),
            bound=Bound(),
            read=lambda _: issuers,
            now=AT["snp"],
        )

    with pytest.raises((EvidenceRejected, FormatError)):
        judge()


@pytest.mark.parametrize(
    ("tee", "path", "certificate"),
    [
        ("snp", "snp/trustee/test-report.bin", "snp/trustee/test-vcek.der"),
        ("snp", "snp/openanolis/turin-report.bin", "snp/openanolis/turin-vcek.der"),
        ("snp", "snp/trustee/evidence.json", None),
        ("tdx", "tdx/dcap-qvl/tdx_quote", None),
    ],
)
def test_genuine_machine_of_somebody_is_not_ones_own(tee, path, certificate):
    data = real_file(path).read_bytes()
    if certificate is None:
        evidence = find_parser(tee)(data)
    else:
        evidence = parse_file(data, real_file(certificate).read_bytes())
    claims = look(tee, evidence, documents=documents() if tee == "tdx" else None)
    appraisal = appraise_claims(claims, {}, now=AT[tee])
    assert not appraisal.is_affirming
    assert not appraisal.has_references
    assert appraisal.vector["executables"] == 33


def test_forged_certificate_of_a_chip_is_refused():
    report = real_file("snp/trustee/test-report.bin").read_bytes()
    forged = real_file("snp/trustee/test-vcek-invalid-legacy.der").read_bytes()
    with pytest.raises(EvidenceRejected, match="step 2, chain"):
        look("snp", parse_file(report, forged))


@pytest.mark.parametrize(("tee", "other"), [("snp", "tdx"), ("tdx", "snp"), ("sgx", "tdx")])
def test_evidence_of_another_tee_is_no_evidence(tee, other):
    paths = {
        "snp": "snp/trustee/evidence.json",
        "tdx": "tdx/dcap-qvl/tdx_quote",
        "sgx": "sgx/dcap-qvl/sgx_quote",
    }
    data = real_file(paths[other]).read_bytes()
    with pytest.raises(FormatError):
        find_parser(tee)(data)
