# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError, Unsupported, UsageError
from imagers.model.reference import parse_reference
from imagers.transport.names import ImageName, check_one_meaning, parse_image_name

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("docker://busybox", "docker://docker.io/library/busybox:latest"),
        ("busybox", "docker://docker.io/library/busybox:latest"),
        ("127.0.0.1:5000/app", "docker://127.0.0.1:5000/app:latest"),
        ("localhost/app:v1", "docker://localhost/app:v1"),
        ("[::1]:5000/app:v1", "docker://[::1]:5000/app:v1"),
        (f"docker://host.io/a/b@{DIGEST}", f"docker://host.io/a/b@{DIGEST}"),
        (f"docker://host.io/a/b:v1@{DIGEST}", f"docker://host.io/a/b:v1@{DIGEST}"),
        (f"app:v1@{DIGEST}", f"docker://docker.io/library/app:v1@{DIGEST}"),
    ],
)
def test_parse_image_name_of_a_registry(text, shown):
    name = parse_image_name(text)
    assert (name.transport, str(name)) == ("docker", shown)
    assert name.reference == parse_reference(shown.removeprefix("docker://"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("oci:dir", ImageName("oci", path="dir")),
        ("oci:/a b/c", ImageName("oci", path="/a b/c")),
        ("oci:dir:v1", ImageName("oci", path="dir", ref="v1")),
        ("oci:dir:host/app:v1", ImageName("oci", path="dir", ref="host/app:v1")),
        ("oci:dir:sha256-0.sig", ImageName("oci", path="dir", ref="sha256-0.sig")),
        ("oci:dir:@0", ImageName("oci", path="dir", position=0)),
        ("oci:dir:@12", ImageName("oci", path="dir", position=12)),
    ],
)
def test_parse_image_name_of_a_layout(text, name):
    assert parse_image_name(text) == name
    assert str(name) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "docker://"),
        ("oci:", "oci:PATH:REF"),
        ("oci::v1", "oci:PATH:REF"),
        ("oci:dir:", "PATH has no colon"),
        ("oci:dir:-v", "PATH has no colon"),
        ("oci:dir:@", "PATH has no colon"),
        ("oci:dir:@-1", "PATH has no colon"),
        ("oci:dir:@9999999", "PATH has no colon"),
        ("oci:dir:../x", "PATH has no colon"),
        ("docker:busybox", "docker://docker.io/library/"),
        ("docker:/host/x", "docker://docker.io/library/"),
        ("docker://", "registry.example.org"),
        ("docker://Host/UPPER", "registry.example.org"),
        ("a\nb", "docker://"),
        ("x" * 5000, "docker://"),
    ],
)
def test_parse_image_name_malformed_refused_with_a_hint(text, hint):
    with pytest.raises(FormatError) as caught:
        parse_image_name(text)
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "sif:app",
        "DOCKER://host/app",
    ],
)
def test_parse_image_name_other_transport_is_unsupported_by_name(text):
    with pytest.raises(Unsupported, match=text.split(":", maxsplit=1)[0]) as caught:
        parse_image_name(text)
    assert "docker://" in caught.value.hint
    assert "oci:" in caught.value.hint


def test_parse_image_name_of_the_storage_of_podman_says_the_way_round():
    with pytest.raises(Unsupported, match="'containers-storage' is not") as caught:
        parse_image_name("containers-storage:localhost/app:v1")
    assert "podman save --format oci-archive" in caught.value.hint


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_parse_image_name_that_is_a_url_is_told_its_name(scheme):
    with pytest.raises(Unsupported, match=scheme) as caught:
        parse_image_name(f"{scheme}://host:5000/app:v1")
    assert "docker://host:5000/app:v1;" in caught.value.hint


@given(st.text(max_size=80))
def test_parse_image_name_any_text_is_a_name_that_reads_back_or_an_error(text):
    try:
        name = parse_image_name(text)
    except (FormatError, Unsupported):
        return
    assert parse_image_name(str(name)) == name


@given(st.text(max_size=80))
def test_parse_image_name_any_layout_is_a_name_that_reads_back_or_an_error(text):
    try:
        name = parse_image_name("oci:" + text)
    except (FormatError, Unsupported):
        return
    assert str(name) == "oci:" + text or name.position is not None
    assert parse_image_name(str(name)) == name


@pytest.mark.parametrize("prefix", ["", "docker://", "docker-daemon:"])
def test_name_of_what_is_changed_has_a_tag_or_a_digest(prefix):
    check_one_meaning(parse_image_name(f"{prefix}host.io/a"))
    check_one_meaning(parse_image_name(f"{prefix}host.io/a:v1"))
    check_one_meaning(parse_image_name(f"{prefix}host.io/a@{DIGEST}"))
    with pytest.raises(UsageError, match="has a tag and a digest: expected one") as caught:
        check_one_meaning(parse_image_name(f"{prefix}host.io/a:v1@{DIGEST}"))
    assert f"host.io/a:v1@{DIGEST}" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "shown", "encrypted"),
    [
        ("oci-archive:a.tar", "oci-archive:a.tar", True),
        ("oci-archive:a.tar:v1", "oci-archive:a.tar:v1", True),
        ("oci-archive:a.tar:@1", "oci-archive:a.tar:@1", True),
        ("dir:/a:b/c", "dir:/a:b/c", True),
        ("docker-archive:a.tar", "docker-archive:a.tar", False),
        ("docker-archive:a.tar:app", "docker-archive:a.tar:docker.io/library/app:latest", False),
        ("docker-archive:a.tar:@2", "docker-archive:a.tar:@2", False),
        ("docker-daemon:app:v1", "docker-daemon:docker.io/library/app:v1", False),
        (f"docker-daemon:{DIGEST}", f"docker-daemon:{DIGEST}", False),
    ],
)
def test_parse_image_name_of_files_and_engines(text, shown, encrypted):
    name = parse_image_name(text)
    assert str(name) == shown
    assert name.holds_encrypted is encrypted
    assert parse_image_name(shown) == name


@pytest.mark.parametrize(
    "text",
    [
        "dir:",
        "oci-archive:",
        "docker-archive:",
        "docker-archive::a",
        "docker-archive:a:UP",
        f"docker-archive:a:app@{DIGEST}",
        "docker-daemon:",
        "docker-daemon:sha256:0",
    ],
)
def test_parse_image_name_of_files_and_engines_malformed_refused(text):
    with pytest.raises(FormatError):
        parse_image_name(text)


@pytest.mark.parametrize(
    ("text", "short_name"),
    [
        ("busybox", "busybox"),
        ("busybox:1.36", "busybox"),
        ("team/app:v1", "team/app"),
        (f"team/app@sha256:{'0' * 64}", "team/app"),
        ("library/busybox", "library/busybox"),
        ("docker.io/busybox", ""),
        ("index.docker.io/busybox", ""),
        ("docker://busybox", ""),
        ("localhost/app", ""),
        ("127.0.0.1:5000/app", ""),
        ("docker-daemon:busybox", ""),
    ],
)
def test_parse_short_name_is_what_has_neither_transport_nor_registry(text, short_name):
    assert parse_image_name(text).short_name == short_name


@pytest.mark.parametrize(
    "text",
    ["https://u:secret@h.example/app", "docker:u:secret@h.example/app", "docker:/u:secret@h:5000"],
)
def test_name_with_a_password_in_it_is_not_repeated(text):
    with pytest.raises((FormatError, Unsupported)) as caught:
        parse_image_name(text)
    assert "secret" not in f"{caught.value} {caught.value.hint}"
