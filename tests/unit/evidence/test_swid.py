# SPDX-License-Identifier: Apache-2.0
"""Measurements of a SWID tag, from XML that cannot make a reader work."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.swid import MAX_SWID, parse_swid
from tests.real_evidence import real_file

HEAD = (
    '<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd"'
    ' xmlns:h="http://www.w3.org/2001/04/xmlenc#sha384">'
    '<Meta xmlns:rim="https://trustedcomputinggroup.org/resource/'
    'tcg-reference-integrity-manifest-rim-information-model/" edition="GPU-x"'
    ' rim:FirmwareManufacturer="A Maker"/>'
)
ONE, TWO = "1" * 96, "a" * 96


def resource(index=1, active="True", kind="Measurement", **hashes):
    told = " ".join(f'h:{name}="{value}"' for name, value in (hashes or {"Hash0": ONE}).items())
    return f'<Resource type="{kind}" index="{index}" active="{active}" {told}/>'


def tag(*resources, head=HEAD, end="</SoftwareIdentity>"):
    return (head + "<Payload>" + "".join(resources) + "</Payload>" + end).encode()


def test_measurements_have_the_names_of_trustee():
    found = parse_swid(
        tag(
            resource(1),
            resource(2, Hash0=TWO, Hash1=ONE),
            resource(3, Hash0="0" * 96),
            resource(4, active="False"),
            resource(5, kind="Other"),
            resource(6, Hash0="0" * 96, Hash1=TWO),  # may be missing
        )
    )
    assert found == {
        "A_Maker.GPU_x.measurement_1": [ONE],
        "A_Maker.GPU_x.measurement_2": [ONE, TWO],
        "A_Maker.GPU_x.measurement_6": ["0" * 96, TWO],
    }


ENTITY = '<!DOCTYPE s [<!ENTITY a "aaaa">]>'
OUTSIDE = '<!DOCTYPE s SYSTEM "file:///etc/passwd">'


@pytest.mark.parametrize(
    ("data", "piece"),
    [
        (b"", "is no XML"),
        (b"<a>", "expected a SoftwareIdentity"),
        (b"<a/>", "expected a SoftwareIdentity"),
        (tag(), "no measurements"),
        (tag(resource(), head=HEAD.replace("FirmwareManufacturer", "Other")), "no manufacturer"),
        (ENTITY.encode() + tag(resource()), "has a document type"),
        (OUTSIDE.encode() + tag(resource()), "has a document type"),
        (tag("&a;"), "is no XML: undefined entity"),
        (tag(resource(Hash0="1" * 95)), "expected a measurement"),
        (tag(resource(Hash0="A" * 96)), "expected a measurement"),
        (tag(resource("x")), "expected a measurement with its index"),
        (tag(resource(Other="1")), "expected a measurement"),
        (tag("<a>" * 40), "too many elements"),
        (tag("<a/>" * 10_001), "too many elements"),
        (tag(*(resource(number) for number in range(1001))), "at most 1000"),
        (tag(resource()).replace(b"<Payload>", HEAD[HEAD.index("<Meta") :].encode()), "Meta twice"),
        (tag(resource()) + b"<a/>", "is no XML"),
        (b"\xff\xfe" + tag(resource()), "is no XML"),
        (b"<" * (MAX_SWID + 1), "expected at most"),
    ],
    ids=range(19),
)
def test_what_is_none_is_refused(data, piece):
    with pytest.raises(FormatError) as caught:
        parse_swid(data)
    assert piece in str(caught.value)


@given(st.binary(max_size=200), st.integers(0, 700))
def test_any_bytes_are_one_or_none(raw, at):
    good = tag(resource())
    for data in (raw, good[:at] + raw[:3] + good[at + 3 :]):
        with contextlib.suppress(FormatError):
            parse_swid(data)


def test_real_one_is_read():
    found = parse_swid(base64.b64decode(real_file("rvps/trustee/test-rim.b64").read_bytes()))
    assert found["NVIDIA_Corporation.GPU.measurement_1"][0].startswith("b558fdac")
    assert "NVIDIA_Corporation.GPU.measurement_0" not in found
    assert all(name.startswith("NVIDIA_Corporation.GPU.measurement_") for name in found)
