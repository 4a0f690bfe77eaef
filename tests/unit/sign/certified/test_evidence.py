# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest

from imagers.errors import FormatError
from imagers.sign.certified.evidence import read_evidence
from imagers.sign.formats.sigstore import SIGNATURE_ANNOTATION
from imagers.sign.found import SigstoreSignature

SIGNATURE = {SIGNATURE_ANNOTATION: base64.b64encode(b"s").decode()}
CERTIFICATE = "dev.sigstore.cosign/certificate"
CHAIN = "dev.sigstore.cosign/chain"
BUNDLE = "dev.sigstore.cosign/bundle"


def read(notes, **wanted):
    wanted = {"with_certificate": True, "with_entry": True, **wanted}
    return read_evidence(SigstoreSignature(b"payload", {**SIGNATURE, **notes}), **wanted)


def test_evidence_of_a_key_alone_has_nothing_else():
    evidence = read({})
    assert (evidence.data, evidence.payload, evidence.signature) == (b"payload", b"payload", b"s")
    assert (evidence.certificate, evidence.chain, evidence.entries) == (None, (), ())


def test_evidence_never_has_the_last_certificate_of_the_chain(pki, pem):
    """It is a root by the word of the signer."""
    leaf = pki.leaf()
    notes = {CERTIFICATE: pem(leaf).decode(), CHAIN: pem(pki.middle, pki.root).decode()}
    evidence = read(notes)
    assert (evidence.certificate, evidence.chain) == (leaf, (pki.middle,))
    assert read({**notes, CHAIN: pem(pki.root).decode()}).chain == ()
    assert read({**notes, CHAIN: ""}).chain == ()


@pytest.mark.parametrize("notes", [{CERTIFICATE: "x"}, {BUNDLE: "x"}, {CHAIN: "x"}])
def test_evidence_that_is_not_wanted_is_not_read(notes):
    evidence = read(notes, with_certificate=False, with_entry=False)
    assert (evidence.certificate, evidence.entries) == (None, ())


@pytest.mark.parametrize("notes", [{CERTIFICATE: "x"}, {BUNDLE: "x"}, {BUNDLE: json.dumps({})}])
def test_evidence_that_is_wanted_and_cannot_be_read_is_refused(notes):
    with pytest.raises(FormatError):
        read(notes)


def test_evidence_of_two_certificates_is_refused(pki, pem):
    with pytest.raises(FormatError, match="one certificate, got 2"):
        read({CERTIFICATE: pem(pki.leaf(), pki.middle).decode()})
