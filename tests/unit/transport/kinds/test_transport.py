# SPDX-License-Identifier: Apache-2.0
"""Transports: a new one is a module and a line in the table."""

import json
import sys
from types import ModuleType

import pytest

from imagers.build.inspect import inspect_image
from imagers.errors import FormatError, PolicyDenied, Unsupported, UsageError
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.identity import ImageIdentity
from imagers.pull.named import open_image
from imagers.pull.permit import permit_image
from imagers.sign.formats.format import FORMATS
from imagers.sign.policy_json import parse_policy
from imagers.transport.copy import copy_image
from imagers.transport.kinds.transport import (
    TRANSPORTS,
    PathTransport,
    Row,
    Transport,
    find_transport,
    known_transports,
    parse_position,
)
from imagers.transport.names import ImageName, locate, parse_image_name
from imagers.transport.open import open_sink, open_source


class Toy(Transport):
    """Boxes with letters on them, each a layout in one directory."""

    name = "toy"

    def __init__(self, directory):
        self.directory = directory

    def parse(self, rest, text):
        if not rest.isalpha():
            raise FormatError(f"expected letters, got {text!r}", what="image name")
        return ImageName(self.name, path=rest)

    def open_source(self, name, options):
        del options
        return OCILayoutSource(str(self.directory / name.path), None, name=str(name))

    def open_sink(self, name, options):
        del options
        return OCILayoutSink(str(self.directory / name.path), None, name=str(name))

    def identity(self, name):
        return ImageIdentity(self.name, None, (f"box {name.path}", "box"))

    def parse_scope(self, written, *, what, where):
        if not written.lower().startswith("box"):
            raise FormatError("expected a box", what=what, where=where)
        return written.lower()


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A transport from outside of the package: its module, and its line."""
    module = ModuleType("toy_transport")
    module.TRANSPORT = Toy(tmp_path)
    monkeypatch.setitem(sys.modules, "toy_transport", module)
    row = Row("toy_transport", "toy:", has_path=False, holds_encrypted=False)
    monkeypatch.setitem(TRANSPORTS, "toy", row)


def policy_of(scope, kind):
    document = {
        "default": [{"type": "reject"}],
        "transports": {"toy": {scope: [{"type": kind}]}},
    }
    return parse_policy(json.dumps(document).encode())


@pytest.mark.usefixtures("toy")
def test_new_transport_is_copied_to_inspected_and_asked_about(vectors):
    plain = locate(parse_image_name(f"oci:{vectors / 'plain' / 'mixed'}"))
    with open_source(plain) as source, open_sink(parse_image_name("toy:a")) as sink:
        copied = copy_image(source, sink)
    with (
        open_source(parse_image_name("toy:a")) as source,
        open_sink(parse_image_name("toy:b")) as sink,
    ):
        assert copy_image(source, sink).digest == copied.digest
    with open_image("toy:b") as image:
        facts = inspect_image(image.source, image.find)
        assert facts["digest"] == str(copied.digest)
        assert facts["signature_forms"] == dict.fromkeys(FORMATS, 0)
        assert image.source.name == "toy:b"
        for scope in ("box b", "box", ""):
            assert permit_image(image, policy_of(scope, "insecureAcceptAnything"), platform=None)
            with pytest.raises(PolicyDenied, match="rejected") as caught:
                permit_image(image, policy_of(scope, "reject"), platform=None)
            assert f"$.transports.toy[{scope!r}]" in str(caught.value)
        with pytest.raises(PolicyDenied, match=r"\$\.default"):
            permit_image(image, policy_of("box a", "insecureAcceptAnything"), platform=None)


@pytest.mark.usefixtures("toy")
def test_new_transport_says_what_its_scopes_are():
    policy = policy_of("BOX a", "reject")
    assert list(policy.transports["toy"]) == ["box a"]
    with pytest.raises(FormatError, match="expected a box") as caught:
        policy_of("crate", "reject")
    assert caught.value.where == "$.transports.toy['crate']"


@pytest.mark.usefixtures("toy")
def test_new_transport_says_what_its_names_are():
    name = parse_image_name("toy:a")
    assert str(name) == "toy:a"
    assert locate(name) == name
    assert not name.written
    assert (name.is_remote, name.holds_encrypted) == (False, False)
    with pytest.raises(FormatError, match="expected letters, got 'toy:1'"):
        parse_image_name("toy:1")
    assert known_transports().startswith("known: docker://, oci:, oci-archive:, ")
    assert ", toy: as in" in known_transports()


def test_without_its_line_a_transport_is_a_name_in_a_registry():
    assert parse_image_name("toy:a").transport == "docker"
    with pytest.raises(Unsupported, match="transport 'toy' is not supported"):
        parse_image_name("toy://a")


@pytest.mark.parametrize("name", list(TRANSPORTS))
def test_every_line_of_the_table_has_its_module(name):
    row = TRANSPORTS[name]
    assert find_transport(name).name == name
    assert row.prefix.startswith(f"{name}:")
    assert isinstance(find_transport(name), PathTransport) is row.has_path


@pytest.mark.parametrize(
    ("ref", "position"),
    [("@0", 0), ("@123456", 123456), ("@", None), ("@1234567", None), ("0", None)],
)
def test_position_is_up_to_six_digits(ref, position):
    assert parse_position(ref) == position


@pytest.mark.parametrize("name", [one for one, row in TRANSPORTS.items() if row.has_path])
def test_path_is_demanded_and_located_before_a_policy_is_asked(name):
    transport = find_transport(name)
    with pytest.raises(FormatError, match=f"expected a path after '{name}:'") as caught:
        transport.parse("", f"{name}:")
    assert caught.value.hint == known_transports()
    with pytest.raises(ValueError, match="locate"):
        transport.identity(ImageName(name, path="/a"))
    with pytest.raises(UsageError, match="below '/'"):
        transport.identity(ImageName(name, path="/", written="/"))
    identity = transport.identity(ImageName(name, path="/a/b", written="b"))
    assert identity == ImageIdentity(name, None, ("/a/b", "/a"))
