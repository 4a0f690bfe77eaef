# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.sign.registries_d import (
    MAX_CONFIG_BYTES,
    RegistriesD,
    Scope,
    lookaside_url,
    parse_registries_d,
    scopes_of,
)


def parse(*texts):
    return parse_registries_d([(f"{n}.yaml", text.encode()) for n, text in enumerate(texts)])


def test_scopes_go_from_the_image_to_the_domain():
    assert scopes_of("r.a.example:5000/t/app", ":v1") == [
        "r.a.example:5000/t/app:v1",
        "r.a.example:5000/t/app",
        "r.a.example:5000/t",
        "r.a.example:5000",
        "*.a.example",
        "*.example",
    ]


@pytest.mark.parametrize("word", ["lookaside", "sigstore"])
def test_lookaside_by_either_word(word):
    config = parse(f"docker:\n  r.example:\n    {word}: https://s.example/x\n")
    found = config.for_repository("r.example/a/b")
    assert (found.lookaside, found.staging) == ("https://s.example/x",) * 2
    assert config.for_repository("other.example/a") == Scope()


def test_lookaside_of_both_words_is_the_newer_one():
    for order in ("    lookaside: file:///n\n    sigstore: file:///o\n",) * 2:
        assert parse(f"docker:\n  r.example:\n{order}").for_repository("r.example").lookaside == (
            "file:///n"
        )
    text = "docker:\n  r.example:\n    sigstore: file:///o\n    lookaside: file:///n\n"
    assert parse(text).for_repository("r.example").lookaside == "file:///n"


def test_each_member_is_that_of_the_most_specific_scope_that_sets_it():
    config = parse(
        "default-docker: {lookaside: 'file:///d', lookaside-staging: 'file:///ds'}\n",
        "docker:\n  r.example: {sigstore-staging: 'file:///s'}\n"
        "  r.example/a: {lookaside: 'https://a.example'}\n"
        "  r.example/a/b: {use-sigstore-attachments: true}\n",
    )
    assert config.for_repository("r.example/a/b") == Scope(
        "https://a.example", "https://a.example", attachments=True
    )
    assert config.for_repository("r.example/x") == Scope("file:///d", "file:///s")
    assert config.for_repository("o.example/x") == Scope("file:///d", "file:///ds")


def test_scope_of_one_image_counts():
    config = parse("docker:\n  'r.example/a:v1': {lookaside: 'file:///one'}\n")
    assert config.for_repository("r.example/a", ":v1").lookaside == "file:///one"
    assert config.for_repository("r.example/a", ":v2").lookaside is None


@pytest.mark.parametrize(
    ("piece", "texts"),
    [
        ("is not YAML", ["{"]),
        ("is not YAML", ["\t"]),
        ("expected an object, got a list", ["- a"]),
        ("unknown member 'podman'", ["podman: {}"]),
        ("docker: expected an object", ["docker: []"]),
        ("unknown member '5'", ["5: {}"]),
        ("docker.r.example: expected an object", ["docker: {r.example: x}"]),
        ("unknown member '5'", ["docker: {r.example: {5: x}}"]),
        ("unknown member 'lookasid'", ["docker: {r.example: {lookasid: 'file:///x'}}"]),
        ("names of repositories", ["docker: {5: {}}"]),
        ("expected a URL", ["default-docker: {lookaside: /srv}"]),
        ("expected a URL", ["default-docker: {lookaside: 'file://host/srv'}"]),
        ("expected a URL", ["default-docker: {lookaside: 'ftp://host/srv'}"]),
        ("expected a URL", ["default-docker: {lookaside: 'https://h/x?q=1'}"]),
        ("expected a string", ["default-docker: {lookaside: 5}"]),
        ("true or false", ["default-docker: {use-sigstore-attachments: null}"]),
        ("true or false", ["default-docker: {use-sigstore-attachments: 'yes'}"]),
        ("twice", ["docker: {r.example: {lookaside: 'file:///a', lookaside: 'file:///b'}}"]),
        ("twice", ["docker: {r.example: {}, r.example: {}}"]),
        ("alias", ["docker: {a: &x {lookaside: 'file:///a'}, b: *x}"]),
        ("set in another file", ["docker: {r.example: {}}", "docker: {r.example: {}}"]),
        ("set in another file", ["default-docker: {}", "default-docker: {}"]),
        ("expected at most", [" " * (MAX_CONFIG_BYTES + 1)]),
        ("is not YAML", ["!!python/object/apply:os.system [x]"]),
    ],
)
def test_registries_d_with_a_fault_is_refused(piece, texts):
    with pytest.raises(FormatError) as caught:
        parse(*texts)
    assert piece in str(caught.value)
    assert caught.value.what.endswith(".yaml")
    assert "\n" not in str(caught.value)


def test_registries_d_of_empty_files_is_empty():
    assert parse("", "# nothing\n") == RegistriesD(Scope(), {})


@given(st.binary(max_size=200))
def test_registries_d_of_any_bytes_is_read_or_refused(raw):
    try:
        parse_registries_d([("x.yaml", raw)])
    except FormatError:
        return


def test_lookaside_url_is_that_of_containers_image():
    assert lookaside_url("file:///srv/", "team/app", "sha256", "ab", 2) == (
        "file:///srv/team/app@sha256=ab/signature-2"
    )
    assert lookaside_url("https://s.example", "a/b", "sha256", "ab", 1) == (
        "https://s.example/a/b@sha256=ab/signature-1"
    )


def test_scope_in_any_spelling_of_its_host_counts_once():
    config = parse("docker: {R.Example: {lookaside: 'file:///s'}}")
    assert config.for_repository("r.example/a").lookaside == "file:///s"
    with pytest.raises(FormatError, match="another file"):
        parse("docker: {r.example: {}}", "docker: {R.example: {}}")
