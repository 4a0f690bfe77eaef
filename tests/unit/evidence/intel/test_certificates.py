# SPDX-License-Identifier: Apache-2.0
"""Chains of machines and of documents, and lists of revoked certificates."""

from base64 import b64encode
from datetime import timedelta

import pytest
from asn1crypto import crl as asn1_crl
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.intel.certificates import (
    built_in_root,
    parse_pck,
    read_crl,
    read_signer,
    verified_pck,
)
from imagers.pki.chain import parse_root
from imagers.pki.der import encode
from tests.real_evidence import real_file
from tests.unit.evidence.intel.conftest import ARC, NOW, REAL, integer, pair

# cryptography's, of a changed serial number; the certificate is refused all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")


def test_root_that_comes_along_is_intels():
    der = built_in_root().public_bytes(Encoding.DER)
    assert der == real_file("sgx/dcap-qvl/TrustedRootCA.der").read_bytes()
    pem = real_file("tdx/go-tdx-guest/trusted_root.pem").read_bytes()
    assert parse_root(pem, what="x") == built_in_root()


@pytest.mark.parametrize("case", REAL.values(), ids=REAL)
def test_certificate_of_a_real_machine_says_what_it_is_for(case):
    pck = verified_pck(case.quote.chain, built_in_root())
    info = f"intel/{case.tee}-{pck.fmspc.hex().upper()}.json"
    assert pck.ca == ("processor" if case.tee == "sgx" else "platform")
    assert len(pck.components) == 16
    assert info in case.collateral
    assert pck.instance.hex() not in repr(pck)


def test_certificate_of_a_machine_has_its_instance_and_flags(world, processor_world):
    pck = verified_pck(world.chain(), world.root)
    assert (pck.instance, pck.flags, pck.sgx_type) == (b"I" * 16, (True,) * 3, "Scalable")
    assert (pck.fmspc, pck.pce_svn, pck.components) == (world.fmspc, 11, (5,) * 16)
    other = verified_pck(processor_world.chain(), processor_world.root)
    assert (other.instance, other.flags, other.ca) == (b"P" * 16, (None,) * 3, "processor")


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\0", b"\0" * 80])
def test_text_of_certificates_may_end_in_a_line_end_and_zeros(world, end):
    text = world.chain().rstrip() + end
    assert parse_pck(text).leaf == parse_pck(world.chain()).leaf


def wrapped(der, width, end=b"\n"):
    text = b64encode(der)
    lines = end.join(text[at : at + width] for at in range(0, len(text), width))
    return b"-----BEGIN CERTIFICATE-----" + end + lines + end + b"-----END CERTIFICATE-----" + end


def test_text_of_certificates_as_services_write_it_is_read(world):
    """In the wild the first one has longer lines, and the next begins where it ends."""
    ders = [one.public_bytes(Encoding.DER) for one in (world.pck, world.authority, world.root)]
    first, *others = ders
    for width, end in ((64, b"\n"), (76, b"\n"), (76, b"")):
        text = wrapped(first, width).rstrip(b"\n") + end
        text += b"".join(wrapped(one, 64) for one in others)
        assert parse_pck(text) == parse_pck(world.chain())


def test_text_of_certificates_of_another_form_is_refused(world):
    ders = [one.public_bytes(Encoding.DER) for one in (world.pck, world.authority, world.root)]
    good = b"".join(wrapped(one, 64) for one in ders)
    assert good == world.chain()
    for text in (
        b"".join(wrapped(one, 72) for one in ders),
        b"".join(wrapped(one, 64, b"\r\n") for one in ders),
        b"\n" + good,
        b"comment\n" + good,
        good.replace(b"-----\n-----", b"-----\n\n-----"),
        good + b"\n",
        good + b"\0\1",
        good.replace(b"MII", b"M II", 1),
        b"".join(ders),
        b"",
    ):
        with pytest.raises(FormatError, match=r"are not PEM in lines of 64|expected 2 or 3"):
            parse_pck(text)
    for count in (1, 4):
        text = b"".join(wrapped(one, 64) for one in (ders * 2)[:count])
        with pytest.raises(FormatError, match=f"expected 2 or 3, got {count}"):
            parse_pck(text)
    with pytest.raises(FormatError, match="at most 16384 bytes"):
        parse_pck(bytes(16385))


