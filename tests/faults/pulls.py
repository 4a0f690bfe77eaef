# SPDX-License-Identifier: Apache-2.0
"""Pulls through faults, by a seed: the right root file system, or nothing and a clear error.

    python tests/faults/pulls.py [--first SEED] RUNS

By the seed a run has an image (`pull_images`), plain or encrypted, signed or named by its digest,
its keys in a file or at a broker; a store or none; options of a pull; and one to three rounds, each
with one or two faults (`pull_faults`):

    registry   a proxy before it spoils answers          broker    the same before the broker
    gone       the broker stops, between two secrets     full      a disk gets full, at any byte
    limit      of the size of a file                     signal    at a byte that was served
    operation  a signal at one of a pull's operations    power     is cut at one
    twins      two pulls at once, one store              clock     of guest or broker jumps

Commands are processes, as a user starts them. After each round,

1. there is a bundle with exactly the right tree, and exit code 0; or there is none, one line of
   error of a class that fits the faults, perhaps a hint, no traceback, and no key in it;
2. it ended within its limit;
3. nothing is beside the bundle, unless a process was killed.

Then the same pull without a fault: its tree is right; nothing else is in the directory of the
bundle, in temporary directories, mounted or running; and what the store has is what was sealed.
"""

import argparse
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from imagers.build.signers import SigstoreSigner, sign
from imagers.model.keys import SecretKey
from imagers.sign.sigstore_key import generate_private_key
from imagers.store import Store, load_store_key
from imagers.testing import EmbeddedRegistry
from imagers.transport import TransportOptions, open_sink, parse_image_name
from tests.faults import commands
from tests.faults.disks import Disk, MemoryDisk, mounted_below
from tests.faults.pull_faults import KILLED, PRIVATE, Broker, Faults, draw_kinds
from tests.faults.pull_images import (
    BY_BROKER,
    BY_FILE,
    IS_ROOT,
    KEYS,
    Image,
    Layer,
    differences,
    tree_of,
)

LIMIT_S = 150  # four attempts of each request, with their waits
IDENTITY = "registry.example.org/faults/app:v1"
FOR_ALL = {"rules": [{"name": "a", "effect": "allow", "resource": "*/*/*", "image": "any"}]}


class Result:
    """How a pull ended."""

    def __init__(self, code, stderr, seconds):
        self.code, self.stderr, self.seconds = code, stderr, seconds

    def lines(self, kind):
        """What it said of this kind: error, hint, warning."""
        start = f"imagers: {kind}: "
        lines = self.stderr.splitlines()
        return [line.removeprefix(start) for line in lines if line.startswith(start)]

    def __repr__(self):
        return f"<exit {self.code} after {self.seconds:.1f} s: {self.stderr!r}>"


