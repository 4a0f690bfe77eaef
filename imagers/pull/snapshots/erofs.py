# SPDX-License-Identifier: Apache-2.0
"""Layers as EROFS images, which nobody can write to, with a tree of hashes as dm-verity reads it.

    PLACE/layer.erofs       what overlayfs would keep of the layer, made by mkfs.erofs
    PLACE/layer.verity      the hashes, made by veritysetup, without a header

The facts say all that opens them: the root hash, the size, and how hashes are computed. Nothing on
the disk has a say in it. An image is verified in whole before it is mounted, through the very
descriptor that it is mounted by. From then on nobody verifies: that is for dm-verity.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from imagers.errors import IntegrityError, LocalError, SizeMismatch, Unsupported
from imagers.files import local_errors
from imagers.programs import ask_program
from imagers.pull.snapshots.loop import open_loop
from imagers.pull.snapshots.mount import detach, mount_image
from imagers.pull.snapshots.overlay import change_tree, compose_tree
from imagers.pull.snapshots.places import remove_directory
from imagers.pull.snapshots.snapshotter import Prepared
from imagers.pull.snapshots.trial import check_by_trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from imagers.pull.snapshots.overlay import OpenLowers
    from imagers.pull.snapshots.snapshotter import Committed, Snapshotter

__all__ = ["SNAPSHOTTER", "Erofs"]

_IMAGE = "layer.erofs"
_HASHES = "layer.verity"
_UPPER = "upper"

_BLOCK = 4096
# No salt: the same layer has the same root hash, wherever it is made.
_VERITY = (
    "--no-superblock",
    "--format=1",
    "--hash=sha256",
    f"--data-block-size={_BLOCK}",
    f"--hash-block-size={_BLOCK}",
    "--salt=-",
)
_ROOT_HASH = re.compile("[0-9a-f]{64}")
# What veritysetup ends with when the bytes are not those of the root hash.
_NOT_VERIFIED = (1, 2)

# Later than any file: mkfs.erofs puts it into its image in place of the time of day, and takes it
# for the time of files that are younger. 2**34 s is what ext4 and XFS can keep.
_BUILD_TIME = 2**35
_OVERLAY = "trusted.overlay."
_MAX_NAME = 254  # mkfs.erofs 1.5 cuts longer ones off
_OTHER = "the snapshotters 'overlay' and 'plain' take it"
_UUID = "00000000-0000-0000-0000-000000000000"
_PACKAGES = {"mkfs.erofs": "erofs-utils", "veritysetup": "cryptsetup-bin"}
_PROGRAM_S = 3600
_MAX_OUTPUT_BYTES = 1024 * 1024

_VERIFIED: set[tuple[tuple[int, ...], str]] = set()  # by this process: files, and root hashes


class Erofs:
    """See the module."""

    name = "erofs"

    def check(self, directory: Path) -> None:
        """See `Snapshotter`."""
        for program in _PACKAGES:
            _check_there(program)
        check_by_trial(self, directory)

    @contextmanager
    def prepare(self, parents: Sequence[Committed], place: Path) -> Iterator[Prepared]:
        """See `Snapshotter`."""
        with ExitStack() as opened:
            images = [_open_image(opened, layer, again=False) for layer in reversed(parents)]
            opens = _mounts(images) if images else None
            with change_tree(opens, place, _UPPER) as root_fd:
                prepared = Prepared(root_fd)
                yield prepared
        prepared.facts.update(_make_image(place))

    def compose(self, layers: Sequence[Committed], root: Path, scratch: Path) -> None:
        """See `Snapshotter`."""
        with ExitStack() as opened:
            images = [_open_image(opened, layer, again=True) for layer in reversed(layers)]
            if images:
                compose_tree(_mounts(images), root, scratch)

    def release(self, root: Path) -> None:
        """See `Snapshotter`: what is below is unmounted with it."""
        with local_errors(root, "cannot unmount"):
            detach(root)


SNAPSHOTTER: Snapshotter = Erofs()


# Making


def _make_image(place: Path) -> dict[str, str]:
    upper, image, hashes = place / _UPPER, place / _IMAGE, place / _HASHES
    try:
        with local_errors(upper):
            _tidy(os.fsencode(upper))
    except LocalError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENAMETOOLONG:
            raise Unsupported(
                "expected paths that Linux takes in one call for an EROFS image, got a longer one",
                hint=_OTHER,
            ) from error
        raise
    _run("mkfs.erofs", "--quiet", f"-U{_UUID}", str(image), str(upper), what=image)
    with local_errors(place):
        remove_directory(upper)
        size = image.stat().st_size
    out = _run(
        "veritysetup", "format", *_VERITY, _blocks(size), str(image), str(hashes), what=image
    )
    found = re.search(rb"^Root hash:\s*([0-9a-f]{64})$", out, re.MULTILINE)
    if found is None:
        raise LocalError("expected a root hash from veritysetup, got none", path=str(image))
    return {"verity": " ".join(_VERITY), "root-hash": found[1].decode(), "bytes": str(size)}


def _tidy(upper: bytes) -> None:
    """Take away what only the overlay needs that made the layer."""
    _tidy_one(upper)
    folders = [upper]  # by hand: trees may be deeper than Python recurses
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                _tidy_one(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def _tidy_one(path: bytes) -> None:
    there = os.lstat(path)
    if len(os.path.basename(path)) > _MAX_NAME:
        raise Unsupported(
            f"expected names of at most {_MAX_NAME} bytes for an EROFS image, got a longer one: "
            f"'{os.fsdecode(path)}'",
            hint=_OTHER,
        )
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(_OVERLAY) and name != f"{_OVERLAY}opaque":
            os.removexattr(path, name, follow_symlinks=False)
    if stat.S_ISCHR(there.st_mode) and there.st_rdev == 0:  # hides a file: of no time
        os.utime(path, (0, 0))
    elif not 0 <= there.st_mtime_ns < _BUILD_TIME * 10**9:
        raise Unsupported(
            "expected files of 1970 to 3058 for an EROFS image, got one of "
            f"{there.st_mtime_ns // 10**9} s: '{os.fsdecode(path)}'",
            hint=_OTHER,
        )


# Opening


def _open_image(opened: ExitStack, layer: Committed, *, again: bool) -> int:
    """The image of a layer, of which each byte is as the facts say.

    Args:
        again: whether one that this process has verified before is verified once more. Else each
            layer of an image would have all those below it read again.
    """
    image, facts = layer.place / _IMAGE, layer.facts
    size, root_hash = facts.get("bytes", ""), facts.get("root-hash", "")
    is_ours = facts.get("verity") == " ".join(_VERITY)
    if not (is_ours and size.isdecimal() and _ROOT_HASH.fullmatch(root_hash)):
        raise Unsupported(
            f"expected a layer with hashes by '{' '.join(_VERITY)}', got {dict(facts)}: "
            f"'{layer.place}'"
        )
    fds = []
    for path in (image, layer.place / _HASHES):
        with local_errors(path):
            fds.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
        opened.callback(os.close, fds[-1])
    found = os.fstat(fds[0])
    if found.st_size != int(size):
        raise SizeMismatch(expected=int(size), actual=found.st_size, what=str(image))
    if not again and (_identity(found), root_hash) in _VERIFIED:
        return fds[0]
    own = f"/proc/{os.getpid()}/fd"
    paths = [f"{own}/{fd}" for fd in fds]
    _run("veritysetup", "verify", *_VERITY, _blocks(found.st_size), *paths, root_hash, what=image)
    _VERIFIED.add((_identity(found), root_hash))
    return fds[0]


def _identity(there: os.stat_result) -> tuple[int, ...]:
    """Of a file and its bytes: whoever writes to it changes the last time."""
    return (there.st_dev, there.st_ino, there.st_size, there.st_ctime_ns)


def _mounts(images: Sequence[int]) -> OpenLowers:
    def opens(opened: ExitStack, at: int, name: str) -> list[int]:
        roots = []
        for image in images:
            roots.append(_mount(image, at, name))
            opened.callback(os.close, roots[-1])
        return roots

    return opens


def _mount(image: int, at: int, name: str) -> int:
    try:
        return mount_image(image, at, name, "erofs")
    except OSError as error:
        # Kernels before 6.12, and file systems such as tmpfs.
        if error.errno != errno.ENOTBLK:
            raise
    device = open_loop(image)
    try:
        return mount_image(device, at, name, "erofs")
    finally:
        os.close(device)


def _blocks(size: int) -> str:
    return f"--data-blocks={size // _BLOCK}"


# Programs


def _check_there(program: str) -> None:
    if shutil.which(program) is None:
        raise Unsupported(
            f"expected the program '{program}', found none",
            hint=f"install {_PACKAGES[program]}",
        )


def _run(program: str, *words: str, what: Path) -> bytes:
    """What it says, where it says that all went well."""
    _check_there(program)
    try:
        answer = ask_program(
            ["env", "LC_ALL=C", f"SOURCE_DATE_EPOCH={_BUILD_TIME}", program, *words],
            b"",
            timeout_s=_PROGRAM_S,
            max_bytes=_MAX_OUTPUT_BYTES,
            own_session=True,
            name=program,
        )
    except (OSError, TimeoutError, OverflowError) as error:
        raise LocalError(f"{program}: {error}", path=str(what)) from error
    if answer.status != 0:
        said = answer.error.decode("utf-8", "replace").strip().split("\n")[0].rstrip(".")
        if words[0] == "verify" and answer.status in _NOT_VERIFIED:
            raise IntegrityError(f"{what}: not what was committed: {program}: {said}")
        words_of_it = f": {said}" if said else ""
        raise LocalError(f"{program} failed ({answer.status}){words_of_it}", path=str(what))
    return bytes(answer.out)
