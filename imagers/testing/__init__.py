# SPDX-License-Identifier: Apache-2.0
"""A registry, a key broker and images for tests; servers speak the real protocols.

    registry    EmbeddedRegistry: OCI distribution 1.1, in memory or on disk
    broker      EmbeddedBroker: the real broker in a thread, with a state directory of its own
    images      make_tar, make_layer, make_image, make_index: images of a few bytes
    memory      MemoryRepository: a source and a sink in memory, which can be told to lie
    evidence    vendors of confidential machines, from a seed: evidence that is genuine in tests
    plugin      the pytest fixtures `imagers_registry`, `imagers_broker` and `imagers_tee`

For tests of this project and of others. This package imports none of its modules, because
pytest loads the plugin in every run.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.testing.broker import EmbeddedBroker
    from imagers.testing.images import (
        SmallImage,
        TarEntry,
        make_image,
        make_index,
        make_layer,
        make_tar,
    )
    from imagers.testing.memory import Lie, MemoryRepository
    from imagers.testing.registry import EmbeddedRegistry
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "broker": ("EmbeddedBroker",),
            "images": (
                "SmallImage",
                "TarEntry",
                "make_image",
                "make_index",
                "make_layer",
                "make_tar",
            ),
            "memory": ("Lie", "MemoryRepository"),
            "registry": ("EmbeddedRegistry",),
        },
    )

__all__ = [
    "EmbeddedBroker",
    "EmbeddedRegistry",
    "Lie",
    "MemoryRepository",
    "SmallImage",
    "TarEntry",
    "make_image",
    "make_index",
    "make_layer",
    "make_tar",
]
