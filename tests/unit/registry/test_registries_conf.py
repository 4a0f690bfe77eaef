# SPDX-License-Identifier: Apache-2.0
"""What the files may say; what it means for names is in test_mirrors.py."""

import pytest

from imagers.errors import FormatError
from imagers.model.reference import parse_reference
from imagers.registry.registries_conf import parse_image_rs_registries, parse_registries_conf


def test_drop_in_file_replaces_a_prefix():
    texts = [
        ("x", '[[registry]]\nprefix = "example.com/foo"\nlocation = "first.io/x"\n'),
        ("y", '[[registry]]\nprefix = "example.com/foo"\nlocation = "later.io/x"\n'),
    ]
    (one,) = parse_registries_conf(texts).endpoints(parse_reference("example.com/foo:v1"))
    assert str(one.reference) == "later.io/x:v1"


def test_drop_in_file_replaces_lists_and_single_aliases():
    first = (
        'unqualified-search-registries = ["a.io"]\ncredential-helpers = ["pass"]\n'
        'short-name-mode = "enforcing"\n'
        '[aliases]\none = "a.io/one"\ntwo = "a.io/two"\nthree = "a.io/three"\n'
    )
    later = 'unqualified-search-registries = []\n[aliases]\none = "b.io/one"\ntwo = ""\n'
    conf = parse_registries_conf([("x", first), ("y", later)])
    assert conf.unqualified == ()
    assert conf.credential_helpers == ("pass",)
    assert conf.aliases == {"one": "b.io/one", "three": "a.io/three"}


def test_empty_file_says_nothing():
    conf = parse_registries_conf([("x", "")])
    assert conf == parse_registries_conf([])
    assert conf.credential_helpers == ("containers-auth.json",)
    assert parse_image_rs_registries("", what="x").search == ("docker.io",)


def test_pulls_from_a_mirror_by_digest_only():
    text = (
        '[[registry]]\nlocation = "a.io"\nmirror-by-digest-only = true\n'
        '[[registry.mirror]]\nlocation = "m.io"\n'
    )
    conf = parse_registries_conf([("x", text)])
    assert len(conf.endpoints(parse_reference("a.io/x:v1"))) == 1
    assert len(conf.endpoints(parse_reference(f"a.io/x@sha256:{'0' * 64}"))) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "TOML"),
        pytest.param(f"a = {'1' * 5000}", "TOML", id="a number of too many digits"),
        ('[registries.search]\nregistries = ["a"]', "version 2"),
        ("[[registry]]\n", "prefix or a location"),
        ("[[registry]]\nlocation = 1", "a string"),
        ('[[registry]]\nlocation = "a io"', "HOST"),
        ('[[registry]]\nlocation = "a.io"\nblocked = "yes"', "true or false"),
        ('[[registry]]\nprefix = "*.x y"\n', "a prefix"),
        ('[[registry]]\nlocation = "a.io"\nblokced = true', "got 'blokced'"),
        ('[[registry]]\nlocation="a.io"\n[[registry.mirror]]\nlocation="b"\nblocked=true', "got"),
        ('short-name-mode = "loose"', "enforcing, permissive or disabled"),
        ("short-name-mode = 1", "a string"),
        ('credential-helpers = ["../evil"]', "names of helpers"),
        ('credential-helpers = "pass"', "credential-helpers: expected a list, got a string"),
        ("unqualified-search-registries = [1]", "expected a string, got a number"),
        ('unqualified-search-registries = ["a io"]', "a list of HOST"),
        ("aliases = 1", "aliases: expected an object"),
        ("[aliases]\na = 1", r"aliases\['a'\]: expected a string, got a number"),
        ("registry = 1", "registry: expected a list"),
        ('[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\n', "a location"),
        (
            '[[registry]]\nlocation="a.io"\n[[registry.mirror]]\nlocation="b"\npull-from-mirror="x"',
            "known kind",
        ),
    ],
)
def test_malformed_refused_with_its_place(text, message):
    with pytest.raises(FormatError, match=message) as caught:
        parse_registries_conf([("/etc/x.conf", text)])
    assert "/etc/x.conf" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('short-name-mode = "enforcing"', "image-rs knows no 'short-name-mode'"),
        ('[aliases]\na = "b.io/a"', "image-rs knows no 'aliases'"),
        ('[[registry]]\nlocation = "a.io"\nmirror-by-digest-only = true', "got 'mirror-by"),
        (
            '[[registry]]\nlocation="a.io"\n[[registry.mirror]]\nlocation="b"\npull-from-mirror="x"',
            "got 'pull-from-mirror'",
        ),
        ('[[registry]]\nprefix = "*.a.io"\n', "a location beside a prefix with a wildcard"),
        ("[[registry]]\ninsecure = true\n", "a prefix or a location"),
        ('[registries.search]\nregistries = ["a"]', "version 2|image-rs knows no"),
        ("[", "TOML"),
        pytest.param(f"a = {'1' * 5000}", "TOML", id="a number of too many digits"),
    ],
)
def test_image_rs_file_with_what_a_guest_would_ignore_refused(text, message):
    with pytest.raises(FormatError, match=message) as caught:
        parse_image_rs_registries(text, what="/etc/x.toml")
    assert "/etc/x.toml" in str(caught.value)
