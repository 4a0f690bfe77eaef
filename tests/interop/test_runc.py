# SPDX-License-Identifier: Apache-2.0
"""A pulled bundle runs under runc as it stands."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from imagers.model.descriptor import Platform
from imagers.model.keys import SecretKey
from imagers.pull.named import open_image
from imagers.pull.run import PullOptions, pull_image
from imagers.pull.snapshots.table import load_snapshotter
from imagers.pull.trees import remove_bundle
from imagers.sign.policy_json import parse_policy
from imagers.store import Store
from imagers.testing import TarEntry, make_image, make_tar

BUSYBOX = Path("/bin/busybox")
RUNC = shutil.which("runc") or shutil.which("runc", path="/usr/sbin:/sbin")
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write_image(layout, command, user):
    """An image of busybox, with a user of its own."""
    entries = [TarEntry.directory(name) for name in ("bin", "dev", "etc", "proc", "sys")]
    tar = make_tar(
        *entries,
        TarEntry.file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        ("etc/passwd", b"root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"),
        ("etc/group", b"root:x:0:\nextra:x:2000:app\n"),
        TarEntry.other("memory", tarfile.CHRTYPE, devmajor=1, devminor=1, mode=0o666),
        ("bin/sh", "busybox"),
    )
    machine = os.uname().machine
    config = {
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": [command],
        "User": user,
        "Env": ["PATH=/bin", "WHO=imagers"],
        "WorkingDir": "/etc",
        "Volumes": {"/etc/scratch": {}},
    }
    platform = Platform("linux", MACHINES.get(machine, machine))
    make_image(tar, platform=platform, config={"config": config}).save(layout)


def pull(layout, bundle, **options):
    policy = parse_policy(b'{"default":[{"type":"insecureAcceptAnything"}]}')
    with open_image(f"oci:{layout}") as image:
        return pull_image(image, bundle, PullOptions(policy, **options))


def run_in(state, bundle):
    """Run the container of a bundle."""
    words = [RUNC, "--root", str(state), "run", "--bundle", str(bundle), f"imagers-{os.getpid()}"]
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def runnable(tmp_path):
    """Skips where this machine cannot run a container of runc's own making either."""
    if RUNC is None or not BUSYBOX.exists():
        pytest.skip("runc or busybox-static is not installed")
    if os.geteuid() != 0:
        pytest.skip("runc is tested as root")
    bundle = tmp_path / "reference"
    (bundle / "rootfs" / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, bundle / "rootfs" / "bin" / "busybox")
    subprocess.run([RUNC, "spec", "--bundle", str(bundle)], check=True, capture_output=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/busybox", "true"]}
    (bundle / "config.json").write_text(json.dumps(config))
    done = run_in(tmp_path / "state", bundle)
    if done.returncode:
        pytest.skip(f"runc cannot run its own default container here: {done.stderr.strip()}")
    return tmp_path


def test_runc_runs_a_pulled_bundle(runnable):
    command = (
        "busybox id; busybox pwd; echo $WHO; busybox hostname; "
        "busybox grep NoNewPrivs /proc/self/status; "
        "busybox touch /x 2>/dev/null || echo read-only; "
        "busybox touch /etc/scratch/x && echo volume; "
        "busybox head -c 1 /memory 2>/dev/null || echo no device of the image"
    )
    write_image(runnable / "image", command, "app")
    pull(runnable / "image", runnable / "bundle")
    done = run_in(runnable / "state", runnable / "bundle")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "uid=1000(app) gid=1001 groups=2000(extra)",
        "/etc",
        "imagers",
        "imagers",
        "NoNewPrivs:\t1",
        "read-only",
        "volume",
        "no device of the image",
    ]


@pytest.mark.parametrize("kind", ["overlay", "plain", "erofs"])
def test_runc_runs_a_root_of_layers_that_are_kept(runnable, kind):
    write_image(
        runnable / "image", "busybox id -u; busybox touch /etc/scratch/x && echo volume", ""
    )
    for turn in range(2):
        bundle = runnable / f"bundle{turn}"
        with SecretKey(b"k" * 32) as key, Store(runnable / "store", key) as store:
            kept = {"store": store, "snapshotter": load_snapshotter(kind)}
            report = pull(runnable / "image", bundle, **kept)
            try:
                assert [layer.is_kept for layer in report.layers] == [turn == 1]
                done = run_in(runnable / "state", bundle)
                assert done.returncode == 0, done.stderr
                assert done.stdout.splitlines() == ["0", "volume"]
            finally:
                remove_bundle(store, bundle)


def test_runc_gives_the_exit_code_of_the_image(runnable):
    write_image(runnable / "image", "exit 7", "")
    pull(runnable / "image", runnable / "bundle")
    assert run_in(runnable / "state", runnable / "bundle").returncode == 7


@pytest.mark.skipif(RUNC is None, reason="runc is not installed")
def test_bundle_has_what_runc_itself_writes_into_a_config(tmp_path):
    """Where no container can be run, at least the members agree with `runc spec`."""
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    subprocess.run([RUNC, "spec", "--bundle", str(tmp_path)], check=True, capture_output=True)
    theirs = json.loads((tmp_path / "config.json").read_text())
    write_image(tmp_path / "image", "true", "")
    pull(tmp_path / "image", tmp_path / "bundle")
    ours = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert set(ours) - {"annotations"} <= set(theirs)
    assert set(ours["process"]) <= set(theirs["process"])
    assert set(ours["process"]["capabilities"]) <= {
        *theirs["process"]["capabilities"],
        "ambient",
        "inheritable",
    }
    assert set(ours["linux"]) - {"uidMappings", "gidMappings"} <= set(theirs["linux"])
