# SPDX-License-Identifier: Apache-2.0
"""The staging place: everything or nothing at the destination, and nothing beside it."""

import contextlib
import errno
import gc
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from imagers.errors import LocalError
from imagers.pull import staging as module
from imagers.pull.staging import Staging, check_destination

NOBODY = 65534
ROOT = Path(module.__file__).resolve().parents[2]


@pytest.fixture
def bundle(tmp_path):
    return tmp_path / "bundle"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(staging, name, data=b"x"):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=staging.root_fd)
    os.write(fd, data)
    os.close(fd)


def open_descriptors():
    gc.collect()  # what other tests have left closes now, and not meanwhile
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def child_of(code, *arguments):
    """A child that says `ready` and then waits for its end, or for that of the block."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with child:
        try:
            assert child.stdout.readline() == b"ready\n"
            yield child
        finally:
            child.stdin.close()
            child.wait(20)


HOLD = """
    import signal
    import sys
    from pathlib import Path
    from imagers.pull.staging import Staging
    # A shell's background job ignores SIGINT, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Staging(Path(sys.argv[1])) as staging:
        for number in range(50):
            with open(f"/proc/self/fd/{staging.root_fd}/{number}", "wb") as file:
                file.write(b"x" * 1000)
        print("ready", flush=True)
        sys.stdin.read()
