# SPDX-License-Identifier: Apache-2.0
"""Stored bytes that are kept: they are checked as if they had been downloaded."""

import errno
import os
import subprocess
from dataclasses import replace

import pytest

from imagers.errors import DigestMismatch, IntegrityError, RemoteError
from imagers.model.keys import SecretKey
from imagers.store import Store
from imagers.testing import make_tar
from tests.unit.pull.test_run import (
    ACCEPT,
    after_the_check,
    encrypted_image,
    layers_of,
    named,
    no_signatures,
    options_for,
    plain_image,
)
from tests.unit.pull.test_run import Store as Broker

from imagers.pull.run import pull_image  # isort: skip

BASE = make_tar(("a", b"1"))
TOP = make_tar(("b", os.urandom(300_000)))


@pytest.fixture
def store(tmp_path):
    with SecretKey(b"k" * 32) as key, Store(tmp_path / "store", key) as store:
        yield store


@pytest.fixture
def pull(store, tmp_path):
    """A function: pull a source with the store; what was kept of each layer."""
    count = 0

    def pull(source, *, on_progress=None, **more):
        nonlocal count
        count += 1
        source.asked.clear()
        report = pull_image(
            named(source, no_signatures, pinned=True),
            tmp_path / f"bundle{count}",
            options_for(ACCEPT, **{"store": store, **more}),
            resources=Broker(),
            on_progress=on_progress,
        )
        assert (tmp_path / f"bundle{count}/rootfs/a").read_bytes() == b"1"
        return [layer.is_kept for layer in report.layers]

    return pull


def asked_of(source):
    return [one for one in source.asked if "layer" in str(one)]


def names(store):
    return [one.name for one in store.entries()]


@pytest.mark.parametrize("make", [encrypted_image, plain_image])
@pytest.mark.parametrize("more", [{}, {"stream": True}], ids=["checked", "streamed"])
def test_second_pull_asks_for_no_layer(pull, store, make, more):
    source = make(BASE, TOP)
    assert pull(source, **more) == [False, False]
    first = asked_of(source)
    assert len(first) == 2
    assert len(names(store)) == 2
    assert pull(source, **more) == [True, True]
    assert asked_of(source) == []


def test_what_is_kept_is_what_the_registry_has(pull, store):
    """Nothing that was decrypted is written where the host reads."""
    source = encrypted_image(BASE, TOP)
    pull(source)
    found = [path for path in store.path.rglob("*") if path.is_file() and path.name != "seal"]
    assert len(found) == 2
    whole = b"".join(path.read_bytes() for path in found)
    for layer in layers_of(source):
        assert source.blobs[layer.digest] in whole


def test_layer_of_two_images_is_asked_for_once(pull):
    pull(plain_image(BASE, TOP))
    other = plain_image(BASE, make_tar(("c", b"3")))
    assert pull(other) == [True, False]


def test_layer_that_comes_twice_is_asked_for_once_and_keeps_its_place(pull):
    gone = make_tar((".wh.a", b""))
    source = plain_image(BASE, gone, BASE)
    assert pull(source) == [False, False, True]
    assert len(asked_of(source)) == 2


def test_bytes_that_changed_on_the_disk_are_asked_for_again(pull, store):
    source = encrypted_image(BASE, TOP)
    pull(source)
    for path in store.path.glob("*/blob"):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert pull(source) == [False, False]
    assert pull(source) == [True, True]


def test_bytes_that_change_after_their_check_end_the_pull_and_are_dropped(pull, store):
    source = encrypted_image(BASE, TOP)
    pull(source)
    size = layers_of(source)[1].size
    path = store.path / f"blob-{str(layers_of(source)[1].digest).replace(':', '-')}" / "blob"

    def change():
        with path.open("r+b") as file:
            file.seek(size // 2)
            file.write(b"changed")

    with pytest.raises(IntegrityError):
        pull(source, on_progress=after_the_check(size, change))
    assert len(names(store)) == 1
    assert pull(source) == [True, False]


def test_layer_that_was_wrong_is_not_kept(pull, store):
    source = plain_image(BASE, TOP)
    wrong = layers_of(source)[1]
    right = source.blobs[wrong.digest]
    source.blobs[wrong.digest] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(DigestMismatch):
        pull(source)
    assert len(names(store)) == 1
    source.blobs[wrong.digest] = right
    assert pull(source) == [True, False]
    assert not [name for name in os.listdir(store.path) if name.startswith(".")]


def test_failed_download_leaves_nothing_in_the_store(pull, store, monkeypatch):
    source = plain_image(BASE, TOP)

    def fail(*_, **__):
        raise RemoteError("the registry is gone", status=503)

    monkeypatch.setattr(source, "open_raw_blob", fail)
    with pytest.raises(RemoteError):
        pull(source)
    assert os.listdir(store.path) == []


def test_seal_says_on_whose_word_it_is_kept(pull, store):
    source = plain_image(BASE)
    pull(source)
    (found,) = store.entries()
    assert found.seal.checks.basis == "pinned_digest"
    assert str(found.seal.checks.image.algorithm) == "sha256"
    assert found.seal.checks.policy == options_for(ACCEPT).policy.digest.hex
    assert found.seal.tar_size == len(BASE)
    assert store.verify(found.name) == ""


def test_seal_of_another_layer_is_none(pull, store):
    """The host moves the entry of a layer to the name of another one."""
    source = plain_image(BASE, TOP)
    pull(source)
    one, two = names(store)
    (store.path / two).rename(store.path / "aside")
    (store.path / one).rename(store.path / two)
    assert pull(source) == [False, False]


def test_what_has_no_room_is_not_kept(pull, store):
    store.max_bytes = 10_000
    source = plain_image(BASE, TOP)
    assert pull(source) == [False, False]
    assert pull(source) == [True, False]


@pytest.fixture
def small(tmp_path):
    """A function: a store on a file system of 64 KiB, mounted as it is told."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "x", place], check=False
    ).returncode:
        pytest.skip("mounts are for root")
    with SecretKey(b"k" * 32) as key, Store(place / "store", key) as store:

        def mounted(options):
            subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)
            return store

        yield mounted
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("make", [encrypted_image, plain_image])
def test_store_on_a_full_disk_keeps_what_fits_and_is_no_hindrance(pull, small, make):
    store = small("rw")
    source = make(BASE, TOP)
    assert pull(source, store=store) == [False, False]
    assert pull(source, store=store) == [True, False]
    assert not [name for name in os.listdir(store.path) if name.startswith(".")]


def test_store_that_can_only_be_read_is_no_hindrance(pull, small):
    source = plain_image(BASE, TOP)
    assert pull(source, store=small("ro")) == [False, False]
    pull(source, store=small("rw"))
    assert pull(source, store=small("ro")) == [True, False]


def test_layer_that_cannot_be_sealed_is_not_kept(pull, store, monkeypatch):
    source = plain_image(BASE, TOP)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("imagers.store.store.sync_file_system", full)
    assert pull(source) == [False, False]
    assert os.listdir(store.path) == []


def test_sealed_facts_are_of_no_weight(pull, store):
    """A seal with other figures changes nothing: the layer is read and counted each time."""
    source = plain_image(BASE)
    pull(source)
    with store.find(names(store)[0]) as entry:
        store.reseal(entry, replace(entry.seal, tar_size=1, entries=99))
    assert pull(source) == [True]
