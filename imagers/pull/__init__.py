# SPDX-License-Identifier: Apache-2.0
"""The workflow of a guest: resolve, verify, get keys, stream, unpack, publish.

`trust.py` holds the whole trust decision, `run.py` drives it:

    from imagers.pull.run import PullOptions, pull_image
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.pull.named import NamedImage, open_image
    from imagers.pull.permit import permit_image
    from imagers.pull.run import PullOptions, PullReport, pull_image, trust_image
    from imagers.pull.snapshots.table import choose_snapshotter, load_snapshotter
    from imagers.pull.trust import TrustedImage
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "named": ("NamedImage", "open_image"),
            "permit": ("permit_image",),
            "snapshots.table": ("choose_snapshotter", "load_snapshotter"),
            "run": ("PullOptions", "PullReport", "pull_image", "trust_image"),
            "trust": ("TrustedImage",),
        },
    )

__all__ = [
    "NamedImage",
    "PullOptions",
    "PullReport",
    "TrustedImage",
    "choose_snapshotter",
    "load_snapshotter",
    "open_image",
    "permit_image",
    "pull_image",
    "trust_image",
]
