# SPDX-License-Identifier: Apache-2.0
"""A pull that is killed at each of its file operations, and power cuts; IMAGERS_LONG=1: all.

The next pull has the right root file system, everything in the store is what was sealed, and
nothing is left of the first one: what came of a layer stays as a part, which the next pull uses
up. Operations are counted by strace, which also kills.
"""

import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from imagers.model.keys import SecretKey
from imagers.pull.trees import remove_bundle
from imagers.store import Store
from tests.faults.disks import Disk, mounted_below
from tests.faults.puller import KEY, TREE, pull, tree_of

ROOT = Path(__file__).resolve().parents[2]
IS_LONG = os.environ.get("IMAGERS_LONG") == "1"
SAMPLE = 8  # of the operations of a pull, where not all are tried
KINDS = ("shared", "plain", "overlay", "erofs")
NEED_ROOT = ("overlay", "erofs")
# Everything that changes a disk or a mount. Not openat, which cannot be told from reading: what
# it makes is seen by what follows.
OPERATIONS = (
    "write,pwrite64,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,link,linkat,"
    "symlink,symlinkat,mknodat,fsync,fdatasync,syncfs,ftruncate,fallocate,utimensat,fchmod,"
    "fchmodat,fchown,fchownat,lsetxattr,fsetxattr,ioctl,move_mount,mount,umount2"
)


def killed_at(number, store, bundle, kind):
    """Run a pull that is killed at this operation; False: it had not so many, and ended well."""
    done = subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={OPERATIONS}"),
            *("-e", f"inject={OPERATIONS}:signal=KILL:when={number}"),
            *(sys.executable, "-m", "tests.faults.puller", store, bundle, kind),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    # strace counts for each process: it may have been a program that the pull has called.
    is_other = done.returncode == 1 and b"mkfs.erofs failed (-9)" in done.stderr
    assert is_other or done.returncode in {0, -9, 137}, done.stderr
    return done.returncode != 0


def count_operations(place, kind):
    """How many operations a pull has in the thread with the most: strace counts for each."""
    log = place / "log"
    subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", log, "-e", f"trace={OPERATIONS}"),
            *(sys.executable, "-m", "tests.faults.puller"),
            *(place / "counted", place / "counted-bundle", kind),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        timeout=120,
    )
    forget(place / "counted", place / "counted-bundle")
    lines = [line for line in log.read_bytes().splitlines() if b"(" in line]
    return max(Counter(line.split()[0] for line in lines).values())


def forget(store, bundle):
    """Unmount a bundle and remove it."""
    with SecretKey(KEY) as key, Store(store, key) as opened:
        remove_bundle(opened, bundle)
    shutil.rmtree(bundle, ignore_errors=True)


def check_next_pull(store, bundle, kind):
    """The pull after the one that was killed; how many bytes it went on from."""
    if bundle.exists():  # it was killed behind its end
        forget(store, bundle)
    report = pull(store, bundle, kind)
    assert tree_of(bundle / "rootfs") == TREE
    assert os.listdir(bundle.parent) == [bundle.name]
    with SecretKey(KEY) as key, Store(store, key) as opened:
        found = opened.entries()
        assert all(one.seal is not None for one in found), found
        assert [opened.verify(one.name) for one in found] == [""] * len(found)
    assert not [name for name in os.listdir(store) if name.startswith(".")]
    forget(store, bundle)
    assert mounted_below(bundle.parent) + mounted_below(store) == []
    return sum(layer.resumed for layer in report.layers)


@pytest.fixture
def places(tmp_path):
    (tmp_path / "bundles").mkdir()
    yield tmp_path / "store", tmp_path / "bundles" / "bundle"
    for mounted in mounted_below(tmp_path):
        subprocess.run(["umount", "-l", mounted], check=False)


@pytest.mark.timeout(3600 if IS_LONG else 300)
@pytest.mark.parametrize("kind", KINDS)
def test_pull_that_is_killed_at_any_operation_is_repaired_by_the_next(kind, places, tmp_path):
    if kind in NEED_ROOT and os.geteuid() != 0:
        pytest.skip("mounts are for root")
    count = count_operations(tmp_path, kind)
    seed = random.randrange(2**32)
    print(f"seed {seed}, {count} operations")
    numbers = range(1, count + 1)
    if not IS_LONG:
        numbers = sorted(random.Random(seed).sample(numbers, min(SAMPLE, count)))
    store, bundle = places
    killed = resumed = 0
    for number in numbers:
        print(f"operation {number}")
        killed += killed_at(number, store, bundle, kind)
        resumed += check_next_pull(store, bundle, kind)
        shutil.rmtree(store)
    assert killed
    assert resumed > 0 or not IS_LONG or kind != "shared"


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounts are for root")
    made = Disk(tmp_path)
    yield made
    made.unmount()


@pytest.mark.timeout(3600 if IS_LONG else 300)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "erofs"])
def test_store_after_a_power_cut_is_repaired_by_the_next_pull(kind, disk, tmp_path):
    """At any operation, and after the last one: what was renamed is there whole, or not at all."""
    (tmp_path / "bundles").mkdir()
    bundle = tmp_path / "bundles" / "bundle"
    count = count_operations(tmp_path, kind)
    seed = random.randrange(2**32)
    print(f"seed {seed}, {count} operations")
    numbers = range(1, count + 2)
    if not IS_LONG:
        numbers = [*random.Random(seed).sample(numbers, SAMPLE), count + 1]
    for number in numbers:
        print(f"operation {number}")
        store = disk.mounted / f"store{number}"
        was_killed = killed_at(number, store, bundle, kind)
        if not was_killed:
            forget(store, bundle)
        disk.cut()
        if was_killed and bundle.exists():
            shutil.rmtree(bundle)
        check_next_pull(store, bundle, kind)
        shutil.rmtree(store)
        disk.sync()  # else the next cut brings it back
