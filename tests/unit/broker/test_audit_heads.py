# SPDX-License-Identifier: Apache-2.0
import json
from datetime import UTC, datetime

import pytest
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from imagers.broker import audit_heads as module
from imagers.broker.audit_heads import AuditHeads, parse_heads
from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.store import Store
from imagers.broker.keeping.tables import AUDIT_TEXTS
from imagers.broker.keeping.transaction import Link
from imagers.broker.start import open_state
from imagers.broker.tokens import load_signing_key, make_signing_key
from imagers.errors import FormatError, SignatureInvalid
from imagers.pki.jose import sign_token
from tests.unit.broker.keeping.conftest import unsealed

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ROW = dict.fromkeys(AUDIT_TEXTS, "")


@pytest.fixture
def private():
    return make_signing_key()


def heads_of(private):
    return AuditHeads(private, clock=lambda: NOW)


@pytest.fixture
def heads(private):
    return heads_of(private)


@pytest.fixture
def store(tmp_path):
    with unsealed(Store(SQLiteDatabase(tmp_path / "broker.sqlite"))) as store:
        append(store)
        yield store


def append(store):
    with store.transaction() as transaction:
        transaction.append_audit(ROW)


def last_link(store):
    with store.reading() as transaction:
        return transaction.last_link()


def count_heads(store):
    with store.reading() as transaction:
        return len(transaction.all_audit_heads())


def export(heads, store):
    with store.transaction() as transaction:
        heads.sign(transaction)
        return json.loads(heads.to_bytes(transaction.audit_heads()))


@pytest.fixture
def document(heads, store):
    return export(heads, store)


def parse(document):
    return parse_heads(json.dumps(document).encode(), what="head.json")


def test_head_that_was_exported_says_what_the_last_row_was(document, store):
    (head,) = parse(document).heads
    assert (head.link, head.at) == (last_link(store), "2026-11-01T12:00:00+00:00")


def test_head_is_a_jws_that_others_check(document, store):
    (jwk,) = document["keys"]["keys"]
    assert "d" not in jwk
    message = JWS()
    message.deserialize(document["heads"][0], JWK(**jwk))
    assert json.loads(message.payload) == {
        "iat": int(NOW.timestamp()),
        "broker": "broker",
        "number": 1,
        "hash": last_link(store).hash.hex(),
    }
    assert json.loads(message.objects["protected"])["typ"] == "imagers-audit-head+jwt"


def test_last_head_of_each_chain_is_exported(heads, store):
    export(heads, store)
    append(store)
    assert [one.link.number for one in parse(export(heads, store)).heads] == [2]
    assert count_heads(store) == 2


def test_head_of_another_key_is_refused(document, store):
    append(store)  # for one row there is one head
    other = export(heads_of(make_signing_key()), store)
    with pytest.raises(SignatureInvalid, match=r"^head\.json: is not signed by a key for heads"):
        parse(document | {"heads": other["heads"]})
    (jwk,) = document["keys"]["keys"]
    renamed = {"keys": [jwk | {"kid": other["keys"]["keys"][0]["kid"]}]}
    with pytest.raises(SignatureInvalid):
        parse({"keys": renamed, "heads": other["heads"]})


def test_head_that_was_changed_is_refused(document):
    first, payload, signature = document["heads"][0].split(".")
    for changed in (f"{first}.{payload[:-2]}AA.{signature}", f"{first}.{payload}.{'A' * 86}"):
        with pytest.raises((SignatureInvalid, FormatError)):
            parse(document | {"heads": [changed]})


GOOD = {"iat": 0, "broker": "b", "number": 1, "hash": "0" * 64}


def sign(document, private, said, typ="imagers-audit-head+jwt"):
    header = {"typ": typ, "kid": document["keys"]["keys"][0]["kid"]}
    return document | {"heads": [sign_token(said, key=load_signing_key(private), header=header)]}


@pytest.mark.parametrize(
    "wrong",
    [{"hash": "00"}, {"number": "1"}, {"iat": -1}, {"iat": 10**15}, {"broker": 1}],
    ids=["hash", "number", "early", "late", "broker"],
)
def test_signed_text_that_is_no_head_is_refused(document, private, wrong):
    assert len(parse(sign(document, private, GOOD)).heads) == 1
    with pytest.raises(FormatError, match=r"^head\.json"):
        parse(sign(document, private, GOOD | wrong))


def test_token_of_another_kind_by_the_same_key_is_no_head(document, private):
    with pytest.raises(SignatureInvalid):
        parse(sign(document, private, GOOD, typ="JWT"))


def test_file_that_has_no_heads_is_refused():
    for data in (b"", b"{}", b"[]", b'{"keys":{"keys":[]},"heads":["x"]}', b"\xff"):
        with pytest.raises(FormatError, match=r"^head\.json"):
            parse_heads(data, what="head.json")


def test_head_is_signed_with_the_first_row_and_then_once_a_minute(heads, store, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    store.before_commit = heads.keep
    for at, count in ((1000, 1), (1059, 1), (1060, 2), (1061, 2), (1200, 3)):
        now[0] = at
        append(store)
        assert count_heads(store) == count
    now[0] = 2000
    with store.transaction() as transaction:  # nothing was appended
        transaction.set_setting("a", b"1")
    assert count_heads(store) == 3


def test_store_of_a_broker_keeps_a_signed_head_beside_its_rows(state):
    with state.store.reading() as transaction:
        signed = transaction.audit_heads()
        ((_, hashed),) = transaction.audit_chains()
    (head,) = parse_heads(state.audit_heads.to_bytes(signed), what="head").heads
    assert head.link == Link("broker", 1, hashed)


def test_key_for_heads_is_not_that_of_tokens_and_is_kept(state):
    document = json.loads(state.audit_heads.to_bytes([]))
    tokens = json.loads(state.guest_tokens.jwks())
    assert document["keys"]["keys"][0]["kid"] != tokens["keys"][0]["kid"]
    state.close()
    with open_state(state.config) as again:
        assert json.loads(again.audit_heads.to_bytes([])) == document
