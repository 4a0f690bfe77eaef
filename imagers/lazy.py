# SPDX-License-Identifier: Apache-2.0
"""The door of a package: names that are imported when they are first asked for (PEP 562).

    __getattr__ = door(__name__, {"named": ("NamedImage", "open_image"), "run": ("pull_image",)})

So `from imagers.pull import pull_image` works, and `import imagers.pull` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["door"]


def door(package: str, modules: Mapping[str, tuple[str, ...]]) -> Callable[[str], object]:
    """The `__getattr__` of a package.

    Args:
        package: its name.
        modules: the names that each of its modules gives.
    """
    place_of = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> object:
        if name not in place_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{place_of[name]}"), name)

    return get
