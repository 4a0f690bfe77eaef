# SPDX-License-Identifier: Apache-2.0
import json
import os
from contextlib import closing

import click
import pytest

from imagers.cli import images
from imagers.cli.command import VerbCommand
from imagers.cli.images import (
    RegistryOptions,
    name_of,
    open_destination,
    open_named,
    parse_platform,
    two_registries_options,
)
from imagers.errors import (
    FormatError,
    LocalError,
    PolicyDenied,
    UsageError,
)
from imagers.layout.oci_layout import OCILayoutSink
from imagers.model.descriptor import Descriptor, Platform
from imagers.model.digest import digest_of
from imagers.model.media import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from imagers.model.reference import parse_reference


@pytest.fixture
def big(tmp_path):
    """The name of an image with a layer that is just worth several ranges."""
    layer = os.urandom(1024) * (65 * 1024)
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [str(digest_of(layer))]},
        }
    ).encode()
    with closing(OCILayoutSink(str(tmp_path / "big"), "v1", name="big")) as sink:
        parts = []
        for media_type, data in ((OCI_CONFIG, config), (OCI_LAYER, layer)):
            parts.append(Descriptor(media_type, digest_of(data), len(data)))
            sink.put_blob(parts[-1], data, what="blob")
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": parts[0].to_json(),
            "layers": [parts[1].to_json()],
        }
        sink.put_manifest(json.dumps(manifest).encode(), OCI_MANIFEST, by_name=True)
    return f"oci:{tmp_path}/big:v1"


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


@pytest.mark.usefixtures("home")
def test_transport_options_of_the_words():
    options = RegistryOptions("user:pass:word", tls_verify=False, registry_ca="ca.pem").transport()
    assert options.tls_verify is False
    assert options.ca_file == "ca.pem"
    assert options.credentials.username == "user"
    assert "word" not in repr(options)


def test_transport_options_with_half_a_login_refused():
    with pytest.raises(UsageError, match="USER:PASSWORD") as caught:
        RegistryOptions("secret").transport()
    assert "secret" not in str(caught.value)


def two(*words):
    """What a verb with a source and a destination gets of these words."""

    @click.command(cls=VerbCommand)
    @two_registries_options
    def command(registries):
        return registries

    with command.make_context("trial", list(words)) as context:
        return command.invoke(context)


def test_two_registries_a_side_wins_over_both():
    both = two("--creds=a:b", "--src-creds=c:d", "--tls-verify=false", "--dest-tls-verify=true")
    assert (both.source.creds, both.source.tls_verify) == ("c:d", False)
    assert (both.sink.creds, both.sink.tls_verify) == ("a:b", True)


@pytest.mark.parametrize("name", ["creds", "registry-ca", "cert-dir", "authfile", "daemon-host"])
def test_two_registries_each_option_of_a_place_has_a_form_for_one_side(name):
    def values(*words):
        both = two(*words)
        return [getattr(one, name.replace("-", "_")) for one in (both.source, both.sink)]

    assert values() == [None, None]
    assert values(f"--{name}=a") == ["a", "a"]
    assert values(f"--src-{name}=a") == ["a", None]
    assert values(f"--dest-{name}=a") == [None, "a"]
    assert values(f"--{name}=a", f"--src-{name}=b", f"--dest-{name}=c") == ["b", "c"]


def test_two_registries_what_is_of_names_and_blobs_is_of_both():
    both = two("--ranges=2", "--image-rs-registries=f", "--src-authfile=a")
    assert [one.ranges for one in (both.source, both.sink)] == [2, 2]
    assert [one.image_rs_registries for one in (both.source, both.sink)] == ["f", "f"]


@pytest.mark.usefixtures("home")
def test_authfile_of_one_side_is_the_logins_of_that_side(tmp_path):
    (tmp_path / "auth.json").write_text("{}")
    both = two(f"--dest-authfile={tmp_path}/auth.json", f"--src-cert-dir={tmp_path}")
    assert both.sink.transport().auth_files == (tmp_path / "auth.json",)
    assert tmp_path / "auth.json" not in both.source.transport().auth_files
    assert (both.source.transport().cert_dir, both.sink.transport().cert_dir) == (tmp_path, None)


def test_tls_is_verified_where_nothing_is_said():
    assert images._one(creds=None, tls_verify=None, registry_ca=None).tls_verify is True


