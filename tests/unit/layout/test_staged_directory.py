# SPDX-License-Identifier: Apache-2.0
"""A directory on its way to its name, where others write beside it."""

import fcntl
import gc
import os
import stat

import pytest

from imagers.layout import staged_directory
from imagers.layout.staged_directory import StagedDirectory, SwappedError, remove_abandoned

MARK = ".bundle.imagers-"


@pytest.fixture
def parent(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def make(place, name):
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=place.fd))


def open_descriptors():
    gc.collect()  # what other tests have left closes now, and not meanwhile
    return len(os.listdir("/proc/self/fd"))


def test_place_that_is_removed_before_it_is_locked_is_made_again(tmp_path, parent, monkeypatch):
    """Between `mkdir` and `flock` another process takes the place for one of the dead."""
    lock = fcntl.flock
    taken = []

    def flock(fd, operation):
        if not taken:
            taken.append(next(tmp_path.glob(MARK + "*")))
            remove_abandoned(parent, MARK)
            assert not taken[0].exists()
        lock(fd, operation)

    monkeypatch.setattr(staged_directory.fcntl, "flock", flock)
    with StagedDirectory(parent, "bundle", MARK) as place:
        assert not taken[0].exists()
        make(place, "file")
        place.publish()
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["file"]


def test_place_that_is_published_while_it_is_taken_for_abandoned_stays_whole(
    tmp_path, parent, monkeypatch
):
    """Another process has opened the place, and locks what has its own name meanwhile."""
    place = StagedDirectory(parent, "bundle", MARK)
    make(place, "file")
    lock = fcntl.flock

    def flock(fd, operation):
        place.publish()
        lock(fd, operation)

    monkeypatch.setattr(staged_directory.fcntl, "flock", flock)
    remove_abandoned(parent, MARK)
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["file"]


def test_place_that_another_process_is_removing_is_left_to_it(tmp_path, parent, monkeypatch):
    lock = fcntl.flock
    held = []

    def flock(fd, operation):
        if not held:
            held.append(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))  # an open file of its own
            lock(held[0], operation)
        lock(fd, operation)

    monkeypatch.setattr(staged_directory.fcntl, "flock", flock)
    with StagedDirectory(parent, "bundle", MARK) as place:
        place.publish()
    os.close(held[0])
    left = [name for name in names(tmp_path) if name != "bundle"]
    assert len(left) == 1  # the other one is in the middle of removing it
    assert names(tmp_path / left[0]) == []


@pytest.mark.parametrize("other", ["directory with content", "link", "nothing"])
def test_place_that_is_swapped_before_it_is_opened_is_not_taken(
    tmp_path, parent, monkeypatch, other
):
    victim = tmp_path / "victim"
    victim.mkdir(0o755)
    (victim / "theirs").touch()
    real = os.mkdir
    swapped = []

    def swap(name, mode, **options):
        real(name, mode, **options)
        if not swapped:
            swapped.append(tmp_path / name)
            swapped[0].rename(tmp_path / "moved")
            if other == "link":
                swapped[0].symlink_to(victim)
            elif other == "directory with content":
                real(swapped[0])
                (swapped[0] / "theirs").touch()

    monkeypatch.setattr(os, "mkdir", swap)
    before = open_descriptors()
    if other == "link":  # it cannot be opened, and nothing is known of who does this
        with pytest.raises(OSError, match=r"[Nn]ot a directory|symbolic"):
            StagedDirectory(parent, "bundle", MARK)
    else:
        with StagedDirectory(parent, "bundle", MARK) as place:
            assert os.listdir(place.fd) == []
            place.publish()
        assert names(tmp_path / "bundle") == []
    assert names(victim) == ["theirs"]
    assert stat.S_IMODE(victim.stat().st_mode) == 0o755
    assert open_descriptors() == before


