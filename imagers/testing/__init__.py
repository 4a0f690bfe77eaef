"""A registry and a key broker that run inside a test and speak the real protocols.

    registry    EmbeddedRegistry: OCI distribution 1.1, in memory or on disk
    broker      EmbeddedBroker: the real broker in a thread, with a state directory of its own
    plugin      the pytest fixtures `imagers_registry` and `imagers_broker`

For tests of this project and of others. This package imports none of its modules, because
pytest loads the plugin in every run.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.testing.broker import EmbeddedBroker
    from imagers.testing.registry import EmbeddedRegistry
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "broker": ("EmbeddedBroker",),
            "registry": ("EmbeddedRegistry",),
        },
    )

__all__ = [
    "EmbeddedBroker",
    "EmbeddedRegistry",
]
