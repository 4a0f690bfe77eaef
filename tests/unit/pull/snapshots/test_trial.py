# SPDX-License-Identifier: Apache-2.0
import errno
import os
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from imagers.errors import LocalError, Unsupported
from imagers.files import local_errors
from imagers.pull.snapshots.plain import Plain
from imagers.pull.snapshots.trial import check_by_trial


def test_trial_of_one_that_works_leaves_nothing(folder):
    check_by_trial(Plain(), folder)
    assert list(folder.iterdir()) == []


def test_trial_sees_a_file_that_a_layer_could_not_hide(folder):
    """An overlay whose upper file system keeps no marks shows what is below them."""

    class Forgetful(Plain):
        @contextmanager
        def prepare(self, parents, place):
            with super().prepare(parents, place) as prepared:
                yield prepared
            if parents:
                (place / "tree" / "replaced" / "below").mkdir()

    with pytest.raises(
        Unsupported, match="expected one directory in the tree of a trial, got"
    ) as e:
        check_by_trial(Forgetful(), folder)
    assert "'replaced/below'" in str(e.value)
    assert list(folder.iterdir()) == []


def test_trial_where_it_is_refused_says_why(folder):
    class Refused(Plain):
        def compose(self, layers, root, scratch):
            with local_errors(root, f"cannot mount {len(layers)} layers with {scratch}"):
                raise PermissionError(1, "Operation not permitted")

    with pytest.raises(Unsupported, match=r"does not work below .*: operation not permitted") as e:
        check_by_trial(Refused(), folder)
    assert e.value.hint == "the snapshotter 'plain' works everywhere"


def test_trial_where_nothing_can_be_written_is_a_local_error():
    with pytest.raises(LocalError, match="/proc: "):
        check_by_trial(Plain(), Path("/proc"))


def test_trial_where_a_mount_cannot_do_all_says_what(folder):
    """Of a file system without extended attributes, where overlayfs makes no opaque directory."""

    class Limited(Plain):
        @contextmanager
        def prepare(self, parents, place):
            with super().prepare(parents, place) as prepared:
                if parents:
                    os.rmdir("removed", dir_fd=prepared.root_fd)
                yield prepared

    with pytest.raises(Unsupported, match=r"below .*: no such file or directory"):
        check_by_trial(Limited(), folder)


def test_trial_releases_the_root_also_where_the_tree_is_wrong(folder):
    released = []

    class Watched(Plain):
        def compose(self, layers, root, scratch):
            super().compose(layers, root, scratch)
            (root / "more").mkdir()

        def release(self, root):
            released.append(root.name)

    with pytest.raises(Unsupported, match=r"got .'more', 'replaced'."):
        check_by_trial(Watched(), folder)
    assert released == ["root"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("wraps", [True, False])
def test_trial_in_a_place_that_is_full_is_a_local_error(folder, number, wraps):
    """Not the snapshotter's fault: another one, taken in its place, would be worse and fail too."""

    class Full(Plain):
        def compose(self, layers, root, scratch):
            wrapped = local_errors(root, f"cannot mount {layers}, {scratch}")
            with wrapped if wraps else nullcontext():
                raise OSError(number, os.strerror(number))

    with pytest.raises(LocalError, match=os.strerror(number).lower()):
        check_by_trial(Full(), folder)
    assert list(folder.iterdir()) == []
