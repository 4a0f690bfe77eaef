# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
from pathlib import Path

import pytest

from imagers.errors import IntegrityError, LocalError, SizeMismatch, Unsupported
from imagers.pull.snapshots import erofs as module
from imagers.pull.snapshots.snapshotter import Committed


@pytest.fixture
def two(erofs, make):
    """A store of two layers."""
    erofs.add(make.file("f", "f" * 5000), make.file("d/hidden"))
    erofs.add(make.file("g", "g"), make.file("d/.wh.hidden"))
    return erofs


def with_facts(store, **facts):
    """The same, with other facts of the lower layer."""
    lower, *upper = store.layers
    store.layers = [Committed(lower.place, dict(lower.facts) | facts), *upper]
    return store


def test_place_has_an_image_and_its_hashes_and_nothing_else(two):
    for layer in two.layers:
        assert sorted(os.listdir(layer.place)) == ["layer.erofs", "layer.verity"]


def test_facts_are_what_opens_it_without_us(two):
    """By the program, with what stands in the facts."""
    for layer in two.layers:
        facts = layer.facts
        assert set(facts) == {"verity", "root-hash", "bytes"}
        blocks = f"--data-blocks={int(facts['bytes']) // 4096}"
        files = (layer.place / "layer.erofs", layer.place / "layer.verity")
        words = ["veritysetup", "verify", *facts["verity"].split(), blocks, *files]
        assert subprocess.run([*words, facts["root-hash"]], check=False).returncode == 0


def test_same_layer_has_the_same_root_hash(two, make, folder):
    """Made at another time, in another place, with other numbers of inodes."""
    store = type(two)(folder / "other", "erofs")
    store.add(make.file("f", "f" * 5000), make.file("d/hidden"))
    store.add(make.file("g", "g"), make.file("d/.wh.hidden"))
    assert [one.facts for one in store.layers] == [one.facts for one in two.layers]


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("layer", [0, 1])
def test_image_with_another_bit_is_not_mounted(two, layer):
    path = two.layers[layer].place / "layer.erofs"
    flip(path, path.stat().st_size - 1)
    with pytest.raises(IntegrityError, match=r"layer.erofs: not what was committed: veritysetup"):
        two.compose()
    assert os.listdir(two.root) == []
    with pytest.raises(IntegrityError, match="not what was committed"):
        two.snapshotter.prepare(two.layers, two.place()).__enter__()


class Everything:
    """As if all had been verified before."""

    def __contains__(self, _):
        return True

    def add(self, _):
        pass


def test_image_that_was_verified_before_is_verified_again_for_a_root(two, monkeypatch):
    path = two.layers[0].place / "layer.erofs"
    flip(path, path.stat().st_size - 1)
    monkeypatch.setattr(module, "_VERIFIED", Everything())
    with pytest.raises(IntegrityError, match="not what was committed"):
        two.compose()


def test_image_that_is_swapped_after_it_was_verified_is_not_the_one_that_is_mounted(
    two, make, monkeypatch, folder
):
    other = type(two)(folder / "other", "erofs")
    other.add(make.file("f", "wrong"))
    run = module._run

    def run_and_swap(program, *words, what):
        answer = run(program, *words, what=what)
        if what.parent == two.layers[0].place:
            os.replace(other.layers[0].place / "layer.erofs", what)
        return answer

    monkeypatch.setattr(module, "_run", run_and_swap)
    assert (two.compose() / "f").read_text() == "f" * 5000


def test_image_that_is_put_right_before_it_is_verified_is_not_mounted(two, monkeypatch):
    """What is verified is what was opened, not what has its name by then."""
    path = two.layers[0].place / "layer.erofs"
    right = two.folder / "right"
    right.write_bytes(path.read_bytes())
    flip(path, path.stat().st_size - 1)
    run = module._run

    def swap_and_run(program, *words, what):
        if what == path:
            os.replace(right, path)
        return run(program, *words, what=what)

    monkeypatch.setattr(module, "_run", swap_and_run)
    with pytest.raises(IntegrityError, match="not what was committed"):
        two.compose()


def test_numbers_of_inodes_stay_the_same_over_several_file_systems(two):
    """Unpacking knows directories by them; by default overlayfs may give others at any time."""
    root = two.compose()
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    [line] = [line for line in lines if f" {root} " in line]
    assert "xino=on" in line


def test_other_root_hash_is_not_mounted(two):
    with pytest.raises(IntegrityError, match="not what was committed: veritysetup: Verification"):
        with_facts(two, **{"root-hash": "0" * 64}).compose()


