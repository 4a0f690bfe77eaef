# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from imagers.errors import FormatError
from imagers.sign.certified.trusted_root import parse_trusted_root

TYPE = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"


def raw_of(data):
    return {"rawBytes": base64.b64encode(data).decode()}


def chain(*certificates, **more):
    der = serialization.Encoding.DER
    return {
        "certChain": {"certificates": [raw_of(c.public_bytes(der)) for c in certificates]}
    } | more


def log(key, **valid):
    return {"publicKey": {**raw_of(key.public_key.spki), "validFor": {"start": "x", **valid}}}


@pytest.fixture
def document(pki, key):
    return {
        "mediaType": TYPE,
        "tlogs": [log(key)],
        "certificateAuthorities": [chain(pki.middle, pki.root)],
        "timestampAuthorities": [chain(pki.root)],
        "ctlogs": [{"anything": 1}],
    }


def parse(document):
    return parse_trusted_root(json.dumps(document).encode(), what="root")


def test_trusted_root_gives_keys_and_certificates(document, pki, key):
    root = parse(document)
    assert root.logs == (key.public_key,)
    assert root.authorities == (pki.middle, pki.root)
    assert root.stampers == (pki.root,)


def test_trusted_root_leaves_out_what_ends(document, pki, key, other_key):
    document["tlogs"] = [log(key, end="2030-01-01T00:00:00Z"), log(other_key)]
    document["certificateAuthorities"].append(chain(pki.root, validFor={"end": "2020"}))
    document["timestampAuthorities"] = [chain(pki.root, validFor={"end": "2999"})]
    root = parse(document)
    assert root.logs == (other_key.public_key,)
    assert root.authorities == (pki.middle, pki.root)
    assert root.stampers == ()


def test_trusted_root_leaves_out_logs_of_other_keys(document):
    der = (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    document["tlogs"] = [{"publicKey": raw_of(der)}]
    assert parse(document).logs == ()


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": "application/json"},
        {"mediaType": None},
        {"tlogs": "x"},
        {"tlogs": ["x"]},
        {"tlogs": [{}]},
        {"tlogs": [{"publicKey": {"rawBytes": "!"}}]},
        {"tlogs": [{"publicKey": {"rawBytes": "AAAA"}}]},
        {"tlogs": [{}] * 65},
        {"certificateAuthorities": [{"certChain": {"certificates": ["x"]}}]},
        {"timestampAuthorities": [{"certChain": {"certificates": [{"rawBytes": "AAAA"}]}}]},
    ],
)
def test_trusted_root_of_another_shape_is_refused(document, change):
    with pytest.raises(FormatError) as caught:
        parse({**document, **change})
    assert caught.value.what == "root"
