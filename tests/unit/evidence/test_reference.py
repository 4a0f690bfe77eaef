# SPDX-License-Identifier: Apache-2.0
import json
from base64 import b64encode
from datetime import UTC, datetime

import cbor2
import pytest

from imagers.errors import CouldNotVerify, FormatError, NoSignature, Unsupported
from imagers.evidence.reference import import_references
from imagers.model.references import ReferenceValue
from tests.unit.evidence.test_corim import KEY, corim, measured, pem, signed
from tests.unit.evidence.test_swid import resource, tag

VALUES = {"snp_launch_measurement": ["aa", "bb"], "snp_bootloader": 3, "mr_td": "cc"}


def message(values, /, **changes):
    packed = b64encode(json.dumps(values).encode()).decode()
    return json.dumps({"version": "0.1.0", "type": "sample", "payload": packed} | changes).encode()


@pytest.mark.parametrize("data", [message(VALUES), json.dumps(VALUES).encode()])
def test_message_of_trustee_and_its_payload_give_the_values(data):
    expires = datetime(2027, 1, 1, tzinfo=UTC)
    found = import_references(data, expires=expires, source="rvps").references
    assert found[0] == ReferenceValue("snp_launch_measurement", ("aa", "bb"), expires, "rvps")
    assert [one.values for one in found[1:]] == [(3,), ("cc",)]


def test_file_of_our_own_stays_as_it_is():
    data = json.dumps({"reference_values": [{"name": "mr_td", "values": ["00"]}]}).encode()
    assert import_references(data, source="x").references == (ReferenceValue("mr_td", ("00",)),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"a b": ["00"]}',
        b'{"a": {}}',
        b'{"a": []}',
        b'{"a": [1.5]}',
        b'{"a": null}',
        message(VALUES, payload="%"),
        message([]),
    ],
    ids=range(9),
)
def test_what_is_none_is_refused(data):
    with pytest.raises(FormatError, match="reference values"):
        import_references(data)


def test_message_of_another_type_is_not_supported():
    with pytest.raises(Unsupported, match="'toy': expected one of sample, corim, swid"):
        import_references(message(VALUES, type="toy"))


def packed(kind, payload):
    return message({}, type=kind, payload=b64encode(payload).decode())


def test_message_with_a_manifest_and_its_payload_give_the_same():
    expires = datetime(2026, 12, 31, tzinfo=UTC)
    payload = corim(measured("mr_td"), measured(7), m4={1: cbor2.CBORTag(1, 1798761600)})
    for data in (payload, packed("corim", payload)):
        found = import_references(data, source="x")
        (one,) = found.references
        assert (one.name, one.values, one.source) == ("mr_td", ("00" * 32,), "x")
        assert one.expires == datetime(2027, 1, 1, tzinfo=UTC)
        assert found.left_out == 1
        assert import_references(data, expires=expires).references[0].expires == expires


def test_message_with_a_swid_tag_and_its_payload_give_the_same():
    payload = tag(resource())
    expected = (ReferenceValue("A_Maker.GPU_x.measurement_1", ("1" * 96,)),)
    for data in (payload, packed("swid", payload)):
        assert import_references(data).references == expected


@pytest.mark.parametrize("kind", ["sample", "corim", "swid"])
@pytest.mark.parametrize(
    "payload", [b"{}", corim(measured("mr_td")), tag(resource())], ids=["sample", "corim", "swid"]
)
def test_payload_is_of_the_type_that_the_message_says(kind, payload, request):
    if request.node.callspec.id == f"{kind}-{kind}":
        import_references(packed(kind, payload))
    else:
        with pytest.raises(FormatError, match=f"expected one of the type '{kind}'"):
            import_references(packed(kind, payload))


def test_manifest_that_says_nothing_here_is_not_supported():
    with pytest.raises(Unsupported, match="none of its 1 measurements is a claim of a TEE here"):
        import_references(corim(measured(7)))


def test_signed_manifest_needs_the_key_of_who_signed_it():
    data = signed(corim(measured("mr_td")))
    assert import_references(data, key=pem(KEY)).references[0].name == "mr_td"
    assert import_references(packed("corim", data), key=pem(KEY)).references[0].name == "mr_td"
    with pytest.raises(CouldNotVerify):
        import_references(data)


@pytest.mark.parametrize("data", [message(VALUES), tag(resource()), corim(measured("mr_td"))])
def test_what_nobody_signed_is_refused_where_a_key_is_given(data):
    with pytest.raises(NoSignature):
        import_references(data, key=pem(KEY))
