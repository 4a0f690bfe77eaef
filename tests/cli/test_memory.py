# SPDX-License-Identifier: Apache-2.0
"""A pull takes no more memory for a larger image: 96 MiB above what a command takes that does
nothing, with the default budget.
"""

import os
import sys

import pytest

MIB = 1024 * 1024
BOUND_MIB = 96
# Of the program alone: what the kernel tells of a child begins with what its parent had.
PEAK = """
import sys
from imagers.__main__ import main
del sys.argv[1]
try:
    main()
finally:
    with open("/proc/self/status") as status:
        peak = status.read().split("VmHWM:")[1].split()[0]
    with open("peak", "w") as file:
        file.write(peak)
"""


def peak_mib(imagers, *words):
    """The most memory that a command had resident."""
    (imagers.here / "peak.py").write_text(PEAK)
    # Its words have "imagers" in them, as `run` looks for what is ours.
    done = imagers.run([sys.executable, "peak.py", "imagers", *words], within=120)
    assert done.code == 0, done
    return int((imagers.here / "peak").read_text()) / 1024


@pytest.fixture
def image(images, publish):
    """Encrypted, with a layer that is larger than the bound, and others to fetch meanwhile."""
    small = [images.file(f"small/{one % 100}/{'n' * 100}{one}", b"x") for one in range(20_000)]
    return publish(
        images.build(
            images.tar(("large", os.urandom(BOUND_MIB * MIB + 24 * MIB))),
            *(images.tar((f"more-{one}", os.urandom(10 * MIB))) for one in range(3)),
            images.tar(*small),
        )
    )


def test_memory_of_a_pull_is_bounded(imagers, image):
    bound = peak_mib(imagers, "--help") + BOUND_MIB
    for number, more in enumerate(
        (
            ("--no-store",),
            ("--no-store", "--stream", "--jobs", "6"),
            ("--store-place", "private", "--snapshotter", "plain"),
            ("--store-place", "private", "--snapshotter", "plain"),  # all of it is kept
        )
    ):
        words = [*image.pull(*more)]
        words[words.index("bundle")] = f"bundle{number}"
        assert peak_mib(imagers, *words) < bound, more