def test_open_named_of_no_name_refused():
    with pytest.raises(FormatError):
        open_named("No Name", RegistryOptions())


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("word", "is_said"), [("app.tar", True), ("r.example/app.tar", False)])
def test_name_that_a_file_has_too_says_how_a_file_is_named(
    word, is_said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.example").mkdir()
    assert name_of(word).reference.repository.endswith("app.tar")
    assert capsys.readouterr().err == ""
    (tmp_path / word).touch()
    name_of(word)
    told = f"{word} is read as an image of a registry; a path needs its kind before it: oci-archive"
    assert (told in capsys.readouterr().err) is is_said


def test_open_destination_of_tag_and_digest_refused():
    text = f"docker://r.example:5000/app:v1@{digest_of(b'x')}"
    with pytest.raises(UsageError, match="a tag and a digest"):
        open_destination(text, RegistryOptions())
    for one in (text.replace(":v1", ""), text.partition("@")[0]):
        with open_destination(one, RegistryOptions()) as sink:
            assert sink.name == one


def test_open_destination_leaves_nothing_where_nothing_was_written(tmp_path):
    with open_destination(f"oci:{tmp_path}/new:v1", RegistryOptions()) as sink:
        assert str(tmp_path) in sink.name
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("home")
def test_image_rs_registries_are_in_place_of_registries_conf(tmp_path, monkeypatch):
    (tmp_path / "registries.conf").write_text('[[registry]]\nlocation = "b.io"\nblocked = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    (tmp_path / "guest.toml").write_text(
        '[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\nlocation = "m.io"\n'
    )
    guest = str(tmp_path / "guest.toml")
    found = RegistryOptions(image_rs_registries=guest).transport().registries
    assert [str(one.reference) for one in found.endpoints(parse_reference("a.io/x"))] == [
        "m.io/x:latest",
        "a.io/x:latest",
    ]
    assert len(found.endpoints(parse_reference("b.io/x"))) == 1
    with pytest.raises(PolicyDenied):
        RegistryOptions().transport().registries.endpoints(parse_reference("b.io/x"))


@pytest.mark.usefixtures("home")
def test_image_rs_registries_that_cannot_be_read_are_named():
    with pytest.raises(LocalError, match="no such file") as caught:
        RegistryOptions(image_rs_registries="none.toml").transport()
    assert caught.value.path == "none.toml"


@pytest.mark.usefixtures("home")
def test_registries_conf_that_is_wrong_keeps_nobody_from_a_directory(tmp_path, monkeypatch, multi):
    (tmp_path / "registries.conf").write_text("[")
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    with open_named(multi, RegistryOptions()) as image:
        image.source.read_manifest()
    with pytest.raises(FormatError, match="TOML"):
        open_named("a.io/x", RegistryOptions())


def test_ranges_are_those_of_the_words():
    assert RegistryOptions(ranges=3).transport().ranges == 3
    assert images._one(creds=None, tls_verify=None, registry_ca=None).ranges == 1


@pytest.mark.parametrize("by", ["--image-rs-registries", "CONTAINERS_REGISTRIES_CONF"])
def test_policy_is_asked_about_the_users_name_wherever_the_bytes_are(
    run, plain, imagers_registry, tmp_path, monkeypatch, by
):
    """A rule for the mirror's own name must not let anything through, nor keep anything out."""
    address = imagers_registry.address
    assert run("copy", plain, f"{address}/copy/app:v1").code == 0
    conf = tmp_path / "conf.toml"
    conf.write_text(
        f'[[registry]]\nprefix = "user.example/team"\nlocation = "{address}/none"\n'
        f'[[registry.mirror]]\nlocation = "{address}/copy"\ninsecure = true\n'
    )
    words = ()
    if by.startswith("--"):
        words = (by, conf)
    else:
        monkeypatch.setenv(by, str(conf))

    def asked(verb, accepted, *more):
        rules = {"default": [{"type": "reject"}]}
        rules["transports"] = {"docker": {accepted: [{"type": "insecureAcceptAnything"}]}}
        policy = tmp_path / "policy.json"
        policy.write_text(json.dumps(rules))
        return run(verb, "user.example/team/app:v1", *more, "--policy", policy, *words)

    assert asked("verify", "user.example/team").code == 0
    assert asked("verify", f"{address}/copy").code == 21
    assert asked("pull", f"{address}/copy", "bundle").code == 21
    outcome = asked("pull", "user.example/team", "bundle", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json()["reference"] == "docker://user.example/team/app:v1"


def test_short_name_that_is_searched_for_elsewhere_is_one_line(run, tmp_path, monkeypatch):
    conf = tmp_path / "conf.toml"
    conf.write_text('unqualified-search-registries = ["a.example", "docker.io"]\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    outcome = run("inspect", "no-such-short-name:v1")
    assert outcome.code == 2
    error, hint = outcome.err.splitlines()
    assert "'no-such-short-name': expected a name with its registry" in error
    assert hint.startswith("imagers: hint: write docker.io/library/no-such-short-name, or")


def test_copy_over_several_ranges_is_the_same_image(run, imagers_registry, big, tmp_path):
    name = f"{imagers_registry.address}/big:v1"
    assert run("copy", big, name).code == 0
    outcome = run("copy", name, "oci:out:v1", "--ranges", "4", "--json")
    assert outcome.code == 0, outcome.err
    inside = [one for one in imagers_registry.requests if one.status == 206]
    assert len(inside) == 17
    again = run("inspect", "oci:out:v1", "--json").json()
    assert again["digest"] == run("inspect", big, "--json").json()["digest"]
    for words in (("--ranges", "5"), ("--ranges", "0")):
        assert run("copy", name, f"oci:{tmp_path}/x:v1", *words).code == 2


@pytest.mark.usefixtures("home")
def test_registries_d_that_is_wrong_keeps_nobody_from_what_looks_for_no_signature(tmp_path):
    (tmp_path / "wrong.yaml").write_text("{")
    with open_named("r.example/app:v1", RegistryOptions(), str(tmp_path), asks=False) as image:
        assert image.source.name.endswith("r.example/app:v1")
    with pytest.raises(FormatError, match=r"wrong\.yaml"):
        open_named("r.example/app:v1", RegistryOptions(), str(tmp_path))


@pytest.fixture
def moved(run, plain, multi, imagers_registry):
    """The digest of an image, and its name with a tag that means another image by now."""
    name = f"docker://{imagers_registry.address}/team/moved:v1"
    run("copy", plain, name)
    digest = run("inspect", name, "--json").json()["digest"]
    run("copy", multi, name, "--platform", "linux/amd64")
    assert run("inspect", name, "--json").json()["digest"] != digest
    return digest, f"{name}@{digest}"


def test_name_with_tag_and_digest_is_read_by_its_digest_and_shown_as_it_is(run, moved, accept):
    digest, both = moved
    facts = run("inspect", both, "--json").json()
    assert (facts["digest"], facts["reference"]) == (digest, both)
    for words in (("copy", both, "oci:copied:v1"), ("pull", both, "bundle")):
        assert run(*words, "--policy", accept, "--json").json()["digest"] == digest
    run("key", "generate", "rsa", "--output", "one")
    words = ("oci:sealed:v1", "--encryption-key", "jwe:one.pub", "--policy", accept)
    assert run("encrypt", both, *words).code == 0
    diff_ids = [
        [layer["diff_id"] for layer in run("inspect", name, "--json").json()["layers"]]
        for name in (both, "oci:sealed:v1")
    ]
    assert diff_ids[0] == diff_ids[1]


def test_name_with_tag_and_digest_is_signed_and_verified_by_its_digest(run, moved):
    digest, both = moved
    run("key", "generate", "cosign", "--output", "signer")
    (signed,) = run("sign", both, "--key", "signer.key", "--json").json()["signed"]
    assert (signed["digest"], signed["identity"]) == (
        digest,
        both.removeprefix("docker://").replace(":v1@", "@"),
    )
    outcome = run("verify", both, "--key", "signer.pub", "--json")
    assert outcome.json()["digest"] == digest
    # What the tag means now, nobody signed.
    assert run("verify", both.partition("@")[0], "--key", "signer.pub").code == 21


def test_name_with_tag_and_digest_is_judged_by_neither_where_a_policy_tells_them_apart(
    run, moved, tmp_path
):
    _, both = moved
    tagged = both.removeprefix("docker://").partition("@")[0]
    path = tmp_path / "policy.json"
    accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
    for scopes in ({tagged: reject, "": accept}, {tagged: accept, "": reject}):
        path.write_text(json.dumps({"default": reject, "transports": {"docker": scopes}}))
        for words in (("verify", both), ("pull", both, "b"), ("copy", both, "oci:x:v1")):
            outcome = run(*words, "--policy", path)
            assert outcome.code == 21
            assert f"has requirements for '{tagged}', and others for the digest" in outcome.err
    assert not (tmp_path / "here" / "b").exists()


@pytest.mark.parametrize("verb", ["copy", "encrypt", "decrypt", "delete"])
def test_name_with_tag_and_digest_is_not_written_to(run, plain, moved, accept, verb):
    _, both = moved
    words = {
        "copy": (plain, both, "--policy", accept),
        "encrypt": (plain, both, "--policy", accept, "--encryption-key", "jwe:none.pub"),
        "decrypt": (plain, both, "--decryption-key", "none.key"),
        "delete": (both,),
    }[verb]
    run("key", "generate", "rsa", "--output", "none")
    outcome = run(verb, *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert "has a tag and a digest" in outcome.err
