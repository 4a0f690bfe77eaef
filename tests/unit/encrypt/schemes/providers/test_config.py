# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.encrypt.schemes.providers.config import (
    GRPCProvider,
    ProgramProvider,
    TLSFiles,
    check_provider_name,
    find_provider,
    load_provider_config,
    parse_provider_config,
)
from imagers.errors import FormatError, KeyUnavailable, LocalError, Unsupported


def find(entry):
    data = json.dumps({"key-providers": {"name": entry}}).encode()
    return find_provider(parse_provider_config(data, name="conf"), "name")


@pytest.mark.parametrize(
    ("entry", "provider"),
    [
        ({"cmd": {"path": "/a", "args": ["-x", ""]}}, ProgramProvider("/a", ("-x", ""))),
        ({"cmd": {"path": "/a"}}, ProgramProvider("/a")),
        ({"cmd": {"path": "/a", "args": None}, "grpc": "x:1"}, ProgramProvider("/a")),
        ({"grpc": "127.0.0.1:1"}, GRPCProvider("127.0.0.1:1")),
        ({"grpc": "localhost:65535"}, GRPCProvider("localhost:65535")),
        ({"grpc": "tcp://[::1]:5"}, GRPCProvider("[::1]:5")),
        ({"grpc": "http://127.9.9.9:5"}, GRPCProvider("127.9.9.9:5")),
        ({"grpc": "unix:///run/x.sock"}, GRPCProvider("unix:///run/x.sock")),
        (
            {"grpc": "keys.example.org:443", "grpc-tls": {}},
            GRPCProvider("keys.example.org:443", TLSFiles()),
        ),
        (
            {
                "grpc": "h:1",
                "grpc-tls": {
                    "root-ca-file": "ca",
                    "cert-file": "c",
                    "key-file": "k",
                    "server-name": "s",
                    "insecure-skip-verify": False,
                },
            },
            GRPCProvider("h:1", TLSFiles("ca", "c", "k", "s")),
        ),
    ],
)
def test_find_provider_reads_each_kind_of_entry(entry, provider):
    assert find(entry) == provider


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ({"path": "/a"}, FormatError, '"path" at the top'),
        ({"cmd": {}}, FormatError, r"\.cmd\.path: is missing"),
        ({"cmd": {"path": ""}}, FormatError, "expected a path"),
        ({"cmd": {"path": "/a", "args": "x"}}, FormatError, "expected a list"),
        ({"cmd": {"path": "/a", "args": [1]}}, FormatError, "expected a string"),
        ({"cmd": {"path": "/a\0"}}, FormatError, "a list of strings"),
        ({"grpc": "nowhere"}, FormatError, "expected host:port"),
        ({"grpc": "h:0", "grpc-tls": {}}, FormatError, "expected host:port"),
        ({"grpc": "h:65536", "grpc-tls": {}}, FormatError, "expected host:port"),
        ({"grpc": "127.0.0.1.example.org:1"}, Unsupported, "in the clear"),
        ({"grpc": "10.0.0.1:1"}, Unsupported, "would send layer keys in the clear"),
        ({"grpc": "h:1", "grpc-tls": {"cert-file": "c"}}, FormatError, "key-file together"),
        ({"grpc": "h:1", "grpc-tls": {"insecure-skip-verify": True}}, Unsupported, "skip-verify"),
        ({"ttrpc": "unix:///x"}, Unsupported, "expected cmd or grpc, got ttrpc"),
        ({}, Unsupported, "expected cmd or grpc, got nothing"),
    ],
)
def test_find_provider_of_other_entries_raises(entry, error, message):
    with pytest.raises(error, match=message) as caught:
        find(entry)
    assert "name" in str(caught.value)


def test_find_provider_that_is_not_there_names_those_that_are():
    entries = parse_provider_config(b'{"key-providers":{"a":{},"b":{}}}', name="conf")
    with pytest.raises(KeyUnavailable, match="'c' is not configured; configured: a, b"):
        find_provider(entries, "c")


def test_find_provider_does_not_look_at_others():
    entries = parse_provider_config(
        b'{"key-providers":{"bad":{},"a":{"cmd":{"path":"x"}}}}', name="c"
    )
    assert find_provider(entries, "a") == ProgramProvider("x")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"key-providers":[]}', b'{"key-providers":{"a":1}}']
)
def test_parse_of_other_documents_raises(data):
    with pytest.raises(FormatError):
        parse_provider_config(data, name="conf")


def test_parse_of_too_many_providers_raises():
    data = json.dumps({"key-providers": {str(n): {} for n in range(65)}}).encode()
    with pytest.raises(FormatError, match="at most 64 providers"):
        parse_provider_config(data, name="conf")


def test_load_reads_a_file_and_says_what_is_missing(tmp_path):
    (tmp_path / "conf").write_text("{}")
    assert load_provider_config(str(tmp_path / "conf")) == {}
    with pytest.raises(LocalError, match="none: cannot be read"):
        load_provider_config(str(tmp_path / "none"))


@pytest.mark.parametrize("name", ["", ".", "a,b", "a\nb", "ä", "a" * 65])
def test_check_provider_name_of_others_raises(name):
    with pytest.raises(FormatError, match="x: expected a provider name"):
        check_provider_name(name, what="x")
