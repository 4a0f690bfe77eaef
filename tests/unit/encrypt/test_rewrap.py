# SPDX-License-Identifier: Apache-2.0
import json
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from imagers.encrypt.image import LayerAction, decrypt_image, encrypt_image
from imagers.encrypt.keyfiles import load_private_key
from imagers.encrypt.recipients import parse_decryption_key, parse_recipients, parse_removals
from imagers.encrypt.rewrap import rewrap_image
from imagers.encrypt.schemes.broker import BrokerKeyWrapper
from imagers.encrypt.schemes.jwe import JWEUnwrapper
from imagers.encrypt.wrappers import (
    ProviderSettings,
    load_targets,
    opened_unwrappers,
    opened_wrappers,
)
from imagers.errors import NoMatchingKey, UsageError
from imagers.model.keys import SecretKey

KEYS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt" / "keys"
KID = "kbs:///default/image/key"


@pytest.fixture(scope="module")
def gpg_home():
    home = tempfile.mkdtemp(prefix="gpg-")
    for name in ("alice", "bob"):
        words = [
            "gpg",
            "--batch",
            "--quiet",
            "--homedir",
            home,
            "--import",
            KEYS / f"{name}.pub.gpg",
        ]
        subprocess.run(words, check=True, capture_output=True, timeout=60)
    yield home
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True, timeout=30)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def settings(gpg_home):
    return ProviderSettings(gpg_home=gpg_home)


@pytest.fixture
def work(new_sink, load_layout, settings):
    """Functions over images: encrypt, add, remove, opens; each gives the new image."""

    class Work:
        count = 0

        def _run(self, do):
            self.count += 1
            sink, path = new_sink(f"step-{self.count}")
            self.report = do(sink)
            sink.close()
            return load_layout(path)

        def encrypt(self, image, *recipients):
            with opened_wrappers(parse_recipients(recipients), settings) as wrappers:
                return self._run(lambda sink: encrypt_image(image, sink, wrappers))

        def add(self, image, key, *recipients):
            with (
                opened_wrappers(parse_recipients(recipients), settings) as wrappers,
                opened_unwrappers([parse_decryption_key(f"{KEYS}/{key}")]) as unwrappers,
            ):
                return self._run(
                    lambda sink: rewrap_image(image, sink, added=wrappers, unwrappers=unwrappers)
                )

        def remove(self, image, *targets, key=None):
            loaded = load_targets(parse_removals(targets), settings)
            unwrappers = [] if key is None else [JWEUnwrapper(load_private_key(f"{KEYS}/{key}"))]
            return self._run(
                lambda sink: rewrap_image(image, sink, removed=loaded, unwrappers=unwrappers)
            )

        def rotate(self, image, key, *, added, removed):
            loaded = load_targets(parse_removals(removed), settings)
            with (
                opened_wrappers(parse_recipients(added), settings) as wrappers,
                opened_unwrappers([parse_decryption_key(f"{KEYS}/{key}")]) as unwrappers,
            ):
                return self._run(
                    lambda sink: rewrap_image(
                        image, sink, added=wrappers, removed=loaded, unwrappers=unwrappers
                    )
                )

        def opens(self, image, *keys):
            parsed = [parse_decryption_key(f"{KEYS}/{key}") for key in keys]
            with opened_unwrappers(parsed) as unwrappers:
                try:
                    self._run(
                        lambda sink: decrypt_image(image, sink, unwrappers, require_encrypted=True)
                    )
                except NoMatchingKey:
                    return False
            return True

    return Work()


OTHERS = {
    "jwe rsa": ("jwe:{keys}/r4096.pub", ["r4096.key"]),
    "jwe ec": ("jwe:{keys}/ec384.pub", ["ec384.key"]),
    "pkcs7": ("pkcs7:{keys}/cert1.crt", ["cert1.key", "cert1.crt"]),
    "pgp": ("pgp:alice@example.com", ["alice.sec.gpg"]),
}


