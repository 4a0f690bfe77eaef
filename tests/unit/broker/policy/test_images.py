# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.broker.keeping.rows import Approval, Image
from imagers.broker.policy.images import (
    ImageDenied,
    check_named,
    check_unnamed,
    good_approvals,
    newest_successor,
)
from imagers.errors import PolicyDenied
from imagers.kbs.images import sign_approval
from imagers.model.digest import digest_of

A, B, C, D = (digest_of(name) for name in (b"a", b"b", b"c", b"d"))
NOW = datetime(2026, 11, 30, tzinfo=UTC)
UNTIL = int((NOW + timedelta(days=1)).timestamp())


def image(digest=A, number=1, **more):
    return Image(repository="default", digest=digest, number=number, **more)


def denied(call, *arguments, **named):
    with pytest.raises(PolicyDenied) as caught:
        call(*arguments, **named)
    assert isinstance(caught.value, ImageDenied)
    return caught.value


def named(one, *, floor=0, successor=None):
    check_named(A, one, floor=floor, successor=successor)


def test_an_image_that_nobody_said_anything_of_may_be_served():
    named(None)
    named(image())
    named(image(state="superseded", successor=B), successor=B)
    named(image(number=3), floor=3)


def test_a_revoked_image_is_refused_with_its_successor_and_the_reason_is_the_owners():
    told = denied(named, image(state="revoked", reason="CVE-1", successor=B), successor=B)
    assert told.name == "ImageRevoked"
    assert str(told) == f"the image {A} is revoked; its successor is {B}"
    assert told.told.endswith(": CVE-1")
    assert str(denied(named, image(state="revoked", reason="x"))) == f"the image {A} is revoked"


def test_an_image_below_the_floor_is_refused_and_so_is_one_that_nobody_knows():
    told = denied(named, image(number=2), floor=3, successor=C)
    assert (told.name, str(C) in str(told)) == ("ImageTooOld", True)
    assert "number 2, the oldest is number 3" in told.told
    assert denied(named, None, floor=3).name == "ImageTooOld"


def test_a_floor_brings_no_revoked_image_back():
    assert denied(named, image(number=5, state="revoked"), floor=3).name == "ImageRevoked"


@pytest.mark.parametrize(
    "bad", [{"state": "revoked", "reason": "why"}, {"number": 1}], ids=["revoked", "too old"]
)
def test_no_name_is_refused_where_any_image_of_the_resource_would_be(bad):
    good = image(B, 2)
    check_unnamed([], floor=2)
    check_unnamed([good, image(C, 3, state="superseded")], floor=2)
    told = denied(check_unnamed, [good, image(**{"number": 4} | bad)], floor=2)
    assert told.name == "PolicyDeny"
    assert str(A) not in str(told)
    assert "revoked" not in str(told)
    assert str(A) in told.told


def known(**states):
    """A leads to B, B to C, C to D."""
    chain = [A, B, C, D]
    images = [
        image(
            digest,
            number,
            state=states.get("abcd"[number - 1], "superseded"),
            successor=chain[number] if number < len(chain) else None,
        )
        for number, digest in enumerate(chain, 1)
    ]
    return images[0], {one.digest: one for one in images}


@pytest.mark.parametrize(
    ("states", "floor", "found"),
    [
        ({"d": "current"}, 0, D),
        ({"d": "revoked"}, 0, C),
        ({"d": "revoked", "c": "revoked"}, 0, B),
        ({"d": "revoked", "c": "revoked", "b": "revoked"}, 0, None),
        ({"b": "revoked", "c": "revoked"}, 0, D),
        ({"d": "revoked"}, 3, C),
        ({"d": "revoked"}, 4, None),
    ],
)
def test_the_successor_is_the_last_that_may_be_served(states, floor, found):
    assert newest_successor(*known(**states), floor=floor) == found


def test_successors_that_go_in_a_circle_come_to_an_end():
    one = image(A, 1, successor=B)
    assert newest_successor(one, {A: one, B: image(B, 2, successor=A)}, floor=0) == B
    later = {B: image(B, 2, successor=C), C: image(C, 3, successor=B)}
    assert newest_successor(one, {A: one, **later}, floor=0) == C
    assert newest_successor(image(), {}, floor=0) is None


KEYS = {name: Ed25519PrivateKey.generate() for name in ("ann", "bob", "eve")}
PUBLIC = {
    name: key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    for name, key in KEYS.items()
}


def approval(admin, *, key=None, digest=A, repository="default", until=UNTIL, signed=UNTIL):
    signature = sign_approval(
        KEYS[key or admin], repository=repository, digest=digest, until=signed
    )
    return Approval(admin, until, signature)


def count(*approvals, keys=PUBLIC, now=NOW, by="eve"):
    return len(good_approvals(image(proposed_by=by), approvals, keys, now=now))


def test_approvals_of_different_admins_count():
    assert count() == 0
    assert count(approval("ann")) == 1
    assert count(approval("ann"), approval("bob")) == 2
    assert count(approval("ann"), approval("ann")) == 1


@pytest.mark.parametrize(
    "bad",
    [
        approval("bob", key="ann"),
        approval("bob", digest=B),
        approval("bob", repository="other"),
        approval("bob", until=UNTIL + 1),
        approval("bob", signed=UNTIL + 1),
        approval("eve"),
        approval("nobody", key="bob"),
        Approval("bob", UNTIL, bytes(64)),
        Approval("bob", UNTIL, b""),
    ],
    ids=[
        "of another key",
        "of another image",
        "of another repository",
        "longer than signed",
        "shorter than signed",
        "of who proposed it",
        "of no admin",
        "no signature",
        "nothing",
    ],
)
def test_approval_that_is_not_good_does_not_count(bad):
    assert count(approval("ann"), bad) == 1


def test_approvals_end_with_their_time_and_with_their_admin():
    end = NOW + timedelta(days=1)
    assert count(approval("ann"), now=end - timedelta(milliseconds=1)) == 1
    assert count(approval("ann"), now=end) == 0
    assert count(approval("ann"), keys={"bob": PUBLIC["bob"]}) == 0
    assert count(approval("ann"), keys={"ann": PUBLIC["bob"]}) == 0
