# SPDX-License-Identifier: Apache-2.0
import gzip
import hashlib
import tomllib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.init_data import (
    ALGORITHMS,
    FIELDS,
    MAX_INIT_DATA,
    digest_for,
    init_data_claims,
    make_init_data,
    of_annotation,
    parse_init_data,
    to_annotation,
)
from tests.real_evidence import real_file

GOOD = b'version = "0.1.0"\nalgorithm = "sha384"\n[data]\n"aa.toml" = "a"\n'


def test_digest_is_over_the_bytes_as_they_are():
    assert parse_init_data(GOOD).digest == hashlib.sha384(GOOD).digest()
    assert parse_init_data(GOOD + b"\n").digest != parse_init_data(GOOD).digest
    assert dict(parse_init_data(GOOD).data) == {"aa.toml": "a"}


@pytest.mark.parametrize(
    "before",
    [
        "",
        '"b" = "\\""\n',
        "'b' = '''''''\n",
        '"b" = """\\""""""\n# "\n',
        "b = 'a' # '\n",
    ],
)
def test_key_of_many_parts_is_refused_before_it_costs_memory(before):
    key = ".".join(["a"] * 100_000)  # tens of gigabytes, for a parser
    document = GOOD + f'{before}{key} = "x"\n'.encode()
    with pytest.raises(FormatError, match="at most 32 dots in keys, got 99999"):
        parse_init_data(document)


@pytest.mark.parametrize("text", ["...", 'a"""', "a\n'''", "\\", '\\"', "#", "a\n'"])
def test_dots_in_texts_are_no_keys(text):
    data = {f"file-{number}.toml": text + "." * 100 for number in range(9)}
    assert dict(parse_init_data(make_init_data(data)).data) == data


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_gives_a_digest_of_its_size(algorithm):
    document = make_init_data({"a": "b"}, algorithm)
    size = {"sha256": 32, "sha384": 48, "sha512": 64, "sm3": 32}[algorithm]
    assert len(parse_init_data(document).digest) == size


@pytest.mark.parametrize("tee", [tee for tee, (name, _) in FIELDS.items() if name != "PCR8"])
@pytest.mark.parametrize("size", [32, 48, 64])
def test_digest_fills_the_field_of_a_tee_or_is_cut(tee, size):
    digest = bytes(range(1, size + 1))
    field = FIELDS[tee][1]
    fitted = digest_for(tee, digest)
    assert len(fitted) == field
    assert fitted == (digest + bytes(64))[:field]


@pytest.mark.parametrize(
    ("document", "piece"),
    [
        (b"", "version: expected a text"),
        (b"\xff", "is no TOML"),
        (b"= 1", "is no TOML"),
        (b"a = " + b"[" * 100_000, "is no TOML"),
        (GOOD.replace(b'"0.1.0"', b"1"), "version: expected a text"),
        (GOOD.replace(b"sha384", b"sha1"), "algorithm: expected one of sha256"),
        (GOOD.replace(b'"sha384"', b"[]"), "algorithm: expected one of sha256"),
        (GOOD.replace(b'= "a"', b"= 1"), "data.aa.toml: expected a text"),
        (GOOD.replace(b"[data]", b"[other]"), "expected version, algorithm and data, got 'other'"),
        (b'version = "0.1.0"\nalgorithm = "sha256"\ndata = []', "data: expected a table"),
        (bytes(MAX_INIT_DATA + 1), "expected at most"),
    ],
    ids=range(11),
)
def test_document_that_is_none_is_refused(document, piece):
    with pytest.raises(FormatError) as caught:
        parse_init_data(document)
    assert piece in str(caught.value)


@given(st.dictionaries(st.text(), st.text(), max_size=4))
def test_document_that_is_made_says_what_was_given(data):
    try:
        document = make_init_data(data)
    except FormatError:
        assert any(0xD800 <= ord(c) < 0xE000 for text in (*data, *data.values()) for c in text)
        return
    assert tomllib.loads(document.decode())["data"] == data


