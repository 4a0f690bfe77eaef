# SPDX-License-Identifier: Apache-2.0
"""Kept layers, each an entry that is there whole or not at all.

    with Store(path, key, max_bytes=10 * 2**30) as store:
        entry = store.find(name)                   # locked against removal until it is closed
        if entry is None:
            with store.prepare(name) as new:
                ...                                # write below new.fd, or at new.path
                entry = new.commit(seal)

The index is the directory itself:

    STORE/blob-sha256-HEX/         an entry: `seal`, and what its writer has put beside it
    STORE/overlay-sha256-HEX/
    STORE/part-sha256-HEX/         the beginning of a blob whose download goes on, or broke off
    STORE/.new.imagers-XXXXXXXX/   one that somebody prepares, or died over

An entry appears with one rename, after its bytes and its seal are on the disk. Whoever uses it
holds a shared lock on its directory, whoever removes it an exclusive one, and then moves it away
with one rename: a process that is killed, or a power cut, leaves entries whole, and places
without a name that the next one to open the store removes. There is no other file to repair.

Nothing below an entry is believed for its place: `find` gives only what has a seal under the
store's key. A part has none: nobody has verified anything of it, and it may be of an earlier boot.
Whoever has its exclusive lock may read it, as unverified as what a registry sends, and go on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import FormatError, IntegrityError, LocalError
from imagers.files import has_name, local_errors, reason_of, sync_file_system, write_all
from imagers.layout.guarded import open_guarded
from imagers.layout.staged_directory import StagedDirectory, remove_abandoned
from imagers.model.closing import Closing
from imagers.store.content import content_digest
from imagers.store.seal import MAX_SEAL_BYTES, Seal, entry_name, parse_seal, write_seal
from imagers.waiting import lock_file, pause

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imagers.model.digest import Digest
    from imagers.model.keys import SecretKey

__all__ = ["BLOB", "BUNDLE", "Entry", "Found", "NewBlob", "NewEntry", "Removed", "Store"]

BLOB = "blob"  # the kind of an entry with stored bytes, and its one file
BUNDLE = "bundle"  # the kind of an entry that is no layer: what the container of a bundle writes
_PART = "part"  # the kind of what is left of a download
_MIN_PART_BYTES = 1024 * 1024  # less is downloaded as fast as it is looked for
_PART_S = 86400  # what nobody went on with for a day: whoever tries a pull again does so before
_LOCK_TRIES = 20  # who lists a store has each part's lock for a moment
_LOCK_PAUSE_S = 0.01
_SEAL = "seal"
_MARK = ".new.imagers-"
_NAME = re.compile(r"[a-z]+-(sha256|sha384|sha512)-[0-9a-f]+")
_UPTIME = Path("/proc/uptime")
_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(Closing):
    """A kept layer that nobody removes while this object is open.

    Attributes:
        fd: of its directory; this object keeps it.
        path: the same.
    """

    def __init__(self, fd: int, path: Path, seal: Seal) -> None:
        self.fd = fd
        self.path = path
        self.seal = seal

    def close(self) -> None:
        """Let go of it. Safe to call twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Found:
    """What `entries` tells of one; `seal` is None where it is not one of this store's key.

    Attributes:
        fault: why there is no seal; "" where there is one.
        used: when it was last found or made, seconds since the epoch.
        in_use: whether a process holds it.
        part_size: bytes of a part.
    """

    name: str
    seal: Seal | None
    fault: str
    used: float
    in_use: bool
    part_size: int = 0

    @property
    def size(self) -> int:
        """Bytes that it counts; 0 where nobody knows."""
        return self.part_size if self.seal is None else self.seal.size

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of entries that it is nothing without."""
        return () if self.seal is None else self.seal.needs

    @property
    def is_bundle(self) -> bool:
        """Whether it is what a bundle has written, which goes with the bundle."""
        return self.name.startswith(f"{BUNDLE}-")

    @property
    def is_part(self) -> bool:
        """Whether it is the beginning of a blob: without a seal, as nothing of it was verified."""
        return _is_part(self.name)


@dataclass(frozen=True, slots=True)
class Removed:
    """An entry that is gone, and why."""

    name: str
    size: int
    why: str


class NewEntry(Closing):
    """A directory on its way into the store; closing it without `commit` removes it.

    Attributes:
        fd: of the directory; this object keeps it.
        path: of the same.
    """

    def __init__(self, store: Store, name: str, place: StagedDirectory) -> None:
        self._store = store
        self._name = name
        self._place = place
        self.fd = place.fd
        self.path = store.path / place.name

    def commit(self, seal: Seal) -> Entry:
        """Seal what is there, and let it appear; what another process has kept meanwhile stays.

        Raises:
            LocalError: it could not be written.
        """
        assert seal.name == self._name
        with local_errors(self._store.path, f"{self._name} cannot be kept"):
            _write_seal(self.fd, write_seal(seal, self._store.key))
            # The bytes before the name: a rename may reach the disk ahead of them.
            sync_file_system(self.fd)
            entry = self._publish()
        self.drop()
        if entry is None:
            raise LocalError(
                f"{self._name} was kept, and somebody removed it at once",
                path=str(self._store.path),
            )
        return entry

    def _publish(self) -> Entry | None:
        # The lock of the place, so that nobody removes it as soon as it has its name.
        held = os.dup(self.fd)
        try:
            try:
                self._place.publish()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                entry = self._store.find(self._name)
                if entry is not None:
                    return entry
                self._store.remove(self._name)  # of an earlier boot, say
                self._place.publish()
            lock_file(held, shared=True, what=str(self._store.path))  # as `find` takes it
            return self._store.find(self._name)
        finally:
            os.close(held)

    def drop(self) -> None:
        """Remove what was not committed. Safe to call twice."""
        self.fd = -1
        self._place.discard()

    def close(self) -> None:
        """Remove what was not committed. Safe to call twice."""
        self.drop()


class NewBlob(NewEntry):
    """Stored bytes on their way into the store; closing it without `commit` may leave a part.

    So does the end of the process. What is known to be wrong is to be dropped.

    Attributes:
        blob_fd: of the file with the bytes, open for reading and writing; this object keeps it.
        there: bytes in it from an earlier download, unverified.

    Threads: one may write to the file; any may drop or close it.
    """

    def __init__(self, store: Store, name: str, place: StagedDirectory, blob_fd: int) -> None:
        super().__init__(store, name, place)
        self._lock = threading.Lock()
        self.blob_fd = blob_fd
        self.there = os.fstat(blob_fd).st_size

    def drop(self) -> None:
        """See `NewEntry`."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """Leave what is worth it as a part. Safe to call twice, and after `commit`."""
        with self._lock:
            fd = self.blob_fd
            if fd >= 0 and _is_part(self._place.name) and os.fstat(fd).st_size >= _MIN_PART_BYTES:
                self._place.leave()
            self._drop()

    def _drop(self) -> None:
        fd, self.blob_fd = self.blob_fd, -1
        if fd >= 0:
            os.close(fd)
        super().drop()


class Store(Closing):
    """See the module.

    Args:
        path: made, with mode 0700, where it is missing. Nobody but root and the caller may be
            able to change it.
        key: of the seals; stays the caller's, and must stay open as long as this object.
        max_bytes: `make_room` keeps the entries below that together; None: no limit.

    Attributes:
        fd: of the directory; this object keeps it.

    Raises:
        LocalError: it cannot be made, or others can change it.

    Threads: safe.
    """

    def __init__(self, path: Path, key: SecretKey, *, max_bytes: int | None = None) -> None:
        self.path = path.absolute()
        self.key = key
        self.max_bytes = max_bytes
        with local_errors(self.path, "no store can be kept here"):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.fd = open_guarded(self.path, holds="store")
        remove_abandoned(self.fd, _MARK)

    def close(self) -> None:
        """Give back the descriptor. Safe to call twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def find(self, name: str) -> Entry | None:
        """The entry, locked against removal, and its use noted; None: there is none.

        One whose seal is not of this store's key, or not of this entry, is none.
        """
        with local_errors(self.path, f"{name} cannot be looked for"):
            fd = self._open(name)
        if fd is None:
            return None
        try:
            lock_file(fd, shared=True, what=str(self.path / name))
            # It may have been moved away between the two.
            if not has_name(fd, name, parent=self.fd):
                os.close(fd)
                return None
            seal = parse_seal(_read_seal(fd, name), self.key, name)
            with contextlib.suppress(OSError):  # a store that is only read
                os.utime(fd)
        except (IntegrityError, FormatError, LocalError):
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return Entry(fd, self.path / name, seal)

    def prepare(self, name: str) -> NewEntry:
        """A place for an entry.

        Raises:
            LocalError: it cannot be made.
        """
        return NewEntry(self, name, self._new_place(name))

    def _new_place(self, name: str) -> StagedDirectory:
        with local_errors(self.path, "nothing can be kept"):
            return StagedDirectory(self.fd, name, _MARK)

    def prepare_blob(self, digest: Digest, *, size: int, lasts: bool) -> NewBlob:
        """A place for the entry with the stored bytes that have this digest.

        Args:
            size: of the blob.
            lasts: what came of it stays as a part, unless it is small, or another process
                has a part of the same blob in its hands.

        Raises:
            LocalError: it cannot be made.
        """
        name = entry_name(BLOB, digest)
        place = self._new_place(name)
        try:
            with local_errors(self.path, f"{name} cannot be kept"):
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
                fd = os.open(BLOB, flags, 0o600, dir_fd=place.fd)
            if lasts and size >= _MIN_PART_BYTES:
                with contextlib.suppress(OSError):
                    place.rename(entry_name(_PART, digest))
        except BaseException:
            place.discard()
            raise
        return NewBlob(self, name, place, fd)

    def take_part(self, digest: Digest, *, size: int) -> NewBlob | None:
        """What is left of a download of the blob with this digest and size; nobody else has it.

        Nothing of it is verified. None: there is none, or another process goes on with it.
        What can be the beginning of no such blob is removed.
        """
        name = entry_name(_PART, digest)
        with local_errors(self.path, f"{name} cannot be looked for"), ExitStack() as stack:
            fd = self._open(name)
            if fd is None:
                return None
            stack.callback(os.close, fd)
            if not (_lock_at_once(fd) and has_name(fd, name, parent=self.fd)):
                return None
            blob_fd = _open_part(fd, size)
            if blob_fd is not None:
                stack.pop_all()  # they are the result's
        if blob_fd is None:
            with contextlib.suppress(LocalError):
                self.remove(name)
            return None
        target = entry_name(BLOB, digest)
        place = StagedDirectory.found(self.fd, name, fd, target=target)
        return NewBlob(self, target, place, blob_fd)

    def drop_part(self, digest: Digest) -> None:
        """Remove what is left of a download of a blob that is kept by now, unless it goes on."""
        with contextlib.suppress(LocalError):
            self.remove(entry_name(_PART, digest))

    def reseal(self, entry: Entry, seal: Seal) -> None:
        """Put another seal on an entry, by one rename.

        Raises:
            LocalError: it could not be written.
        """
        data = write_seal(seal, self.key)
        # Written outside of the entry: what a killed process leaves there would be its content.
        with (
            local_errors(entry.path, "cannot be sealed"),
            StagedDirectory(self.fd, seal.name, _MARK) as aside,
        ):
            _write_seal(aside.fd, data)
            os.rename(_SEAL, _SEAL, src_dir_fd=aside.fd, dst_dir_fd=entry.fd)
            os.fsync(entry.fd)
        entry.seal = seal

    def verify(self, name: str) -> str:
        """What is wrong with an entry: it is read to its end; "" where it is what was sealed."""
        entry = self.find(name)
        if entry is None:
            return next((one.fault for one in self.entries() if one.name == name), "is not there")
        with entry:
            try:
                if _content_of(entry) == (entry.seal.content or _digest_in(name)):
                    return ""
            except OSError as error:
                return f"cannot be read: {reason_of(error)}"
        return "its content is not what was sealed"

    def entries(self) -> list[Found]:
        """All of them, the one that was used last at the end."""
        return sorted(self._entries({}), key=lambda one: (one.used, one.name))

    def _entries(self, known: Mapping[str, Found]) -> list[Found]:
        with local_errors(self.path):
            found = [known.get(name) or self._look_at(name) for name in os.listdir(self.fd)]
        return [one for one in found if one is not None]

    def remove(self, name: str) -> bool:
        """Remove an entry; False where there is none.

        Raises:
            LocalError: a process or another entry needs it, or it cannot be removed.
        """
        return self._remove(name, {})

    def _remove(self, name: str, known: Mapping[str, Found]) -> bool:
        with local_errors(self.path, f"{name} cannot be removed"):
            fd = self._open(name)
            if fd is None:
                return False
            try:
                self._lock_for_removal(fd, name, known)
                if not has_name(fd, name, parent=self.fd):  # another process was quicker
                    return False
                with StagedDirectory(self.fd, name, _MARK) as aside:
                    # First out of sight, at once; then as slowly as it takes.
                    os.rename(name, name, src_dir_fd=self.fd, dst_dir_fd=aside.fd)
                    os.fsync(self.fd)
                    fcntl.flock(fd, fcntl.LOCK_UN)
            finally:
                os.close(fd)
        return True

    def _lock_for_removal(self, fd: int, name: str, known: Mapping[str, Found]) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError(
                f"{name} is in use",
                path=str(self.path),
                hint="remove it when the command that uses it has ended",
            ) from None
        # From here on nobody begins to use it; who needs it has said so already.
        found = self._entries(known)
        for one in found:
            if name in one.needs:
                raise LocalError(
                    f"{name} is needed by {one.name}",
                    path=str(self.path),
                    hint=f"remove {one.name} first",
                )
        if any(one.name == name and (one.seal is not None or one.is_part) for one in found):
            return
        # What is needed by a bundle whose seal cannot be read is not known.
        booted = _booted()
        for one in found:
            if one.is_bundle and one.seal is None and one.used > booted:
                raise LocalError(
                    f"{name} cannot be removed: {one.name} may be mounted, and neither has a seal "
                    "of this store's key",
                    path=str(self.path),
                    hint="name the key that they were kept under with --store-key",
                )

    def make_room(self, needed: int = 0) -> int:
        """Remove what was longest not used, until `needed` bytes fit; how many then are free.

        Parts go first. Nothing goes that a process uses, and nothing that something needs. What
        is on its way does not count. The result may be less than `needed`, and negative. What an
        earlier boot has kept under another key goes in any case: nobody counts it, and without
        that each boot would add its own.
        """
        if self.max_bytes is None:
            return needed
        found = self.entries()
        known = _lasting(found)
        booted = _booted()
        for old in found:
            if old.seal is None and old.used < booted and not old.is_part:
                self._try_remove(old.name, known)
        free = self.max_bytes - sum(one.size for one in found if not (one.is_part and one.in_use))
        needed_by = Counter(name for one in found for name in one.needs)
        left = [one for one in found if one.is_part]
        left += [one for one in found if not (one.is_part or one.is_bundle)]
        while free < needed:
            one = next((one for one in left if not (needed_by[one.name] or one.in_use)), None)
            if one is None:
                break
            left.remove(one)
            if self._try_remove(one.name, known):
                free += one.size
                needed_by.subtract(one.needs)
        return free

    def collect(self) -> list[Removed]:
        """Remove what has no seal of this store's key, and old parts; then what is above the limit.

        What a bundle of this boot has written stays, and what it may need: it may be mounted.
        """
        found = self.entries()
        known = _lasting(found)
        removed = [
            Removed(one.name, one.size, one.fault)
            for one in found
            if one.fault and self._try_remove(one.name, known)
        ]
        long_ago = time.time() - _PART_S
        removed += [
            Removed(one.name, one.size, "part of a download that nobody went on with for a day")
            for one in found
            if one.is_part and one.used < long_ago and self._try_remove(one.name, known)
        ]
        before = {one.name: one for one in self.entries()}
        self.make_room()
        after = {one.name for one in self.entries()}
        removed += [
            Removed(name, one.size, "longest not used, and the store is above its limit")
            for name, one in before.items()
            if name not in after
        ]
        return removed

    def _try_remove(self, name: str, known: Mapping[str, Found]) -> bool:
        with contextlib.suppress(LocalError):
            return self._remove(name, known)
        return False

    def _look_at(self, name: str) -> Found | None:
        fd = self._open(name)
        if fd is None:
            return None
        try:
            used = os.fstat(fd).st_mtime
            in_use = False
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(fd, fcntl.LOCK_UN)  # at once: others wait for it
            except BlockingIOError:
                in_use = True
            if _is_part(name):
                size, used = _measure_part(fd)
                return Found(name, None, "", used, in_use, size)
            try:
                seal = parse_seal(_read_seal(fd, name), self.key, name)
            except (IntegrityError, FormatError, LocalError) as error:
                return Found(name, None, str(error), used, in_use)
            return Found(name, seal, "", used, in_use)
        finally:
            os.close(fd)

    def _open(self, name: str) -> int | None:
        """A descriptor of an entry; None: there is none, or what has its name is no directory."""
        if not _NAME.fullmatch(name):
            return None
        try:
            return os.open(name, _FLAGS, dir_fd=self.fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None
            raise


def _is_part(name: str) -> bool:
    return name.startswith(f"{_PART}-")


def _lock_at_once(fd: int) -> bool:
    """Whether the exclusive lock could be had."""
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        pause(_LOCK_PAUSE_S)
    return False


def _open_part(place: int, size: int) -> int | None:
    """A descriptor of the bytes of a part that is locked; None: it can be none of such a blob."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        # Of a process that was killed between the seal and the name.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_SEAL, dir_fd=place)
        fd = os.open(BLOB, flags, dir_fd=place)
    except OSError:
        return None
    status = os.fstat(fd)
    owners = {os.fstat(place).st_uid, status.st_uid}
    # With another name it would be another file, too, that is written to.
    is_alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    if is_alone and owners == {os.geteuid()} and 0 < status.st_size <= size:
        return fd
    os.close(fd)
    return None


def _measure_part(place: int) -> tuple[int, float]:
    """Bytes of a part, and when it was last written, seconds since the epoch."""
    try:
        status = os.stat(BLOB, dir_fd=place, follow_symlinks=False)
    except OSError:
        return 0, os.fstat(place).st_mtime
    return status.st_size, status.st_mtime


def _lasting(found: Iterable[Found]) -> dict[str, Found]:
    """Entries that need the same as long as they have their names, and are looked at once.

    Those of bundles do not.
    """
    return {one.name: one for one in found if not one.is_bundle}


def _content_of(entry: Entry) -> str:
    if entry.seal.content:
        return content_digest(entry.fd, leave_out={_SEAL})
    if entry.seal.diff_id is None:  # a bundle: what its container writes is its own
        return _digest_in(entry.seal.name)
    with open(os.open(BLOB, _FILE_FLAGS, dir_fd=entry.fd), "rb", buffering=0) as file:
        return hashlib.file_digest(file, entry.seal.name.split("-")[1]).hexdigest()


def _digest_in(name: str) -> str:
    """The hex of the digest that a blob's entry is named after."""
    return name.rpartition("-")[2]


def _booted() -> float:
    """When this machine was started, seconds since the epoch."""
    return time.time() - float(_UPTIME.read_text().split()[0])


def _write_seal(fd: int, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(_SEAL, flags, 0o600, dir_fd=fd)
    try:
        write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)


def _read_seal(fd: int, name: str) -> bytes:
    with (
        local_errors(name, "has no seal"),
        open(os.open(_SEAL, _FILE_FLAGS, dir_fd=fd), "rb", buffering=0) as file,
    ):
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise LocalError("the seal is no file", path=name)
        data = file.read(MAX_SEAL_BYTES + 1) or b""
    if len(data) > MAX_SEAL_BYTES:
        raise LocalError(f"expected a seal of at most {MAX_SEAL_BYTES} bytes", path=name)
    return data
