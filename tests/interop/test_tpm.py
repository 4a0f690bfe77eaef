# SPDX-License-Identifier: Apache-2.0
"""A TPM in software (swtpm) and Debian's tpm2-tools: what one side makes, the other takes."""

import re
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from imagers.errors import EvidenceRejected
from imagers.evidence.judge import judge_evidence
from imagers.evidence.tpm.collect import (
    AK_HANDLE,
    TPMAttester,
    answer_challenge,
    make_request,
)
from imagers.evidence.tpm.commands import ENDORSEMENT, TPM
from imagers.evidence.tpm.credential import EK_TEMPLATES, make_credential
from imagers.evidence.tpm.enrol import Challenge
from imagers.evidence.tpm.structures import parse_public, spki_of
from imagers.evidence.tpm.verify import TPMVerifier
from imagers.model.base64 import decode_base64, encode_base64
from imagers.model.evidence import Bound, ReportData
from imagers.testing.evidence import AzureSNPWorld, AzureTDXWorld, TPMWorld
from imagers.testing.evidence.tpm import PCR_BOOT, pcr_log, registers
from tests.swtpm import start

NOW = datetime(2026, 11, 29, tzinfo=UTC)
NONCE = b"n" * 48
SECRET = b"s" * 32
SEED = b"imagers.interop with tpm2-tools.."[:32]
# Keys of tpm2_createak, persistent under a handle each.
KEYS = {"rsa": ("rsa", "rsassa", "sha256"), "p256": ("ecc256", "ecdsa", "sha256"),
        "p384": ("ecc384", "ecdsa", "sha384")}  # fmt: skip
HANDLES = dict(zip(KEYS, range(0x81010020, 0x81010023), strict=True))


@pytest.fixture(scope="module")
def tpm(tmp_path_factory):
    for tpm in start(tmp_path_factory.mktemp("tpm")):
        tpm.tool("createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub")
        for name, (kind, scheme, digest) in KEYS.items():
            tpm.tool(
                "createak", "-C", "ek.ctx", "-c", f"{name}.ctx", "-G", kind, "-g", digest,
                "-s", scheme, "-u", f"{name}.pub", "-n", f"{name}.name", "-f", "tss",
            )  # fmt: skip
            tpm.tool("evictcontrol", "-C", "o", "-c", f"{name}.ctx", hex(HANDLES[name]))
        yield tpm


def judged(body):
    return judge_evidence(TPMVerifier(), body, bound=Bound(NONCE), read={}.get, now=NOW)


@pytest.mark.parametrize("name", KEYS)
def test_key_of_tpm2_tools_quotes_by_our_commands(tpm, name):
    with tpm.connect() as line:
        evidence = TPMAttester(handle=HANDLES[name], transmit=line).collect(ReportData(NONCE))
        public = parse_public(TPM(line).read_public(HANDLES[name]))
    assert judged(evidence.body).values["ak_public"] == encode_base64(spki_of(public.key))
    assert public.raw == (tpm.directory / f"{name}.pub").read_bytes()[2:]
    assert public.name == (tpm.directory / f"{name}.name").read_bytes()


@pytest.mark.parametrize("name", KEYS)
def test_our_quote_is_good_for_tpm2_checkquote(tpm, name):
    with tpm.connect() as line:
        evidence = TPMAttester(handle=HANDLES[name], transmit=line).collect(ReportData(NONCE))
    here = tpm.directory
    for part in ("message", "signature"):
        data = decode_base64(evidence.body["tpm_quote"][part], what=part, where="$")
        (here / f"{name}.{part}").write_bytes(data)
    tpm.tool("readpublic", "-c", hex(HANDLES[name]), "-f", "pem", "-o", f"{name}.pem")
    words = ("-u", f"{name}.pem", "-m", f"{name}.message", "-s", f"{name}.signature")
    tpm.tool("checkquote", *words, "-g", KEYS[name][2], "-q", NONCE[:32].hex())
    with pytest.raises(AssertionError):
        tpm.tool("checkquote", *words, "-g", KEYS[name][2], "-q", "00" * 32)


def quoted(tpm, name, selection, *, nonce=NONCE[:32]):
    """Evidence made of what tpm2_quote gives."""
    tpm.tool(
        "quote", "-c", hex(HANDLES[name]), "-l", selection, "-q", nonce.hex(), "-g", KEYS[name][2],
        "-m", "q.message", "-s", "q.signature",
    )  # fmt: skip
    tpm.tool("readpublic", "-c", hex(HANDLES[name]), "-f", "pem", "-o", "q.pem")
    here = tpm.directory
    with tpm.connect() as line:
        values = TPM(line).read_pcrs()
    return {
        "ak_public": encode_base64(spki_of(load_pem_public_key((here / "q.pem").read_bytes()))),
        "tpm_quote": {
            "message": encode_base64((here / "q.message").read_bytes()),
            "signature": encode_base64((here / "q.signature").read_bytes()),
            "pcrs": [one.hex() for one in values],
        },
    }


@pytest.mark.parametrize("name", KEYS)
def test_quote_of_tpm2_tools_is_good(tpm, name):
    tpm.tool("pcrextend", f"16:sha256={'ab' * 32}")
    claims = judged(quoted(tpm, name, "sha256:all"))
    listed = tpm.tool("pcrread", "sha256:16").decode().lower()
    assert claims.values["pcr16"] in listed


@pytest.mark.parametrize(
    "selection", ["sha1:all", "sha256:all+sha1:0", "sha256:0,1,2", "sha384:all"]
)
def test_quote_of_tpm2_tools_of_other_registers_is_refused(tpm, selection):
    with pytest.raises(EvidenceRejected, match="step 3, registers: selection: expected all 24"):
        judged(quoted(tpm, "p256", selection))