@pytest.mark.parametrize(("recipient", "keys"), OTHERS.values(), ids=OTHERS)
def test_recipient_added_and_removed_leaves_the_manifest_as_it_was(
    work, plain_image, recipient, keys
):
    recipient = recipient.format(keys=KEYS)
    first = work.encrypt(plain_image("tiny"), f"jwe:{KEYS}/r2048.pub")
    assert not work.opens(first, *keys)
    added = work.add(first, "r2048.key", recipient)
    assert work.report.count(LayerAction.REWRAPPED) == len(work.report.layers)
    assert work.opens(added, *keys)
    assert work.opens(added, "r2048.key")
    assert [(one.digest, one.size) for one in added.manifest.layers] == [
        (one.digest, one.size) for one in first.manifest.layers
    ]
    removed = work.remove(added, recipient)
    assert removed.manifest.raw == first.manifest.raw
    assert not work.opens(removed, *keys)


@pytest.mark.parametrize(("recipient", "keys"), OTHERS.values(), ids=OTHERS)
def test_remove_from_a_packet_that_others_share_leaves_it_to_them(
    work, plain_image, recipient, keys
):
    """One packet of the scheme for two recipients: only one of them goes."""
    recipient = recipient.format(keys=KEYS)
    other = {
        "jwe": (f"jwe:{KEYS}/r2048.pub", ["r2048.key"]),
        "pkcs7": (f"pkcs7:{KEYS}/cert2.crt", ["cert2.key", "cert2.crt"]),
        "pgp": ("pgp:bob@example.com", ["bob.sec.gpg"]),
    }[recipient.partition(":")[0]]
    for order in ([recipient, other[0]], [other[0], recipient]):
        both = work.encrypt(plain_image("tiny"), *order)
        left = work.remove(both, recipient)
        assert not work.opens(left, *keys)
        assert work.opens(left, *other[1])


def test_remove_by_number_takes_that_packet(work, plain_image):
    first = work.encrypt(plain_image("tiny"), f"jwe:{KEYS}/r2048.pub", f"pkcs11:{KEYS}/r3072.pub")
    more = work.add(first, "r2048.key", f"pkcs11:{KEYS}/r4096.pub")
    assert work.opens(more, "r4096.key")
    left = work.remove(more, "pkcs11#1", key="r2048.key")
    assert not work.opens(left, "r3072.key")
    assert work.opens(left, "r4096.key")


def test_remove_a_broker_takes_packets_of_that_key_only(work, plain_image, new_sink, load_layout):
    sink, path = new_sink("both")
    with opened_wrappers(parse_recipients([f"jwe:{KEYS}/r2048.pub"])) as wrappers:
        encrypt_image(
            plain_image("tiny"), sink, [*wrappers, BrokerKeyWrapper(SecretKey(bytes(32)), KID)]
        )
    sink.close()
    both = load_layout(path)
    with pytest.raises(UsageError, match="no layer is encrypted for broker:kbs:///a/b/c"):
        work.remove(both, "broker:kbs:///a/b/c")
    for target in (f"broker:{KID}", "provider:attestation-agent", "provider.attestation-agent#1"):
        left = work.remove(both, target)
        names = set().union(*(one.annotations for one in left.manifest.layers))
        assert {name.rpartition(".enc.")[2] for name in names} == {"pubopts", "keys.jwe"}


