# SPDX-License-Identifier: Apache-2.0
"""Unpacked layers that are kept: made once, and given to whom they belong."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from imagers.core import Ownership
from imagers.errors import DigestMismatch, LocalError
from imagers.files import read_mounts
from imagers.model.keys import SecretKey
from imagers.pull.run import pull_image
from imagers.pull.snapshots.table import load_snapshotter
from imagers.pull.trees import bundle_entry, remove_bundle, remove_stale_bundles
from imagers.store import Store
from imagers.testing import TarEntry, make_tar
from tests.unit.pull.test_run import (
    ACCEPT,
    encrypted_image,
    layers_of,
    named,
    no_signatures,
    options_for,
    plain_image,
)
from tests.unit.pull.test_run import Store as Broker

IS_ROOT = os.geteuid() == 0
BASE = make_tar(TarEntry.directory("etc"), ("etc/a", b"1"), ("old", b"x"))
TOP = make_tar((".wh.old", b""), ("etc/a", b"2"), ("b", os.urandom(300_000)))
MOUNTS = [
    pytest.param("overlay", marks=pytest.mark.skipif(not IS_ROOT, reason="mounts are for root"))
]


@pytest.fixture
def store(tmp_path):
    with SecretKey(b"k" * 32) as key, Store(tmp_path / "store", key) as store:
        yield store
    for mount in read_mounts():
        if mount.point.startswith(str(tmp_path)):
            subprocess.run(["umount", "-l", mount.point], check=True)


@pytest.fixture(params=["plain", *MOUNTS])
def kind(request):
    return request.param


@pytest.fixture
def pull(store, kind, tmp_path):
    """A function: pull a source with trees; what was kept of each layer, and the bundle."""
    count = 0

    def pull(source, **more):
        nonlocal count
        count += 1
        source.asked.clear()
        bundle = tmp_path / "bundles" / f"{count}"
        bundle.parent.mkdir(exist_ok=True)
        options = options_for(ACCEPT, store=store, snapshotter=load_snapshotter(kind), **more)
        image = named(source, no_signatures, pinned=True)
        report = pull_image(image, bundle, options, resources=Broker())
        return [layer.is_kept for layer in report.layers], bundle, report

    return pull


def layers_asked(source):
    return [one for one in source.asked if one.startswith("layer")]


def told(opened):
    return replace(opened, bytes_out=0)


def names(store, start=""):
    return [one.name for one in store.entries() if one.name.startswith(start)]


def check_tree(bundle):
    root = bundle / "rootfs"
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["b", "etc", "etc/a"]
    assert (root / "etc/a").read_bytes() == b"2"


@pytest.mark.parametrize("make", [encrypted_image, plain_image])
def test_second_pull_asks_for_no_layer_and_has_the_same_tree(pull, make):
    source = make(BASE, TOP)
    kept, bundle, first = pull(source)
    assert kept == [False, False]
    check_tree(bundle)
    kept, bundle, second = pull(source)
    assert kept == [True, True]
    assert layers_asked(source) == []
    check_tree(bundle)
    assert [told(one.opened) for one in second.layers] == [told(one.opened) for one in first.layers]
    assert json.loads((bundle / "config.json").read_text())["process"]["args"] == ["/bin/true"]


def test_what_a_container_writes_is_nowhere_else(pull, store):
    source = plain_image(BASE, TOP)
    _, first, _ = pull(source)
    (first / "rootfs/etc/a").write_bytes(b"changed")
    (first / "rootfs/b").unlink()
    (first / "rootfs/etc").chmod(0o700)
    _, second, _ = pull(source)
    check_tree(second)
    assert all(store.verify(name) == "" for name in names(store))


def test_layer_of_two_images_is_made_once(pull, store, kind):
    pull(plain_image(BASE, TOP))
    kept, bundle, _ = pull(plain_image(BASE, make_tar(("c", b"3"))))
    assert kept == [True, False]
    assert (bundle / "rootfs/c").read_bytes() == b"3"
    assert (bundle / "rootfs/old").read_bytes() == b"x"
    assert len(names(store, kind)) == 3


@pytest.mark.skipif(not IS_ROOT, reason="only root gives files away")
def test_tree_with_owners_of_one_kind_is_not_given_to_who_has_the_other(pull, monkeypatch):
    """Root of a user's namespace gets no files that became that user's."""
    source = plain_image(make_tar(TarEntry.file("file", b"", uid=33, gid=33)))
    monkeypatch.setattr("imagers.pull.trees.ownership", lambda: Ownership.MINE)
    assert pull(source)[0] == [False]
    monkeypatch.undo()
    kept, bundle, _ = pull(source)
    assert kept == [False]
    assert (bundle / "rootfs/file").stat().st_uid == 33


def test_repeated_layers_keep_their_order(pull):
    source = plain_image(BASE, TOP, BASE)
    for _ in range(2):
        _, bundle, _ = pull(source)
        assert (bundle / "rootfs/etc/a").read_bytes() == b"1"
        assert (bundle / "rootfs/old").exists()
        assert (bundle / "rootfs/b").exists()


def test_layer_under_another_key_is_fetched_and_checked_and_not_made_again(pull, store, kind):
    """The same tree, encrypted twice: whoever has one key does not have the other one's files."""
    one, two = encrypted_image(BASE, TOP), encrypted_image(BASE, TOP)
    pull(one)
    kept, bundle, _ = pull(two)
    assert kept == [False, False]
    assert len(layers_asked(two)) == 2
    check_tree(bundle)
    assert len(names(store, kind)) == 2
    assert pull(one)[0] == pull(two)[0] == [True, True]