def test_nonce_of_another_length_is_refused(tpm):
    with pytest.raises(EvidenceRejected, match="step 5, bound: length of the nonce"):
        judged(quoted(tpm, "p256", "sha256:all", nonce=NONCE))


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_our_credential_is_opened_by_tpm2_activatecredential(tpm, kind):
    """With endorsement keys that tpm2-tools made, of RSA and on P-256."""
    here = tpm.directory
    tpm.tool("createek", "-c", f"{kind}-ek.ctx", "-G", kind, "-f", "pem", "-u", f"{kind}-ek.pem")
    ek = load_pem_public_key((here / f"{kind}-ek.pem").read_bytes())
    name = (here / "p256.name").read_bytes()
    blob, seed = make_credential(ek, name, SECRET)
    # tpm2-tools have a head before both parts, with sizes.
    head = bytes.fromhex("badcc0de00000001")
    parts = len(blob).to_bytes(2) + blob + len(seed).to_bytes(2) + seed
    (here / "credential").write_bytes(head + parts)
    tpm.tool("startauthsession", "--policy-session", "-S", "session.ctx")
    tpm.tool("policysecret", "-S", "session.ctx", "-c", "e")
    tpm.tool(
        "activatecredential", "-c", hex(HANDLES["p256"]), "-C", f"{kind}-ek.ctx", "-i",
        "credential", "-o", "opened", "-P", "session:session.ctx",
    )  # fmt: skip
    tpm.tool("flushcontext", "session.ctx")
    assert (here / "opened").read_bytes() == SECRET


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_credential_of_tpm2_makecredential_is_opened_by_our_commands(tpm, kind):
    here = tpm.directory
    tpm.tool("createek", "-c", "other.ctx", "-G", kind, "-f", "tss", "-u", "other.pub")
    (here / "secret").write_bytes(SECRET)
    name = (here / "rsa.name").read_bytes().hex()
    tpm.tool("makecredential", "-u", "other.pub", "-s", "secret", "-n", name, "-o", "made")
    made = (here / "made").read_bytes()[8:]
    size = int.from_bytes(made[:2])
    blob, seed = made[2 : 2 + size], made[4 + size :]
    with tpm.connect() as line:
        opened = answer_challenge(TPM(line), Challenge(blob, seed), HANDLES["rsa"])
    assert opened == SECRET


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_endorsement_key_of_our_template_is_that_of_tpm2_createek(tpm, kind):
    tpm.tool("createek", "-c", "same.ctx", "-G", kind, "-f", "pem", "-u", "same.pem")
    theirs = spki_of(load_pem_public_key((tpm.directory / "same.pem").read_bytes()))
    with tpm.connect() as line:
        chip = TPM(line)
        with chip.primary(ENDORSEMENT, EK_TEMPLATES[kind]) as key:
            assert spki_of(parse_public(chip.read_public(key)).key) == theirs


def test_certificate_is_read_as_tpm2_nvread_does(tpm):
    with tpm.connect() as line:
        chip = TPM(line)
        request = make_request(chip, AK_HANDLE)
        assert chip.read_nv(0x01C00002).startswith(request.certificate)
    assert tpm.tool("nvread", "0x1c00002").startswith(request.certificate)


@pytest.mark.parametrize("name", KEYS)
def test_quote_of_the_factory_is_good_for_tpm2_checkquote(tpm, name):
    world, here = TPMWorld(SEED, name), tpm.directory
    quote = world.evidence(report_data=NONCE)["tpm_quote"]
    for part in ("message", "signature"):
        data = decode_base64(quote[part], what=part, where="$")
        (here / f"made.{part}").write_bytes(data)
    (here / "made.pem").write_bytes(pem_of(world.key()))
    words = ("-u", "made.pem", "-m", "made.message", "-s", "made.signature", "-g", KEYS[name][2])
    tpm.tool("checkquote", *words, "-q", NONCE[:32].hex())
    with pytest.raises(AssertionError):
        tpm.tool("checkquote", *words, "-q", NONCE[:31].hex())


@pytest.mark.parametrize("kind", [AzureSNPWorld, AzureTDXWorld])
def test_quote_of_azures_factory_is_good_for_tpm2_checkquote(tpm, kind):
    world, here = kind(SEED), tpm.directory
    quote = world.evidence(report_data=NONCE)["tpm_quote"]
    (here / "made.message").write_bytes(bytes.fromhex(quote["message"]))
    head = bytes.fromhex("0014000b0100")
    (here / "made.signature").write_bytes(head + bytes.fromhex(quote["signature"]))
    (here / "made.pem").write_bytes(pem_of(world.key()))
    words = ("-u", "made.pem", "-m", "made.message", "-s", "made.signature", "-g", "sha256")
    tpm.tool("checkquote", *words, "-q", NONCE.hex())


def pem_of(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_log_of_the_factory_gives_tpm2_eventlog_the_same_registers(tpm):
    (tpm.directory / "log").write_bytes(pcr_log(PCR_BOOT))
    told = tpm.tool("eventlog", "log").decode()
    _, _, computed = told.partition("sha256:\n")
    lines = re.findall(r"^ +(\d+) +: 0x([0-9a-f]{64})$", computed, re.MULTILINE)
    found = {int(at): value for at, value in lines}
    values = registers(PCR_BOOT, {})
    assert found == {at: values[at].hex() for at in {one.register for one in PCR_BOOT}}