@pytest.mark.parametrize("address", ["kbs://kbs.example:8080/", "kbs+resource:///"])
def test_remove_a_broker_takes_packets_that_name_an_address_too(
    work, plain_image, new_sink, load_layout, address
):
    """The path is the key: a packet that stays is one more who can open the image."""
    sink, path = new_sink("both")
    wrapper = BrokerKeyWrapper(SecretKey(bytes(32)), KID)
    wrapped = wrapper.wrap

    def with_address(document, context):
        return wrapped(document, context).replace(b"kbs:///", address.encode())

    with (
        pytest.MonkeyPatch.context() as patch,
        opened_wrappers(parse_recipients([f"jwe:{KEYS}/r2048.pub"])) as wrappers,
    ):
        patch.setattr(wrapper, "wrap", with_address)
        encrypt_image(plain_image("tiny"), sink, [*wrappers, wrapper])
    sink.close()
    left = work.remove(load_layout(path), f"broker:{KID}")
    names = set().union(*(one.annotations for one in left.manifest.layers))
    assert {name.rpartition(".enc.")[2] for name in names} == {"pubopts", "keys.jwe"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (f"jwe:{KEYS}/r4096.pub", "no layer is encrypted for jwe:"),
        (f"pkcs7:{KEYS}/cert1.crt", "no layer is encrypted for pkcs7:"),
        ("pgp:bob@example.com", "no layer is encrypted for pgp:"),
        ("jwe#2", "no layer is encrypted for jwe#2"),
        (f"jwe:{KEYS}/r2048.pub", "layer 1 of 8: nobody would be left to open it"),
        (f"pkcs11:{KEYS}/r2048.pub", "a PKCS11 packet does not say for whom it is"),
        ("provider:x:y", "only the provider can read its parameters"),
        ("broker:kbs:///a/b/", "expected the whole name of the key"),
    ],
)
def test_remove_of_who_cannot_be_removed_raises(work, plain_image, target, message):
    first = work.encrypt(plain_image("tiny"), f"jwe:{KEYS}/r2048.pub")
    with pytest.raises(UsageError, match=message.replace("8", r"\d+")):
        work.remove(first, target)


def test_remove_that_would_lock_the_given_key_out_raises(work, plain_image):
    first = work.encrypt(plain_image("tiny"), f"jwe:{KEYS}/r2048.pub", f"jwe:{KEYS}/ec256.pub")
    with pytest.raises(NoMatchingKey):
        work.remove(first, f"jwe:{KEYS}/ec256.pub", key="ec256.key")


@pytest.mark.parametrize(("recipient", "keys"), OTHERS.values(), ids=OTHERS)
def test_rotation_adds_and_removes_in_one_manifest(work, plain_image, recipient, keys):
    recipient = recipient.format(keys=KEYS)
    first = work.encrypt(plain_image("tiny"), f"jwe:{KEYS}/r2048.pub", f"jwe:{KEYS}/ec256.pub")
    old = f"jwe:{KEYS}/r2048.pub"
    rotated = work.rotate(first, "r2048.key", added=[recipient], removed=[old])
    assert not work.opens(rotated, "r2048.key")
    assert work.opens(rotated, "ec256.key")
    assert work.opens(rotated, *keys)
    assert [(one.digest, one.size) for one in rotated.manifest.layers] == [
        (one.digest, one.size) for one in first.manifest.layers
    ]


def test_rotation_of_the_only_recipient_says_whether_the_key_still_opens_it(work, plain_image):
    first = work.encrypt(plain_image("tiny"), f"jwe:{KEYS}/r2048.pub")
    new, old = f"jwe:{KEYS}/ec256.pub", f"jwe:{KEYS}/r2048.pub"
    rotated = work.rotate(first, "r2048.key", added=[new], removed=[old])
    assert not work.report.opens
    assert {one.keys for one in work.report.layers} == {(new,)}
    assert work.opens(rotated, "ec256.key")
    assert not work.opens(rotated, "r2048.key")
    work.rotate(rotated, "ec256.key", added=[old, f"jwe:{KEYS}/r4096.pub"], removed=["jwe#1"])
    assert not work.report.opens
    both = work.encrypt(plain_image("tiny"), old, new)
    work.rotate(both, "ec256.key", added=[f"jwe:{KEYS}/r4096.pub"], removed=[old])
    assert work.report.opens


@pytest.mark.parametrize(
    ("added", "removed", "message"),
    [
        ("r2048", f"jwe:{KEYS}/r2048.pub", "expected other recipients to add than to remove, got"),
        ("ec256", f"jwe:{KEYS}/r4096.pub", "no layer is encrypted for jwe:"),
        ("ec256", "jwe#2", "no layer is encrypted for jwe#2"),
    ],
)
def test_rotation_that_cannot_be_meant_raises(work, plain_image, added, removed, message):
    first = work.encrypt(plain_image("tiny"), f"jwe:{KEYS}/r2048.pub")
    with pytest.raises(UsageError, match=message) as caught:
        work.rotate(first, "r2048.key", added=[f"jwe:{KEYS}/{added}.pub"], removed=[removed])
    assert caught.value.exit_code == 2
    if "#" not in removed:
        assert removed in str(caught.value)