class Run:
    """One seed.

    Attributes:
        stored_size: of all layers, as the registry has them, in bytes.
        keeping: "none", "shared", or a snapshotter.
        questions: how many times a pull asks the broker for secrets.
        disks: by the name of their directory; none where they are not in memory.
        power: what its store and bundle are on, if that can lose its power.
        results: of the pulls with faults.
    """

    def __init__(self, seed, folder, registry):
        self.random = Random(seed)
        self.seed = seed
        self.folder = folder
        self.registry = registry
        self.stack = contextlib.ExitStack()
        self.store = folder / "data" / "store"
        self.bundle = folder / "bundles" / "bundle"
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "IMAGERS_STORE": str(folder / "no-store"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "always::ResourceWarning",
        }
        self.disks = {}
        self.power = None
        self.broker = None
        self.store_key = None
        self.results = []
        self.told = []
        self._bundles = {self.bundle}  # where there may be one

    def run(self):
        """Everything; says what happened."""
        self._draw()
        self._publish()
        if self.is_warm:
            self._warm_up()
        for number in range(self.rounds):
            kinds = draw_kinds(
                self.random,
                has_broker=self.broker is not None,
                in_memory=bool(self.disks),
                is_alone=self.rounds == 1,
            )
            self._round(Faults(self, number, kinds))
            self._change_parts(Random(f"{self.seed} {number}"))
        self._without_faults()
        how = "signed" if self.is_signed else "by digest"
        store = f"store {self.keeping}{', warm' if self.is_warm else ''}"
        settings = f"{self.image}, {how}, {store} {' '.join(self.options)}".rstrip()
        return "; ".join([settings, *self.told])

    # What is pulled, and how

    def _draw(self):
        random = self.random
        in_memory = IS_ROOT and random.randrange(2) == 0
        for name in ("home", "tmp", "run", "bundles", "data"):
            (self.folder / name).mkdir(mode=0o700)
            if in_memory and name != "home":
                self.disks[name] = MemoryDisk(self.folder / name)
                self.stack.callback(self.disks[name].unmount)
        base = [Layer(Random(number), {}) for number in range(random.randrange(3))]
        self.image = Image(random, self.seed, base)
        self.is_signed = random.randrange(2) == 0
        kinds = ["none", "shared", "shared", "plain"]
        if IS_ROOT:
            kinds += ["overlay", *(["erofs"] if shutil.which("mkfs.erofs") else [])]
        self.keeping = random.choice(kinds)
        self.options = []
        if random.randrange(3) == 0:
            self.options.append("--stream")
        if random.randrange(2):
            self.options += ["--jobs", str(random.randrange(1, 5))]
        if random.randrange(3) == 0:
            self.options += ["--ranges", str(random.randrange(1, 5))]
        if self.keeping == "shared" and random.randrange(4) == 0:
            self.options += ["--store-size", str(random.randrange(1, 2 * self.image.size))]
        self.is_warm = self.keeping != "none" and random.randrange(3) == 0
        self.rounds = random.choice((1, 1, 2, 3))

    def _publish(self):
        place = parse_image_name(f"docker://{self.registry.address}/{self.image.repository}:v1")
        with open_sink(place, TransportOptions()) as sink:
            digest = self.image.push(sink)
        layers = json.loads(self.registry.read(digest))["layers"]
        self.stored_size = sum(layer["size"] for layer in layers)
        requirement = {"type": "insecureAcceptAnything"}
        self.tag = f"@{digest}"
        if self.is_signed:
            key = generate_private_key()
            sign(place, SigstoreSigner(key), identity=IDENTITY, now=datetime.now(UTC))
            self.tag = ":v1"
            requirement = {
                "type": "sigstoreSigned",
                "keyData": base64.b64encode(key.public_key.to_pem()).decode(),
                "signedIdentity": {"type": "exactReference", "dockerReference": IDENTITY},
            }
        document = json.dumps({"default": [requirement]}).encode()
        self.policy = str(self.folder / "policy.json")
        Path(self.policy).write_bytes(document)
        if self.image.is_for == BY_BROKER:
            self.broker = Broker(self.folder / "broker")
            self.stack.callback(self.broker.stop)
            for kid, secret in zip(self.image.kids, self.image.secrets, strict=False):
                self.broker.running.put(kid, secret, image=digest)
            self._take_settings_from_broker(document)

    def _take_settings_from_broker(self, document):
        """Policy and key of the store, perhaps: more secrets that are asked for, one by one."""
        broker = self.broker.running
        broker.admin.set_policy(json.dumps(FOR_ALL))
        self.questions = 1
        if self.random.randrange(2):
            self.policy = f"kbs:///default/policies/{self.seed}"
            broker.put(self.policy, document)
            self.questions += 1
        if self.keeping != "none" and self.random.randrange(2):
            self.store_key = f"kbs:///default/stores/{self.seed}"
            broker.put(self.store_key, self.image.store_key)
            self.questions += 1

    def start(self, bundle, registry, broker, *, before=(), environment=(), limit=None):
        """A pull from servers at these addresses.

        Args:
            before: words of a program that starts it.
            environment: besides the usual one.
            limit: of the size of a file, in bytes.
        """
        words = ["pull", f"{registry}/{self.image.repository}{self.tag}", str(bundle)]
        words += ["--policy", self.policy, *self.options]
        if self.image.is_for == BY_FILE:
            words += ["--decryption-key", str(KEYS / "r2048.key")]
        elif self.image.is_for == BY_BROKER:
            words += ["--broker", f"http://{broker}", "--tee", "sample"]
        words += ["--no-store"] if self.keeping == "none" else ["--store", str(self.store)]
        if self.store_key is not None:
            words += ["--store-key", self.store_key]
        if self.keeping in PRIVATE:
            words += ["--store-place", "private", "--snapshotter", self.keeping]

        return commands.start(
            words,
            folder=self.folder,
            environment=self.environment | dict(environment),
            before=before,
            limit=limit,
        )

    @staticmethod
    def end(process, began):
        """Wait for its end."""
        try:
            _, stderr = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, stderr = process.communicate()
            raise AssertionError(f"no end within {LIMIT_S} s: {stderr}") from None
        code = process.returncode
        return Result(KILLED if code == 137 else code, stderr, time.monotonic() - began)

    def _pull(self, bundle):
        """A pull without faults, which succeeds."""
        broker = None if self.broker is None else self.broker.address
        result = self.end(self.start(bundle, self.registry.address, broker), time.monotonic())
        self._check_good(result, bundle)

    def move_to_disk(self):
        """Have store and bundle on a disk that can lose its power."""
        place = self.folder / "power"
        place.mkdir()
        self.power = Disk(place)
        self.stack.callback(self.power.unmount)
        top = self.power.mounted
        (top / "bundles").mkdir(mode=0o700)
        if self.store.exists():
            subprocess.run(["cp", "-a", self.store, top / "store"], check=True)
        self.power.sync()
        self.store = top / "store"
        self.bundle = top / "bundles" / "bundle"
        self._bundles = {self.bundle}

    # The pulls

    def _warm_up(self):
        """It was pulled before, and all of it or a part is kept, or is not what it was."""
        self._pull(self.bundle)
        self._remove_bundles()
        entries = sorted(self.store.glob("*-sha256-*"))
        what = self.random.randrange(3)
        if what == 0 and self.keeping == "shared" and entries:  # as the host may
            blob = self.random.choice(entries) / "blob"
            data = bytearray(blob.read_bytes())
            data[self.random.randrange(len(data))] ^= 1
            blob.write_bytes(data)
        elif what == 1:
            for one in entries:
                if self.random.randrange(2):
                    shutil.rmtree(one)

    def _change_parts(self, random):
        """What came of layers whose download broke off is not what it was, as the host may do."""
        for part in sorted(self.store.glob("part-*/blob")):
            data = bytearray(part.read_bytes())
            how = random.randrange(6)
            if how == 0 and data:
                data[random.randrange(len(data))] ^= 1
            elif how == 1:
                del data[random.randrange(len(data) + 1) :]
            elif how == 2:
                data += bytes(random.randrange(1, 1000))
            if how < 3:
                part.write_bytes(data)
                self.told.append(f"changed {part.parent.name[:20]}")

    def _round(self, faults):
        """Pulls with faults, and what has to hold after them."""
        results = faults.run()
        self.results += results
        self._bundles |= set(faults.targets)
        said = ", ".join(f"{kind} {what}" for kind, what in faults.said.items())
        ends = " ".join(f"{one.code} {'/'.join(one.lines('error'))}".strip() for one in results)
        self.told.append(f"{said}: {ends}")
        is_one = len(set(faults.targets)) < len(faults.targets)
        for number, (result, bundle) in enumerate(zip(results, faults.targets, strict=True)):
            codes = faults.codes(number)
            assert result.code in codes, f"expected one of {sorted(codes)}, got {result}"
            if result.code == 0:
                self._check_good(result, bundle)
            else:
                self._check_bad(result, bundle, may_be_there=is_one or result.code == KILLED)
        if is_one:
            assert [one.code for one in results].count(0) < 2, results
        self._remove_bundles()
        if all(one.code != KILLED for one in self.results):
            self._check_places()

    def _without_faults(self):
        for bundle in sorted(self._bundles):
            self._pull(bundle)
        self._check_places()
        self._check_store()
        self._remove_bundles()
        left = mounted_below(self.bundle.parent) + mounted_below(self.store)
        assert left == [], f"mounted: {left}"

    def _remove_bundles(self):
        for bundle in self._bundles:
            if self.keeping in PRIVATE and bundle.exists():
                self._unmount(bundle)
            shutil.rmtree(bundle, ignore_errors=True)
            assert not bundle.exists()

    def _unmount(self, bundle):
        words = ["store", "remove", str(bundle), "--store", str(self.store)]
        if self.store_key is not None:
            path = self.folder / "store.key"
            path.write_bytes(self.image.store_key)
            words += ["--store-key", str(path)]
        process = commands.start(words, folder=self.folder, environment=self.environment)
        done = self.end(process, time.monotonic())
        is_mounted = self.keeping != "plain" and self.power is None
        assert done.code == 0 or not is_mounted, done

    # What has to hold

    def _check_good(self, result, bundle):
        assert result.code == 0, result
        lines = result.stderr.splitlines()
        assert all(line.startswith("imagers: ") for line in lines), result
        assert not result.lines("error"), result
        if self.power is None or bundle.exists():
            self._check_tree(bundle)

    def _check_bad(self, result, bundle, *, may_be_there):
        if bundle.exists():
            # Of the twin; or the process was killed behind its end.
            assert may_be_there, f"{result} left a bundle: {sorted(tree_of(bundle))[:5]}"
            self._check_tree(bundle)
        if result.code == KILLED:
            return
        lines = result.stderr.splitlines()
        assert all(line.startswith("imagers: ") for line in lines), result
        assert len(result.lines("error")) == 1, result
        assert len(result.lines("hint")) <= 1, result
        others = [line for line in lines if not line.startswith("imagers: layer ")]  # its progress
        assert len(others) <= 2 + len(result.lines("warning")), result
        assert not result.lines("error")[0].endswith("."), result
        for secret in (*self.image.secrets, self.image.store_key):
            for shown in (
                secret.hex(),
                base64.b64encode(secret).decode().rstrip("="),
                repr(secret),
            ):
                assert shown not in result.stderr, "a key is shown"

    def _check_tree(self, bundle):
        config = json.loads((bundle / "config.json").read_bytes())
        assert config["process"]["args"] == [self.image.command], config["process"]["args"]
        if self.power is not None and self.keeping in PRIVATE and not mounted_below(bundle):
            return  # a mount does not outlive its machine
        found = differences(tree_of(bundle / "rootfs"), self.image.tree)
        assert not found, f"another tree: {found}"

    def _check_places(self):
        """Nothing is left."""
        there = {path.name for path in self.bundle.parent.iterdir()}
        assert there <= {path.name for path in self._bundles}, f"beside the bundle: {there}"
        for place in ("tmp", "home"):
            left = list((self.folder / place).rglob("*"))
            assert left == [], left
        assert not (self.folder / "no-store").exists()
        if self.store.exists():
            hidden = [path.name for path in self.store.iterdir() if path.name.startswith(".")]
            assert hidden == [], f"in the store: {hidden}"
        assert processes_in(self.folder) == []

    def _check_store(self):
        """All of it is what was sealed."""
        if self.keeping == "none":
            assert not self.store.exists()
            return
        if self.store_key is None:
            key = load_store_key(self.folder / "run" / "imagers")
        else:
            key = SecretKey(self.image.store_key)
        with key, Store(self.store, key) as opened:
            found = opened.entries()
            bad = [f"{one.name}: {one.fault}" for one in found if one.seal is None]
            bad += [f"{one.name}: {why}" for one in found if (why := opened.verify(one.name))]
        assert bad == [], bad


