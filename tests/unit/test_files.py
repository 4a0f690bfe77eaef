# SPDX-License-Identifier: Apache-2.0
import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from imagers import files
from imagers.errors import FormatError, LocalError, TimedOut
from imagers.files import (
    StagedFile,
    check_new,
    is_shared_with_host,
    local_errors,
    open_regular,
    read_bounded,
    read_mounts,
    write_all,
    write_new,
)
from imagers.waiting import Cancellation


@pytest.fixture(params=["nameless", "hidden name"])
def kind(request, monkeypatch):
    """Both ways to stage a file: with O_TMPFILE, and where there is none."""
    if request.param == "hidden name":
        monkeypatch.setattr(files, "_open_unnamed", lambda _: None)
    return request.param


def test_staged_file_before_publish_is_not_to_be_seen(tmp_path, kind):
    staged = StagedFile(tmp_path)
    write_all(staged.fileno(), b"data")
    assert staged.size == 4
    names = [one.name for one in tmp_path.iterdir()]
    assert all(name.startswith(".imagers-") for name in names)
    assert len(names) == (0 if kind == "nameless" else 1)
    staged.close()
    staged.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("kind")
def test_staged_file_published_replaces_what_has_the_name(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"old")
    staged = StagedFile(tmp_path)
    write_all(staged.fileno(), b"new bytes")
    staged.publish(target)
    staged.close()
    assert target.read_bytes() == b"new bytes"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("kind")
def test_staged_file_published_as_new_refuses_what_has_the_name(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"old")
    staged = StagedFile(tmp_path)
    with pytest.raises(FileExistsError):
        staged.publish_new(target)
    staged.close()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("kind")
def test_staged_file_published_as_new_gets_the_name(tmp_path):
    staged = StagedFile(tmp_path)
    write_all(staged.fileno(), b"new")
    staged.publish_new(tmp_path / "target")
    staged.close()
    assert [one.name for one in tmp_path.iterdir()] == ["target"]


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o000, 0o644)])
def test_staged_file_mode_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        staged = StagedFile(tmp_path)
        staged.publish(tmp_path / "target")
    finally:
        os.umask(before)
    assert (tmp_path / "target").stat().st_mode & 0o777 == mode


@pytest.mark.usefixtures("kind")
def test_staged_file_that_cannot_be_renamed_leaves_nothing(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "in the way").touch()
    staged = StagedFile(tmp_path)
    with pytest.raises(OSError, match="target"):
        staged.publish(target)
    staged.close()
    assert [one.name for one in tmp_path.iterdir()] == ["target"]


@pytest.mark.usefixtures("kind")
def test_staged_file_that_was_dropped_has_no_name_and_gets_none(tmp_path):
    staged = StagedFile(tmp_path)
    staged.drop()
    assert list(tmp_path.iterdir()) == []
    write_all(staged.fileno(), b"of a thread that does not know yet")
    for publish in (staged.publish, staged.publish_new):
        with pytest.raises(LocalError, match="target: not written"):
            publish(tmp_path / "target")
    staged.close()
    assert list(tmp_path.iterdir()) == []


