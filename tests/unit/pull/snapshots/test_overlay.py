# SPDX-License-Identifier: Apache-2.0
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from imagers.errors import LocalError, Unsupported
from imagers.pull.snapshots.snapshotter import Committed

SEVERAL = 130  # more than an image of docker may have


def test_place_has_the_tree_and_nothing_of_the_mount(overlay, make):
    overlay.add(make.file("f"))
    overlay.add(make.file("g"))
    for layer in overlay.layers:
        assert os.listdir(layer.place) == ["tree"]


def test_layer_keeps_what_it_changes_alone(overlay, make):
    """And marks, by the kernel, of what it takes away."""
    overlay.add(make.file("kept"), make.file("gone"), make.file("d/below"))
    overlay.add(make.file(".wh.gone"), make.file(".wh.d"), make.directory("d"))
    tree = overlay.layers[1].place / "tree"
    assert sorted(os.listdir(tree)) == ["d", "gone"]
    gone = (tree / "gone").lstat()
    assert (stat.S_IFMT(gone.st_mode), gone.st_rdev) == (stat.S_IFCHR, 0)
    overlay.assert_same()


def layers_by_hand(overlay, count):
    """As places are, with a file each."""
    for number in range(count):
        tree = overlay.folder / f"{number}" / "tree"
        tree.mkdir(parents=True)
        (tree / f"{number}").write_text("")
        (tree / "last").write_text(f"{number}")
    return [
        Committed(overlay.folder / f"{number}", {"marks": "trusted"}) for number in range(count)
    ]


def test_as_many_layers_as_the_kernel_takes(overlay):
    overlay.layers = layers_by_hand(overlay, 500)
    root = overlay.compose()
    assert len(os.listdir(root)) == 501
    assert (root / "last").read_text() == "499"


def test_more_layers_than_the_kernel_takes_are_refused(overlay):
    overlay.layers = layers_by_hand(overlay, 501)
    with pytest.raises(
        Unsupported, match="expected at most 500 layers for overlayfs, got 501"
    ) as e:
        overlay.compose()
    assert e.value.hint == "the snapshotter 'plain' takes any number"
    assert os.listdir(overlay.root) == []


def test_many_layers_made_one_on_the_other_are_the_same(overlay, make):
    for number in range(SEVERAL):
        overlay.add(
            make.file("shared", f"{number}"), make.file(f"d/{number}"), make.file("x/.wh.y")
        )
    overlay.assert_same()


def test_layer_of_another_kind_of_user_is_refused(overlay, make):
    """Marks that the kernel would not read would show what they hide."""
    overlay.add(make.file("f"))
    strange = [Committed(overlay.layers[0].place, {"marks": "user"})]
    for call in (
        lambda: overlay.snapshotter.compose(strange, overlay.root, overlay.place()),
        lambda: overlay.snapshotter.prepare(strange, overlay.place()).__enter__(),
    ):
        with pytest.raises(Unsupported, match=r"with 'trusted.overlay.' attributes, got one with"):
            call()
    assert os.listdir(overlay.root) == []


def test_root_that_is_none_is_a_local_error_and_nothing_is_mounted(overlay, make, folder):
    overlay.add(make.file("f"))
    scratch = folder / "scratch"
    scratch.mkdir()
    with pytest.raises(LocalError, match="cannot mount the layers: no such file or directory"):
        overlay.snapshotter.compose(overlay.layers, folder / "missing", scratch)


def test_check_as_ordinary_user_is_refused(overlay, folder):
    folder.chmod(0o777)
    os.seteuid(65534)
    try:
        with pytest.raises(
            Unsupported, match=r"'overlay' does not work below .*: operation not perm"
        ):
            overlay.snapshotter.check(folder)
    finally:
        os.seteuid(0)


IN_NAMESPACE = """
import json, os, sys
from pathlib import Path
from imagers.pull.snapshots.snapshotter import Committed
from imagers.pull.snapshots.table import load_snapshotter
folder = Path(sys.argv[1])
overlay = load_snapshotter("overlay")
overlay.check(folder)
layers = []
for name in ("1", "2"):
    (folder / name).mkdir()
    with overlay.prepare(layers, folder / name) as prepared:
        fd = prepared.root_fd
        if name == "1":
            os.mkdir("d", dir_fd=fd)
            os.mkdir("d/hidden", dir_fd=fd)
        else:
            os.rmdir("d/hidden", dir_fd=fd)
            os.rmdir("d", dir_fd=fd)
            os.mkdir("d", dir_fd=fd)
    layers.append(Committed(folder / name, prepared.facts))
for name in ("root", "scratch"):
    (folder / name).mkdir()
overlay.compose(layers, folder / "root", folder / "scratch")
marks = os.listxattr(folder / "2/tree/d")
print(json.dumps([prepared.facts, os.listdir(folder / "root/d"), marks]))
overlay.release(folder / "root")
"""


def test_root_of_a_user_namespace_has_marks_of_its_own(folder):
    words = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine gives no user namespaces")
    done = subprocess.run(
        [*words, sys.executable, "-c", IN_NAMESPACE, folder],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    facts, below, attributes = json.loads(done.stdout)
    assert facts == {"marks": "user"}
    assert below == []
    assert "user.overlay.opaque" in attributes
    # Here they are marks of nobody: the fact is what keeps this tree from being shown.
    assert Path(folder, "2/tree/d").is_dir()
