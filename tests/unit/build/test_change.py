# SPDX-License-Identifier: Apache-2.0
"""Whole changes of images, as a pipeline asks for them through the library."""

import pytest

from imagers.build.broker_key import BrokerKey
from imagers.build.change import DONE, Change, Kind, Work, decrypt, encrypt
from imagers.encrypt.keyfiles import load_private_key, load_public_key
from imagers.encrypt.rewrite import LayerAction
from imagers.encrypt.schemes.jwe import JWETarget, JWEUnwrapper, JWEWrapper, key_id
from imagers.encrypt.selection import parse_layer_selection
from imagers.errors import NoMatchingKey, NotFound, UsageError
from imagers.kbs.admin import BrokerAdmin
from imagers.model.descriptor import Platform
from imagers.model.manifest import parse_manifest
from imagers.model.media import is_encrypted
from imagers.testing import EmbeddedRegistry
from imagers.testing.registry_http import Fault
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink, open_source
from imagers.transport.resolve import resolve_image

ARM64 = Platform("linux", "arm64")


@pytest.fixture
def wrapper_of(vectors):
    return lambda name: JWEWrapper([load_public_key(str(vectors / "keys" / f"{name}.pub"))])


@pytest.fixture
def unwrapper_of(vectors):
    return lambda name: JWEUnwrapper(load_private_key(str(vectors / "keys" / f"{name}.key")))


def opens(name, unwrapper, into):
    """How many layers a key opens."""
    with open_source(name) as source, open_sink(into) as sink:
        return decrypt(source, sink, [unwrapper]).count(LayerAction.DECRYPTED)


def test_encrypt_and_decrypt_give_the_same_layers(opened_plain, name_at, wrapper_of, unwrapper_of):
    told = []
    work = Work(on_size=told.append, on_progress=told.append)
    with opened_plain("mixed") as source, open_sink(name_at("sealed")) as sink:
        done = encrypt(source, sink, [wrapper_of("r2048")], work=work)
    assert done.count(*DONE) == 3
    size, *news = told
    ends = {one.what: one for one in news if one.seconds is not None}
    assert set(ends) == {f"layer {number} of 3" for number in (1, 2, 3)}
    assert size == sum(end.size for end in ends.values())
    assert all(end.done == end.size for end in ends.values())
    assert opens(name_at("sealed"), unwrapper_of("r2048"), name_at("clear")) == 3
    with pytest.raises(NoMatchingKey):
        opens(name_at("sealed"), unwrapper_of("ec256"), name_at("x"))


def test_recipients_are_added_and_removed_and_layers_get_new_keys(
    opened_plain, name_at, wrapper_of, unwrapper_of, vectors
):
    old, new = unwrapper_of("r2048"), unwrapper_of("ec256")
    with opened_plain("mixed") as source, open_sink(name_at("one")) as sink:
        encrypt(source, sink, [wrapper_of("r2048")])
    with open_source(name_at("one")) as source, open_sink(name_at("both")) as sink:
        encrypt(source, sink, [wrapper_of("ec256")], Change(Kind.REWRAP), unwrappers=[old])
    assert opens(name_at("both"), new, name_at("c1")) == 3
    gone = JWETarget(key_id(load_public_key(str(vectors / "keys" / "r2048.pub"))), "jwe:r2048.pub")
    with open_source(name_at("both")) as source, open_sink(name_at("new")) as sink:
        encrypt(source, sink, [], Change(Kind.REWRAP, targets=[gone]), unwrappers=[new])
    with pytest.raises(NoMatchingKey):
        opens(name_at("new"), old, name_at("c2"))
    with open_source(name_at("both")) as source, open_sink(name_at("fresh")) as sink:
        done = encrypt(source, sink, [wrapper_of("ec256")], Change(Kind.REKEY), unwrappers=[old])
    assert done.count(LayerAction.ENCRYPTED) == 3
    assert opens(name_at("fresh"), new, name_at("c3")) == 3


