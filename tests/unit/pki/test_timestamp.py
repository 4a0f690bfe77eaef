# SPDX-License-Identifier: Apache-2.0
"""Time stamps that openssl made; each attack names the step of timestamp.py."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from imagers.errors import SignatureInvalid
from imagers.pki.timestamp import check_timestamp

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there")
STAMPS = [ExtendedKeyUsageOID.TIME_STAMPING]
DATA = b"the signature"


class Authority:
    """A time-stamp authority over the files that `openssl ts` wants."""

    def __init__(self, pki, pem, folder):
        self.pki, self.pem, self.folder = pki, pem, folder
        (folder / "serial").write_text("01\n")
        self.leaf = None

    def certify(self, **options):
        options = {"usages": STAMPS, "critical_usages": True, "sans": [], **options}
        self.leaf = self.pki.leaf("tsa", **options)
        key = self.pki.keys["tsa"].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (self.folder / "key.pem").write_bytes(key)
        (self.folder / "cert.pem").write_bytes(self.pem(self.leaf))
        (self.folder / "chain.pem").write_bytes(self.pem(self.pki.middle))

    def stamp(self, data, *, digest="sha256", signer_digest="sha256", certs="yes", token=False):
        if self.leaf is None:
            self.certify()
        (self.folder / "ts.cnf").write_text(
            f"""[tsa]
default_tsa = x
[x]
serial = {self.folder}/serial
crypto_device = builtin
signer_cert = {self.folder}/cert.pem
certs = {self.folder}/chain.pem
signer_key = {self.folder}/key.pem
signer_digest = {signer_digest}
default_policy = 1.2.3.4
digests = sha1, sha256, sha384, sha512
ess_cert_id_alg = sha256
"""
        )
        (self.folder / "data").write_bytes(data)
        query, reply = self.folder / "q", self.folder / "r"
        cert = ["-cert"] if certs == "yes" else []
        self.run("-query", "-data", self.folder / "data", f"-{digest}", *cert, "-out", query)
        out = ["-token_out"] if token else []
        words = ["-config", self.folder / "ts.cnf", "-queryfile", query, "-out", reply]
        self.run("-reply", *words, *out)
        return reply.read_bytes()

    def run(self, *words):
        done = subprocess.run(["openssl", "ts", *words], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def tsa(pki, pem, tmp_path):
    return Authority(pki, pem, tmp_path)


def test_timestamp_gives_the_time(tsa):
    for stamp in (tsa.stamp(DATA), tsa.stamp(DATA, token=True), tsa.stamp(DATA, digest="sha512")):
        when = check_timestamp(stamp, DATA, [tsa.pki.root], what="x")
        assert abs(when - datetime.now(UTC)) < timedelta(minutes=5)


def test_timestamp_with_an_rsa_key(tsa):
    tsa.certify(key=rsa.generate_private_key(65537, 2048))
    stamp = tsa.stamp(DATA, signer_digest="sha512")
    assert check_timestamp(stamp, DATA, [tsa.pki.root], what="x")


def test_timestamp_without_its_certificates_takes_the_given_ones(tsa):
    stamp = tsa.stamp(DATA, certs="no")
    given = [tsa.pki.root, tsa.pki.middle, tsa.leaf]
    assert check_timestamp(stamp, DATA, given, what="x")
    refused("neither in it nor given", stamp, DATA, given[:2])


def refused(piece, stamp, data, given):
    with pytest.raises(SignatureInvalid) as caught:
        check_timestamp(stamp, data, given, what="x")
    assert piece in str(caught.value)
    assert "\n" not in str(caught.value)


def test_timestamp_over_other_bytes_is_refused(tsa):
    """Step 6."""
    refused("for another signature", tsa.stamp(DATA), DATA + b"!", [tsa.pki.root])


def test_timestamp_over_a_weak_hash_is_refused(tsa):
    """Step 6."""
    refused("SHA-2", tsa.stamp(DATA, digest="sha1"), DATA, [tsa.pki.root])


def test_timestamp_signed_with_a_weak_hash_is_refused(tsa):
    """Step 4."""
    refused("SHA-2", tsa.stamp(DATA, signer_digest="sha1"), DATA, [tsa.pki.root])


def test_timestamp_of_another_authority_is_refused(tsa):
    """Step 5."""
    stranger = type(tsa.pki)()
    refused("no given root", tsa.stamp(DATA), DATA, [stranger.root])
    refused("no given root", tsa.stamp(DATA), DATA, [])


def test_timestamp_by_a_certificate_for_other_things_is_refused(tsa):
    """Step 5."""
    tsa.certify()
    stamp = tsa.stamp(DATA)
    assert check_timestamp(stamp, DATA, [tsa.pki.root], what="x")
    key = tsa.pki.keys["tsa"]
    for change in (
        {"critical_usages": False},
        {"usages": [*STAMPS, ExtendedKeyUsageOID.CODE_SIGNING]},
        {"usages": [ExtendedKeyUsageOID.CODE_SIGNING]},
    ):
        options = {"usages": STAMPS, "critical_usages": True, "sans": [], "key": key, **change}
        other = tsa.pki.leaf("tsa", **options)
        # Of the same name and key: what the stamp names is the certificate itself (step 3).
        swapped = stamp.replace(
            tsa.leaf.public_bytes(serialization.Encoding.DER),
            other.public_bytes(serialization.Encoding.DER),
        )
        with pytest.raises(SignatureInvalid):
            check_timestamp(swapped, DATA, [tsa.pki.root], what="x")


def test_timestamp_from_before_its_certificate_is_refused(tsa):
    """Step 5: the time in the stamp, not ours."""
    tsa.certify(start=datetime.now(UTC) + timedelta(days=1))
    refused("not valid at", tsa.stamp(DATA), DATA, [tsa.pki.root])


def test_timestamp_with_any_changed_byte_is_refused(tsa):
    """Steps 1 to 6: no byte of it is free, but in certificates that are not needed."""
    stamp = tsa.stamp(DATA, certs="no", token=True)
    given = [tsa.pki.root, tsa.pki.middle, tsa.leaf]
    good = check_timestamp(stamp, DATA, given, what="x")
    for place in range(len(stamp)):
        changed = stamp[:place] + bytes([stamp[place] ^ 0x01]) + stamp[place + 1 :]
        try:
            assert check_timestamp(changed, DATA, given, what="x") == good, place
        except SignatureInvalid:
            continue


@pytest.mark.parametrize(
    "stamp", [b"", b"0\x00", b"0\x03\x02\x01\x00", b"\xff" * 90, bytes(300_000)]
)
def test_timestamp_of_bad_bytes_is_refused(stamp):
    refused("x: time stamp", stamp, DATA, [])


def test_timestamp_that_was_not_granted_is_refused():
    refused("time stamp", bytes.fromhex("30053003020102"), DATA, [])
