# SPDX-License-Identifier: Apache-2.0
"""Evidence of a machine of Azure, by a TPM in software that has what Azure's has, and a service."""

import json
import threading
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from asn1crypto import pem
from cryptography.hazmat.primitives.asymmetric import rsa

from imagers.errors import FormatError, NoTEE, RemoteError
from imagers.evidence.azure.collect import AzureSNPAttester, AzureTDXAttester
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.evidence.tpm.collect import make_request
from imagers.evidence.tpm.commands import TPM
from imagers.evidence.tpm.structures import parse_public
from imagers.model.base64 import decode_base64url
from imagers.model.evidence import Bound, ReportData
from imagers.testing.evidence import AzureSNPWorld, AzureTDXWorld
from tests.swtpm import start

NOW = datetime.now(UTC) + timedelta(hours=1)
NONCE = b"n" * 48
SEED = b"imagers.evidence.azure.collect..."[:32]
AK, REPORT = 0x81000003, "0x01400001"
SIZE = "2048"  # the most that swtpm has in one place


@pytest.fixture(scope="module")
def tpm(tmp_path_factory):
    for tpm in start(tmp_path_factory.mktemp("tpm")):
        with tpm.connect() as line:
            make_request(TPM(line), AK)
        # As Azure's: for its owner to read.
        tpm.tool("nvdefine", REPORT, "-C", "o", "-s", SIZE, "-a", "ownerread|ownerwrite")
        yield tpm


@pytest.fixture
def line(tpm):
    with tpm.connect() as line:
        yield line


class Service:
    """Azure's service for machines: gives what it is told to, and keeps what it was asked."""

    def __init__(self, answer):
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                size = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(size)
                service.asked.append((self.command, self.path, self.headers.get("Metadata"), body))
                data = json.dumps(answer(body)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815  # its name

            def log_message(self, *_):
                pass

        self.asked = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def written(tpm, world, **hardware):
    """The paravisor's report with the key of the TPM in it."""
    with tpm.connect() as line:
        key = parse_public(TPM(line).read_public(AK)).key
    assert isinstance(key, rsa.RSAPublicKey)
    numbers = key.public_numbers()
    jwk = {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB"}
    jwk["n"] = urlsafe_b64encode(numbers.n.to_bytes(256)).decode().rstrip("=")
    data = world.variable_data(members={"keys": [jwk]})
    report, part = world._report(sha256(data).digest(), **hardware)
    raw = world.hcl_report(report, data)[: int(SIZE)]
    (tpm.directory / "report").write_bytes(raw)
    tpm.tool("nvwrite", REPORT, "-C", "o", "-i", "report")
    return raw, part


def test_machine_on_snp_gives_genuine_evidence(tpm):
    world = AzureSNPWorld(SEED, now=NOW)
    _, vcek = written(tpm, world)
    answer = {"vcekCert": pem.armor("CERTIFICATE", vcek).decode(), "certificateChain": ""}
    with Service(lambda _: answer) as service, tpm.connect() as line:
        attester = AzureSNPAttester(service=service.url, transmit=line)
        assert attester.missing() == ""
        evidence = attester.collect(ReportData(NONCE))
        assert service.asked == [("GET", "/metadata/THIM/amd/certification", "true", b"")]
    claims = judge_evidence(
        load_verifier("az-snp-vtpm", roots=world.roots), evidence.body, bound=Bound(NONCE),
        read=world.collateral().get, now=NOW,
    )  # fmt: skip
    assert claims.report_data == NONCE.hex()


def test_machine_on_tdx_gives_genuine_evidence(tpm):
    world = AzureTDXWorld(SEED, now=NOW)
    raw, quote = written(tpm, world)
    answer = {"quote": urlsafe_b64encode(quote).decode()}
    with Service(lambda _: answer) as service, tpm.connect() as line:
        attester = AzureTDXAttester(service=service.url, transmit=line)
        evidence = attester.collect(ReportData(NONCE))
        ((method, path, _, body),) = service.asked
    assert (method, path) == ("POST", "/acc/tdquote")
    report = decode_base64url(json.loads(body)["report"], what="report")
    assert report == raw[32 : 32 + 1024]
    claims = judge_evidence(
        load_verifier("az-tdx-vtpm", roots=world.roots), evidence.body, bound=Bound(NONCE),
        read=world.collateral().get, now=NOW,
    )  # fmt: skip
    assert claims.report_data == NONCE.hex()


def test_machine_of_the_other_kind_says_so(tpm):
    written(tpm, AzureTDXWorld(SEED, now=NOW))
    with tpm.connect() as line:
        assert AzureSNPAttester(transmit=line).missing() == "this machine of Azure is on Intel TDX"
        assert AzureTDXAttester(transmit=line).missing() == ""
        with pytest.raises(NoTEE, match="on Intel TDX"):
            AzureSNPAttester(transmit=line).collect(ReportData(NONCE))
    written(tpm, AzureSNPWorld(SEED, now=NOW))
    with tpm.connect() as line:
        assert "AMD SEV-SNP" in AzureTDXAttester(transmit=line).missing()


def test_service_that_gives_no_certificate_or_does_not_answer_is_told(tpm):
    written(tpm, AzureSNPWorld(SEED, now=NOW))
    with Service(lambda _: {"vcekCert": "x"}) as service, tpm.connect() as line:
        with pytest.raises(FormatError, match="expected a certificate in PEM"):
            AzureSNPAttester(service=service.url, transmit=line).collect(ReportData(NONCE))
        url = service.url
    with tpm.connect() as line, pytest.raises(RemoteError):
        AzureSNPAttester(service=url, transmit=line).collect(ReportData(NONCE))


def test_machine_without_a_report_is_none_of_azure(tmp_path, tpm):
    tpm.tool("nvundefine", REPORT, "-C", "o")
    try:
        with tpm.connect() as line:
            why = AzureSNPAttester(transmit=line).missing()
            assert why == "the TPM has no report of Azure's paravisor (0x01400001)"
    finally:
        tpm.tool("nvdefine", REPORT, "-C", "o", "-s", SIZE, "-a", "ownerread|ownerwrite")
    assert AzureTDXAttester(tmp_path / "x").missing() == f"there is no {tmp_path / 'x'}"