def test_root_may_be_left_out_of_the_chain(world):
    assert verified_pck(world.chain(world.pck, world.authority), world.root).root is None


@pytest.mark.parametrize(
    ("changes", "piece"),
    [
        ({".1": None, ".6": None}, f"{ARC}.1 with tag 0x04"),
        ({".2": None}, f"{ARC}.2 with tag 0x30"),
        ({".4": None}, f"{ARC}.4 with tag 0x04"),
        ({".4": pair(".4", encode(0x04, b"12345"))}, f"expected 6 bytes in {ARC}.4, got 5"),
        ({".3": pair(".3", encode(0x02, b"\0\0"))}, f"{ARC}.3 with tag 0x04"),
        ({".5": pair(".5", encode(0x0A, b"\3"))}, "expected an SGX type of 0 to 2, got 3"),
        ({".6": pair(".6", encode(0x04, b"I"))}, f"expected 16 bytes in {ARC}.6, got 1"),
        ({".8": pair(".4", encode(0x04, bytes(6)))}, f"{ARC}.4 twice"),
        ({".8": encode(0x04, b"x")}, "expected pairs in the extension"),
        ({".8": encode(0x30, encode(0x04, b"x"))}, "expected pairs in the extension"),
        ({".8": encode(0x30, encode(0x06, b"\x2a"), b"\5\0")}, "expected identifiers below"),
        ({".2": pair(".2", encode(0x30, pair(".2.1", integer(5))))}, f"{ARC}.2.2 with tag"),
        (
            {
                ".2": pair(
                    ".2", encode(0x30, *(pair(f".2.{n}", integer(256)) for n in range(1, 17)))
                )
            },
            f"expected a number of 0 to 255 in {ARC}.2.1",
        ),
        (
            {".2": pair(".2", encode(0x30, pair(".2.1", encode(0x02, b"\xff"))))},
            f"expected a number of 0 to 255 in {ARC}.2.1",
        ),
        ({".7": pair(".7", encode(0x30, pair(".7.1", b"\5\0")))}, f"{ARC}.7.1 with tag 0x01"),
    ],
)
def test_extension_that_lacks_what_it_has_to_say_is_refused(world, changes, piece):
    chain = world.chain(world.issue_pck(changes=changes), world.authority, world.root)
    with pytest.raises(FormatError) as caught:
        parse_pck(chain)
    assert piece in str(caught.value)


def test_chain_in_other_roles_is_refused(world):
    for chain, piece in (
        (world.chain(world.authority, world.root), "expected CN 'Intel SGX PCK Certificate'"),
        (world.chain(world.pck, world.root), "expected an issuer Intel SGX PCK Platform CA"),
        (world.chain(world.authority, world.pck, world.root), "expected CN"),
        (
            world.chain(
                world.issue("pck", "Intel SGX PCK Certificate", "ca"), world.authority, world.root
            ),
            f"expected the extension {ARC}",
        ),
    ):
        with pytest.raises(FormatError, match=piece):
            parse_pck(chain)


def ca(world, **more):
    more = {"is_ca": True} | more
    return world.issue("ca", "Intel SGX PCK Platform CA", more.pop("issuer", "root"), **more)


@pytest.mark.parametrize(
    ("make", "piece"),
    [
        (lambda w: (w.pck, ca(w, issuer="other", issuer_name="Intel SGX Root CA")), "not signed"),
        (lambda w: (w.pck, ca(w, issuer_name="Intel SGX Root CA 2")), "not signed"),
        (lambda w: (w.issue_pck(issuer="other"), w.authority), "not signed"),
        (lambda w: (w.issue_pck(issuer="root"), w.authority), "not signed"),
        (lambda w: (w.issue_pck(is_ca=True), w.authority), "is an authority's"),
        (lambda w: (w.pck, ca(w, is_ca=False, usage=True)), "is not an authority's"),
        (lambda w: (w.pck, ca(w, usage=False)), "not for signatures of this kind"),
        (lambda w: (w.issue_pck(usage=True), w.authority), "not for signatures of this kind"),
        (lambda w: (w.issue_pck(algorithm=hashes.SHA384()), w.authority), "with SHA-256"),
        (
            lambda w: (
                w.pck,
                ca(
                    w,
                    extensions=[
                        (
                            x509.NameConstraints(
                                permitted_subtrees=[x509.DNSName("x")], excluded_subtrees=None
                            ),
                            True,
                        )
                    ],
                ),
            ),
            "critical extension 2.5.29.30",
        ),
    ],
)
def test_chain_that_intel_did_not_sign_for_this_is_refused(world, make, piece):
    chain = world.chain(*make(world), world.root)
    with pytest.raises(EvidenceRejected) as caught:
        verified_pck(chain, world.root)
    assert piece in str(caught.value)


