# SPDX-License-Identifier: Apache-2.0
"""What the user's machine says, and a guest's configuration, as values.

    config = load_guest_config("/etc/image-rs.json")
    user = read_settings(config)

`machine.py` reads the environment, `guest.py` the files of guests, `documents.py` what they name.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.settings.documents import key_reader
    from imagers.settings.guest import GuestConfig, load_guest_config
    from imagers.settings.machine import Settings, hide_secrets, read_settings
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "documents": ("key_reader",),
            "guest": ("GuestConfig", "load_guest_config"),
            "machine": ("Settings", "hide_secrets", "read_settings"),
        },
    )

__all__ = [
    "GuestConfig",
    "Settings",
    "hide_secrets",
    "key_reader",
    "load_guest_config",
    "read_settings",
]