"""


# --- publishing


def test_publish_lets_the_bundle_appear_with_its_config_and_nothing_else(bundle, tmp_path):
    with Staging(bundle) as staging:
        write(staging, "file", b"data")
        assert not bundle.exists()
        staging.publish(b'{"a":1}')
        assert names(tmp_path) == ["bundle"]
    assert names(tmp_path) == ["bundle"]
    assert names(bundle) == ["config.json", "rootfs"]
    assert (bundle / "config.json").read_bytes() == b'{"a":1}'
    assert (bundle / "rootfs" / "file").read_bytes() == b"data"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_publish_modes_do_not_depend_on_the_umask(bundle, mask):
    before = os.umask(mask)
    try:
        with Staging(bundle) as staging:
            place = next(bundle.parent.glob(".bundle.imagers-*"))
            assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0
            staging.publish(b"{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE(bundle.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE((bundle / "config.json").stat().st_mode) & 0o177 == 0
    assert stat.S_IMODE((bundle / "rootfs").stat().st_mode) == 0o755


def test_publish_replaces_an_empty_directory(bundle):
    bundle.mkdir()
    with Staging(bundle) as staging:
        staging.publish(b"{}")
    assert names(bundle) == ["config.json", "rootfs"]


def test_publish_relative_path_stands_when_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Staging(Path("bundle")) as staging:
        monkeypatch.chdir("/")
        staging.publish(b"{}")
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("what", ["directory with content", "file", "link", "link to nothing"])
def test_publish_destination_that_appears_meanwhile_is_kept_and_refused(bundle, tmp_path, what):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Staging(bundle) as staging:
        if what == "directory with content":
            bundle.mkdir()
            (bundle / "mine").touch()
        elif what == "file":
            bundle.write_text("mine")
        else:
            bundle.symlink_to(elsewhere if what == "link" else tmp_path / "nothing")
        before = bundle.lstat()
        with pytest.raises(LocalError, match="appeared during the pull") as caught:
            staging.publish(b"{}")
        assert caught.value.path == str(bundle)
        assert caught.value.exit_code == 13
    assert names(tmp_path) == ["bundle", "elsewhere"]
    assert names(elsewhere) == []
    assert os.path.samestat(before, bundle.lstat())


def test_publish_that_cannot_be_made_durable_takes_the_bundle_back(bundle, tmp_path, monkeypatch):
    def broken(_fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module.os, "fsync", broken)
    with (
        Staging(bundle) as staging,
        pytest.raises(LocalError, match="cannot publish: input/output error"),
    ):
        staging.publish(b"{}")
    assert names(tmp_path) == []


def test_publish_full_disk_leaves_nothing(bundle, tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "rename", full)
    with (
        Staging(bundle) as staging,
        pytest.raises(LocalError, match="cannot publish: no space left on device"),
    ):
        staging.publish(b"{}")
    assert names(tmp_path) == []


@pytest.mark.parametrize("other", ["directory", "link", "nothing"])
def test_publish_of_a_place_that_was_swapped_is_refused(bundle, tmp_path, monkeypatch, other):
    """Whoever may write in the parent can do it at the last moment."""
    real = os.rename
    victim = tmp_path / "victim"
    victim.mkdir(0o755)

    def swap(source, target, **options):
        if source.startswith(".bundle.imagers-"):
            real(tmp_path / source, tmp_path / "moved")
            if other == "directory":
                (tmp_path / source).mkdir()
                (tmp_path / source / "config.json").write_text("evil")
            elif other == "link":
                (tmp_path / source).symlink_to(victim)
        real(source, target, **options)

    monkeypatch.setattr(module.os, "rename", swap)
    with Staging(bundle) as staging:
        write(staging, "secret")
        with pytest.raises(LocalError, match="cannot publish: "):
            staging.publish(b"{}")
    assert not bundle.exists()
    assert names(tmp_path / "moved") == []  # ours, wherever it went
    assert stat.S_IMODE(victim.stat().st_mode) == 0o755
    assert names(victim) == []


def test_leaving_after_the_place_was_swapped_touches_nothing_of_others(bundle, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir(0o755)
    (victim / "theirs").touch()
    with Staging(bundle) as staging:
        write(staging, "secret")
        place = next(tmp_path.glob(".bundle.imagers-*"))
        place.rename(tmp_path / "moved")
        place.symlink_to(victim)
    assert names(tmp_path / "moved") == []
    assert stat.S_IMODE(victim.stat().st_mode) == 0o755
    assert names(victim) == ["theirs"]


# --- failing


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, LocalError("x"), SystemExit])
def test_failure_leaves_nothing_and_passes_on(bundle, tmp_path, error):
    before = open_descriptors()

    def fail():
        with Staging(bundle) as staging:
            write(staging, "file")
            os.mkdir("directory", dir_fd=staging.root_fd)
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        fail()
    assert names(tmp_path) == []
    assert open_descriptors() == before


def test_leaving_without_publish_leaves_an_empty_destination_as_it_was(bundle, tmp_path):
    bundle.mkdir(0o755)
    before = bundle.stat()
    with Staging(bundle):
        pass
    assert names(tmp_path) == ["bundle"]
    assert os.path.samestat(before, bundle.stat())


def test_staging_interrupted_while_it_is_made_leaves_nothing(bundle, tmp_path, monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "fchmod", interrupted)
    before = open_descriptors()
    with pytest.raises(KeyboardInterrupt), Staging(bundle):
        pass
    assert names(tmp_path) == []
    assert open_descriptors() == before


# --- destinations


def test_check_destination_missing_or_empty_directory_passes(bundle):
    check_destination(bundle)
    bundle.mkdir()
    check_destination(bundle)


def make_content(bundle):
    bundle.mkdir()
    (bundle / ".hidden").touch()


@pytest.mark.parametrize(
    ("make", "piece"),
    [
        pytest.param(make_content, "got one with content", id="content"),
        pytest.param(lambda bundle: bundle.touch(), "got a file", id="file"),
        pytest.param(
            lambda bundle: bundle.symlink_to("nothing"), "got a symbolic link", id="dead link"
        ),
        pytest.param(
            lambda bundle: bundle.symlink_to("."), "got a symbolic link", id="link to a directory"
        ),
        pytest.param(os.mkfifo, "got a file", id="pipe"),
    ],
)
def test_check_destination_anything_else_refused_and_kept(bundle, tmp_path, make, piece):
    make(bundle)
    before = bundle.lstat()
    with pytest.raises(LocalError, match=piece) as caught:
        check_destination(bundle)
    assert caught.value.path == str(bundle)
    with pytest.raises(LocalError, match=piece), Staging(bundle):
        pass
    assert os.path.samestat(before, bundle.lstat())
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize(
    ("path", "piece"),
    [
        ("missing/bundle", "expected a directory to put the bundle in, got none"),
        ("file/bundle", "expected a directory to put the bundle in, got none"),
        ("n" * 300, "file name too long"),
        ("folder/..", "expected a path that ends in a name"),
    ],
)
def test_check_destination_impossible_path_refused(tmp_path, path, piece):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(LocalError, match=piece):
        check_destination(tmp_path / path)


@pytest.mark.parametrize("path", [".", "/", ".."])
def test_check_destination_path_without_a_name_refused(path):
    with pytest.raises(LocalError, match="expected a path that ends in a name"):
        check_destination(Path(path))


def test_staging_name_too_long_for_its_place_is_a_local_error(tmp_path):
    with (
        pytest.raises(LocalError, match="cannot make a staging place: file name too long"),
        Staging(tmp_path / ("n" * 250)),
    ):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_parent_that_others_may_write_is_refused_before_any_work(tmp_path, mode):
    parent = tmp_path / "open"
    parent.mkdir()
    parent.chmod(mode)
    with pytest.raises(LocalError, match="can be written by every user") as caught:
        check_destination(parent / "bundle")
    assert caught.value.path == str(parent)
    with pytest.raises(LocalError, match="can be written"), Staging(parent / "bundle"):
        pass
    assert names(parent) == []


# --- places of others


def test_staging_removes_the_place_of_a_killed_process(bundle, tmp_path):
    with child_of(HOLD, bundle) as child:
        child.send_signal(signal.SIGKILL)
    assert not bundle.exists()
    [place] = names(tmp_path)
    assert place.startswith(".bundle.imagers-")
    with Staging(bundle) as staging:
        assert place not in names(tmp_path)
        staging.publish(b"{}")
    assert names(tmp_path) == ["bundle"]


def test_staging_keeps_the_place_of_a_living_process(bundle, tmp_path):
    with child_of(HOLD, bundle):
        with Staging(bundle) as staging:
            assert len(names(tmp_path)) == 2
            staging.publish(b"{}")
        living = next(name for name in names(tmp_path) if name != "bundle")
        assert len(names(tmp_path / living / "rootfs")) == 50
    assert names(tmp_path) == ["bundle"]


def test_staging_terminated_child_leaves_nothing(bundle, tmp_path):
    with child_of(HOLD, bundle) as child:
        child.send_signal(signal.SIGINT)
    assert child.returncode != 0
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        ".bundle.imagers-notes",
        ".bundle.imagers-0123456",
        ".bundle.imagers-0123456g",
        ".bundle.imagers-01234567.txt",
        ".bundle2.imagers-01234567",
        ".bundle.imagers-01234567.imagers-01234567",
        "bundle.imagers-01234567",
    ],
)
def test_staging_removes_nothing_that_only_looks_like_a_place(bundle, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").touch()
    with Staging(bundle):
        pass
    assert (tmp_path / name / "mine").exists()


def test_staging_does_not_follow_a_link_with_the_name_of_a_place(bundle, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "mine").touch()
    (tmp_path / ".bundle.imagers-01234567").symlink_to(precious)
    with Staging(bundle):
        pass
    assert (precious / "mine").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_staging_keeps_the_place_of_another_user(bundle, tmp_path):
    place = tmp_path / ".bundle.imagers-01234567"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    with Staging(bundle):
        assert place.exists()


def test_staging_many_at_once_publish_one_whole_bundle(bundle, tmp_path):
    """Places are made, found and removed at the same time; nobody publishes half a tree."""
    count, rounds = 8, 5
    barrier = threading.Barrier(count)
    results = []

    def pull():
        for _ in range(rounds):
            barrier.wait()
            try:
                with Staging(bundle) as staging:
                    for number in range(20):
                        write(staging, str(number))
                    staging.publish(b"{}")
                    results.append("published")
            except LocalError as error:
                results.append(str(error))
            if barrier.wait() == 0:
                assert len(names(bundle / "rootfs")) == 20
                shutil.rmtree(bundle)

    threads = [threading.Thread(target=pull) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == count * rounds
    assert results.count("published") == rounds
    assert names(tmp_path) == []


# --- trees that resist

RESIST = """
    import os, sys
    from pathlib import Path
    from imagers.pull.staging import Staging
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    with Staging(Path(sys.argv[1])) as staging:
        os.fchdir(staging.root_fd)
        os.makedirs("a/b/c/d")
        for folder in ("a", "a/b", "a/b/c", "a/b/c/d"):
            Path(folder, "file").touch(0o000)
            os.symlink("/etc/passwd", f"{folder}/link")
            os.symlink("/etc", f"{folder}/directory-link")
        Path("secret").mkdir()
        Path("secret/inner").mkdir()
        Path("secret/inner/file").touch()
        for folder, mode in (
            ("a/b/c/d", 0o000), ("a/b/c", 0o555), ("a/b", 0o000), ("a", 0o111),
            ("secret/inner", 0o000), ("secret", 0o000),
        ):
            os.chmod(folder, mode)
        os.chmod(f"/proc/self/fd/{staging.root_fd}", 0o555)
        os.chdir("/")
        print("ready", flush=True)
