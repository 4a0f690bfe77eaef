# SPDX-License-Identifier: Apache-2.0
"""Images by a seed, and the trees that they have to become: for tests/faults/pulls.py.

A tree is a dictionary: the path, and what is there. It is computed from the entries of the layers,
as image-spec's layer.md has it, by nothing that imagers has.
"""

import os
import stat
from contextlib import ExitStack
from pathlib import Path

from imagers.core import AES256_GCM_HKDF_1MB, AES_256_CTR_HMAC_SHA256
from imagers.encrypt.image import encrypt_image
from imagers.encrypt.recipients import parse_recipients
from imagers.encrypt.schemes.broker import BrokerKeyWrapper
from imagers.encrypt.wrappers import opened_wrappers
from imagers.model.image import load_image
from imagers.model.keys import SecretKey
from imagers.model.manifest import parse_manifest
from imagers.model.media import Compression
from imagers.testing import MemoryRepository, TarEntry, make_image, make_layer, make_tar

KEYS = Path(__file__).resolve().parents[1] / "vectors" / "ocicrypt" / "keys"
PLAIN, BY_FILE, BY_BROKER = "plain", "key file", "broker"
CIPHERS = (AES_256_CTR_HMAC_SHA256, AES_256_CTR_HMAC_SHA256, AES256_GCM_HKDF_1MB)
DIRECTORIES = ("a", "a/b", "c", "c/d", "c/d/e")
SMALL, LARGE = 40_000, 3_000_000  # bytes of a file
IS_ROOT = os.geteuid() == 0
OWNERS = (0, 0, 1000, 65534) if IS_ROOT else (0,)
MODES = (0o644, 0o755, 0o600, 0o4755) if IS_ROOT else (0o644, 0o755, 0o600)
OPAQUE = ".wh..wh..opq"


