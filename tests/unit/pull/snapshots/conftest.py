# SPDX-License-Identifier: Apache-2.0
"""Layers unpacked through snapshotters and straight, and what is left of it all."""

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagers.core import DirectorySink, Ownership, open_layer
from imagers.errors import Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import Compression
from imagers.pull.snapshots.snapshotter import Committed
from imagers.pull.snapshots.table import load_snapshotter
from imagers.testing import TarEntry, make_tar

REASON = "needs root: to mount, and owners are part of the trees"


def pytest_collection_modifyitems(items):
    """All of it needs root."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.skipif(os.geteuid() != 0, reason=REASON))


class Memory:
    """A RawStream over bytes."""

    def __init__(self, data):
        self._rest = memoryview(data)

    def readinto(self, buffer):
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self):
        pass


def unpack(root_fd, data, compression=Compression.NONE):
    """As a pull does it."""
    open_layer(
        Memory(data),
        DirectorySink(root_fd, Ownership.KEEP),
        expected=Descriptor("application/x", digest_of(data), len(data)),
        cipher=None,
        hmac=None,
        compression=compression,
        diff_id=None,
        what="layer",
    )


def described(root):
    """({name: all that a tree shows of it}, the names that are one file), of a directory."""
    tree, files = {}, {}
    root = os.fsencode(root)
    for folder, directories, names in os.walk(root):
        links = [name for name in directories if os.path.islink(os.path.join(folder, name))]
        for name in (b".", *names, *links):
            path = os.path.normpath(os.path.join(folder, name))
            there = os.lstat(path)
            is_file = stat.S_ISREG(there.st_mode)
            attributes = {
                one: os.getxattr(path, one, follow_symlinks=False)
                for one in os.listxattr(path, follow_symlinks=False)
                if one != "security.selinux"  # of the machine
            }
            tree[os.path.relpath(path, root)] = (
                oct(there.st_mode),
                there.st_uid,
                there.st_gid,
                there.st_mtime_ns,
                there.st_rdev,
                os.readlink(path) if stat.S_ISLNK(there.st_mode) else None,
                (there.st_size, hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest())
                if is_file
                else None,
                attributes,
            )
            if not stat.S_ISDIR(there.st_mode):
                files.setdefault((there.st_dev, there.st_ino), set()).add(path[len(root) :])
    return tree, {frozenset(names) for names in files.values() if len(names) > 1}


class Store:
    """Layers in places of one directory."""

    def __init__(self, folder, name):
        self.folder = folder
        self.snapshotter = load_snapshotter(name)
        self.layers = []
        self.count = 0
        self.root = folder / "bundle" / "rootfs"
        self.root.mkdir(parents=True)
        self.straight = folder / "straight"
        self.straight.mkdir(mode=0o755)
        os.utime(self.straight, (0, 0))  # as snapshotters have it

    def place(self):
        self.count += 1
        place = self.folder / f"place-{self.count}"
        place.mkdir()
        return place

    def add(self, *entries, data=None, compression=Compression.NONE):
        """One more layer, by the snapshotter and straight, or what both have refused it with."""
        data = make_tar(*entries) if data is None else data
        trial = self.folder / "trial"
        subprocess.run(["cp", "-a", self.straight, trial], check=True)
        fd = os.open(trial, os.O_RDONLY)
        try:
            refused = outcome(unpack, fd, data, compression)
        finally:
            os.close(fd)
        assert outcome(self.prepare, data, compression) == refused
        shutil.rmtree(trial if refused else self.straight)
        if not refused:
            trial.rename(self.straight)
        return refused

    def prepare(self, data, compression=Compression.NONE):
        place = self.place()
        with self.snapshotter.prepare(self.layers, place) as prepared:
            unpack(prepared.root_fd, data, compression)
        self.layers.append(Committed(place, prepared.facts))

    def compose(self):
        """The root, which is as new each time."""
        self.release()
        scratch = self.folder / "bundle" / "scratch"
        for path in (scratch, self.root):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        self.snapshotter.compose(self.layers, self.root, scratch)
        return self.root

    def release(self):
        self.snapshotter.release(self.root)

    def committed(self):
        """What the places hold, with all that the kernel wrote for itself."""
        return [described(layer.place) for layer in self.layers]

    def assert_same(self):
        """The root is what is unpacked straight. Of hard links overlayfs may know fewer."""
        got, expected = described(self.compose()), described(self.straight)
        assert got[0] == expected[0]
        if self.snapshotter.name == "plain":
            assert got[1] == expected[1]
        else:
            assert all(any(some <= names for names in expected[1]) for some in got[1])


def outcome(call, *arguments):
    """What is raised, without the place that it is told of."""
    try:
        call(*arguments)
    except Exception as error:  # noqa: BLE001  # whatever comes is compared
        return type(error), str(error)
    return None


def mounts_below(folder):
    """Mounts that are at a path in a directory."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in mounts if str(folder) in line]


def loops_below(folder):
    """Files in a directory that loop devices have."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # gone meanwhile
            found.append(path.read_text())
    return [text for text in found if str(folder) in text]


def loops_left(folder):
    """Those that stay: whatever looks at new devices on this machine may still have one open."""
    end = time.monotonic() + 60
    while (found := loops_below(folder)) and time.monotonic() < end:
        time.sleep(0.01)
    return found


@pytest.fixture(params=["/var/tmp", "/dev/shm"], ids=["disk", "tmpfs"])  # made below
def folder(request):
    """On either kind of file system; nothing stays mounted in it, and no descriptor open."""
    before = len(os.listdir("/proc/self/fd"))
    path = Path(tempfile.mkdtemp(prefix="imagers-test-", dir=request.param))
    try:
        yield path
        assert mounts_below(path) == []
        assert loops_left(path) == []
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        unmount_all(path)
        shutil.rmtree(path)


def unmount_all(folder):
    """Whatever a test that failed has left."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        mount = line.split()[4].encode().decode("unicode_escape")
        if mount.startswith(str(folder)):
            load_snapshotter("overlay").release(Path(mount))


def a_store(folder, name):
    store = Store(folder, name)
    try:
        store.snapshotter.check(folder)
    except Unsupported as error:
        pytest.skip(str(error))
    yield store
    store.release()


@pytest.fixture(params=["overlay", "plain", "erofs"])
def store(request, folder):
    yield from a_store(folder, request.param)


@pytest.fixture
def overlay(folder):
    yield from a_store(folder, "overlay")


@pytest.fixture
def plain(folder):
    yield from a_store(folder, "plain")


@pytest.fixture
def erofs(folder):
    yield from a_store(folder, "erofs")


@pytest.fixture
def make():
    """`make.file(..)`, `make.directory(..)`, .. of one day."""
    kinds = ("file", "directory", "symlink", "link", "other")

    def made(kind):
        return lambda *arguments, **more: getattr(TarEntry, kind)(
            *arguments, **({"mtime": 1_700_000_000} | more)
        )

    return SimpleNamespace(**{kind: made(kind) for kind in kinds})


@pytest.fixture
def tree():
    return described


@pytest.fixture
def mounts():
    return mounts_below