def test_image_that_names_diff_ids_of_others_gets_nothing_of_theirs(pull, tmp_path):
    pull(encrypted_image(BASE, TOP))
    plain = plain_image(BASE, TOP)
    # Its layers are anything, and its config is that of an image whose layers they are not.
    for layer in layers_of(plain):
        plain.blobs[layer.digest] = b"\0" * layer.size
    with pytest.raises(DigestMismatch):
        pull(plain)
    assert os.listdir(tmp_path / "bundles") == ["1"]


def test_failed_pull_leaves_no_entry_and_no_mount(pull, store, kind, tmp_path):
    source = plain_image(BASE, TOP)
    wrong = layers_of(source)[1]
    data = source.blobs[wrong.digest]
    source.blobs[wrong.digest] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(DigestMismatch):
        pull(source)
    assert len(names(store)) == len(names(store, kind)) == 1
    assert not [name for name in os.listdir(store.path) if name.startswith(".")]
    assert os.listdir(tmp_path / "bundles") == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_failure_after_the_root_was_made_leaves_no_mount(pull, store, tmp_path):
    source = plain_image(BASE, make_tar(("file", b"")), WorkingDir="/file/below")
    with pytest.raises(Exception, match="expected a directory"):
        pull(source)
    assert names(store, "bundle") == []
    assert os.listdir(tmp_path / "bundles") == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_what_was_left_out_is_told_each_time(pull):
    tar = make_tar(TarEntry.file("sh", pax_headers={"SCHILY.xattr.security.selinux": "x\0"}))
    source = plain_image(tar)
    first, second = pull(source)[2], pull(source)[2]
    assert [one.text for one in first.left_out] == [one.text for one in second.left_out] != []


def test_limit_of_an_image_counts_for_what_is_kept(pull):
    from imagers.core import Limits
    from imagers.errors import Unsupported

    source = plain_image(BASE, TOP)
    pull(source)
    with pytest.raises(Unsupported, match="more bytes or entries than an image may have"):
        pull(source, limits=Limits(max_entries=2))


def test_store_without_room_for_a_layer_says_so(pull, store, tmp_path):
    store.max_bytes = 100_000
    with pytest.raises(LocalError, match=r"layer 2 of 2 takes \d+ bytes, and "):
        pull(plain_image(BASE, TOP))
    assert os.listdir(tmp_path / "bundles") == []


# ---- bundles whose root is mounted ------------------------------------------------------------

mounted = pytest.mark.parametrize("kind", MOUNTS, indirect=True)


@mounted
def test_layers_of_a_mounted_bundle_are_not_removed(pull, store, kind):
    _, bundle, _ = pull(plain_image(BASE, TOP))
    store.max_bytes = 0
    assert store.make_room(1) <= 0
    store.collect()
    assert len(names(store, kind)) == 2
    check_tree(bundle)
    for name in names(store, kind):
        with pytest.raises(LocalError, match=r"is needed by (bundle|overlay)-sha256-"):
            store.remove(name)
    assert remove_bundle(store, bundle)
    assert not os.path.ismount(bundle / "rootfs")
    assert not remove_bundle(store, bundle)
    store.make_room(1)
    assert names(store) == []