def processes_in(folder):
    """Processes that work in a directory; a zombie works nowhere."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if Path(os.readlink(entry / "cwd")) == folder:
                    found.append((entry / "cmdline").read_bytes().split(b"\0"))
    return found


def run(seed, registry):
    """One run; raises AssertionError where something does not hold.

    Returns:
        What happened, and how each pull with faults ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="imagers-pulls-"))
    one = Run(seed, folder, registry)
    try:
        said = one.run()
    except AssertionError as error:
        where = traceback.extract_tb(error.__traceback__)[-1].line
        text = "; ".join([str(error) or where, *one.told])
        raise AssertionError(text) from error
    finally:
        for mounted in mounted_below(folder):
            if Path(mounted).name == "rootfs":
                subprocess.run(["umount", "-l", mounted], check=False)
        one.stack.close()
        registry.requests.clear()  # what a test would look at
        shutil.rmtree(folder)
    return said, one.results


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("runs", type=int)
    told = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing stays mounted
    codes, failed, longest = Counter(), [], 0
    with EmbeddedRegistry() as registry:
        for seed in range(told.first, told.first + told.runs):
            began = time.monotonic()
            try:
                said, results = run(seed, registry)
                codes.update(one.code for one in results)
                longest = max(longest, *(one.seconds for one in results))
            except Exception as error:  # noqa: BLE001 - the other seeds are tried, too
                failed.append(seed)
                said = "FAILED: " + "".join(traceback.format_exception_only(error)).strip()
                if not isinstance(error, AssertionError):
                    traceback.print_exception(error)
            print(f"{seed}: {said}; {time.monotonic() - began:.1f} s", flush=True)
    ends = ", ".join(f"exit {code}: {count}" for code, count in sorted(codes.items()))
    print(f"{told.runs} runs, {len(failed)} failed; {ends}; longest {longest:.1f} s")
    for seed in failed:
        print(f"python tests/faults/pulls.py --first {seed} 1")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
