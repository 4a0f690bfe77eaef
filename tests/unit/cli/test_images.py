import platform

import pytest

from imagers.cli import images
from imagers.cli.images import (
    RegistryOptions,
    opened_sink,
    opened_source,
    parse_platform,
    resolve_image,
)
from imagers.errors import FormatError, NotFound, UsageError
from imagers.model.descriptor import Platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/arm/v7", Platform("linux", "arm", "v7")),
    ],
)
def test_parse_platform(text, expected):
    assert parse_platform(text) == expected


@pytest.mark.parametrize("text", ["linux", "linux/", "/amd64", "a/b/c/d", "linux/arm/"])
def test_parse_platform_refused(text):
    with pytest.raises(UsageError, match="--platform: expected OS/ARCH") as caught:
        parse_platform(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")]
)
def test_parse_platform_of_this_machine(monkeypatch, machine, name):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert parse_platform(None) == Platform("linux", name)


@pytest.mark.usefixtures("home")
def test_transport_options_of_the_words():
    options = RegistryOptions("user:pass:word", tls_verify=False, ca_file="ca.pem").transport()
    assert options.tls_verify is False
    assert options.ca_file == "ca.pem"
    assert options.credentials.username == "user"
    assert "word" not in repr(options)


def test_transport_options_with_half_a_login_refused():
    with pytest.raises(UsageError, match="USER:PASSWORD") as caught:
        RegistryOptions("secret").transport()
    assert "secret" not in str(caught.value)


def test_two_registries_a_side_wins_over_both():
    both = images._two(
        creds="a:b",
        src_creds="c:d",
        dest_creds=None,
        tls_verify=False,
        src_tls_verify=None,
        dest_tls_verify=True,
        registry_ca=None,
    )
    assert (both.source.creds, both.source.tls_verify) == ("c:d", False)
    assert (both.sink.creds, both.sink.tls_verify) == ("a:b", True)


def test_tls_is_verified_where_nothing_is_said():
    assert images._one(creds=None, tls_verify=None, registry_ca=None).tls_verify is True


def test_resolve_image_of_an_index_is_that_of_the_platform(multi):
    with opened_source(multi, RegistryOptions()) as source:
        arm = resolve_image(source, Platform("linux", "arm64"))
        assert arm.config.platform == Platform("linux", "arm64")
        with pytest.raises(NotFound, match="linux/s390x"):
            resolve_image(source, Platform("linux", "s390x"))


def test_opened_source_of_no_name_refused():
    with pytest.raises(FormatError), opened_source("No Name", RegistryOptions()):
        pass


def test_opened_sink_leaves_nothing_where_nothing_was_written(tmp_path):
    with opened_sink(f"oci:{tmp_path}/new:v1", RegistryOptions()) as sink:
        assert str(tmp_path) in sink.name
    assert not list(tmp_path.iterdir())