def test_rotation_with_a_key_that_does_not_open_it_raises(work, plain_image):
    first = work.encrypt(plain_image("tiny"), f"jwe:{KEYS}/r2048.pub")
    new, old = f"jwe:{KEYS}/ec256.pub", f"jwe:{KEYS}/r2048.pub"
    with pytest.raises(NoMatchingKey):
        work.rotate(first, "ec256.key", added=[new], removed=[old])


def test_add_and_remove_of_an_image_in_the_clear_raise(work, plain_image):
    with pytest.raises(UsageError, match="no layer of the image is encrypted"):
        work.add(plain_image("tiny"), "r2048.key", f"jwe:{KEYS}/ec256.pub")
    with pytest.raises(UsageError, match="no layer of the image is encrypted"):
        work.remove(plain_image("tiny"), "jwe#1")


def test_add_with_a_key_that_does_not_open_it_raises(work, plain_image):
    first = work.encrypt(plain_image("tiny"), f"jwe:{KEYS}/r2048.pub")
    with pytest.raises(NoMatchingKey):
        work.add(first, "wrong.key", f"jwe:{KEYS}/ec256.pub")


def test_add_to_an_image_of_skopeo_keeps_what_it_wrote(work, vectors, load_layout):
    image = load_layout(vectors / "encrypted" / "partial-first-and-last-C" / "image")
    before = json.loads(image.manifest.raw)
    added = work.add(image, "ec256.key", f"jwe:{KEYS}/r2048.pub")
    after = json.loads(added.manifest.raw)
    for old, new in zip(before["layers"], after["layers"], strict=True):
        names = (old.pop("annotations", {}), new.pop("annotations", {}))
        assert old == new
        for name, value in names[0].items():
            assert names[1][name].startswith(value)
    assert json.loads(work.remove(added, f"jwe:{KEYS}/r2048.pub").manifest.raw) == json.loads(
        image.manifest.raw
    )


def test_add_and_remove_take_away_what_others_left_that_speaks_of_the_clear(work, plain_image):
    toc = "containerd.io/snapshot/stargz/toc.digest"
    image = work.encrypt(plain_image("tiny"), f"jwe:{KEYS}/ec256.pub", f"pkcs7:{KEYS}/cert1.crt")
    layers = [
        replace(one, annotations={**one.annotations, toc: "sha256:1", "org.example.keep": "yes"})
        for one in image.manifest.layers
    ]
    left = replace(image, manifest=replace(image.manifest, layers=tuple(layers)))
    for done in (
        work.add(left, "ec256.key", f"jwe:{KEYS}/r2048.pub"),
        work.remove(left, f"pkcs7:{KEYS}/cert1.crt"),
    ):
        assert {report.left_out for report in work.report.layers} == {(toc,)}
        for layer in done.manifest.layers:
            assert toc not in layer.annotations
            assert layer.annotations["org.example.keep"] == "yes"


def test_remove_of_who_may_be_in_a_packet_without_a_name_raises(work, vectors, load_layout):
    """Removed from the layers that we encrypted, they would still open those of another tool."""
    place = vectors / "encrypted" / "partial-first-and-last-C" / "image"
    image = work.encrypt(load_layout(place), f"jwe:{KEYS}/ec256.pub")
    rotation = {"added": [f"jwe:{KEYS}/r2048.pub"], "removed": [f"jwe:{KEYS}/ec256.pub"]}
    with pytest.raises(UsageError, match=r"layer 1 of .*not say for whom it is: .*ec256.pub may"):
        work.rotate(image, "ec256.key", **rotation)
    rotated = work.rotate(image, "ec256.key", **rotation | {"removed": ["jwe#1"]})
    assert work.opens(rotated, "r2048.key")
    assert not work.opens(rotated, "ec256.key")