def test_what_is_published_is_what_was_built(tmp_path, parent, monkeypatch):
    real = os.fsync

    def swap(fd):
        (tmp_path / "bundle").rename(tmp_path / "moved")
        (tmp_path / "bundle").mkdir()
        real(fd)

    monkeypatch.setattr(os, "fsync", swap)
    place = StagedDirectory(parent, "bundle", MARK)
    make(place, "file")
    with pytest.raises(SwappedError):
        place.publish()
    place.discard()
    assert not (tmp_path / "bundle").exists()
    assert names(tmp_path / "moved") == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_remove_abandoned_takes_only_what_others_are_kept_out_of(tmp_path, parent, mode):
    """What others can write into may hold links and mounts of theirs."""
    place = tmp_path / (MARK + "01234567")
    place.mkdir()
    (place / "file").touch()
    place.chmod(mode)
    remove_abandoned(parent, MARK)
    assert names(place) == ["file"]
    place.chmod(0o700)
    remove_abandoned(parent, MARK)
    assert not place.exists()


def test_modes_are_not_changed_through_a_link(tmp_path, parent):
    """A directory that is swapped for a link between being listed and being opened."""
    victim = tmp_path / "victim"
    victim.mkdir(0o755)
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(OSError, match=r"[Nn]ot a directory|symbolic"):
        staged_directory._open_directory("link", parent)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o755


def test_place_with_another_name_is_left_found_and_published(tmp_path, parent):
    with StagedDirectory(parent, "bundle", MARK) as place:
        make(place, "file")
        place.rename("half")
        assert place.name == "half"
        place.leave()
        place.leave()
    assert names(tmp_path) == ["half"]
    remove_abandoned(parent, MARK)
    fd = os.open("half", os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it was let go of
    with StagedDirectory.found(parent, "half", fd, target="bundle") as place:
        place.publish()
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["file"]


def test_place_that_was_found_is_discarded_as_any_other(tmp_path, parent):
    (tmp_path / "half").mkdir()
    fd = os.open("half", os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent)
    with StagedDirectory.found(parent, "half", fd, target="bundle") as place:
        make(place, "file")
    assert names(tmp_path) == []


def test_place_gets_no_name_that_something_has(tmp_path, parent):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "x").touch()
    with StagedDirectory(parent, "bundle", MARK) as place:
        with pytest.raises(OSError, match="not empty"):
            place.rename("half")
        place.publish()
    assert names(tmp_path) == ["bundle", "half"]


@pytest.mark.parametrize("function", ["rename", "fsync"])
def test_signal_as_soon_as_it_appeared_leaves_nothing(tmp_path, parent, monkeypatch, function):
    """Python raises it when the call returns, before any line of ours is run."""
    real = getattr(os, function)

    def interrupted(*arguments, **options):
        monkeypatch.undo()
        real(*arguments, **options)
        assert (tmp_path / "bundle" / "file").exists()
        raise KeyboardInterrupt

    with StagedDirectory(parent, "bundle", MARK) as place:
        make(place, "file")
        monkeypatch.setattr(staged_directory.os, function, interrupted)
        with pytest.raises(KeyboardInterrupt):
            place.publish()
    assert names(tmp_path) == []


def test_signal_before_it_appears_leaves_what_another_put_there(tmp_path, parent, monkeypatch):
    def interrupted(*_arguments, **_options):
        monkeypatch.undo()
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "theirs").touch()
        raise KeyboardInterrupt

    with StagedDirectory(parent, "bundle", MARK) as place:
        make(place, "file")
        monkeypatch.setattr(staged_directory.os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            place.publish()
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["theirs"]


def test_signal_while_a_place_is_closed_does_not_close_it_twice(tmp_path, parent, monkeypatch):
    """The number may be another file's by then."""
    real = os.close

    def interrupted(fd):
        monkeypatch.undo()
        real(fd)
        raise KeyboardInterrupt

    place = StagedDirectory(parent, "bundle", MARK)
    monkeypatch.setattr(staged_directory.os, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        place._close()
    other = os.open(tmp_path, os.O_RDONLY)
    place.discard()
    os.close(other)
