# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import Unsupported
from imagers.pull.snapshots.table import SNAPSHOTTERS, load_snapshotter


@pytest.mark.parametrize("name", SNAPSHOTTERS)
def test_load_snapshotter_gives_the_one_of_the_name(name):
    assert load_snapshotter(name).name == name


@pytest.mark.parametrize("name", ["", "table", "os", "overlay.mount", "Overlay"])
def test_load_snapshotter_of_another_name_is_refused(name):
    with pytest.raises(Unsupported, match="expected a snapshotter, got") as caught:
        load_snapshotter(name)
    assert caught.value.hint == "they are: overlay, plain, erofs"
