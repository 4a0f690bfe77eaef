# SPDX-License-Identifier: Apache-2.0
"""What a guest keeps of the images that it pulled, so that the next pull is short.

with load_store_key(Path("/run/imagers")) as key, Store(path, key) as store:
pull_image(image, bundle, PullOptions(policy, store=store))
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.store.key import load_store_key
    from imagers.store.store import Store
else:
    from imagers.lazy import door

    __getattr__ = door(__name__, {"key": ("load_store_key",), "store": ("Store",)})

__all__ = ["Store", "load_store_key"]