def test_all_images_of_an_index_are_bound_to_the_key_at_the_broker(
    opened_plain, name_at, imagers_broker
):
    def open_admin():
        return BrokerAdmin(imagers_broker.url, key_file=imagers_broker.admin_key_file)

    key = BrokerKey("kbs:///default/app/", open_admin)
    with opened_plain("multi") as source, open_sink(name_at("sealed")) as sink:
        done = encrypt(source, sink, [], broker_key=key, work=Work(all_images=True))
    assert len(done.images) == 2
    bound = imagers_broker.admin.metadata(key.kid).manifest_digests
    assert set(bound) == {image.descriptor.digest for _, image in done.images}


def test_no_key_is_made_for_an_image_that_is_not_there(opened_plain, name_at):
    def nobody():
        raise AssertionError("the broker was asked")

    key = BrokerKey("kbs:///default/app/", nobody)
    wanted = Work(platform=Platform("linux", "s390x"))
    with (
        opened_plain("multi") as source,
        open_sink(name_at("sealed")) as sink,
        pytest.raises(NotFound, match="linux/s390x"),
    ):
        encrypt(source, sink, [], broker_key=key, work=wanted)


def test_nothing_to_encrypt_in_a_whole_index_is_an_error(opened_plain, name_at, wrapper_of):
    wrappers, everything = [wrapper_of("r2048")], Work(all_images=True)
    with opened_plain("multi") as source, open_sink(name_at("sealed")) as sink:
        encrypt(source, sink, wrappers, work=everything)
    with open_source(name_at("sealed")) as source, open_sink(name_at("again")) as sink:
        with pytest.raises(UsageError, match="nothing to encrypt"):
            encrypt(source, sink, wrappers, work=everything)
        change = Change(allow_nothing=True)
        assert encrypt(source, sink, wrappers, change, work=everything).count(*DONE) == 0


def test_layers_that_were_selected_are_encrypted(opened_plain, name_at, wrapper_of):
    change = Change(layers=[parse_layer_selection("-1")])
    with opened_plain("mixed") as source, open_sink(name_at("sealed")) as sink:
        done = encrypt(source, sink, [wrapper_of("r2048")], change)
    ((_, image),) = done.images
    assert [layer.action for layer in image.layers] == [
        LayerAction.COPIED,
        LayerAction.COPIED,
        LayerAction.ENCRYPTED,
    ]


def test_platform_that_was_asked_for_is_the_one_that_is_changed(opened_plain, name_at, wrapper_of):
    with opened_plain("multi") as source, open_sink(name_at("sealed")) as sink:
        done = encrypt(source, sink, [wrapper_of("r2048")], work=Work(platform=ARM64))
    assert [platform for platform, _ in done.images] == ["linux/arm64"]


def moved_blobs(registry):
    """Blobs whose bytes were read from the registry, and those that were sent to it."""
    read = {r.path.rpartition("/")[2] for r in registry.requests if r.method == "GET"}
    sent = {r.path.rpartition("digest=")[2] for r in registry.requests if r.method == "PUT"}
    return read, sent


def layers_of(name):
    with open_source(name) as source:
        image = resolve_image(source, source.read_manifest(), None)
    return {str(layer.digest) for layer in image.manifest.layers}


def stays_after(change, wrapper_of, unwrapper_of, vectors):
    """The arguments of `encrypt` for a change, with which most layers stay."""
    old, new = unwrapper_of("r2048"), wrapper_of("ec256")
    gone = JWETarget(key_id(load_public_key(str(vectors / "keys" / "r2048.pub"))), "jwe:r2048.pub")
    return {
        "add": ([new], Change(Kind.REWRAP), [old]),
        "rotate": ([new], Change(Kind.REWRAP, targets=[gone]), [old]),
        "rekey": ([new], Change(Kind.REKEY), [old]),
        "skip base": ([new], Change(skip_base=2, allow_nothing=True), []),
    }[change]


