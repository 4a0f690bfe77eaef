# SPDX-License-Identifier: Apache-2.0
import json
from base64 import b64encode
from datetime import UTC, datetime

import pytest

from imagers.errors import FormatError, Unsupported
from imagers.evidence.reference import import_references
from imagers.model.references import ReferenceValue

VALUES = {"snp_launch_measurement": ["aa", "bb"], "snp_bootloader": 3, "mr_td": "cc"}


def message(values, /, **changes):
    packed = b64encode(json.dumps(values).encode()).decode()
    return json.dumps({"version": "0.1.0", "type": "sample", "payload": packed} | changes).encode()


@pytest.mark.parametrize("data", [message(VALUES), json.dumps(VALUES).encode()])
def test_message_of_trustee_and_its_payload_give_the_values(data):
    expires = datetime(2027, 1, 1, tzinfo=UTC)
    found = import_references(data, expires=expires, source="rvps")
    assert found[0] == ReferenceValue("snp_launch_measurement", ("aa", "bb"), expires, "rvps")
    assert [one.values for one in found[1:]] == [(3,), ("cc",)]


def test_file_of_our_own_stays_as_it_is():
    data = json.dumps({"reference_values": [{"name": "mr_td", "values": ["00"]}]}).encode()
    assert import_references(data, source="x") == (ReferenceValue("mr_td", ("00",)),)


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
    with pytest.raises(Unsupported, match="'corim'"):
        import_references(message(VALUES, type="corim"))