def test_key_on_another_curve_is_refused(world):
    for key in (
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ):
        pck = world.issue_pck(key=key)
        with pytest.raises(FormatError, match="expected a key on P-256"):
            parse_pck(world.chain(pck, world.authority))
        signer = world.issue("signer", "Intel SGX TCB Signing", "root", key=key)
        with pytest.raises(FormatError, match="expected a key on P-256"):
            read_signer(world.chain(signer), world.root, "x")


def test_signer_of_documents_is_the_one_for_them(world):
    assert read_signer(world.chain(world.signer), world.root, "x").name == "Intel SGX TCB Signing"
    for certificate, piece in (
        (world.authority, "expected a signer 'Intel SGX TCB Signing'"),
        (world.issue("signer", "Intel SGX TCB Signing", "ca"), "not signed by Intel SGX Root CA"),
        (world.issue("signer", "Intel SGX TCB Signing", "root", is_ca=True), "an authority's"),
    ):
        with pytest.raises(EvidenceRejected, match=piece):
            read_signer(world.chain(certificate, world.root), world.root, "x")
    with pytest.raises(FormatError, match="expected 1 or 2 certificates, got 3"):
        read_signer(world.chain(world.signer, world.root, world.root), world.root, "x")


def test_certificate_without_a_name_is_refused(world):
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(world.root.subject)
        .public_key(world.keys["signer"].public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
        .sign(world.keys["root"], hashes.SHA256())
    )
    with pytest.raises(FormatError, match="expected one common name"):
        read_signer(world.chain(certificate), world.root, "x")


def test_list_of_intel_is_read():
    root = read_crl(real_file("tdx/go-tdx-guest/rootcrl.der").read_bytes(), built_in_root(), "x")
    assert (root.number, root.serials) == (1, frozenset())
    pck = verified_pck(REAL["tdx under debug"].quote.chain, built_in_root())
    data = real_file("tdx/go-tdx-guest/pckcrl").read_bytes()
    crl = read_crl(data, pck.issuer.certificate, "x")
    assert len(crl.serials) == 44
    with pytest.raises(EvidenceRejected, match="not signed by Intel SGX Root CA"):
        read_crl(data, built_in_root(), "x")