@pytest.mark.parametrize("change", ["add", "rotate", "rekey", "skip base"])
@pytest.mark.parametrize("refuses", [False, True], ids=["mounts", "refuses to mount"])
def test_layers_that_stay_do_not_move_within_a_registry(
    change, refuses, in_registry, imagers_registry, wrapper_of, unwrapper_of, vectors
):
    registry = imagers_registry
    plain = in_registry("mixed")
    first = parse_image_name(f"{registry.address}/first/app:v1")
    with open_source(plain) as source, open_sink(first) as sink:
        encrypt(source, sink, [wrapper_of("r2048")], Change(skip_base=1))
    wrappers, kind, unwrappers = stays_after(change, wrapper_of, unwrapper_of, vectors)
    if refuses:
        registry.faults.append(Fault("POST", "mount=", status=403, times=100))
    registry.requests.clear()
    second = parse_image_name(f"{registry.address}/second/app:v1")
    with open_source(first) as source, open_sink(second) as sink:
        done = encrypt(source, sink, wrappers, kind, unwrappers=unwrappers)
    ((_, image),) = done.images
    read, sent = moved_blobs(registry)
    stays = layers_of(first) & layers_of(second)
    assert len(stays) == (1 if change == "rekey" else 3)
    if refuses:
        assert stays <= read
        assert stays <= sent
    else:
        assert not stays & (read | sent)
        assert [one.moved for one in image.layers].count(False) == len(stays)
    assert registry.tags("second/app")


def test_layers_that_stay_in_all_images_of_an_index_do_not_move(
    in_registry, imagers_registry, wrapper_of, unwrapper_of
):
    first = parse_image_name(f"{imagers_registry.address}/first/app:v1")
    second = parse_image_name(f"{imagers_registry.address}/second/app:v1")
    with open_source(in_registry("multi")) as source, open_sink(first) as sink:
        encrypt(source, sink, [wrapper_of("r2048")], work=Work(all_images=True))
    imagers_registry.requests.clear()
    with open_source(first) as source, open_sink(second) as sink:
        done = encrypt(
            source,
            sink,
            [wrapper_of("ec256")],
            Change(Kind.REWRAP),
            unwrappers=[unwrapper_of("r2048")],
            work=Work(all_images=True),
        )
    layers = {
        str(one.digest)
        for _, image in done.images
        for one in parse_manifest(image.raw, media_type=image.media_type).layers
    }
    read, sent = moved_blobs(imagers_registry)
    assert layers
    assert not layers & (read | sent)


@pytest.mark.parametrize("skip", [False, True], ids=["held to diff_ids", "not held to diff_ids"])
def test_plain_layers_of_a_decrypted_image_are_not_sent_again(
    skip, in_registry, imagers_registry, wrapper_of, unwrapper_of
):
    """They are read to be checked, unless that was refused; and mounted."""
    first = parse_image_name(f"{imagers_registry.address}/first/app:v1")
    with open_source(in_registry("mixed")) as source, open_sink(first) as sink:
        encrypt(source, sink, [wrapper_of("r2048")], Change(skip_base=2))
    imagers_registry.requests.clear()
    second = parse_image_name(f"{imagers_registry.address}/second/app:v1")
    with open_source(first) as source, open_sink(second) as sink:
        done = decrypt(source, sink, [unwrapper_of("r2048")], skip_diff_id=skip)
        manifest = resolve_image(source, source.read_manifest(), None).manifest
    plain = {str(one.digest) for one in manifest.layers if not is_encrypted(one.media_type)}
    read, sent = moved_blobs(imagers_registry)
    assert len(plain) == 2
    assert not plain & sent
    assert (plain & read) == (set() if skip else plain)
    assert done.count(LayerAction.COPIED) == 2


def test_layers_that_stay_are_sent_to_another_registry(
    in_registry, imagers_registry, wrapper_of, unwrapper_of
):
    first = parse_image_name(f"{imagers_registry.address}/first/app:v1")
    with open_source(in_registry("mixed")) as source, open_sink(first) as sink:
        encrypt(source, sink, [wrapper_of("r2048")])
    with EmbeddedRegistry() as other:
        there = parse_image_name(f"{other.address}/first/app:v1")
        with open_source(first) as source, open_sink(there) as sink:
            new, old = [wrapper_of("ec256")], [unwrapper_of("r2048")]
            done = encrypt(source, sink, new, Change(Kind.REWRAP), unwrappers=old)
        assert all(layer.moved for layer in done.images[0][1].layers)
        assert not any("mount=" in request.path for request in other.requests)
        assert (
            opens(there, unwrapper_of("ec256"), parse_image_name(f"{other.address}/clear:v1")) == 3
        )
