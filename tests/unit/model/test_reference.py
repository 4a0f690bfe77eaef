# SPDX-License-Identifier: Apache-2.0
"""References: read as docker, skopeo and podman read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.model.digest import Digest
from imagers.model.reference import normal_name, parse_reference

HEX = "f" * 64


# After normalize_test.go and reference_test.go of distribution/reference v0.6.
@pytest.mark.parametrize(
    ("text", "registry", "repository", "target"),
    [
        ("busybox", "docker.io", "library/busybox", "latest"),
        ("busybox:1", "docker.io", "library/busybox", "1"),
        ("docker.io/busybox", "docker.io", "library/busybox", "latest"),
        ("docker.io/library/busybox", "docker.io", "library/busybox", "latest"),
        ("index.docker.io/busybox:v1", "docker.io", "library/busybox", "v1"),
        ("foo/bar", "docker.io", "foo/bar", "latest"),
        ("docker.io/opensuse/leap:15.3", "docker.io", "opensuse/leap", "15.3"),
        ("localhost/app", "localhost", "app", "latest"),
        ("localhost", "docker.io", "library/localhost", "latest"),
        ("localhost:5000", "docker.io", "library/localhost", "5000"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000", "app", "latest"),
        ("test:5000/library/busybox:latest", "test:5000", "library/busybox", "latest"),
        ("[::1]:5000/app:v1", "[::1]:5000", "app", "v1"),
        ("[2001:db8::1]/app", "[2001:db8::1]", "app", "latest"),
        ("registry.example.org/a/b/c/d/e:T_1.2-3", "registry.example.org", "a/b/c/d/e", "T_1.2-3"),
        ("Registry.Example.org/app", "registry.example.org", "app", "latest"),
        ("LOCALHOST:05000/app", "localhost:5000", "app", "latest"),
        ("LocalHost/app", "localhost", "app", "latest"),
        ("Index.Docker.IO/busybox", "docker.io", "library/busybox", "latest"),
        ("[2001:DB8:0:0::1]:5000/app", "[2001:db8::1]:5000", "app", "latest"),
        ("[::FFFF:7f00:1]/app", "127.0.0.1", "app", "latest"),
        ("example.org/foo__bar-baz--x.y", "example.org", "foo__bar-baz--x.y", "latest"),
        (f"example.org/app@sha256:{HEX}", "example.org", "app", f"sha256:{HEX}"),
        (f"busybox@sha256:{HEX}", "docker.io", "library/busybox", f"sha256:{HEX}"),
        (f"example.org/app@sha512:{HEX * 2}", "example.org", "app", f"sha512:{HEX * 2}"),
        ("example.org/" + "a" * 128, "example.org", "a" * 128, "latest"),
        ("example.org/app:" + "t" * 128, "example.org", "app", "t" * 128),
    ],
)
def test_parse_reference_gives_what_docker_makes_of_it(text, registry, repository, target):
    reference = parse_reference(text)
    assert (reference.registry, reference.repository, reference.target) == (
        registry,
        repository,
        target,
    )
    assert reference.is_pinned == ("@" in text)
    assert parse_reference(str(reference)) == reference


def test_parse_reference_with_tag_and_digest_is_the_digests_and_keeps_the_tag_as_a_remark():
    text = f"example.org/app:v1@sha256:{HEX}"
    reference = parse_reference(text)
    assert (reference.tag, reference.target, reference.remark) == (None, f"sha256:{HEX}", "v1")
    assert reference == parse_reference(f"example.org/app@sha256:{HEX}")
    assert (str(reference), reference.written) == (f"example.org/app@sha256:{HEX}", text)
    assert reference.tagged == parse_reference("example.org/app:v1")
    assert reference.with_digest(Digest("sha256", HEX)).remark == ""
    assert reference.with_tag("v2").remark == ""


def test_reference_by_digest_alone_has_no_tag_and_by_tag_its_own():
    pinned, tagged = f"example.org/app@sha256:{HEX}", "example.org/app:v1"
    assert parse_reference(pinned).tagged is None
    assert parse_reference(pinned).written == pinned
    assert parse_reference(tagged).tagged == parse_reference(tagged)
    assert parse_reference(tagged).written == tagged


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(":justtag", id="tag alone"),
        pytest.param(f"@sha256:{HEX}", id="digest alone"),
        pytest.param("docker.io//library///repo:tag", id="empty components"),
        pytest.param("docker.io/library/repo::tag", id="two colons"),
        pytest.param("docker.io/library/", id="slash at the end"),
        pytest.param("docker.io/", id="registry alone"),
        pytest.param(f"repo@@@sha256:{HEX}", id="three at signs"),
        pytest.param("*:tag", id="star"),
        pytest.param("***/&/repo:tag", id="signs"),
        pytest.param("aa/asdf$$^/aa", id="more signs"),
        pytest.param("repo@sha256:" + "f" * 34, id="short digest"),
        pytest.param(f"validname@invaliddigest:{HEX}", id="unknown digest"),
        pytest.param(f"repo@sha256:{HEX.upper()}", id="upper-case digest"),
        pytest.param("Uppercase:tag", id="upper-case name"),
        pytest.param("Uppercase/lowercase", id="upper-case namespace"),
        pytest.param("test:5000/Uppercase/lowercase:tag", id="upper-case path"),
        pytest.param("a" * 256, id="long name"),
        pytest.param("example.org/" + "a/" * 122 + "a", id="long path"),
        pytest.param(HEX, id="id of an image"),
        pytest.param("example.org/app:" + "t" * 129, id="long tag"),
        pytest.param("example.org/app:-t", id="tag that starts with a dash"),
        pytest.param("example.org/app:", id="empty tag"),
        pytest.param("example.org/app@", id="empty digest"),
        pytest.param("example.org/a b", id="space"),
        pytest.param("example.org/app\n", id="new line"),
        pytest.param("example.org/app:v1\n", id="new line after the tag"),
        pytest.param("example.org/../app", id="dots"),
        pytest.param("example.org/.app", id="hidden"),
        pytest.param("example.org/app_", id="separator at the end"),
        pytest.param("example.org/a___b", id="three underscores"),
        pytest.param("example..org/app", id="empty label"),
        pytest.param("-example.org/app", id="dash before the host"),
        pytest.param("example.org-/app", id="dash after the host"),
        pytest.param("example.org:99999/app", id="port out of range"),
        pytest.param("example.org:0/app", id="port zero"),
        pytest.param("example.org:/app", id="no port"),
        pytest.param("user@example.org/app", id="user"),
        pytest.param("user:secret@example.org/app", id="user and password"),
        pytest.param("https://example.org/app", id="URL"),
        pytest.param("docker://example.org/app", id="transport"),
        pytest.param("example.org/äpp", id="not ASCII"),
        pytest.param("x" * 1_000_000, id="a million characters"),
        pytest.param("a-" * 500_000, id="a million characters with separators"),
    ],
)
def test_parse_reference_no_reference_refused_on_one_short_line(text):
    with pytest.raises(FormatError, match="reference") as caught:
        parse_reference(text)
    assert caught.value.exit_code == 11
    assert len(str(caught.value)) < 700


def test_parse_reference_of_tag_and_digest_is_the_digest():
    """As pods name images; a tag beside it that is none is refused all the same."""
    text = f"example.org/app@sha256:{HEX}"
    assert parse_reference(f"example.org/app:v1@sha256:{HEX}") == parse_reference(text)
    with pytest.raises(FormatError, match="expected a tag"):
        parse_reference(f"example.org/app:-@sha256:{HEX}")


def test_reference_with_digest_is_pinned_and_loses_the_tag():
    pinned = parse_reference("example.org/app:v1").with_digest(Digest("sha256", HEX))
    assert pinned.is_pinned
    assert str(pinned) == f"example.org/app@sha256:{HEX}"
    assert pinned.name == "example.org/app"


def test_reference_with_tag_loses_the_digest_and_checks_the_tag():
    reference = parse_reference(f"example.org/app@sha256:{HEX}")
    assert str(reference.with_tag(f"sha256-{HEX}.sig")) == f"example.org/app:sha256-{HEX}.sig"
    with pytest.raises(FormatError, match="expected a tag"):
        reference.with_tag("a/b")


@given(st.text(alphabet="aA0.:/@_-[]*sha256 \n", max_size=90) | st.text(max_size=40))
def test_parse_reference_any_text_gives_a_value_that_reads_the_same_or_format_error(text):
    try:
        reference = parse_reference(text)
    except FormatError:
        return
    assert parse_reference(str(reference)) == reference
    assert (reference.tag is None) != (reference.digest is None)


@pytest.mark.parametrize(
    "text",
    [
        "user:secret@127.0.0.1:5000/app",
        "user:secret@host/app:v1",
        "user:secret@registry.example.org",
        "user:secret@host:5000",
    ],
)
def test_parse_reference_with_a_password_refused_without_repeating_it(text):
    with pytest.raises(FormatError, match="has a user name in it") as caught:
        parse_reference(text)
    assert "secret" not in str(caught.value)
    assert "--creds" in caught.value.hint


@pytest.mark.parametrize("host", ["127.1", "0x7f.0.0.1", "127.0.0.01", "2130706433.0", "a.1"])
def test_parse_reference_with_an_address_in_an_odd_spelling_refused(host):
    # The resolver takes most of them for 127.0.0.1, and a policy would not.
    with pytest.raises(FormatError, match="four numbers"):
        parse_reference(f"{host}:5000/app")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("", ""),
        ("*.Example.Org", "*.example.org"),
        ("R.example/Team/App:V1", "r.example/Team/App:V1"),
        ("[not an address]:1/x", "[not an address]:1/x"),
        ("Index.Docker.io/library", "docker.io/library"),
        ("index.docker.io.example/a", "index.docker.io.example/a"),
    ],
)
def test_normal_name_changes_the_host_only(text, normal):
    assert normal_name(text) == normal


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("r.example/app:v1", ["r.example:443/app:v1"]),
        ("r.example:443/app:v1", ["r.example/app:v1"]),
        ("[::1]/app:v1", ["[::1]:443/app:v1"]),
        ("r.example:5000/app:v1", []),
        ("[::443]:1/app:v1", []),
        ("index.docker.io:443/library/app:v1", ["docker.io/library/app:v1"]),
    ],
)
def test_spellings_of_the_port_of_https(text, others):
    assert [str(one) for one in parse_reference(text).spellings()] == [text, *others]
