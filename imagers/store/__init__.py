# SPDX-License-Identifier: Apache-2.0
"""What a guest keeps of the images that it pulled, so that the next pull is short.

from imagers.store import Store, open_store_key
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.store.content import content_digest
    from imagers.store.key import load_store_key
    from imagers.store.seal import Checks, Seal, StoredAs, entry_name
    from imagers.store.store import BLOB, BUNDLE, Entry, Found, NewEntry, Removed, Store
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "content": ("content_digest",),
            "key": ("load_store_key",),
            "seal": ("Checks", "Seal", "StoredAs", "entry_name"),
            "store": ("BLOB", "BUNDLE", "Entry", "Found", "NewEntry", "Removed", "Store"),
        },
    )

__all__ = [
    "BLOB",
    "BUNDLE",
    "Checks",
    "Entry",
    "Found",
    "NewEntry",
    "Removed",
    "Seal",
    "Store",
    "StoredAs",
    "content_digest",
    "entry_name",
    "load_store_key",
]
