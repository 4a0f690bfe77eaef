# SPDX-License-Identifier: Apache-2.0
"""Rules of both files; what the files may say is in test_registries_conf.py."""

import pytest

from imagers.errors import PolicyDenied, UsageError
from imagers.model.reference import parse_reference
from imagers.registry.registries_conf import parse_image_rs_registries, parse_registries_conf

CONF = """
[[registry]]
prefix = "example.com/foo"
location = "internal.example.com:5000/bar"
[[registry.mirror]]
location = "one.example/mirror"
[[registry.mirror]]
location = "two.example"
insecure = true
pull-from-mirror = "digest-only"
[[registry]]
location = "blocked.example"
blocked = true
[[registry]]
prefix = "*.wild.example"
location = "tame.example/sub"
[[registry]]
prefix = "x.wild.example"
insecure = true
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "hub.example/proxy"
"""
HEX = "sha256:" + "0" * 64


def places(name, conf=CONF):
    found = parse_registries_conf([("x", conf)]).endpoints(parse_reference(name))
    return [str(one.reference) for one in found]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.com/foo:v1", ["one.example/mirror:v1", "internal.example.com:5000/bar:v1"]),
        (
            f"example.com/foo/a@{HEX}",
            [
                f"one.example/mirror/a@{HEX}",
                f"two.example/a@{HEX}",
                f"internal.example.com:5000/bar/a@{HEX}",
            ],
        ),
        ("example.com/foobar:v1", ["example.com/foobar:v1"]),
        ("other.io/example.com/foo:v1", ["other.io/example.com/foo:v1"]),
        ("a.wild.example/app:v1", ["tame.example/sub/app:v1"]),
        ("x.wild.example/app:v1", ["x.wild.example/app:v1"]),
        ("wild.example/app:v1", ["wild.example/app:v1"]),
        (
            "busybox",
            ["hub.example/proxy/library/busybox:latest", "docker.io/library/busybox:latest"],
        ),
    ],
)
def test_endpoints_in_their_order(name, expected):
    assert places(name) == expected


def test_endpoints_insecure_in_both_tongues():
    text = '[[registry]]\nlocation = "a.io"\ninsecure = true\n'
    (one,) = parse_registries_conf([("x", text)]).endpoints(parse_reference("a.io/x"))
    assert (one.insecure, one.any_certificate) == (True, True)
    (one,) = parse_image_rs_registries(text, what="x").endpoints(parse_reference("a.io/x"))
    assert (one.insecure, one.any_certificate) == (True, False)


def test_endpoints_blocked_is_a_no():
    conf = parse_registries_conf([("x", CONF)])
    with pytest.raises(PolicyDenied, match=r"blocked\.example"):
        conf.endpoints(parse_reference("blocked.example/a"))


def test_endpoints_for_writing_are_no_mirrors():
    conf = parse_registries_conf([("x", CONF)])
    place = conf.place(parse_reference("example.com/foo:v1"))
    assert str(place.reference) == "internal.example.com:5000/bar:v1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.wild.example:5000/x", ["tame.example:5000/x:latest"]),
        ("a.wild.example.wild.example/x", ["tame.example/x:latest"]),
        ("a.wild.examples/x", ["a.wild.examples/x:latest"]),
        ("a.io/b.wild.example/x", ["a.io/b.wild.example/x:latest"]),
        ("a.deep.example/team/x", ["deep.example/t/x:latest"]),
        ("a.deep.example/teams/x", ["a.deep.example/teams/x:latest"]),
    ],
)
def test_wildcard_covers_hosts_below_it(name, expected):
    conf = (
        '[[registry]]\nprefix = "*.wild.example"\nlocation = "tame.example"\n'
        '[[registry]]\nprefix = "*.deep.example/team"\nlocation = "deep.example/t"\n'
    )
    assert places(name, conf) == expected


