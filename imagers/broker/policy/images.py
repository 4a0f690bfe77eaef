# SPDX-License-Identifier: Apache-2.0
"""Whether an image may be served, whatever a policy says.

    check_named(image, floor=3, successor=None)      the image that a guest names
    check_unnamed(path, images, floor=3)             those of a resource, where it names none

An image that is revoked is refused, and one that its repository knew before the oldest that is
served. One that was superseded is served: it says what to take, and the floor makes an end of it.

Who names none of the images that a resource belongs to could be running any of them. So all of
them have to be good: keeping quiet about a revoked image, or naming another, opens nothing.

Which approvals count is found out each time: those that an admin of the repository's tenant has
signed, who is one now and is not the one who proposed the image, until their time is over.

No IO and no clock here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from imagers.errors import PolicyDenied
from imagers.kbs.images import is_approval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from imagers.broker.keeping.rows import Approval, Image
    from imagers.model.digest import Digest

__all__ = [
    "ImageDenied",
    "check_named",
    "check_unnamed",
    "good_approvals",
    "newest_successor",
]


class ImageDenied(PolicyDenied):
    """An image that is not served, whatever a policy says.

    Attributes:
        name: of the refusal on the wire.
        told: why, for the owner alone.
    """

    def __init__(
        self,
        message: str,
        *,
        name: Literal["ImageRevoked", "ImageTooOld", "PolicyDeny"],
        told: str,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.told = f"{message}: {told}"


def check_named(
    digest: Digest, image: Image | None, *, floor: int, successor: Digest | None
) -> None:
    """Raise unless an image may be served that a guest names whose word counts.

    Args:
        image: what its repository knows of it.
        floor: the number of the oldest image that the repository serves; 0: of any.
        successor: see `newest_successor`.

    Raises:
        ImageDenied: it may not.
    """
    instead = f"; its successor is {successor}" if successor is not None else ""
    if image is not None and image.state == "revoked":
        raise ImageDenied(
            f"the image {digest} is revoked{instead}", name="ImageRevoked", told=image.reason
        )
    if floor and (image is None or image.number < floor):
        number = "not one of its repository" if image is None else f"number {image.number}"
        raise ImageDenied(
            f"the image {digest} is older than the oldest that is served{instead}",
            name="ImageTooOld",
            told=f"it is {number}, the oldest is number {floor}",
        )


def check_unnamed(images: Iterable[Image], *, floor: int) -> None:
    """Raise unless each image of a resource may be served: any of them could be the guest's.

    Raises:
        ImageDenied: says which to the owner alone.
    """
    for image in images:
        try:
            check_named(image.digest, image, floor=floor, successor=None)
        except ImageDenied as denied:
            raise ImageDenied(
                "this resource is for guests that are known, and name one of its images",
                name="PolicyDeny",
                told=denied.told,
            ) from None


def newest_successor(image: Image, known: Mapping[Digest, Image], *, floor: int) -> Digest | None:
    """The last image of those that follow one, in turn, that may be served; None: there is none.

    Args:
        known: at least those that follow it.
    """
    found, seen = None, {image.digest}
    next_ = image.successor
    while next_ is not None and next_ not in seen:
        seen.add(next_)
        after = known[next_]
        if after.state != "revoked" and after.number >= floor:
            found = next_
        next_ = after.successor
    return found


def good_approvals(
    image: Image,
    approvals: Iterable[Approval],
    keys: Mapping[str, bytes],
    *,
    now: datetime,
) -> tuple[Approval, ...]:
    """Those that count.

    Args:
        keys: by their ids, the public keys of the admins whose word counts.
        now: by `BrokerState.session_now`.
    """
    by_admin = {
        one.admin: one
        for one in approvals
        if one.admin != image.proposed_by
        and one.until > now.timestamp()
        and is_approval(
            keys.get(one.admin, b""),
            one.signature,
            repository=image.repository,
            digest=image.digest,
            until=one.until,
        )
    }
    return tuple(by_admin.values())
