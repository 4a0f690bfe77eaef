# SPDX-License-Identifier: Apache-2.0
"""Stored bytes that are kept: they are checked as if they had been downloaded."""

import errno
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from imagers.core import AES256_GCM_HKDF_1MB, AES_256_CTR_HMAC_SHA256, Budget
from imagers.encrypt.image import encrypt_image
from imagers.encrypt.schemes.broker import BrokerKeyWrapper
from imagers.errors import Cancelled, DigestMismatch, IntegrityError, LocalError, RemoteError
from imagers.model.image import load_image
from imagers.model.keys import SecretKey
from imagers.model.manifest import parse_manifest
from imagers.model.media import Compression
from imagers.pull.blobs import KeptBlobs
from imagers.store import Store
from imagers.testing import Lie, MemoryRepository, make_image, make_layer, make_tar
from tests.unit.pull.test_run import (
    ACCEPT,
    KEK,
    KID,
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


# ---- downloads that broke off ------------------------------------------------------------------

MIB = 1024 * 1024
LARGE = make_tar(("large", os.urandom(8 * MIB)))
CUT = 7 * MIB
KINDS = {
    "plain, gzip": (None, Compression.GZIP),
    "plain, zstd": (None, Compression.ZSTD),
    "plain, a tar": (None, Compression.NONE),
    "encrypted, gzip": (AES_256_CTR_HMAC_SHA256, Compression.GZIP),
    "encrypted, zstd": (AES_256_CTR_HMAC_SHA256, Compression.ZSTD),
    "encrypted in segments, gzip": (AES256_GCM_HKDF_1MB, Compression.GZIP),
}


def large_image(cipher=None, compression=Compression.NONE):
    plain = MemoryRepository(make_image(make_layer(BASE), make_layer(LARGE, compression)))
    if cipher is None:
        return plain
    source = MemoryRepository()
    image = load_image(parse_manifest(plain.top.raw), plain)
    with SecretKey(KEK) as kek:
        encrypt_image(image, source, [BrokerKeyWrapper(kek, KID)], cipher=cipher)
    return source


def part_of(store):
    """The part in a store: its file."""
    (found,) = [one for one in store.entries() if one.is_part]
    assert found.seal is None
    return store.path / found.name / "blob"


def has_no_part(store):
    return not any(name.startswith(("part-", ".")) for name in os.listdir(store.path))


@pytest.fixture
def broken(pull, store):
    """A function: pull an image whose second layer breaks off; what is left of it, a file."""

    def broken(source, *, after=CUT, error=None, **more):
        error = RemoteError("the cable is out") if error is None else error
        source.lies["layer 2 of 2"] = Lie(error=error, after=after)
        with pytest.raises(type(error)):
            pull(source, **more)
        source.lies.clear()
        part = part_of(store)
        data = part.read_bytes()
        assert MIB <= len(data) <= after
        assert source.blobs[layers_of(source)[1].digest].startswith(data)
        return part

    return broken


@pytest.mark.parametrize(("cipher", "compression"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("stream", [False, True], ids=["checked", "streamed"])
def test_next_pull_asks_for_the_rest_of_a_layer_alone(
    pull, store, broken, tmp_path, cipher, compression, jobs, stream
):
    more = {"stream": stream, "budget": Budget(jobs=jobs)}
    source = large_image(cipher, compression)
    size = broken(source, **more).stat().st_size
    assert pull(source, **more) == [True, False]
    assert asked_of(source) == [f"layer 2 of 2 from {size}"]
    assert (tmp_path / "bundle2/rootfs/large").read_bytes() in LARGE
    assert source.left_open == []
    assert has_no_part(store)
    assert [store.verify(name) for name in names(store)] == ["", ""]
    assert pull(source, **more) == [True, True]


@pytest.mark.parametrize(
    "error", [Cancelled("the time is over"), KeyboardInterrupt(), MemoryError()], ids=repr
)
def test_layer_that_is_given_up_is_gone_on_with(pull, broken, error):
    source = large_image()
    size = broken(source, error=error).stat().st_size
    assert pull(source) == [True, False]
    assert asked_of(source) == [f"layer 2 of 2 from {size}"]


def test_layer_that_is_all_there_is_not_asked_for(pull, store, broken):
    source = large_image()
    part = broken(source)
    part.write_bytes(source.blobs[layers_of(source)[1].digest])
    assert pull(source) == [True, False]
    assert asked_of(source) == []
    assert has_no_part(store)


def test_layer_that_breaks_off_twice_is_gone_on_with_twice(pull, store, broken):
    source = large_image()
    first = broken(source, after=4 * MIB).stat().st_size
    source.lies[f"layer 2 of 2 from {first}"] = Lie(error=RemoteError("again"), after=2 * MIB)
    with pytest.raises(RemoteError):
        pull(source)
    second = part_of(store).stat().st_size
    assert second == first + 2 * MIB
    assert pull(source) == [True, False]
    assert asked_of(source) == [f"layer 2 of 2 from {second}"]


def test_report_tells_how_much_was_there(store, broken, tmp_path, caplog):
    source = large_image()
    size = broken(source).stat().st_size
    with caplog.at_level("DEBUG", "imagers"):
        report = pull_image(
            named(source, no_signatures, pinned=True),
            tmp_path / "bundle",
            options_for(ACCEPT, store=store),
        )
    assert [layer.resumed for layer in report.layers] == [0, size]
    stored = layers_of(source)[1].size
    assert f"layer 2 of 2: {size} of {stored} bytes are there" in caplog.messages


@pytest.mark.parametrize(("cipher", "compression"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("at", "stream"), [(0, False), (300_000, True), (-1, False), (-1, True)])
def test_part_with_another_byte_costs_one_download(
    pull, store, broken, tmp_path, cipher, compression, at, stream
):
    """The host changes a byte of it, anywhere: nothing of it is unpacked."""
    source = large_image(cipher, compression)
    part = broken(source, stream=stream)
    data = bytearray(part.read_bytes())
    data[at] ^= 1
    part.write_bytes(data)
    assert pull(source, stream=stream) == [True, False]
    assert asked_of(source) == [f"layer 2 of 2 from {len(data)}", "layer 2 of 2"]
    assert (tmp_path / "bundle2/rootfs/large").read_bytes() in LARGE
    assert source.left_open == []
    assert has_no_part(store)
    assert pull(source, stream=stream) == [True, True]


@pytest.mark.parametrize("count", [1, MIB, 2 * MIB])
def test_part_that_became_shorter_is_gone_on_with_where_it_ends(pull, broken, count):
    source = large_image()
    part = broken(source)
    os.truncate(part, count)
    assert pull(source) == [True, False]
    assert asked_of(source) == [f"layer 2 of 2 from {count}"]


def test_part_with_zeros_at_its_end_costs_one_download(pull, broken):
    """As a power cut leaves it."""
    source = large_image()
    part = broken(source)
    size = part.stat().st_size
    os.truncate(part, size - 1000)
    os.truncate(part, size)
    assert pull(source) == [True, False]
    assert asked_of(source) == [f"layer 2 of 2 from {size}", "layer 2 of 2"]


def test_part_that_becomes_shorter_while_it_is_read_costs_one_download(pull, broken, monkeypatch):
    source = large_image()
    part = broken(source)
    size = part.stat().st_size

    class Host(KeptBlobs):
        def resume(self, index):
            taken = super().resume(index)
            os.truncate(part, MIB)
            return taken

    monkeypatch.setattr("imagers.pull.layers.KeptBlobs", Host)
    assert pull(source) == [True, False]
    assert size > MIB
    assert asked_of(source) == ["layer 2 of 2"]


FAULTS = {
    "longer than the blob": lambda part: os.truncate(part, len(LARGE) + 1),
    "empty": lambda part: os.truncate(part, 0),
    "missing": os.unlink,
    "a directory": lambda part: (part.unlink(), part.mkdir()),
    "a fifo": lambda part: (part.unlink(), os.mkfifo(part)),
    "a link": lambda part: part.rename(part.parent / "x") and part.symlink_to("x"),
    "a file with two names": lambda part: os.link(part, part.parent.parent / "other"),
    "with a seal that is none": lambda part: (part.parent / "seal").mkdir(),
    "of somebody else": lambda part: os.chown(part, 12345, 12345),
    "in a directory of somebody else": lambda part: os.chown(part.parent, 12345, 12345),
}


@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS)
def test_part_that_is_none_is_removed_and_the_layer_downloaded(pull, store, broken, change):
    source = large_image()
    part = broken(source)
    try:
        change(part)
    except PermissionError:
        pytest.skip("files are given away by root alone")
    assert pull(source) == [True, False]
    assert asked_of(source) == ["layer 2 of 2"]
    assert has_no_part(store)
    assert pull(source) == [True, True]


def test_file_that_a_part_was_linked_to_is_not_written_to(pull, broken, tmp_path):
    source = large_image()
    part = broken(source)
    precious = tmp_path / "precious"
    precious.write_bytes(part.read_bytes())
    part.unlink()
    os.link(precious, part)
    before = precious.read_bytes()
    assert pull(source) == [True, False]
    assert precious.read_bytes() == before


@pytest.mark.parametrize("kind", ["file", "link"])
def test_name_of_a_part_that_is_taken_is_no_hindrance(pull, store, tmp_path, kind):
    source = large_image()
    name = f"part-{str(layers_of(source)[1].digest).replace(':', '-')}"
    if kind == "file":
        (store.path / name).write_bytes(b"")
    else:
        (store.path / name).symlink_to(tmp_path)
    assert pull(source) == [False, False]
    assert pull(source) == [True, True]


def test_part_that_a_process_goes_on_with_is_left_to_it(pull, store, broken):
    source = large_image()
    layer = layers_of(source)[1]
    part = broken(source)
    with SecretKey(b"another key of thirty-two bytes!") as key, Store(store.path, key) as other:
        taken = other.take_part(layer.digest, size=layer.size)
        assert taken.there == part.stat().st_size
        assert pull(source) == [True, False]
        assert asked_of(source) == ["layer 2 of 2"]
        assert pull(source) == [True, True]
        taken.close()
    assert part.exists()
    assert pull(source) == [True, True]
    assert has_no_part(store)


def test_two_pulls_at_once_share_no_part(store, broken, tmp_path):
    source = large_image()
    size = broken(source).stat().st_size
    source.asked.clear()
    barrier = threading.Barrier(2)

    def pull_one(number):
        barrier.wait()
        with Store(store.path, store.key) as mine:
            pull_image(
                named(source, no_signatures, pinned=True),
                tmp_path / f"at-once{number}",
                options_for(ACCEPT, store=mine),
            )
        return (tmp_path / f"at-once{number}/rootfs/large").read_bytes()

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(pull_one, range(2))
    assert one == two
    assert one in LARGE
    assert asked_of(source).count(f"layer 2 of 2 from {size}") == 1
    assert has_no_part(store)


def test_part_of_another_boot_is_gone_on_with(store, broken, tmp_path):
    """Nothing of it is believed, so it needs no seal of this boot's key."""
    source = large_image()
    size = broken(source).stat().st_size
    source.asked.clear()
    with SecretKey(b"another key of thirty-two bytes!") as key, Store(store.path, key) as later:
        report = pull_image(
            named(source, no_signatures, pinned=True),
            tmp_path / "later",
            options_for(ACCEPT, store=later),
        )
    assert [layer.resumed for layer in report.layers] == [0, size]


def test_wrong_bytes_of_the_registry_leave_no_part(pull, store):
    source = large_image()
    digest = layers_of(source)[1].digest
    right = source.blobs[digest]
    source.blobs[digest] = right[:-1] + bytes([right[-1] ^ 1])
    for _ in range(2):
        with pytest.raises(DigestMismatch):
            pull(source)
        assert has_no_part(store)


def test_wrong_rest_is_downloaded_once_more_and_told(pull, store, broken):
    source = large_image()
    size = broken(source).stat().st_size
    digest = layers_of(source)[1].digest
    right = source.blobs[digest]
    source.blobs[digest] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(DigestMismatch):
        pull(source)
    assert asked_of(source) == [f"layer 2 of 2 from {size}", "layer 2 of 2"]
    assert has_no_part(store)


def test_bytes_of_a_part_that_change_after_their_check_end_the_pull_and_are_dropped(
    pull, store, broken
):
    source = large_image()
    part = broken(source)
    size = layers_of(source)[1].size

    def change():
        with part.open("r+b") as file:
            file.seek(MIB)
            file.write(b"changed")

    with pytest.raises(IntegrityError):
        pull(source, on_progress=after_the_check(size, change))
    assert has_no_part(store)
    assert pull(source) == [True, False]
    assert asked_of(source) == ["layer 2 of 2"]


def test_part_that_finds_no_room_is_dropped(pull, store, broken):
    source = large_image()
    broken(source)
    store.max_bytes = MIB
    assert pull(source) == [True, False]
    assert asked_of(source) == ["layer 2 of 2"]
    assert has_no_part(store)


def test_store_that_cannot_be_listed_any_more_is_no_hindrance(pull, store, broken, monkeypatch):
    source = large_image()
    size = broken(source).stat().st_size
    store.max_bytes = 100 * MIB
    right = os.listdir

    def listdir(place="."):
        if place == store.fd:
            raise OSError(errno.EIO, "Input/output error")
        return right(place)

    with monkeypatch.context() as patch:

        def spoil(progress):
            if progress.what == "layer 2 of 2":
                patch.setattr(os, "listdir", listdir)

        assert pull(source, on_progress=spoil, budget=Budget(jobs=1)) == [True, False]
        assert asked_of(source) == ["layer 2 of 2"]
    # Nobody holds the part: the next pull goes on with it.
    assert pull(source) == [True, False]
    assert asked_of(source) == [f"layer 2 of 2 from {size}"]


def test_source_that_cannot_go_on_leaves_no_part(pull, store):
    memory = large_image()

    class Local:
        """What a local layout has."""

        asked, read_manifest, name = memory.asked, memory.read_manifest, memory.name
        open_blob, open_raw_blob, close = memory.open_blob, memory.open_raw_blob, memory.close
        top = memory.top

    memory.lies["layer 2 of 2"] = Lie(error=RemoteError("gone"), after=CUT)
    with pytest.raises(RemoteError):
        pull(Local())
    assert has_no_part(store)


def test_small_layer_leaves_no_part(pull, store):
    source = plain_image(BASE, TOP)
    source.lies["layer 2 of 2"] = Lie(error=RemoteError("gone"), after=290_000)
    with pytest.raises(RemoteError):
        pull(source)
    assert has_no_part(store)


def test_beginning_that_is_not_worth_it_leaves_no_part(pull, store):
    source = large_image()
    source.lies["layer 2 of 2"] = Lie(error=RemoteError("gone"), after=MIB - 1)
    with pytest.raises(RemoteError):
        pull(source)
    assert has_no_part(store)


def test_full_disk_ends_the_pull_and_does_not_stay_full(pull, small, monkeypatch):
    store = small("rw,size=10m")
    source = large_image()
    source.lies["layer 2 of 2"] = Lie(error=RemoteError("gone"), after=CUT)
    with pytest.raises(RemoteError):
        pull(source, store=store)
    source.lies.clear()
    part_of(store)
    filling = store.path.parent / "filling"

    class Others(KeptBlobs):
        def resume(self, index):
            taken = super().resume(index)
            if taken is not None:
                status = os.fstatvfs(taken.fd)
                filling.write_bytes(bytes(status.f_bavail * status.f_frsize))
            return taken

    monkeypatch.setattr("imagers.pull.layers.KeptBlobs", Others)
    with pytest.raises(LocalError, match="cannot keep layer 2 of 2 until it is checked") as caught:
        pull(source, store=store)
    assert "--no-store" in caught.value.hint
    assert has_no_part(store)
    filling.unlink()
    assert pull(source, store=store) == [True, False]


def test_verbose_says_why_a_layer_is_not_kept(pull, store, monkeypatch, caplog):
    caplog.set_level("DEBUG", "imagers")
    store.max_bytes = 10_000
    pull(plain_image(BASE, TOP))
    assert "layer 2 of 2 is not kept: there is no room in the store" in caplog.messages
    store.max_bytes = None

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("imagers.store.store.sync_file_system", full)
    caplog.clear()
    pull(plain_image(BASE, TOP))
    (line,) = [one for one in caplog.messages if one.startswith("layer 2 of 2 is not kept: ")]
    assert line.endswith("cannot be kept: no space left on device")


def test_layer_that_cannot_be_unpacked_for_want_of_room_leaves_no_part(store, small):
    """Its bytes may be what fills the disk."""
    place = small("rw,size=4m").path.parent
    with pytest.raises(LocalError, match="cannot unpack layer 2 of 2: no space left"):
        pull_image(
            named(large_image(), no_signatures, pinned=True),
            place / "bundle",
            options_for(ACCEPT, store=store),
        )
    assert has_no_part(store)
