# SPDX-License-Identifier: Apache-2.0
"""Entries of a log, made with a key of our own."""

import base64
import hashlib
import json

import pytest
import rfc8785
from cryptography.hazmat.primitives import serialization

from imagers.errors import FormatError, SignatureInvalid
from imagers.sign.certified.rekor import (
    LogEntry,
    check_dsse,
    check_entry,
    check_hashedrekord,
    parse_bundle,
)

PAYLOAD, SIGNATURE = b"payload", b"signature"


def b64(data):
    return base64.b64encode(data).decode()


def body_of(key, *, payload=PAYLOAD, signature=SIGNATURE, pem=None, **changes):
    return {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}},
            "signature": {
                "content": b64(signature),
                "publicKey": {"content": b64(pem or key.public_key.to_pem())},
            },
        },
        **changes,
    }


def dsse_of(key, **changes):
    return {
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(PAYLOAD).hexdigest()},
            "signatures": [{"signature": b64(SIGNATURE), "verifier": b64(key.public_key.to_pem())}],
            **changes,
        },
    }


def entry_of(log, body, *, log_id=None, time=1795000000, signer=None):
    payload = {
        "body": b64(json.dumps(body).encode()),
        "integratedTime": time,
        "logIndex": 7,
        "logID": log_id or log.public_key.fingerprint,
    }
    promise = (signer or log).sign(rfc8785.dumps(payload))
    return {"SignedEntryTimestamp": b64(promise), "Payload": payload}


def parsed(document):
    return parse_bundle(json.dumps(document))


def compare(entry, key, check=check_hashedrekord):
    check(entry, payload=PAYLOAD, signature=SIGNATURE, signer_der=key.public_key.spki, what="x")


def test_entry_that_a_given_log_promised_gives_its_time(key, other_key):
    entry = parsed(entry_of(other_key, body_of(key)))
    when = check_entry(entry, [key.public_key, other_key.public_key], what="x")
    assert when.timestamp() == 1795000000
    compare(entry, key)


def test_entry_of_another_log_is_refused(key, other_key):
    entry = parsed(entry_of(other_key, body_of(key)))
    with pytest.raises(SignatureInvalid, match="no given log has promised it"):
        check_entry(entry, [key.public_key], what="x")
    for document in (
        entry_of(other_key, body_of(key), log_id="00" * 32),
        entry_of(other_key, body_of(key), signer=key),
    ):
        with pytest.raises(SignatureInvalid, match="no given log"):
            check_entry(parsed(document), [other_key.public_key], what="x")


@pytest.mark.parametrize("member", ["body", "integratedTime", "logIndex", "logID"])
def test_entry_with_a_changed_member_is_refused(key, other_key, member):
    document = entry_of(other_key, body_of(key))
    value = document["Payload"][member]
    document["Payload"][member] = (
        value + 1 if isinstance(value, int) else value.translate(str.maketrans("Ae0", "Bf1"))
    )
    with pytest.raises(SignatureInvalid, match="no given log"):
        check_entry(parsed(document), [other_key.public_key], what="x")


@pytest.mark.parametrize(
    ("piece", "change"),
    [
        ("another payload", {"payload": b"other"}),
        ("another signature", {"signature": b"other"}),
        ("kind hashedrekord", {"kind": "intoto"}),
        ("kind hashedrekord", {"apiVersion": "0.0.2"}),
        ("is missing", {"spec": {}}),
        ("one PEM block", {"pem": b"no pem"}),
        ("one PEM block", {"pem": b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----"}),
    ],
)
def test_entry_about_something_else_is_refused(key, other_key, piece, change):
    entry = parsed(entry_of(other_key, body_of(key, **change)))
    with pytest.raises(SignatureInvalid, match=piece):
        compare(entry, key)


def test_entry_about_another_key_is_refused(key, other_key):
    entry = parsed(entry_of(other_key, body_of(other_key)))
    with pytest.raises(SignatureInvalid, match="another key or certificate"):
        compare(entry, key)


def test_entry_key_is_compared_by_content_and_not_by_its_text(key, other_key):
    der = key.public_key.spki
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----"
    assert serialization.load_pem_public_key(pem)
    compare(parsed(entry_of(other_key, body_of(key, pem=pem))), key)


def test_entry_of_an_envelope_is_compared_as_well(key, other_key):
    compare(parsed(entry_of(other_key, dsse_of(key))), key, check_dsse)
    two = [{"signature": b64(SIGNATURE), "verifier": b64(key.public_key.to_pem())}] * 2
    for change in (
        {"signatures": two},
        {"signatures": []},
        {"payloadHash": {"algorithm": "sha256", "value": "0" * 64}},
        {"payloadHash": {"algorithm": "md5", "value": "0" * 64}},
    ):
        entry = parsed(entry_of(other_key, dsse_of(key, **change)))
        with pytest.raises(SignatureInvalid):
            compare(entry, key, check_dsse)
    with pytest.raises(SignatureInvalid, match="kind dsse"):
        compare(parsed(entry_of(other_key, body_of(key))), key, check_dsse)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("Payload"),
        lambda d: d.update(more=1),
        lambda d: d.update(SignedEntryTimestamp="!"),
        lambda d: d["Payload"].update(more=1),
        lambda d: d["Payload"].update(integratedTime="1"),
        lambda d: d["Payload"].update(integratedTime=-1),
        lambda d: d["Payload"].update(integratedTime=10**15),
        lambda d: d["Payload"].update(logIndex=True),
    ],
)
def test_bundle_of_another_shape_is_refused(key, change):
    document = entry_of(key, body_of(key))
    change(document)
    with pytest.raises(FormatError) as caught:
        parsed(document)
    assert caught.value.what == "log entry"


def test_entry_without_a_canonical_form_is_refused(key):
    entry = LogEntry("x", 1, 2**60, key.public_key.fingerprint, b"")
    with pytest.raises(SignatureInvalid, match="no canonical form"):
        check_entry(entry, [key.public_key], what="x")


@pytest.mark.parametrize("body", ["!", b64(b"[]"), b64(b'{"a":1,"a":2}')])
def test_entry_with_a_body_that_is_none_is_refused(key, body):
    with pytest.raises(SignatureInvalid):
        compare(LogEntry(body, 1, 1, "", b""), key)
