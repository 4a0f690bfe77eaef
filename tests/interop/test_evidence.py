# SPDX-License-Identifier: Apache-2.0
"""Evidence of the factories is true to the formats: verifiers of others take it, with its root.

go-sev-guest, go-tdx-guest, ccatoken and nitrite run in a program that `make peers` builds; dcap-qvl
is a package of Python. What each thing that is wrong does to ours is in
tests/unit/testing/evidence/wrongs: it is refused, so that nothing is left that they refuse and ours
takes.
"""

import asyncio
import base64
import json
import subprocess
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from imagers.evidence.intel import collateral as names
from imagers.evidence.snp.revocation import crl_name
from imagers.model.base64 import decode_base64
from imagers.testing.evidence import (
    CCAWorld,
    CollateralServer,
    NitroWorld,
    SGXWorld,
    SNPWorld,
    TDXWorld,
)
from imagers.testing.evidence.wrongs.wrong import INIT_DATA, MALFORMED, REPORT_DATA
from tests.interop.conftest import PEERS

PROGRAM = PEERS / "evidence"
SEED = b"imagers: verifiers of others also"[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
PCS = "https://api.trustedservices.intel.com"
ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
BOUND = {"report_data": REPORT_DATA, "init_data": INIT_DATA}

needs_go = pytest.mark.skipif(
    not PROGRAM.exists(),
    reason="build/peers/evidence is not there: 'make peers' builds it, with Go",
)


def encoded(data):
    return base64.b64encode(data).decode()


def snp_question(world, body, collateral, roots):
    certificate = body["cert_chain"][0]
    is_vlek = certificate["cert_type"] == "VLEK"
    listed = collateral.get(crl_name(world.product, is_vlek=is_vlek))
    url = f"https://kdsintf.amd.com/vcek/v1/{world.product.name}/crl"
    return {
        "TEE": "snp",
        "Product": world.product.name,
        "Now": int(NOW.timestamp()),
        "Roots": encoded(roots),
        "Evidence": encoded(world.raw_files(body)["report.bin"]),
        "Certificate": encoded(bytes(certificate["data"])),
        "Kind": certificate["cert_type"],
        "Documents": {} if listed is None else {url: {"Body": encoded(listed), "Header": {}}},
    }


def tdx_question(world, body, collateral, roots):
    info, identity = names.tcb_info_name("tdx", world.fmspc.hex()), names.identity_name("tdx")
    crl = f"{PCS}/sgx/certification/v4/pckcrl?ca={world.ca}&encoding=der"
    places = {
        f"{PCS}/tdx/certification/v4/tcb?fmspc={world.fmspc.hex()}": (
            info, "Tcb-Info-Issuer-Chain", collateral.get(names.chain_name(info)),
        ),
        f"{PCS}/tdx/certification/v4/qe/identity": (
            identity, "Sgx-Enclave-Identity-Issuer-Chain",
            collateral.get(names.chain_name(identity)),
        ),
        crl: (names.crl_name(world.ca), "Sgx-Pck-Crl-Issuer-Chain", world.chain(world.ca, "root")),
        ROOT_CRL: (names.ROOT_CRL, "", b""),
    }  # fmt: skip
    return {
        "TEE": "tdx",
        "Now": int(NOW.timestamp()),
        "Roots": encoded(roots),
        "Evidence": encoded(decode_base64(body["quote"], what="quote", where="$")),
        "Documents": {
            url: {"Body": encoded(collateral[name]), "Header": {header: [quote(chain or b"")]}}
            for url, (name, header, chain) in places.items()
            if name in collateral
        },
    }


def question(world, wrong_or_body, roots):
    """Of a TEE whose evidence is all in one file."""
    raw = next(iter(world.raw_files(wrong_or_body).values()))
    return {
        "TEE": world.tee,
        "Now": int(NOW.timestamp()),
        "Roots": encoded(roots),
        "Evidence": encoded(raw),
        "Documents": {},
    }


def ask_go(questions):
    """What the verifiers in Go say of each: "" where they take it."""
    lines = "".join(json.dumps(one) + "\n" for one in questions)
    done = subprocess.run(
        [PROGRAM], input=lines, capture_output=True, text=True, check=True, timeout=300
    )
    answers = done.stdout.split("\n")[:-1]
    assert len(answers) == len(questions)
    return answers


@needs_go
@pytest.mark.parametrize("vlek", [False, True])
@pytest.mark.parametrize(("product", "versions"), [("Milan", (2, 3, 4, 5)), ("Genoa", (3, 4, 5))])
def test_go_sev_guest_takes_evidence_of_each_version(product, versions, vlek):
    """It has no Turin's fmc, and of version 2 no product that it does not know by its stepping."""
    world = SNPWorld(SEED, product, now=NOW)
    bodies = [world.evidence(version=version, vlek=vlek, **BOUND) for version in versions]
    asked = [snp_question(world, one, world.collateral(), world.roots) for one in bodies]
    assert ask_go(asked) == [""] * len(versions)


@needs_go
@pytest.mark.parametrize("product", ["Milan", "Genoa"])
def test_go_sev_guest_refuses_what_the_signatures_refuse(product):
    world = SNPWorld(SEED, product, now=NOW)
    wrongs = [one for one in world.wrongs() if one.error is not MALFORMED]
    asked = [snp_question(world, one.body, one.collateral, one.roots) for one in wrongs]
    check_taken(wrongs, ask_go(asked), "2, chain", "6, signature")


@needs_go
def test_go_tdx_guest_takes_evidence_of_its_version():
    """It knows quotes of version 4, of machines below the Platform CA."""
    world = TDXWorld(SEED, now=NOW)
    asked = [tdx_question(world, world.evidence(**BOUND), world.collateral(), world.roots)]
    assert ask_go(asked) == [""]


@needs_go
def test_go_tdx_guest_refuses_what_the_signatures_refuse():
    world = TDXWorld(SEED, now=NOW)
    wrongs = list(world.wrongs(version=4))
    asked = [tdx_question(world, one.body, one.collateral, one.roots) for one in wrongs]
    steps = ("1, chain", "5, QE report", "6, attestation key", "8, signature")
    check_taken(wrongs, ask_go(asked), *steps)


@needs_go
@pytest.mark.parametrize("is_legacy", [False, True])
def test_ccatoken_takes_evidence_of_each_profile(is_legacy):
    world = CCAWorld(SEED, is_legacy=is_legacy, now=NOW)
    assert ask_go([question(world, world.evidence(**BOUND), world.roots)]) == [""]


@needs_go
@pytest.mark.parametrize("is_legacy", [False, True])
def test_ccatoken_refuses_what_the_signatures_refuse(is_legacy):
    world = CCAWorld(SEED, is_legacy=is_legacy, now=NOW)
    wrongs = list(world.wrongs())
    answers = ask_go([question(world, one.body, one.roots) for one in wrongs])
    check_taken(wrongs, answers, "2, platform", "3, binding", "4, realm")


@needs_go
def test_nitrite_takes_evidence():
    world = NitroWorld(SEED, now=NOW)
    assert ask_go([question(world, world.evidence(report_data=REPORT_DATA), world.roots)]) == [""]


@needs_go
def test_nitrite_refuses_what_the_signatures_refuse():
    world = NitroWorld(SEED, now=NOW)
    wrongs = list(world.wrongs())
    answers = ask_go([question(world, one.body, one.roots) for one in wrongs])
    # A root is known by its key, the order of a bundle does not matter, nor what a key is for.
    usages = ("for signing code", "with name constraints", "of an authority", "signs certificates")
    orders = ("backwards", "two swapped", "without its root", "one twice", "one more", "root twice")
    unseen = {one.name for one in wrongs if one.name.endswith((*usages, *orders))}
    unseen |= {"another root", "certificate of the machine"}
    check_taken(wrongs, answers, "1, chain", "2, signature", unseen=unseen)


def check_taken(wrongs, answers, *steps, unseen=()):
    """Of what these steps of ours refuse, others take nothing but what they do not look at."""
    taken = [one for one, answer in zip(wrongs, answers, strict=True) if not answer]
    assert {one.name for one in taken if one.step in steps} == set(unseen)
    assert len(taken) < len(wrongs) / 2


def by_dcap_qvl(world, body, collateral, roots):
    """What dcap-qvl says: the status, or why not."""
    import dcap_qvl
    from cryptography import x509

    def signed(name, member):
        document = collateral[name].decode()
        text, _, signature = document.removeprefix(f'{{"{member}":').rpartition(',"signature":"')
        return text, bytes.fromhex(signature.removesuffix('"}'))

    info, identity = (
        names.tcb_info_name(world.tee, world.fmspc.hex()),
        names.identity_name(world.tee),
    )
    try:
        given = dcap_qvl.QuoteCollateralV3(
            world.chain(world.ca, "root").decode(),
            collateral[names.ROOT_CRL],
            collateral[names.crl_name(world.ca)],
            collateral[names.chain_name(info)].decode(),
            *signed(info, "tcbInfo"),
            collateral[names.chain_name(identity)].decode(),
            *signed(identity, "enclaveIdentity"),
        )
        root = x509.load_pem_x509_certificate(roots).public_bytes(Encoding.DER)
        raw = decode_base64(body["quote"], what="quote", where="$")
        return dcap_qvl.verify_with_root_ca(raw, given, root, int(NOW.timestamp())).status
    except (KeyError, ValueError) as error:
        return f"refused: {error}"


@pytest.mark.parametrize("ca", ["platform", "processor"])
@pytest.mark.parametrize("kind", [TDXWorld, SGXWorld])
def test_dcap_qvl_takes_evidence_of_each_form(kind, ca):
    world = kind(SEED, ca=ca, now=NOW)
    forms = [{}] if kind is SGXWorld else [{}, {"version": 5}, {"version": 5, "kind": 3}]
    for form in forms:
        body = world.evidence(**form, **BOUND)
        assert by_dcap_qvl(world, body, world.collateral(), world.roots) == "UpToDate"


@pytest.mark.parametrize("kind", [TDXWorld, SGXWorld])
def test_dcap_qvl_refuses_what_the_signatures_refuse(kind):
    world = kind(SEED, now=NOW)
    wrongs = list(world.wrongs())
    said = [by_dcap_qvl(world, one.body, one.collateral, one.roots) for one in wrongs]
    answers = [one if one.startswith("refused") else "" for one in said]
    # The root comes from the caller, and the PCE is not compared.
    unseen = ("another root", "PCK of another PCE", "TCB info of another PCE")
    steps = {f"{number}, " for number in range(1, 9)}
    judged = {one.step for one in wrongs if one.step[:3] in steps}
    check_taken(wrongs, answers, *judged, unseen=unseen)


@pytest.mark.parametrize("kind", [TDXWorld, SGXWorld])
def test_dcap_qvl_gets_its_collateral_from_our_service(kind):
    import dcap_qvl

    world = kind(SEED, now=NOW)
    raw = world.quote()

    async def get(url):
        return await dcap_qvl.get_collateral(url, raw)

    with CollateralServer(world) as server:
        given = asyncio.run(get(server.url))
        assert {one.status for one in server.requests} == {200}
    root = world.issue("root").public_bytes(Encoding.DER)
    said = dcap_qvl.verify_with_root_ca(raw, given, root, int(NOW.timestamp()))
    assert said.status == "UpToDate"