def test_staged_file_without_o_tmpfile_falls_back(tmp_path, monkeypatch):
    real = os.open

    def no_tmpfile(path, flags, *rest, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", no_tmpfile)
    staged = StagedFile(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    staged.close()


def test_staged_file_in_a_missing_directory_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        StagedFile(tmp_path / "none")


def test_open_regular_fifo_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FormatError, match="expected a regular file"):
        open_regular(tmp_path / "fifo")


def test_open_regular_directory_refused(tmp_path):
    with pytest.raises(FormatError, match="expected a regular file"):
        open_regular(tmp_path)


def test_local_errors_full_disk_says_what_to_do():
    with (
        pytest.raises(LocalError, match="no space left") as caught,
        local_errors("/some/where"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.path == "/some/where"
    assert "room" in caught.value.hint


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("way", ["publish", "publish_inside"])
def test_staged_file_swapped_before_its_rename_is_an_error(tmp_path, monkeypatch, way):
    """Whoever may write in the directory can put a file of their own under the hidden name."""
    real = os.rename

    def swap(source, name, **options):
        real(tmp_path / source, tmp_path / "moved")
        (tmp_path / source).write_bytes(b"evil")
        real(source, name, **options)

    monkeypatch.setattr(os, "rename", swap)
    staged = StagedFile(tmp_path)
    write_all(staged.fileno(), b"good")
    with pytest.raises(LocalError, match="somebody else put another file in its place"):
        getattr(staged, way)(tmp_path / "target" if way == "publish" else "target")
    staged.close()


@pytest.mark.usefixtures("kind")
def test_staged_file_goes_where_it_was_made_though_its_directory_is_swapped(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    staged = StagedFile(place)
    write_all(staged.fileno(), b"data")
    place.rename(tmp_path / "moved")
    place.mkdir()
    staged.publish_inside("target")
    assert (tmp_path / "moved" / "target").read_bytes() == b"data"
    assert list(place.iterdir()) == []


def test_local_errors_says_what_was_tried_and_why_it_failed(tmp_path):
    with (
        pytest.raises(LocalError, match="cannot be read: no such file") as caught,
        local_errors(tmp_path / "x", "cannot be read", hint="look again"),
    ):
        (tmp_path / "x").open()
    assert (caught.value.path, caught.value.hint) == (str(tmp_path / "x"), "look again")


@pytest.mark.parametrize("name", ["a\0b", "a\ud800"], ids=["NUL", "lone surrogate"])
def test_read_bounded_of_what_is_no_name_is_a_local_error(name):
    with pytest.raises(LocalError, match="is not a file name"):
        read_bounded(name, max_bytes=1)


def test_local_errors_leaves_a_value_error_that_is_about_no_name(tmp_path):
    with pytest.raises(ValueError, match="a bug"), local_errors(tmp_path):
        raise ValueError("a bug")


@pytest.mark.parametrize(("size", "fits"), [(0, True), (4, True), (5, False)])
def test_read_bounded_refuses_what_is_longer(tmp_path, size, fits):
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    if fits:
        assert read_bounded(path, max_bytes=4) == bytes(size)
    else:
        with pytest.raises(LocalError, match="expected at most 4 bytes, got more"):
            read_bounded(path, max_bytes=4)


def test_read_bounded_of_a_named_pipe_takes_all_pieces_of_a_late_writer(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    pieces = [b"a" * 100_000, b"b" * 100_000]

    def write():
        with path.open("wb", buffering=0) as pipe:
            for piece in pieces:
                pipe.write(piece)

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        assert read_bounded(path, max_bytes=1_000_000) == b"".join(pieces)
        written.result(10)


def test_read_bounded_of_a_pipe_whose_writer_has_ended():
    reader, writer = os.pipe()
    try:
        os.write(writer, b"all")
        os.close(writer)
        assert read_bounded(f"/proc/self/fd/{reader}", max_bytes=9) == b"all"
    finally:
        os.close(reader)


@pytest.mark.parametrize("is_open", [False, True], ids=["nobody writes", "the writer is silent"])
def test_read_bounded_of_a_pipe_ends_with_what_is_in_force(tmp_path, is_open):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR) if is_open else -1
    limit = Cancellation(seconds=0.3, phase="set-up")
    try:
        with pytest.raises(TimedOut) as caught, limit.in_force():
            read_bounded(path, max_bytes=9)
    finally:
        if is_open:
            os.close(writer)
    assert caught.value.waited_for == f"'{path}'"


def test_read_bounded_of_a_file_reads_when_the_time_is_over(tmp_path):
    """What cleans up after a limit reads files, too."""
    path = tmp_path / "file"
    path.write_bytes(b"data")
    with Cancellation(seconds=0, phase="bundle").in_force():
        assert read_bounded(path, max_bytes=9) == b"data"


def test_write_new_over_a_file_changes_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(LocalError, match="nothing is written over a file") as caught:
        write_new(path, b"new", mode=0o600)
    assert caught.value.path == str(path)
    assert path.read_bytes() == b"old"


def test_check_new_refuses_what_write_new_would(tmp_path):
    check_new(tmp_path / "free")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(LocalError, match="nothing is written over a file"):
        check_new(tmp_path / "dangling")
    with pytest.raises(LocalError, match="no such file or directory"):
        check_new(tmp_path / "missing" / "file")


def test_write_new_on_a_full_disk_leaves_nothing_and_names_the_path(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalError, match="no space left") as caught:
        write_new(tmp_path / "file", b"new", mode=0o600)
    assert caught.value.path == str(tmp_path / "file")
    assert "make room" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


MOUNTS = r"""
21 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
22 21 0:5 / /dev rw - devtmpfs udev rw
30 21 0:40 / /shared rw master:2 - virtiofs kataShared rw
31 30 0:41 / /shared/own rw - tmpfs tmpfs rw
32 21 0:42 / /a\040blank rw - 9p share rw
33 21 0:43 / /later rw - 9p share rw
34 21 0:44 / /later rw - tmpfs tmpfs rw
cut off
"""


@pytest.mark.parametrize(
    ("path", "is_shared"),
    [
        ("/etc/ca.pem", False),
        ("/shared/ca.pem", True),
        ("/shared", True),
        ("/sharedness/ca.pem", False),
        ("/shared/own/ca.pem", False),
        ("/shared/own/../ca.pem", True),
        ("/a blank/ca.pem", True),
        ("/later/ca.pem", False),
    ],
)
def test_file_on_what_a_hypervisor_shares_is_told(tmp_path, path, is_shared):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert is_shared_with_host(path, mounts=tmp_path / "mounts") is is_shared


def test_link_to_what_a_hypervisor_shares_is_followed(tmp_path):
    (tmp_path / "mounts").write_text(f"1 1 0:1 / {tmp_path}/shared rw - virtiofs share rw\n")
    (tmp_path / "shared").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shared" / "ca.pem")
    assert is_shared_with_host(tmp_path / "link", mounts=tmp_path / "mounts")


def test_system_that_is_shared_as_a_whole_has_no_files_of_its_host(tmp_path):
    """There the host has the program that asks, too."""
    (tmp_path / "mounts").write_text("1 1 0:1 / / rw - 9p share rw\n")
    assert not is_shared_with_host("/etc/ca.pem", mounts=tmp_path / "mounts")
    assert not is_shared_with_host(__file__)


def test_machine_that_does_not_tell_its_mounts_is_refused(tmp_path):
    with pytest.raises(LocalError):
        is_shared_with_host("/etc/ca.pem", mounts=tmp_path / "none")


def test_mounts_are_read_whatever_their_names_are(tmp_path):
    (tmp_path / "mounts").write_bytes(
        b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        b"31 22 0:42 / /a\\040b\\134\xff rw - overlay overlay rw\n"
        b"nothing\n"
    )
    one, two = read_mounts(tmp_path / "mounts")
    assert one == ("8:1", "/", "ext4")
    assert (two.device, os.fsencode(two.point), two.kind) == ("0:42", b"/a b\\\xff", "overlay")