"""


def test_trees_with_unwritable_directories_are_removed_without_privilege(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    if os.geteuid() == 0:
        # The child is nobody, without the capabilities that pass over every permission.
        os.chown(folder, NOBODY, NOBODY)
        for parent in [folder, *folder.parents]:
            if parent.stat().st_uid == 0 and parent != Path("/"):
                with contextlib.suppress(OSError):
                    parent.chmod(parent.stat().st_mode | 0o011)
    with child_of(RESIST, folder / "bundle") as child:
        pass
    assert child.returncode == 0
    assert names(folder) == []


def test_tree_deeper_than_descriptors_and_stack_allow_is_removed(bundle, tmp_path):
    try:
        with Staging(bundle) as staging:
            here = os.dup(staging.root_fd)
            for _ in range(1200):
                os.mkdir("d", dir_fd=here)
                below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            os.close(here)
        assert names(tmp_path) == []
    finally:
        # Where this fails, pytest's own clean-up would stumble over it in every later run.
        subprocess.run(["rm", "-rf", tmp_path], check=True)


def test_tree_with_many_directories_beside_each_other_is_removed(bundle, tmp_path):
    with Staging(bundle) as staging:
        for number in range(1200):
            os.mkdir(str(number), dir_fd=staging.root_fd)
    assert names(tmp_path) == []


def test_place_goes_also_where_what_was_composed_cannot_be_released(bundle, tmp_path):
    def refuse(root):
        raise LocalError("is in use", path=str(root))

    with pytest.raises(LocalError, match="is in use"), Staging(bundle) as staging:
        staging.compose(lambda _: None, refuse)
    assert names(tmp_path) == []
