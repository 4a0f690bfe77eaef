# SPDX-License-Identifier: Apache-2.0
"""Kinds of recipients: a new one is a module and a line in the table."""

import sys
from types import ModuleType

import pytest

from imagers.build.change import Change, Kind, decrypt, encrypt
from imagers.encrypt.describe import describe_wrapped_key
from imagers.encrypt.recipients import DecryptionKey, Recipient, parse_recipients, parse_removals
from imagers.encrypt.rewrite import LayerAction
from imagers.encrypt.schemes.scheme import SCHEMES, Row, Scheme, find_scheme, scheme_of
from imagers.encrypt.wrappers import load_targets, opened_unwrappers, opened_wrappers
from imagers.errors import FormatError, UsageError
from imagers.model.keys import NotMine, SecretKey, WrappedKey
from imagers.transport.names import locate, parse_image_name
from imagers.transport.open import open_sink, open_source


class ToyWrapper:
    """Writes the key down, with the names of those it is for."""

    scheme = "toy"

    def __init__(self, names):
        self.names = names
        self.recipients = tuple(f"toy:{name}" for name in names)

    def wrap(self, key, context):
        del context
        with key.view() as data:
            return "+".join(self.names).encode() + b"\0" + bytes(data)


class ToyUnwrapper:
    description = "toy"

    def unwrap(self, wrapped, context):
        del context
        if wrapped.scheme != "toy":
            raise NotMine("no toy")
        return SecretKey(wrapped.packet.partition(b"\0")[2])


class ToyTarget:
    def __init__(self, name):
        self.name = f"toy:{name}"
        self.whom = name.encode()

    def drop_from(self, wrapped, number):
        del number
        if wrapped.scheme != "toy":
            return wrapped.packet
        names, _, key = wrapped.packet.partition(b"\0")
        left = [one for one in names.split(b"+") if one != self.whom]
        return b"+".join(left) + b"\0" + key if left else None


class Toy(Scheme):
    def check(self, value):
        if not value.isalpha():
            raise FormatError("expected letters", what="recipient")

    def open_wrappers(self, values, settings, stack):
        del settings, stack
        return [ToyWrapper(values)]

    def open_unwrappers(self, files, settings, stack):
        del files, settings, stack
        return [ToyUnwrapper()]

    def load_target(self, value, settings):
        del settings
        return ToyTarget(value)

    def list_recipients(self, wrapped):
        return [("toy", wrapped.packet.partition(b"\0")[0].decode())]


@pytest.fixture
def toy(monkeypatch):
    """A kind of recipient from outside of the package: its module, and its line."""
    module = ModuleType("toy_scheme")
    module.SCHEME = Toy()
    monkeypatch.setitem(sys.modules, "toy_scheme", module)
    monkeypatch.setitem(SCHEMES, "toy", Row("toy_scheme", "toy:NAME", ("PrivateKey",)))


@pytest.mark.usefixtures("toy")
def test_new_kind_encrypts_is_described_is_removed_and_decrypts(vectors, tmp_path):
    def at(name):
        return locate(parse_image_name(f"oci:{name}:v1"))

    key = vectors / "keys" / "r2048"
    recipients = parse_recipients(["toy:alice,toy:bob", f"jwe:{key}.pub"])
    with (
        open_source(at(vectors / "plain" / "mixed")) as source,
        open_sink(at(tmp_path / "sealed")) as sink,
        opened_wrappers(recipients) as wrappers,
    ):
        encrypt(source, sink, wrappers)
    targets = load_targets(parse_removals(["toy:alice", "jwe#1"]))
    assert [one.name for one in targets] == ["toy:alice", "jwe#1"]
    with open_source(at(tmp_path / "sealed")) as source, open_sink(at(tmp_path / "less")) as sink:
        encrypt(source, sink, [], Change(Kind.REWRAP, targets=targets))
    # The one private key is no recipient any more: what opens the layers is the toy.
    with (
        open_source(at(tmp_path / "less")) as source,
        open_sink(at(tmp_path / "clear")) as sink,
        opened_unwrappers([DecryptionKey(f"{key}.key")]) as unwrappers,
    ):
        done = decrypt(source, sink, unwrappers)
    assert done.count(LayerAction.DECRYPTED) == 3
    ((_, image),) = done.images
    assert {layer.keys for layer in image.layers} == {("toy",)}


@pytest.mark.usefixtures("toy")
def test_new_kind_is_checked_and_described():
    assert parse_recipients(["toy:alice"]) == (Recipient("toy", "alice"),)
    with pytest.raises(FormatError, match="expected letters"):
        parse_recipients(["toy:1"])
    assert describe_wrapped_key(WrappedKey("toy", b"alice\0key")) == "toy (toy alice)"


def test_without_its_line_a_kind_is_unknown_and_opens_nothing(vectors):
    with pytest.raises(UsageError, match=r"pgp:ID, provider:NAME or broker:URI, got scheme 'toy'"):
        find_scheme("toy")
    assert scheme_of(WrappedKey("toy", b"")) is None
    assert "unsupported" in describe_wrapped_key(WrappedKey("toy", b"x"))
    with opened_unwrappers([DecryptionKey(str(vectors / "keys" / "r2048.key"))]) as unwrappers:
        assert not any(isinstance(one, ToyUnwrapper) for one in unwrappers)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_every_line_of_the_table_has_its_module(name):
    assert isinstance(find_scheme(name), Scheme)
    assert SCHEMES[name].usage.startswith(f"{name}:")


@pytest.mark.parametrize(
    ("scheme", "found"),
    [
        ("jwe", "jwe"),
        ("provider.x", "provider"),
        ("provider", None),
        ("broker", None),
        ("jwe.x", None),
        ("", None),
    ],
)
def test_scheme_of_a_packet_is_that_of_its_annotation(scheme, found):
    expected = None if found is None else find_scheme(found)
    assert scheme_of(WrappedKey(scheme, b"")) is expected
