import pytest

from imagers.errors import FormatError, PolicyDenied
from imagers.model.reference import parse_reference
from imagers.registry.mirrors import parse_image_rs_registries, parse_registries_conf

CONF = """
unqualified-search-registries = ["evil.example"]
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


def test_drop_in_file_replaces_a_prefix():
    later = '[[registry]]\nprefix = "example.com/foo"\nlocation = "later.io/x"\n'
    conf = parse_registries_conf([("x", CONF), ("y", later)])
    (one,) = conf.endpoints(parse_reference("example.com/foo:v1"))
    assert str(one.reference) == "later.io/x:v1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "TOML"),
        ('[registries.search]\nregistries = ["a"]', "version 2"),
        ("[[registry]]\n", "prefix or a location"),
        ("[[registry]]\nlocation = 1", "a string"),
        ('[[registry]]\nlocation = "a io"', "HOST"),
        ('[[registry]]\nlocation = "a.io"\nblocked = "yes"', "true or false"),
        ('[[registry]]\nprefix = "*.x y"\n', "a prefix"),
        ("registry = 1", "tables"),
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