@mounted
def test_stale_bundles_are_those_that_are_not_mounted(pull, store):
    _, one, _ = pull(plain_image(BASE, TOP))
    _, two, _ = pull(plain_image(BASE, TOP))
    subprocess.run(["umount", one / "rootfs"], check=True)
    remove_stale_bundles(store)
    assert names(store, "bundle") == [bundle_entry(two)]
    check_tree(two)


@mounted
def test_bundle_of_another_mount_namespace_stays_and_of_another_boot_goes(pull, store):
    _, bundle, _ = pull(plain_image(BASE, TOP))
    subprocess.run(["umount", bundle / "rootfs"], check=True)
    with store.find(bundle_entry(bundle)) as entry:
        seal = entry.seal
        store.reseal(entry, replace(seal, facts={**seal.facts, "namespace": "mnt:[1]"}))
    remove_stale_bundles(store)
    assert names(store, "bundle") == [bundle_entry(bundle)]
    with store.find(bundle_entry(bundle)) as entry:
        store.reseal(entry, replace(seal, facts={**seal.facts, "boot": "earlier"}))
    remove_stale_bundles(store)
    assert names(store, "bundle") == []


@mounted
def test_new_bundle_where_one_was_begins_with_nothing_written(pull, store, kind):
    source = plain_image(BASE, TOP)
    _, bundle, _ = pull(source)
    (bundle / "rootfs/written").write_bytes(b"")
    subprocess.run(["umount", bundle / "rootfs"], check=True)
    (bundle / "config.json").unlink()
    (bundle / "rootfs").rmdir()
    options = options_for(ACCEPT, store=store, snapshotter=load_snapshotter(kind))
    pull_image(named(source, no_signatures, pinned=True), bundle, options)
    check_tree(bundle)


@mounted
def test_bundle_that_was_moved_keeps_what_its_container_wrote(pull, store):
    source = plain_image(BASE, TOP)
    _, bundle, _ = pull(source)
    (bundle / "rootfs/b").write_bytes(b"written")
    moved = bundle.rename(bundle.parent / "moved away")
    pull(source)
    assert bundle_entry(bundle) in names(store, "bundle")
    assert (moved / "rootfs/b").read_bytes() == b"written"
    assert remove_bundle(store, Path(bundle_entry(bundle)))
    assert not os.path.ismount(moved / "rootfs")


@mounted
def test_bundle_where_one_was_that_is_still_mounted_is_refused(pull, store, kind):
    source = plain_image(BASE, TOP)
    _, bundle, _ = pull(source)
    (bundle / "rootfs/b").write_bytes(b"written")
    moved = bundle.rename(bundle.parent / "moved")
    options = options_for(ACCEPT, store=store, snapshotter=load_snapshotter(kind))
    with pytest.raises(LocalError, match="was at this path is still mounted") as error:
        pull_image(named(source, no_signatures, pinned=True), bundle, options)
    assert names(store, "bundle") == [bundle_entry(bundle)]
    assert bundle_entry(bundle) in error.value.hint
    assert (moved / "rootfs/b").read_bytes() == b"written"


class Overtaken(Store):
    """A store in which something happens right after it was asked for the entry of a bundle."""

    happens = None

    def find(self, name):
        entry = super().find(name)
        if name.startswith("bundle-") and self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        return entry


def test_pull_that_another_overtakes_leaves_its_bundle_alone(pull, store, kind, tmp_path):
    """The other one has published: what its container writes must not be removed, or shared."""
    source = plain_image(BASE, TOP)
    bundle = tmp_path / "bundles" / "1"
    bundle.parent.mkdir()
    with Overtaken(store.path, store.key) as second:
        second.happens = lambda: pull(source)
        options = options_for(ACCEPT, store=second, snapshotter=load_snapshotter(kind))
        with pytest.raises(LocalError, match=r"about to put a bundle there|appeared during"):
            pull_image(named(source, no_signatures, pinned=True), bundle, options)
        assert os.listdir(bundle.parent) == ["1"]
        (bundle / "rootfs/new").write_bytes(b"written")  # fails where its scratch is gone
        check_names = sorted(path.name for path in (bundle / "rootfs").iterdir())
        assert check_names == ["b", "etc", "new"]
        assert names(store, "bundle") == ([bundle_entry(bundle)] if kind == "overlay" else [])