@pytest.mark.parametrize("hashed", ["", "0" * 63, "--help", "x" * 64])
def test_root_hash_that_is_none_is_not_mounted(two, hashed):
    with pytest.raises(Unsupported, match="expected a layer with hashes by"):
        with_facts(two, **{"root-hash": hashed}).compose()


@pytest.mark.parametrize("size", ["0", "4096", "1"])
def test_other_size_is_not_mounted(two, size):
    with pytest.raises(SizeMismatch, match=f"expected {size}, got"):
        with_facts(two, bytes=size).compose()


def test_image_that_has_grown_is_not_mounted(two):
    """veritysetup looks at as many blocks as it is told."""
    with (two.layers[0].place / "layer.erofs").open("ab") as file:
        file.write(bytes(4096))
    with pytest.raises(SizeMismatch):
        two.compose()


@pytest.mark.parametrize(
    "facts", [{"verity": "--hash=crc32"}, {"verity": ""}, {"bytes": "x"}, {"bytes": "-4096"}]
)
def test_other_way_to_hash_is_refused(two, facts):
    with pytest.raises(Unsupported, match="expected a layer with hashes by '--no-superblock"):
        with_facts(two, **facts).compose()


def test_layer_without_facts_is_refused(two):
    two.layers = [Committed(two.layers[0].place, {})]
    with pytest.raises(Unsupported, match="expected a layer with hashes by"):
        two.compose()


def test_hashes_that_are_not_there_are_a_local_error(two):
    (two.layers[0].place / "layer.verity").unlink()
    with pytest.raises(LocalError, match=r"layer.verity: no such file"):
        two.compose()


def test_image_that_is_a_link_is_a_local_error(two):
    path = two.layers[0].place / "layer.erofs"
    path.rename(two.folder / "elsewhere")
    path.symlink_to(two.folder / "elsewhere")
    with pytest.raises(LocalError, match=r"layer.erofs: "):
        two.compose()


@pytest.mark.parametrize(
    ("program", "package"), [("mkfs.erofs", "erofs-utils"), ("veritysetup", "cryptsetup-bin")]
)
def test_check_without_a_program_names_its_package(two, folder, monkeypatch, program, package):
    programs = folder / "programs"
    programs.mkdir()
    for name in {"mkfs.erofs", "veritysetup"} - {program}:
        (programs / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(Unsupported, match=f"expected the program '{program}', found none") as e:
        two.snapshotter.check(folder)
    assert e.value.hint == f"install {package}"


def test_program_that_fails_is_a_local_error_with_its_words(two, folder, monkeypatch):
    program = folder / "programs" / "mkfs.erofs"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'no more.' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with (
        pytest.raises(LocalError, match=r"layer.erofs: mkfs.erofs failed \(3\): no more$"),
        two.snapshotter.prepare([], two.place()),
    ):
        pass


def test_marks_of_the_overlay_are_kept_and_its_notes_are_not(erofs, make):
    erofs.add(make.file("d/below"), make.file("f", "f"))
    erofs.add(make.file(".wh.d"), make.file("d/new"), make.link("g", "f"))
    root = erofs.compose()
    assert sorted(os.listdir(root / "d")) == ["new"]
    erofs.assert_same()


@pytest.mark.parametrize(
    ("folder", "mtime"),
    [("/var/tmp", -1), ("/dev/shm", -1), ("/dev/shm", 2**35)],
    indirect=["folder"],
)
def test_time_that_an_image_cannot_keep_is_refused(erofs, mtime):
    """ext4 keeps no time as late as that."""
    prepared = erofs.snapshotter.prepare([], erofs.place())
    fd = prepared.__enter__().root_fd
    os.utime(fd, (mtime, mtime))
    assert os.stat(fd).st_mtime == mtime
    with pytest.raises(
        Unsupported, match=f"expected files of 1970 .*, got one of {mtime} s: "
    ) as e:
        prepared.__exit__(None, None, None)
    assert e.value.hint == "the snapshotters 'overlay' and 'plain' take it"


def test_tree_that_is_deeper_than_a_path_is_long_is_refused(erofs):
    prepared = erofs.snapshotter.prepare([], erofs.place())
    above = os.dup(prepared.__enter__().root_fd)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=above)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)
    with pytest.raises(Unsupported, match="expected paths that Linux takes in one call") as e:
        prepared.__exit__(None, None, None)
    assert e.value.hint == "the snapshotters 'overlay' and 'plain' take it"
