# SPDX-License-Identifier: Apache-2.0
"""Where a setting came from, and whether the evidence of a guest covers that place.

    >>> Origin.KERNEL.is_measured
    False
    >>> check_origin(Origin.KERNEL, "the broker's address", "agent.aa_kbc_params")
    Traceback (most recent call last):
    ...
    imagers.errors.PolicyDenied: the broker's address comes from the kernel's command line ...

What the guest's own image has, and whoever starts the command there, is measured with that image.
What a host can write after the launch is not.
"""

from __future__ import annotations

from enum import Enum

from imagers.errors import PolicyDenied

__all__ = ["Origin", "check_origin"]


class Origin(Enum):
    """A kind of place, as messages call it."""

    CALLER = "the caller"
    """An option or a variable: of whoever starts the command, from the guest's own image."""
    FILE = "a file of the guest"
    SHARED_FILE = "a file system that the host shares"
    KERNEL = "the kernel's command line"

    @property
    def is_measured(self) -> bool:
        """Whether the host cannot have written there unseen."""
        return self in (Origin.CALLER, Origin.FILE)

    @classmethod
    def of_file(cls, *, is_shared: bool) -> Origin:
        """That of a file, by what `imagers.files.is_shared_with_host` says of it."""
        return cls.SHARED_FILE if is_shared else cls.FILE


def check_origin(origin: Origin, what: str, name: str) -> None:
    """Raise unless a setting came from a place that is measured.

    Args:
        what: the setting, such as "the broker's address".
        name: of the option, variable, file or word that had it.

    Raises:
        PolicyDenied: the host may have written it.
    """
    if not origin.is_measured:
        raise PolicyDenied(
            f"{what} comes from {origin.value} ('{name[:160]}'), which the host may write and no "
            "evidence covers",
            hint="name it in the guest's own image: docs/guest.md; --insecure-unmeasured-settings "
            "takes it as it is",
        )