def test_list_of_a_part_is_could_not_look(world):
    point = x509.IssuingDistributionPoint(
        full_name=None,
        relative_name=None,
        only_contains_user_certs=True,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    for extension in (point, x509.DeltaCRLIndicator(1)):
        crl = world.crl(extensions=[(extension, True)])
        with pytest.raises(CouldNotVerify, match="expected a x of every certificate"):
            read_crl(crl, world.root, "x")


def test_list_that_does_not_say_when_the_next_one_comes_is_could_not_look(world):
    crl = asn1_crl.CertificateList.load(world.crl())
    body = crl["tbs_cert_list"]
    del body["next_update"]
    crl["signature"] = world.keys["root"].sign(body.dump(force=True), ec.ECDSA(hashes.SHA256()))
    with pytest.raises(CouldNotVerify, match="the x does not say when the next one comes"):
        read_crl(crl.dump(force=True), world.root, "x")


def test_list_without_a_number_counts(world):
    assert read_crl(world.crl(number=None), world.root, "x").number is None


def test_bytes_that_are_no_list_are_refused(world):
    for data in (b"", b"x", world.root.public_bytes(Encoding.DER), bytes(1024 * 1024 + 1)):
        with pytest.raises(FormatError):
            read_crl(data, world.root, "x")


def test_each_changed_byte_of_a_list_is_refused(world):
    data = world.crl(revoked=[world.pck])
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises((FormatError, EvidenceRejected, CouldNotVerify)):
                read_crl(bytes(changed), world.root, "x")


def test_each_changed_bit_of_a_chain_is_refused(world):
    """Also where the text is made anew around it."""
    for number, certificate in enumerate((world.pck, world.authority, world.root)):
        ders = [one.public_bytes(Encoding.DER) for one in (world.pck, world.authority, world.root)]
        for at in range(len(ders[number])):
            changed = bytearray(certificate.public_bytes(Encoding.DER))
            changed[at] ^= 1 << at % 8
            ders[number] = bytes(changed)
            with pytest.raises((FormatError, EvidenceRejected)):
                verified_pck(b"".join(wrapped(one, 64) for one in ders), world.root)


@given(st.binary(max_size=600))
def test_any_bytes_are_no_certificates(data):
    for text in (data, wrapped(data, 64) * 3):
        with pytest.raises(FormatError):
            parse_pck(text)


@pytest.mark.parametrize("end", [b"X", b"XX\0", b"\0X", b" "])
def test_text_of_certificates_ends_with_zeros_only(world, end):
    with pytest.raises(FormatError, match="are not PEM"):
        parse_pck(world.chain() + end)


def test_flags_of_a_platform_are_in_their_order(world):
    flags = (pair(f".7.{at}", encode(0x01, value)) for at, value in enumerate((b"\xff", b"\0"), 1))
    pck = world.issue_pck(changes={".7": pair(".7", encode(0x30, *flags))})
    found = parse_pck(world.chain(pck, world.authority))
    assert found.flags == (True, False, None)
    for hidden in ("instance", "serial", "key=", "root=", "certificate="):
        assert hidden not in repr(found)


def test_dates_are_those_of_the_certificate_to_the_second(world):
    leaf = parse_pck(world.chain()).leaf
    for when in (leaf.begin, leaf.end):
        leaf.check_dates(when, EvidenceRejected)
    for when in (leaf.begin - timedelta(seconds=1), leaf.end + timedelta(seconds=1)):
        with pytest.raises(EvidenceRejected, match="Intel SGX PCK Certificate is not valid at"):
            leaf.check_dates(when, EvidenceRejected)
    crl = read_crl(world.crl(), world.root, "x")
    crl.check(crl.end)
    with pytest.raises(CouldNotVerify):
        crl.check(crl.end + timedelta(seconds=1))
    assert "serials" not in repr(crl)


def test_root_that_did_not_sign_itself_is_refused(world):
    root = world.issue(
        "root", "Intel SGX Root CA", "other", issuer_name="Intel SGX Root CA", is_ca=True
    )
    with pytest.raises(EvidenceRejected, match="Root CA is not signed by Intel SGX Root CA"):
        verified_pck(world.chain(world.pck, world.authority), root)
    with pytest.raises(EvidenceRejected, match="Root CA is not signed by Intel SGX Root CA"):
        read_signer(world.chain(world.signer), root, "x")
    with pytest.raises(EvidenceRejected, match="root of the document's signer is not the trusted"):
        read_signer(world.chain(world.signer, root), world.root, "x")


def test_signature_that_is_said_to_have_unused_bits_is_refused(world):
    """Which no signature covers; where its last bit is a zero, a reader takes both."""
    while True:
        pck = world.issue_pck()
        if pck.signature[-1] % 2 == 0:
            break
    der = bytearray(pck.public_bytes(Encoding.DER))
    assert der[-len(pck.signature) - 1] == 0
    der[-len(pck.signature) - 1] = 1
    chain = wrapped(bytes(der), 64) + world.chain(world.authority)
    assert parse_pck(chain).leaf.name == "Intel SGX PCK Certificate"
    with pytest.raises(EvidenceRejected, match="is not signed by Intel SGX PCK Platform CA"):
        verified_pck(chain, world.root)


@pytest.mark.parametrize("changes", [{"name": "Other"}, {"algorithm": hashes.SHA384()}])
def test_list_by_the_same_key_of_another_form_is_refused(world, changes):
    name = changes.get("name", "Intel SGX Root CA")
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .last_update(NOW)
        .next_update(NOW + timedelta(days=1))
        .sign(world.keys["root"], changes.get("algorithm", hashes.SHA256()))
    )
    with pytest.raises(EvidenceRejected, match="is not signed by Intel SGX Root CA"):
        read_crl(crl.public_bytes(Encoding.DER), world.root, "x")