def test_pull_to_a_bundle_that_another_makes_says_so(pull, store, kind, tmp_path):
    """And not that it can be unmounted: it is going to be somebody's."""
    source = plain_image(BASE, TOP)
    bundle = tmp_path / "bundles" / "1"
    bundle.parent.mkdir()
    snapshotter = load_snapshotter(kind)

    class Watched:
        name = kind
        prepare, release = snapshotter.prepare, snapshotter.release

        def compose(self, *arguments):
            with pytest.raises(LocalError, match="another pull is about to put a bundle") as e:
                pull(source)
            assert e.value.hint is None
            snapshotter.compose(*arguments)

    options = options_for(ACCEPT, store=store, snapshotter=Watched())
    pull_image(named(source, no_signatures, pinned=True), bundle, options)
    check_tree(bundle)
    assert os.listdir(bundle.parent) == ["1"]


@mounted
def test_bundle_of_another_mount_namespace_is_not_removed(pull, store):
    _, bundle, _ = pull(plain_image(BASE, TOP))
    name = bundle_entry(bundle)
    with store.find(name) as entry:
        store.reseal(entry, replace(entry.seal, facts={**entry.seal.facts, "namespace": "mnt:[1]"}))
    with pytest.raises(LocalError, match=r"got one of mnt:\[1\]"):
        remove_bundle(store, Path(name))
    assert os.path.ismount(bundle / "rootfs")
    assert names(store, "bundle") == [name]


@mounted
def test_bundle_of_the_same_path_in_another_mount_namespace_is_another(pull, store, monkeypatch):
    _, bundle, _ = pull(plain_image(BASE, TOP))
    monkeypatch.setattr("imagers.pull.trees._NAMESPACE", "/proc/self/ns/pid")
    assert names(store, "bundle") != [bundle_entry(bundle)]
    assert not remove_bundle(store, bundle)


@mounted
def test_stale_bundle_that_another_process_holds_is_no_hindrance(pull, store, monkeypatch):
    source = plain_image(BASE, TOP)
    _, bundle, _ = pull(source)
    subprocess.run(["umount", bundle / "rootfs"], check=True)
    found = store.entries()
    with store.find(bundle_entry(bundle)):
        monkeypatch.setattr(store, "entries", lambda: found)  # as they were a moment ago
        remove_stale_bundles(store)
    monkeypatch.undo()
    assert names(store, "bundle") == [bundle_entry(bundle)]


@mounted
@pytest.mark.parametrize("step", ["pull", "collect", "remove"])
def test_nothing_under_another_key_goes_that_may_be_mounted(pull, store, kind, tmp_path, step):
    source = plain_image(BASE, TOP)
    _, bundle, _ = pull(source)
    before = sorted(path for path in store.path.rglob("*") if "work" not in path.parts)
    with SecretKey(b"o" * 32) as key, Store(store.path, key) as other:
        if step == "collect":
            assert other.collect() == []
        elif step == "remove":
            with pytest.raises(LocalError, match="may be mounted") as error:
                other.remove(bundle_entry(bundle))
            assert "--store-key" in error.value.hint
        else:
            options = options_for(ACCEPT, store=other, snapshotter=load_snapshotter(kind))
            with pytest.raises(LocalError, match="may be mounted"):
                pull_image(named(source, no_signatures, pinned=True), tmp_path / "two", options)
    assert sorted(path for path in store.path.rglob("*") if "work" not in path.parts) == before
    check_tree(bundle)


def test_seal_that_was_not_changed_leaves_the_tree_what_it_was(pull, store, monkeypatch):
    """A process dies as it notes that a layer was found in other bytes, too."""
    pull(encrypted_image(BASE, TOP))
    rename = os.rename

    def die(old, new, **more):
        if new == "seal":
            raise KeyboardInterrupt
        rename(old, new, **more)

    monkeypatch.setattr(os, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        pull(encrypted_image(BASE, TOP))
    monkeypatch.undo()
    assert {store.verify(name) for name in names(store)} == {""}


@mounted
def test_root_that_is_mounted_over_counts_as_mounted(pull, store):
    """What the container wrote does not go from under it."""
    _, bundle, _ = pull(plain_image(BASE, TOP))
    root = bundle / "rootfs"
    subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
    remove_stale_bundles(store)
    assert names(store, "bundle") == [bundle_entry(bundle)]
    with pytest.raises(LocalError, match="may still be mounted at"):
        remove_bundle(store, bundle)
    assert names(store, "bundle") == [bundle_entry(bundle)]
    subprocess.run(["umount", root], check=True)
    check_tree(bundle)
    assert remove_bundle(store, bundle)
    assert not os.path.ismount(root)