# The example of image-rs's own tests.
IMAGE_RS = """
unqualified-search-registries = ["docker.io", "example1.com"]
[[registry]]
prefix = "example.com/banned"
location = "example.com/banned"
blocked = true
[[registry]]
prefix = "example.com/foo"
location = "internal-registry-for-example.com/bar"
[[registry.mirror]]
location = "example-mirror-0.local/mirror-for-foo"
[[registry.mirror]]
location = "example-mirror-1.local/mirrors/foo"
insecure = true
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "123456.mirror.aliyuncs.com"
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.com/no-banned/image:tag", [("example.com/no-banned/image:tag", False)]),
        ("example.com/banned-suffix/image:tag", [("example.com/banned-suffix/image:tag", False)]),
        (
            "bar:tag",
            [
                ("123456.mirror.aliyuncs.com/library/bar:tag", False),
                ("docker.io/library/bar:tag", False),
                ("example1.com/bar:tag", False),
            ],
        ),
        (
            f"docker.io/foo/bar@{HEX}",
            [
                (f"123456.mirror.aliyuncs.com/foo/bar@{HEX}", False),
                (f"docker.io/foo/bar@{HEX}", False),
                (f"example1.com/foo/bar@{HEX}", False),
            ],
        ),
        (
            "example.com/foo/image:tag",
            [
                ("example-mirror-0.local/mirror-for-foo/image:tag", False),
                ("example-mirror-1.local/mirrors/foo/image:tag", True),
                ("internal-registry-for-example.com/bar/image:tag", False),
            ],
        ),
        ("a.io/example.com/foo:v1", [("a.io/example.com/foo:v1", False)]),
    ],
)
def test_image_rs_endpoints_in_their_order(name, expected):
    conf = parse_image_rs_registries(IMAGE_RS, what="x")
    found = conf.endpoints(parse_reference(name))
    assert [(str(one.reference), one.insecure) for one in found] == expected
    assert not any(one.any_certificate for one in found)


def test_image_rs_blocked_only_where_no_place_is_left():
    conf = parse_image_rs_registries(IMAGE_RS, what="x")
    with pytest.raises(PolicyDenied, match=r"example\.com/banned"):
        conf.endpoints(parse_reference("example.com/banned/image:tag"))
    text = (
        'unqualified-search-registries = ["docker.io", "b.io"]\n'
        '[[registry]]\nlocation = "docker.io"\nblocked = true\n'
    )
    conf = parse_image_rs_registries(text, what="x")
    (one,) = conf.endpoints(parse_reference("busybox"))
    assert str(one.reference) == "b.io/busybox:latest"
    with pytest.raises(PolicyDenied):
        conf.place(parse_reference("busybox"))


def test_image_rs_writing_goes_to_the_name_itself():
    conf = parse_image_rs_registries(IMAGE_RS, what="x")
    assert str(conf.place(parse_reference("bar:v1")).reference) == "docker.io/library/bar:v1"


def test_image_rs_insecure_without_a_location_is_not_for_the_registry_itself():
    text = '[[registry]]\nprefix = "a.io"\ninsecure = true\n'
    (one,) = parse_image_rs_registries(text, what="x").endpoints(parse_reference("a.io/x"))
    assert not one.insecure
    (one,) = parse_registries_conf([("x", text)]).endpoints(parse_reference("a.io/x"))
    assert one.insecure


SHORT = """
unqualified-search-registries = ["registry.example", "docker.io"]
[aliases]
"busybox" = "docker.io/library/busybox"
"fedora" = "registry.fedoraproject.org/fedora"
"team/app" = "team.example/app"
"""


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("app", r"'app'.*searched for in 'registry\.example', 'docker\.io'", "library/app"),
        ("other/app", "'other/app'.*does not search", "docker.io/other/app"),
        ("fedora", r"takes it for 'registry\.fedoraproject\.org/fedora'", "fedoraproject"),
        ("team/app", r"takes it for 'team\.example/app'", "docker.io/team/app"),
    ],
)
def test_short_name_that_podman_finds_elsewhere_refused(name, message, hint):
    conf = parse_registries_conf([("x", SHORT)])
    with pytest.raises(UsageError, match=message) as caught:
        conf.check_short_name(name, parse_reference(name))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "conf"),
    [
        ("busybox", SHORT),
        ("app", ""),
        ("app", "unqualified-search-registries = []"),
        ("app", 'unqualified-search-registries = ["docker.io"]'),
    ],
)
def test_short_name_that_means_the_same_everywhere_is_taken(name, conf):
    parse_registries_conf([("x", conf)]).check_short_name(name, parse_reference(name))


@pytest.mark.parametrize("prefix", ["blocked.example", "BLOCKED.Example", "blocked.example:443"])
@pytest.mark.parametrize(
    "name", ["Blocked.EXAMPLE/a", "blocked.example:0443/a", "blocked.example/a"]
)
def test_blocked_in_any_spelling(prefix, name):
    text = f'[[registry]]\nlocation = "{prefix}"\nblocked = true\n'
    conf = parse_registries_conf([("x", text)])
    for ask in (conf.endpoints, conf.place):
        with pytest.raises(PolicyDenied):
            ask(parse_reference(name))


@pytest.mark.parametrize("prefix", ["index.docker.io", "docker.io", "Index.Docker.io/library"])
@pytest.mark.parametrize(
    "name", ["busybox", "index.docker.io/busybox", "index.docker.io:443/library/a"]
)
def test_blocked_by_any_name_of_the_default_registry(prefix, name):
    test_blocked_in_any_spelling(prefix, name)


def test_blocked_by_the_tag_that_is_written_beside_a_digest():
    text = '[[registry]]\nlocation = "r.example/a:old"\nblocked = true\n'
    conf = parse_registries_conf([("x", text)])
    digest = f"sha256:{'0' * 64}"
    for name in ("r.example/a:old", f"r.example/a:old@{digest}"):
        for ask in (conf.endpoints, conf.place):
            with pytest.raises(PolicyDenied, match=r"blocks 'r\.example/a:old'"):
                ask(parse_reference(name))
    for name in ("r.example/a:new", f"r.example/a:new@{digest}", f"r.example/a@{digest}"):
        assert len(conf.endpoints(parse_reference(name))) == 1


def test_blocked_prefix_counts_beside_one_that_is_not():
    text = (
        '[[registry]]\nlocation = "r.example"\n'
        '[[registry]]\nlocation = "r.example:443"\nblocked = true\n'
    )
    conf = parse_registries_conf([("x", text)])
    with pytest.raises(PolicyDenied):
        conf.endpoints(parse_reference("r.example/a"))


def test_prefix_in_another_spelling_has_its_mirrors():
    conf = CONF.replace("example.com/foo", "Example.COM/foo")
    assert places("EXAMPLE.com/foo/a:v1", conf)[0] == "one.example/mirror/a:v1"


def test_later_file_replaces_a_rule_in_any_spelling():
    texts = [
        ("a", '[[registry]]\nlocation = "r.example"\nblocked = true\n'),
        ("b", '[[registry]]\nlocation = "R.example"\n'),
    ]
    assert parse_registries_conf(texts).endpoints(parse_reference("r.example/a"))
