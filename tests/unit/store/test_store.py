# SPDX-License-Identifier: Apache-2.0
"""Entries of a store: whole or not there, and nothing goes that somebody needs."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from imagers.errors import LocalError
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.store import Store
from imagers.store.seal import write_seal

from .conftest import make_seal, name_of


def names(store):
    return [one.name for one in store.entries()]


def use(store, name, at):
    """As if it had been used then."""
    os.utime(store.path / name, (at, at))


def test_entry_is_found_with_what_was_put_into_it(store, put):
    put(store, name_of("a"), b"data").close()
    with store.find(name_of("a")) as entry:
        assert (entry.path / "blob").read_bytes() == b"data"
        assert entry.seal == make_seal(name_of("a"))
        assert os.listdir(entry.fd)
    assert store.find(name_of("b")) is None


def test_what_is_not_committed_is_nowhere(store):
    with store.prepare(name_of("a")) as new:
        (new.path / "blob").write_bytes(b"half")
        assert store.entries() == []
    assert os.listdir(store.path) == []


def test_the_first_of_two_that_prepare_the_same_stays(store):
    with store.prepare(name_of("a")) as one, store.prepare(name_of("a")) as two:
        (one.path / "blob").write_bytes(b"one")
        (two.path / "blob").write_bytes(b"two")
        one.commit(make_seal(name_of("a"), size=1)).close()
        with two.commit(make_seal(name_of("a"), size=2)) as entry:
            assert entry.seal.size == 1
            assert (entry.path / "blob").read_bytes() == b"one"
    assert os.listdir(store.path) == [name_of("a")]


def test_entry_of_another_key_is_none_and_is_replaced(store, make_store, put):
    put(store, name_of("a"), b"old").close()
    with SecretKey(b"another key of thirty-two bytes!") as key:
        later = make_store(key=key)
        assert later.find(name_of("a")) is None
        assert later.entries()[0].fault == (
            f"seal of {name_of('a')}: it was not written under this store's key"
        )
        with put(later, name_of("a"), b"new") as entry:
            assert (entry.path / "blob").read_bytes() == b"new"
        later.close()


def test_entry_under_another_name_is_none(store, put):
    """The host gives one layer for another, with its seal."""
    put(store, name_of("a")).close()
    (store.path / name_of("a")).rename(store.path / name_of("b"))
    assert store.find(name_of("b")) is None


@pytest.mark.parametrize("fault", ["missing", "fifo", "link", "directory", "large", "empty"])
def test_entry_with_a_seal_that_is_none_is_none_and_is_collected(store, put, tmp_path, fault):
    put(store, name_of("a")).close()
    seal = store.path / name_of("a") / "seal"
    data = seal.read_bytes()
    seal.unlink()
    match fault:
        case "fifo":
            os.mkfifo(seal)
        case "link":
            (tmp_path / "moved").write_bytes(data)
            seal.symlink_to(tmp_path / "moved")
        case "directory":
            seal.mkdir()
        case "large":
            seal.write_bytes(data + b" " * 2**20)
        case "empty":
            seal.write_bytes(b"")
    assert store.find(name_of("a")) is None
    assert [one.name for one in store.collect()] == [name_of("a")]
    assert os.listdir(store.path) == []


@pytest.mark.parametrize("name", ["..", ".", "x", "blob-sha256-XY", "../blob-sha256-00", ""])
def test_names_that_are_none_are_not_there(store, name):
    assert store.find(name) is None
    assert store.remove(name) is False


def test_what_has_the_name_of_an_entry_and_is_none_is_nothing(store, tmp_path):
    (store.path / name_of("file")).write_bytes(b"")
    (store.path / name_of("link")).symlink_to(tmp_path)
    assert store.find(name_of("file")) is None
    assert store.find(name_of("link")) is None
    assert store.remove(name_of("link")) is False
    assert names(store) == []


def test_what_is_removed_is_gone_with_all_that_is_below(store, put):
    put(store, name_of("a")).close()
    inside = store.path / name_of("a") / "tree" / "deep"
    inside.mkdir(parents=True)
    inside.chmod(0)
    assert store.remove(name_of("a"))
    assert not store.remove(name_of("a"))
    assert os.listdir(store.path) == []


def test_what_a_process_uses_is_not_removed(store, put):
    with put(store, name_of("a")):
        assert store.entries()[0].in_use
        with pytest.raises(LocalError, match="is in use"):
            store.remove(name_of("a"))
    assert not store.entries()[0].in_use
    assert store.remove(name_of("a"))


def test_what_another_process_uses_is_not_removed(store, put):
    put(store, name_of("a")).close()
    program = (
        "import sys\nfrom pathlib import Path\nfrom imagers.store import Store\n"
        "from imagers.model.keys import SecretKey\n"
        f"entry = Store(Path({str(store.path)!r}), SecretKey(b'k' * 32)).find({name_of('a')!r})\n"
        "print(entry is not None, flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"True\n"
        with pytest.raises(LocalError, match="is in use"):
            store.remove(name_of("a"))
        other.stdin.close()
        other.wait()
    assert store.remove(name_of("a"))


def test_what_another_entry_needs_is_not_removed(store, put):
    put(store, name_of("base")).close()
    put(store, name_of("top"), needs=[name_of("base")]).close()
    with pytest.raises(LocalError, match=f"is needed by {name_of('top')}"):
        store.remove(name_of("base"))
    assert store.remove(name_of("top"))
    assert store.remove(name_of("base"))


def test_room_is_made_of_what_was_longest_not_used(make_store, put):
    store = make_store(max_bytes=300)
    for at, text in enumerate("abc"):
        put(store, name_of(text)).close()
        use(store, name_of(text), 1000 + at)
    store.find(name_of("a")).close()  # used now
    assert store.make_room(100) == 100
    assert set(names(store)) == {name_of("a"), name_of("c")}


def test_room_is_not_made_of_what_is_in_use_or_needed(make_store, put):
    store = make_store(max_bytes=300)
    put(store, name_of("base")).close()
    put(store, name_of("top"), needs=[name_of("base")]).close()
    with put(store, name_of("held")):
        for at, text in enumerate(("base", "held", "top")):
            use(store, name_of(text), 1000 + at)
        assert store.make_room(100) == 100  # `base` is older than `top`, and below it
        assert set(names(store)) == {name_of("base"), name_of("held")}
        assert store.make_room(300) == 200
        assert names(store) == [name_of("held")]


def test_room_is_not_made_of_what_a_bundle_has_written(make_store, put):
    store = make_store(max_bytes=150)
    put(store, name_of("b", "bundle")).close()
    assert store.make_room(100) == 50


def test_room_is_made_of_many_while_each_is_looked_at_once(make_store, put, monkeypatch):
    store = make_store(max_bytes=1000)
    for number in range(10):
        put(store, name_of(str(number))).close()
    looked = []
    look_at = store._look_at
    monkeypatch.setattr(store, "_look_at", lambda name: looked.append(name) or look_at(name))
    assert store.make_room(1000) == 1000
    assert names(store) == []
    assert len(looked) == 10


def test_room_is_not_made_of_what_is_needed_since_a_moment_ago(make_store, put, monkeypatch):
    store = make_store(max_bytes=100)
    base, top = name_of("base"), name_of("top", "plain")
    put(store, base).close()
    remove = store._remove

    def remove_late(name, known):
        monkeypatch.undo()
        put(store, top, needs=[base]).close()
        return remove(name, known)

    monkeypatch.setattr(store, "_remove", remove_late)
    store.make_room(100)
    assert set(names(store)) == {base, top}


def test_store_without_a_limit_has_room(store):
    assert store.make_room(2**60) == 2**60


def test_collect_says_what_went_and_why(make_store, put):
    store = make_store(max_bytes=100)
    for at, text in enumerate("ab"):
        put(store, name_of(text)).close()
        use(store, name_of(text), 1000 + at)
    (removed,) = store.collect()
    assert (removed.name, removed.size) == (name_of("a"), 100)
    assert "above its limit" in removed.why


def test_place_of_a_dead_process_is_removed_by_the_next(store, make_store):
    program = (
        "import os\nfrom pathlib import Path\nfrom imagers.store import Store\n"
        "from imagers.model.keys import SecretKey\n"
        f"store = Store(Path({str(store.path)!r}), SecretKey(b'k' * 32))\n"
        f"new = store.prepare({name_of('a')!r})\n"
        "(new.path / 'blob').write_bytes(b'half')\nos.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert len(os.listdir(store.path)) == 1
    with store.prepare(name_of("b")):  # of one that lives
        make_store()
        assert len(os.listdir(store.path)) == 1


def test_reseal_changes_the_seal_and_nothing_else(store, put):
    with put(store, name_of("a"), b"data") as entry:
        store.reseal(entry, make_seal(name_of("a"), size=7))
        assert entry.seal.size == 7
    with store.find(name_of("a")) as entry:
        assert entry.seal.size == 7
        assert sorted(os.listdir(entry.path)) == ["blob", "seal"]


def test_new_entry_is_in_use_before_it_has_its_name(make_store, put):
    """Nobody can take it away between its rename and its lock."""
    other = make_store()
    refused = []

    class Hurried(type(other)):
        def find(self, name):
            with pytest.raises(LocalError, match="is in use"):
                other.remove(name)
            refused.append(name)
            return super().find(name)

    with Hurried(other.path, other.key) as store:
        put(store, name_of("a")).close()
    assert refused == [name_of("a")]


def test_two_threads_can_seal_an_entry(store, put):
    name = name_of("a")
    put(store, name).close()
    errors = []

    def seal():
        try:
            for number in range(50):
                with store.find(name) as entry:
                    store.reseal(entry, replace(entry.seal, tar_size=number))
        except LocalError as error:
            errors.append(error)

    threads = [threading.Thread(target=seal) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.entries()[0].seal.tar_size == 49
    assert os.listdir(store.path) == [name]


def test_store_where_others_can_write_is_refused(tmp_path, key):
    tmp_path.chmod(0o777)
    with pytest.raises(LocalError, match="another store in the place"):
        Store(tmp_path / "store", key)


def test_store_is_for_its_owner_only(store):
    assert store.path.stat().st_mode & 0o777 == 0o700


def test_store_on_a_file_is_refused(tmp_path, key):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError, match="no store can be kept here"):
        Store(tmp_path / "file", key)


def test_what_a_bundle_of_this_boot_wrote_stays_although_its_seal_is_no_more(store, put):
    """The key may have been lost, and a container may be running."""
    name = name_of("b", "bundle")
    put(store, name).close()
    (store.path / name / "seal").write_bytes(b"")
    assert store.collect() == []
    use(store, name, 1000)  # long before this machine was started
    assert [one.name for one in store.collect()] == [name]


def test_room_is_made_of_what_an_earlier_boot_kept_under_another_key(make_store, put):
    """It counts nothing, and would lie there for ever."""
    with SecretKey(b"another key of thirty-two bytes!") as key:
        earlier = make_store(key=key)
        for text in "ab":
            put(earlier, name_of(text)).close()
        earlier.close()
    store = make_store(max_bytes=10_000)
    use(store, name_of("a"), 1000)  # long before this machine was started
    assert store.make_room(100) == 10_000
    assert names(store) == [name_of("b")]  # of this boot: somebody's who has that key


def test_entry_that_another_process_replaces_is_not_the_one_that_is_removed(
    store, put, monkeypatch
):
    """Between the look at an entry and its lock it goes, and another one comes."""
    put(store, name_of("a")).close()
    lock = type(store)._lock_for_removal

    def replaced_first(self, fd, name, *more):
        monkeypatch.setattr(type(store), "_lock_for_removal", lock)
        assert self.remove(name)
        put(self, name, b"new").close()
        lock(self, fd, name, *more)

    monkeypatch.setattr(type(store), "_lock_for_removal", replaced_first)
    assert store.remove(name_of("a")) is False
    with store.find(name_of("a")) as entry:
        assert (entry.path / "blob").read_bytes() == b"new"


# ---- parts of blobs ----------------------------------------------------------------------------

MIB = 1024 * 1024
DATA = os.urandom(3 * MIB)
DIGEST = digest_of(DATA)
PART = f"part-sha256-{DIGEST.hex}"
BLOB = f"blob-sha256-{DIGEST.hex}"


@pytest.fixture
def leave(store):
    """A function: leave a part with these bytes."""

    def leave(data=DATA[: 2 * MIB], digest=DIGEST, used=None):
        with store.prepare_blob(digest, size=len(DATA), lasts=True) as new:
            os.write(new.blob_fd, data)
        path = store.path / f"part-sha256-{digest.hex}" / "blob"
        if used is not None:
            os.utime(path, (used, used))
        return path

    return leave


def test_what_came_of_a_blob_is_left_and_taken_again(store, leave):
    leave()
    (found,) = store.entries()
    assert (found.name, found.seal, found.fault, found.size) == (PART, None, "", 2 * MIB)
    assert found.is_part
    assert not found.in_use
    with store.take_part(DIGEST, size=len(DATA)) as taken:
        assert taken.there == 2 * MIB
        assert os.pread(taken.blob_fd, len(DATA), 0) == DATA[: 2 * MIB]
        os.pwrite(taken.blob_fd, DATA[2 * MIB :], 2 * MIB)
        assert store.entries()[0].in_use
        with taken.commit(make_seal(BLOB, size=len(DATA))) as entry:
            assert (entry.path / "blob").read_bytes() == DATA
    assert os.listdir(store.path) == [BLOB]


def test_part_is_there_as_soon_as_the_blob_is_prepared(store):
    """So that a process that is killed leaves it."""
    with store.prepare_blob(DIGEST, size=len(DATA), lasts=True) as new:
        assert [one.name for one in store.entries()] == [PART]
        assert (store.path / PART / "blob").exists()
        assert new.path == store.path / PART
    assert os.listdir(store.path) == []  # nothing came


@pytest.mark.parametrize(("size", "lasts"), [(MIB - 1, True), (len(DATA), False)])
def test_blob_that_is_small_or_cannot_be_gone_on_with_leaves_nothing(store, size, lasts):
    with store.prepare_blob(DIGEST, size=size, lasts=lasts) as new:
        os.write(new.blob_fd, DATA[: 2 * MIB])
        assert store.entries() == []
    assert os.listdir(store.path) == []


@pytest.mark.parametrize("count", [0, 1, MIB - 1])
def test_little_is_not_left(store, leave, count):
    leave(DATA[:count])
    assert os.listdir(store.path) == []


def test_blob_that_is_wrong_is_not_left(store):
    with store.prepare_blob(DIGEST, size=len(DATA), lasts=True) as new:
        os.write(new.blob_fd, DATA)
        new.drop()
        new.drop()
    assert os.listdir(store.path) == []


def test_second_of_two_that_prepare_the_same_blob_leaves_nothing(store):
    with (
        store.prepare_blob(DIGEST, size=len(DATA), lasts=True) as one,
        store.prepare_blob(DIGEST, size=len(DATA), lasts=True) as two,
    ):
        os.write(one.blob_fd, DATA[: 2 * MIB])
        os.write(two.blob_fd, DATA)
    assert os.listdir(store.path) == [PART]
    with store.take_part(DIGEST, size=len(DATA)) as taken:
        assert taken.there == 2 * MIB


def test_part_goes_when_another_process_has_kept_the_blob(store, leave):
    leave()
    with store.take_part(DIGEST, size=len(DATA)) as slow:
        with store.prepare_blob(DIGEST, size=len(DATA), lasts=True) as quick:
            os.write(quick.blob_fd, DATA)
            quick.commit(make_seal(BLOB, size=1)).close()
        with slow.commit(make_seal(BLOB, size=2)) as entry:
            assert entry.seal.size == 1
    assert os.listdir(store.path) == [BLOB]


def test_part_is_no_entry(store, leave):
    leave()
    assert store.find(PART) is None
    (store.path / PART / "seal").write_bytes(write_seal(make_seal(BLOB), store.key))
    assert store.find(PART) is None


def test_part_of_a_process_that_was_killed_at_its_seal_is_taken(store, leave):
    seal = leave().parent / "seal"
    seal.write_bytes(b"half")
    with store.take_part(DIGEST, size=len(DATA)) as taken:
        assert not seal.exists()
        taken.commit(make_seal(BLOB, size=1)).close()


def test_part_is_taken_by_one_alone(store, leave):
    leave()
    with store.take_part(DIGEST, size=len(DATA)) as taken:
        assert store.take_part(DIGEST, size=len(DATA)) is None
        with pytest.raises(LocalError, match="is in use"):
            store.remove(PART)
        assert [one.name for one in store.collect()] == []
        taken.close()
    with store.take_part(DIGEST, size=len(DATA)) as again:
        assert again.there == 2 * MIB


def test_part_that_is_longer_than_the_blob_is_removed(store, leave):
    leave()
    assert store.take_part(DIGEST, size=2 * MIB - 1) is None
    assert os.listdir(store.path) == []


def test_part_of_a_killed_process_is_taken(store, tmp_path):
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom imagers.store import Store\n"
        "from imagers.model.digest import parse_digest\n"
        "from imagers.model.keys import SecretKey\n"
        f"store = Store(Path({str(store.path)!r}), SecretKey(b'k' * 32))\n"
        f"new = store.prepare_blob(parse_digest({str(DIGEST)!r}), size={len(DATA)}, lasts=True)\n"
        "os.write(new.blob_fd, b'some')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    with store.take_part(DIGEST, size=len(DATA)) as taken:
        assert taken.there == 4


def test_part_that_is_looked_at_for_a_moment_is_taken(store, leave):
    """As `entries` of another thread does."""
    leave()
    stop = threading.Event()

    def look():
        while not stop.is_set():
            store.entries()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(look)
        try:
            for _ in range(50):
                with store.take_part(DIGEST, size=len(DATA)) as taken:
                    assert taken is not None
        finally:
            stop.set()


def test_parts_count_and_go_first(store, put, leave):
    put(store, name_of("a"), size=5 * MIB).close()
    use(store, name_of("a"), 1)  # longest not used
    leave()
    store.max_bytes = 8 * MIB
    assert store.make_room(MIB) == MIB
    assert set(names(store)) == {PART, name_of("a")}
    assert store.make_room(2 * MIB) == 3 * MIB
    assert names(store) == [name_of("a")]


def test_part_that_is_in_use_does_not_count_and_does_not_go(store, leave):
    leave()
    store.max_bytes = 2 * MIB
    with store.take_part(DIGEST, size=len(DATA)):
        assert store.make_room(2 * MIB) == 2 * MIB
        assert names(store) == [PART]


def test_part_outlives_the_boot_and_another_key(make_store, leave, monkeypatch):
    leave(used=1)
    monkeypatch.setattr("imagers.store.store._booted", time.time)
    with SecretKey(b"another key of thirty-two bytes!") as key:
        later = make_store(key=key, max_bytes=10 * MIB)
        assert later.make_room() == 8 * MIB
        assert names(later) == [PART]
        with later.take_part(DIGEST, size=len(DATA)) as taken:
            assert taken.there == 2 * MIB
        later.close()


def test_part_of_long_ago_is_collected(store, leave):
    other = digest_of(b"other")
    leave()
    leave(digest=other, used=time.time() - 90_000)
    (removed,) = store.collect()
    assert removed.name == f"part-sha256-{other.hex}"
    assert removed.size == 2 * MIB
    assert removed.why == "part of a download that nobody went on with for a day"
    assert names(store) == [PART]


def test_part_can_be_removed_beside_a_bundle_of_another_key(store, make_store, put, leave):
    put(store, name_of("b", "bundle")).close()
    leave()
    with SecretKey(b"another key of thirty-two bytes!") as key:
        later = make_store(key=key)
        assert later.remove(PART)
        later.close()


def test_part_that_says_it_is_larger_than_all_disks_hinders_nobody(store, leave):
    os.truncate(leave(), 2**40)
    store.max_bytes = 10 * MIB
    assert store.make_room(MIB) == 10 * MIB
    assert names(store) == []