class Layer:
    """One layer: a tar, and what it does to a tree."""

    def __init__(self, random, below):
        self._gone = []
        self._made = {}
        self._entries = []
        at = random.randrange(10**9)
        for path in random.sample(DIRECTORIES, random.randrange(1, 4)):
            self._add_directory(path, random.choice((0o755, 0o700)), at)
        for number in range(random.randrange(1, 6)):
            parent = random.choice(self._directories())
            path = f"{parent}/f{random.randrange(6)}"
            if path in self._made:
                continue
            kind = random.randrange(8)
            if kind == 0:
                if "c" in self._made and "c/d" not in self._made:  # in place of a directory, too
                    path = random.choice((path, "c/d"))
                self._add(TarEntry.symlink(path, "../there"), ("link", "../there"))
            elif kind == 1 and (files := self._files()):
                target = random.choice(files)
                self._add(TarEntry.link(path, target), self._made[target])
            else:
                size = random.choice((0, 1, random.randrange(SMALL)))
                if number == 0 and random.randrange(4) == 0:
                    size = random.randrange(LARGE)
                data = random.randbytes(size)
                if random.randrange(2):
                    data = data[: size // 8] * 8
                mode, owner = random.choice(MODES), random.choice(OWNERS)
                entry = TarEntry.file(path, data, mode=mode, mtime=at, uid=owner, gid=owner)
                self._add(entry, ("file", data, mode, at, owner if IS_ROOT else os.geteuid()))
        self._remove(random, below)
        random.shuffle(self._gone)
        gone = [TarEntry.file(path) for path in self._gone]
        self.tar = make_tar(*gone, *self._entries)

    def _add_directory(self, path, mode, at):
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            here = "/".join(parts[:count])
            if here not in self._made:
                self._add(TarEntry.directory(here, mode=mode, mtime=at), ("directory", mode))

    def _add(self, entry, what):
        self._entries.append(entry)
        self._made[entry.name] = what

    def _directories(self):
        return [path for path, what in self._made.items() if what[0] == "directory"]

    def _files(self):
        return [path for path, what in self._made.items() if what[0] == "file"]

    def _remove(self, random, below):
        """Whiteouts of what is below; a directory of ours that hides what it had."""
        here = ["", *self._directories()]
        old = [path for path in below if path not in self._made and _parent(path) in here]
        for path in random.sample(old, min(len(old), random.randrange(3))):
            self._gone.append(_joined(_parent(path), f".wh.{path.rpartition('/')[2]}"))
        if random.randrange(4) == 0:
            self._gone.append(f"{random.choice(self._directories())}/{OPAQUE}")

    def apply(self, tree):
        """Change a tree as this layer does."""
        for path in self._gone:
            name = path.rpartition("/")[2]
            if name == OPAQUE:
                remove_below(tree, _parent(path))
            else:
                gone = _joined(_parent(path), name.removeprefix(".wh."))
                tree.pop(gone, None)
                remove_below(tree, gone)
        for path, what in self._made.items():
            if what[0] != "directory":
                remove_below(tree, path)
            tree[path] = what


def _parent(path):
    return path.rpartition("/")[0]


def _joined(parent, name):
    return f"{parent}/{name}" if parent else name


def remove_below(tree, path):
    for one in [one for one in tree if one.startswith(f"{path}/")]:
        del tree[one]


def tree_of(root):
    """What is below a directory, in the words of `Layer`."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                what = ("link", os.readlink(path))
            elif stat.S_ISDIR(status.st_mode):
                what = ("directory", mode)
            else:
                what = ("file", path.read_bytes(), mode, int(status.st_mtime), status.st_uid)
            found[str(path.relative_to(root))] = what
    return found


def differences(found, expected):
    """The paths that are not the same, each with what kind is there and was expected."""
    return [
        f"{path}: expected {_short(expected.get(path))}, got {_short(found.get(path))}"
        for path in sorted({*found, *expected})
        if found.get(path) != expected.get(path)
    ]


def _short(what):
    if what is None or what[0] != "file":
        return what
    return (what[0], f"{len(what[1])} bytes", *what[2:])


class Image:
    """An image of one seed, in a registry, its keys at a broker or in a file.

    Attributes:
        tree: what it has to become.
        size: of all tars, in bytes.
        is_for: `PLAIN`, `BY_FILE` or `BY_BROKER`.
        kids: names of its keys at the broker.
        secrets: keys that nobody may print; `store_key` is one, too.
    """

    def __init__(self, random, seed, base=()):
        self.repository = f"faults/{seed}"
        self.layers = list(base)
        below = {}
        for layer in self.layers:
            layer.apply(below)
        for _ in range(max(2, random.randrange(2, 6) - len(self.layers))):
            self.layers.append(Layer(random, below))
            self.layers[-1].apply(below)
        if random.randrange(5) == 0:
            self.layers.append(random.choice(self.layers))
            self.layers[-1].apply(below)
        self.tree = below
        self.size = sum(len(layer.tar) for layer in self.layers)
        self.command = f"/bin/of-{seed}"
        self._compressions = [
            Compression.GZIP if index < len(base) else random.choice(list(Compression))
            for index in range(len(self.layers))
        ]
        self.is_for = random.choice((PLAIN, BY_FILE, BY_BROKER, BY_BROKER))
        self._cipher = random.choice(CIPHERS)
        self._first = len(base) if random.randrange(2) else 0  # the lowest that is encrypted
        self._keys = random.choice((1, 2))
        self.kids = [f"kbs:///default/faults/{seed}-{number}" for number in range(self._keys)]
        self.secrets = [random.randbytes(32) for _ in self.kids]
        self.store_key = random.randbytes(32)

    def push(self, sink):
        """Write it into a sink; its digest there."""
        made = {}
        for index, layer in enumerate(self.layers):
            made[index] = make_layer(layer.tar, self._compressions[self.layers.index(layer)])
        image = make_image(*made.values(), config={"config": {"Cmd": [self.command]}})
        if self.is_for == PLAIN:
            image.write(sink)
            return image.digest
        source = MemoryRepository(image)
        numbers = range(self._first, len(self.layers))
        half = len(numbers) // 2
        parts = [numbers]
        if self.is_for == BY_BROKER and self._keys > 1 and half:
            parts = [numbers[:half], numbers[half:]]
        for part, kid, secret in zip(parts, self.kids, self.secrets, strict=False):
            target = sink if part is parts[-1] else MemoryRepository()
            with ExitStack() as stack:
                if self.is_for == BY_FILE:
                    recipients = parse_recipients([f"jwe:{KEYS / 'r2048.pub'}"])
                    wrappers = stack.enter_context(opened_wrappers(recipients))
                else:
                    kek = stack.enter_context(SecretKey(secret))
                    wrappers = [BrokerKeyWrapper(kek, kid)]
                done = encrypt_image(
                    load_image(parse_manifest(source.top.raw), source),
                    target,
                    wrappers,
                    layers=list(part),
                    cipher=self._cipher,
                    compress=None,
                )
            source = target
        self.kids = self.kids[: len(parts)] if self.is_for == BY_BROKER else []
        return done.descriptor.digest

    def __str__(self):
        keys = f", {len(self.kids)} keys" if self.is_for == BY_BROKER else ""
        return f"{len(self.layers)} layers, {self.is_for}{keys}"
