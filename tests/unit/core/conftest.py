# SPDX-License-Identifier: Apache-2.0
"""Both implementations of the core behind one small driver, and tars made by hand."""

import os
import stat
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagers.core import (
    AES_256_CTR_HMAC_SHA256,
    CipherParameters,
    DirectorySink,
    Ownership,
    check_layer,
    layer,
    native,
    open_layer,
    plain,
    seal_layer,
)
from imagers.errors import Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.model.media import Compression
from imagers.pull.snapshots.places import remove_directory
from imagers.pull.snapshots.snapshotter import Committed
from imagers.pull.snapshots.table import load_snapshotter
from imagers.testing import TarEntry, make_tar

KEY = bytes(range(32))
NONCE = bytes(range(0xF0, 0x100))


class Memory:
    """A RawStream over bytes, in pieces of at most `piece` bytes."""

    def __init__(self, data, piece=1 << 30):
        self._rest = memoryview(data)
        self._piece = piece
        self.calls = 0

    def readinto(self, buffer):
        self.calls += 1
        count = min(len(buffer), self._piece, len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self):
        pass


class Driver:
    """Calls of the core with what most tests do not care about filled in."""

    Memory = Memory
    lists_once = True

    def __init__(self, folder):
        self._folder = folder
        self._number = 0
        self.left_out = {}

    @staticmethod
    def cipher(key=KEY, nonce=NONCE):
        return CipherParameters(AES_256_CTR_HMAC_SHA256, SecretKey(key), nonce)

    @staticmethod
    def descriptor(data, algorithm="sha256"):
        return Descriptor("application/x", digest_of(data, algorithm), len(data))

    def path(self):
        self._number += 1
        return self._folder / f"{self._number}"

    def source(self, data, piece):
        """(source, close): a file where `piece` is None, a stream otherwise."""
        if piece is not None:
            return Memory(data, piece), lambda: None
        path = self.path()
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        return fd, lambda: os.close(fd)

    def seal(self, data, *, piece=None, expected=None, **settings):
        """(SealedLayer, the bytes written)."""
        settings = {
            "cipher": self.cipher(),
            "source_compression": Compression.NONE,
            "what": "layer",
        } | settings
        source, close = self.source(data, piece)
        try:
            with self.path().open("w+b", buffering=0) as sink:
                result = seal_layer(
                    source,
                    sink.fileno(),
                    expected=expected or self.descriptor(data),
                    **settings,
                )
                sink.seek(0)
                return result, sink.read()
        finally:
            close()

    def open(self, data, *, piece=None, expected=None, sink="file", **settings):
        """(OpenedLayer, the bytes written)."""
        settings = {
            "cipher": None,
            "hmac": None,
            "compression": Compression.NONE,
            "diff_id": None,
            "what": "layer",
        } | settings
        source, close = self.source(data, piece)
        try:
            with self.path().open("w+b", buffering=0) as file:
                result = open_layer(
                    source,
                    file.fileno() if sink == "file" else sink,
                    expected=expected or self.descriptor(data),
                    **settings,
                )
                file.seek(0)
                return result, file.read()
        finally:
            close()

    def check(self, data, *, piece=None, expected=None, **settings):
        """(CheckedLayer, the bytes written)."""
        settings = {"cipher": None, "hmac": None, "what": "layer"} | settings
        source, close = self.source(data, piece)
        try:
            with self.path().open("w+b", buffering=0) as sink:
                settings = {"sink": sink.fileno()} | settings
                checked = check_layer(
                    source,
                    settings.pop("sink"),
                    expected=expected or self.descriptor(data),
                    **settings,
                )
                sink.seek(0)
                return checked, sink.read()
        finally:
            close()

    def unpack(self, *tars, root=None, ownership=Ownership.MINE, **settings):
        """The directory that the layers were unpacked into; its parents hold a canary.

        What was left out of the last one is in `left_out`, as {kind: (count, where)}.
        """
        if root is None:
            root = self.path() / "a" / "b" / "root"
            root.mkdir(parents=True, mode=0o755)
            (root.parent / "canary").write_text("alive")
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for data in tars:
                result, _ = self.open(data, sink=DirectorySink(fd, ownership), **settings)
                self.left_out = {one.kind: (one.count, one.where) for one in result.left_out}
        finally:
            os.close(fd)
        return root


