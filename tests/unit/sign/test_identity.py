# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import FormatError
from imagers.model.reference import parse_reference
from imagers.sign.identity import (
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
    parse_signed_name,
)

D1 = "sha256:" + "1" * 64
D2 = "sha256:" + "2" * 64

# kind, image, signed, matches: after containers/image, signature/policy_reference_match_test.go
ROWS = [
    (MatchExact(), "r.example/app:v1", "r.example/app:v1", True),
    (MatchExact(), "r.example/app:v1", "r.example/app:v2", False),
    (MatchExact(), "r.example/app:v1", "r.example/app", False),
    (MatchExact(), "r.example/app:latest", "r.example/app", False),
    (MatchExact(), "r.example/app:v1", f"r.example/app:v1@{D1}", False),
    (MatchExact(), f"r.example/app@{D1}", f"r.example/app@{D1}", True),
    (MatchExact(), f"r.example/app@{D1}", f"r.example/app@{D2}", False),
    (MatchExact(), "busybox:latest", "busybox:latest", True),
    (MatchExact(), "docker.io/library/busybox:latest", "busybox:latest", True),
    (MatchExact(), "r.example/app:v1", "not a name", None),
    (MatchRepoDigestOrExact(), "r.example/app:v1", "r.example/app:v1", True),
    (MatchRepoDigestOrExact(), "r.example/app:v1", "r.example/app:v2", False),
    (MatchRepoDigestOrExact(), "r.example/app:v1", f"r.example/app@{D1}", False),
    (MatchRepoDigestOrExact(), "r.example/app:v1", "r.example/app", False),
    (MatchRepoDigestOrExact(), f"r.example/app@{D1}", "r.example/app:v1", True),
    (MatchRepoDigestOrExact(), f"r.example/app@{D1}", f"r.example/app@{D2}", True),
    (MatchRepoDigestOrExact(), f"r.example/app@{D1}", "r.example/app", False),
    (MatchRepoDigestOrExact(), f"r.example/app@{D1}", "r.example/other:v1", False),
    (MatchRepository(), "r.example/app:v1", "r.example/app", True),
    (MatchRepository(), "r.example/app:v1", "r.example/app:v2", True),
    (MatchRepository(), "r.example/app:v1", "r.example/app/sub:v1", False),
    (MatchRepository(), "r.example:5000/app:v1", "r.example/app:v1", False),
    (ExactReference(parse_signed_name("r.example/app:v1")), None, "r.example/app:v1", True),
    (
        ExactReference(parse_signed_name("r.example/app:v1")),
        "x.example/y:1",
        "r.example/app",
        False,
    ),
    (ExactReference(parse_signed_name("busybox:1")), None, "docker.io/library/busybox:1", True),
    (ExactReference(parse_signed_name("r.example/app")), None, "r.example/app", False),
    (ExactRepository(parse_signed_name("r.example/app")), None, "r.example/app:v9", True),
    (ExactRepository(parse_signed_name("r.example/app")), None, "r.example/app", True),
    (ExactRepository(parse_signed_name("r.example/app")), None, "r.example/apps:v9", False),
    (RemapIdentity("mirror.example", "v.example"), "mirror.example/t:1", "v.example/t:1", True),
    (
        RemapIdentity("mirror.example", "v.example"),
        "mirror.example/t:1",
        "mirror.example/t:1",
        False,
    ),
    (RemapIdentity("mirror.example", "v.example"), "else.example/t:1", "else.example/t:1", True),
    (
        RemapIdentity("mirror.example", "v.example"),
        "mirror.example:80/t:1",
        "v.example:80/t:1",
        False,
    ),
    (RemapIdentity("m.example/a", "v.example/b"), "m.example/a/t:1", "v.example/b/t:1", True),
    (RemapIdentity("m.example/a", "v.example/b"), "m.example/ab/t:1", "v.example/bb/t:1", False),
    (RemapIdentity("m.example/a", "v.example/b"), "m.example/a:1", "v.example/b:1", True),
    (RemapIdentity("m.example/a", "v.example/b"), f"m.example/a@{D1}", "v.example/b:7", True),
    (
        RemapIdentity("m.example/a", "docker.io"),
        "m.example/a/box:1",
        "docker.io/library/box:1",
        False,
    ),
    (MatchExact(), None, "r.example/app:v1", False),
    (MatchRepoDigestOrExact(), None, "r.example/app:v1", False),
    (MatchRepository(), None, "r.example/app:v1", False),
    (RemapIdentity("a.example", "b.example"), None, "b.example/app:v1", False),
]


@pytest.mark.parametrize(("kind", "image", "signed", "matches"), ROWS)
def test_identity_kind_matches_as_containers_image_does(kind, image, signed, matches):
    reference = None if image is None else parse_reference(image)
    if matches is None:
        with pytest.raises(FormatError):
            parse_signed_name(signed)
        return
    assert kind.matches(reference, parse_signed_name(signed)) is matches
    assert kind.wanted(reference)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UPPER/case:v1",
        "r.example/app:",
        "r.example/app@",
        "r.example/app@sha256:" + "A" * 64,
        "r.example/app@sha256:" + "1" * 63,
        "r.example/app:v1\n",
        " r.example/app:v1",
        "docker://r.example/app:v1",
        "r.example/app:v1@" + D1 + "@" + D1,
        "r.example/" + "a" * 300,
        "r.example/app:" + "a" * 2000,
    ],
)
def test_signed_name_that_is_none_is_refused(text):
    with pytest.raises(FormatError) as caught:
        parse_signed_name(text, what="docker-reference", where="$.x")
    assert caught.value.where == "$.x"
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_signed_name_keeps_tag_and_digest_apart_and_fills_in_nothing():
    name = parse_signed_name(f"busybox:1@{D1}")
    assert (name.name, name.tag, str(name.digest)) == ("docker.io/library/busybox", "1", D1)
    assert str(name) == f"docker.io/library/busybox:1@{D1}"
    assert parse_signed_name("r.example:5000/app").is_name_only