@pytest.mark.parametrize(
    "text", ["a\n", "a\n" + "'" * 3 + "\n", "it's\n'", "a\r\nb", "\x7f", "\x00\n", "\t\n"]
)
def test_texts_that_toml_writes_in_different_ways_come_back(text):
    assert dict(parse_init_data(make_init_data({"a": text})).data) == {"a": text}


@given(st.binary(max_size=300))
def test_annotation_gives_the_document_back(document):
    assert of_annotation(to_annotation(document)) == document
    assert to_annotation(document) == to_annotation(document)


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("", "expected one whole gzip"),
        ("%%%", "expected gzip in base64"),
        ("H4sI", "expected one whole gzip"),
        (b64encode(b"text").decode(), "expected gzip in base64"),
        (b64encode(gzip.compress(b"a", mtime=0)[:-1]).decode(), "expected one whole gzip"),
        (b64encode(gzip.compress(b"a", mtime=0) + b"b").decode(), "expected one whole gzip"),
        (
            b64encode(gzip.compress(bytes(MAX_INIT_DATA + 1), mtime=0)).decode(),
            "expected at most",
        ),
    ],
    ids=range(7),
)
def test_annotation_that_is_none_is_refused(text, piece):
    with pytest.raises(FormatError, match=piece):
        of_annotation(text)


def test_document_of_a_real_guest_has_the_digest_that_it_names():
    document = real_file("initdata/trustee/init-data-with-policy.toml").read_bytes()
    found = parse_init_data(document)
    assert (found.algorithm, list(found.data)) == ("sha256", ["policy.rego"])
    assert found.digest == hashlib.sha256(document).digest()
    assert of_annotation(to_annotation(document)) == document


def test_register_of_a_tpm_was_extended_once_with_the_digest_cut_or_padded():
    for digest, event in ((b"i" * 48, b"i" * 32), (b"i" * 20, b"i" * 20 + bytes(12))):
        assert digest_for("tpm", digest) == hashlib.sha256(bytes(32) + event).digest()


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("aa.toml", "[token_configs]\nurl = 'x'\n", {"token_configs": {"url": "x"}}),
        ("cdh.toml", "a = [1, true, 1.5]\n", {"a": [1, True, 1.5]}),
        ("cdh.toml", "a = 2026-01-01\n", {"a": "2026-01-01"}),
        ("cdh.toml", "a = nan\n", "a = nan\n"),
        ("aa.toml", "no toml", "no toml"),
        ("aa.toml", "a" + ".a" * 2000 + " = 1", "a" + ".a" * 2000 + " = 1"),
        ("aa.toml", "a = " + "[" * 3000, "a = " + "[" * 3000),
        ("other.toml", "a = 1\n", "a = 1\n"),
        ("policy.rego", "package a\n", "package a\n"),
        ("policy.rego", "policy_data := {", "policy_data := {"),
        ("policy.rego", "policy_data := {}\nallow := true\n", "policy_data := {}\nallow := true\n"),
        ("policy.rego", 'policy_data := {"a": 1, "a": 2}', 'policy_data := {"a": 1, "a": 2}'),
    ],
    ids=range(12),
)
def test_texts_that_are_known_are_seen_in_parts(name, text, seen):
    assert init_data_claims({name: text}) == {name: seen}


def test_data_of_the_policy_of_an_agent_is_seen_in_place_of_its_text():
    text = 'package a\n\npolicy_data := {\n  "containers": [{"OCI": {}}]\n}\n'
    claims = init_data_claims({"policy.rego": text, "b": "c"})
    assert claims == {"agent_policy_claims": {"containers": [{"OCI": {}}]}, "b": "c"}


def test_real_init_data_is_seen_in_parts():
    document = real_file("initdata/trustee/init-data-with-policy.toml").read_bytes()
    claims = init_data_claims(parse_init_data(document).data)
    assert claims.keys() == {"agent_policy_claims"}
    assert "containers" in claims["agent_policy_claims"]