class ThroughLayers(Driver):
    """Each layer in a place of its own, and what is looked at is the root that is made of them."""

    def __init__(self, folder, snapshotter=None):
        super().__init__(folder)
        self._snapshotter = snapshotter  # None: of an ordinary user
        self.lists_once = getattr(snapshotter, "name", "plain") == "plain"
        self._roots, self._places = [], []

    def check(self):
        self._snapshotter.check(self._folder)

    def unpack(self, *tars, root=None, **settings):
        """Straight where there is a root already, or none that may mount."""
        if root is not None or os.geteuid() != 0:
            return super().unpack(*tars, root=root, **settings)
        layers = []
        for data in tars:
            place = self.path()
            place.mkdir()
            self._places.append(place)
            try:
                with self._snapshotter.prepare(layers, place) as prepared:
                    root = Path(f"/proc/self/fd/{prepared.root_fd}")
                    super().unpack(data, root=root, **settings)
            except Unsupported as error:
                if "EROFS image" not in str(error):
                    raise
                pytest.skip(str(error))
            layers.append(Committed(place, prepared.facts))
        root, scratch = super().unpack(), self.path()
        scratch.mkdir()
        self._snapshotter.compose(layers, root, scratch)
        self._roots.append(root)
        return root

    def release(self):
        """Unmounted, and gone: trees may be deeper than pytest removes."""
        for root in self._roots:
            self._snapshotter.release(root)
        for place in self._places:
            remove_directory(place)


IMPLEMENTATIONS = {
    "c": (native, None),
    "c-libcrypto": (native, "layer=libcrypto"),  # not the stitched kernels
    "c-split": (native, "split"),  # several threads also for what is small
    "c-walk": (native, "walk"),
    "plain": (plain, None),
}


def use(monkeypatch, name):
    """Make the door of the package lead to one implementation."""
    module, force = IMPLEMENTATIONS[name]
    monkeypatch.setattr(layer, "_backend", module)
    monkeypatch.setattr(native, "_force", force)


@pytest.fixture(params=["c", "c-libcrypto", "c-split", "plain"])
def core(request, monkeypatch, tmp_path):
    use(monkeypatch, request.param)
    return Driver(tmp_path)


@pytest.fixture(params=["c", "c-split", "c-walk", "plain"])
def unpacking(request, monkeypatch, tmp_path):
    """Like `core`, and with names resolved by openat2 and by hand; or through a snapshotter."""
    through = request.param.removeprefix("through ")
    if through == request.param:
        use(monkeypatch, request.param)
        yield Driver(tmp_path)
        return
    driver = ThroughLayers(tmp_path, load_snapshotter(through))
    try:
        driver.check()
    except Unsupported as error:
        pytest.skip(str(error))
    yield driver
    driver.release()


@pytest.fixture
def both(monkeypatch, tmp_path):
    """`both(call)`: what `call(driver)` comes to, in either; they must agree."""

    def outcome(name, call):
        use(monkeypatch, name)
        folder = tmp_path / f"{name}-{len(os.listdir(tmp_path))}"
        folder.mkdir()
        try:
            return call(Driver(folder))
        except Exception as error:  # noqa: BLE001  # whatever comes is compared
            return type(error), str(error), vars(error)

    def agreed(call):
        results = [outcome(name, call) for name in ("c", "c-split", "plain")]
        assert results[0] == results[2]
        assert results[1] == results[2]
        return results[0]

    return agreed


@pytest.fixture
def tar():
    """`tar(make.file(..), make.directory(..), ...)`."""
    return make_tar


@pytest.fixture
def make():
    """Entries for `tar`: of whoever runs the test, and from a day that is not the first."""
    own = {"uid": os.getuid(), "gid": os.getgid(), "mtime": 1_700_000_000}
    kinds = ("file", "directory", "symlink", "link", "other")
    return SimpleNamespace(**{one: partial(getattr(TarEntry, one), **own) for one in kinds})


def read_tree(root):
    """What is in a directory: path to what it is."""
    tree = {}
    for folder, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = os.path.join(folder, name)  # names may be no UTF-8
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                what = "-> " + os.readlink(path)
            elif stat.S_ISDIR(status.st_mode):
                what = "/"
            elif not stat.S_ISREG(status.st_mode):  # to open it would wait, or do something
                kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
                device = f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
                what = "|" if stat.S_ISFIFO(status.st_mode) else device
            else:
                with open(path, "rb") as file:
                    what = file.read().decode("latin-1")
            tree[os.path.relpath(path, root)] = what
    return tree


@pytest.fixture
def tree():
    return read_tree
