# SPDX-License-Identifier: Apache-2.0
"""Intel's certificates and documents of the factory are as Intel's are."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding

from imagers.evidence.intel import collateral as names
from imagers.testing.evidence import SGXWorld, TDXWorld
from imagers.testing.evidence.intel import HEADER, SGX_BODY, filled

SEED = b"imagers.testing.evidence.intel is"[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture(scope="module", params=["platform", "processor"])
def world(request):
    return TDXWorld(SEED, ca=request.param, now=NOW)


def test_certificates_lead_to_the_root(world):
    root = world.issue("root")
    for role, issuer in (
        ("root", root),
        (world.ca, root),
        ("signing", root),
        ("pck", world.issue(world.ca)),
    ):
        one = world.issue(role)
        one.verify_directly_issued_by(issuer)
        assert one.not_valid_before_utc < NOW < one.not_valid_after_utc
        (where,) = one.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        assert where.full_name[0].value.startswith("https://")
    assert world.roots == root.public_bytes(Encoding.PEM)


def test_root_is_the_same_to_the_last_byte_and_all_else_at_the_same_time():
    """Quotes have the root in them, and another process has made it."""
    one, later = (TDXWorld(SEED, now=NOW + timedelta(days=days)) for days in (0, 3))
    assert one.roots == later.roots
    assert one.chain("pck") != later.chain("pck")
    again = TDXWorld(SEED, now=NOW)
    assert one.quote() == again.quote()
    assert one.collateral() == again.collateral()
    assert TDXWorld(bytes(32), now=NOW).roots != one.roots


def test_lists_are_signed_by_their_issuers(world):
    for issuer in ("root", "platform", "processor"):
        crl = x509.load_der_x509_crl(world.crl(issuer, revoked=[7], number=3))
        assert crl.is_signature_valid(world.key(issuer).public_key())
        assert crl.get_revoked_certificate_by_serial_number(7) is not None
        assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3
        assert crl.last_update_utc < NOW < crl.next_update_utc


@pytest.mark.parametrize(
    ("member", "make"), [("tcbInfo", "tcb_info"), ("enclaveIdentity", "identity")]
)
@pytest.mark.parametrize("kind", [TDXWorld, SGXWorld])
def test_documents_are_signed_over_their_text(kind, member, make):
    world = kind(SEED, now=NOW)
    document = getattr(world, make)(status="OutOfDate", advisories=("INTEL-SA-00003",))
    assert b" " not in document
    read = json.loads(document)
    text = document[len(f'{{"{member}":') : document.rindex(b',"signature"')]
    assert json.loads(text) == read[member]
    signature = bytes.fromhex(read["signature"])
    der = utils.encode_dss_signature(*(int.from_bytes(signature[at : at + 32]) for at in (0, 32)))
    world.key("signing").public_key().verify(der, text, ec.ECDSA(hashes.SHA256()))
    newest = read[member]["tcbLevels"][0]
    assert (newest["tcbStatus"], newest["advisoryIDs"]) == ("OutOfDate", ["INTEL-SA-00003"])
    changed = json.loads(getattr(world, make)(id="other"))
    assert changed[member]["id"] == "other"


@pytest.mark.parametrize("kind", [TDXWorld, SGXWorld])
def test_collateral_is_what_a_quote_needs(kind):
    world = kind(SEED, now=NOW)
    assert tuple(world.collateral()) == names.names(world.tee, world.fmspc.hex(), world.ca)


def test_field_that_there_is_not_is_an_error():
    with pytest.raises(TypeError, match="no field 'x'"):
        filled(HEADER, 48, {"x": 1})
    with pytest.raises(ValueError, match="user_data: expected at most 20 bytes, got 21"):
        filled(HEADER, 48, {"user_data": bytes(21)})
    with pytest.raises(OverflowError):
        filled(SGX_BODY, 384, {"isv_svn": 65536})
    assert filled(HEADER, 48, {"version": 3, "user_data": b"u"})[:2] == b"\3\0"
