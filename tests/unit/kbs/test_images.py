# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imagers.errors import FormatError
from imagers.kbs.images import KnownImage, KnownImages, is_approval, parse_images, sign_approval
from imagers.model.digest import digest_of

A, B = digest_of(b"a"), digest_of(b"b")
KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw()
SAID = {"repository": "default", "digest": A, "until": 1_798_761_600}
IMAGE = {
    "manifest_digest": str(A),
    "state": "revoked",
    "successor": str(B),
    "reason": "why",
    "proposed_by": None,
    "proposed_at": None,
    "approvals": [{"admin": "ann", "until": "2027-01-01T00:00:00+00:00"}],
}


def test_what_is_signed_is_as_it_is_written_down():
    text = (
        "imagers approval of an image, version 1\nrepository: default\n"
        f"image: {A}\nuntil: 1798761600\n"
    )
    KEY.public_key().verify(sign_approval(KEY, **SAID), text.encode())


def test_approval_is_of_one_key_image_repository_and_time():
    signature = sign_approval(KEY, **SAID)
    assert is_approval(PUBLIC, signature, **SAID)
    for name, other in (("repository", "other"), ("digest", B), ("until", 5)):
        assert not is_approval(PUBLIC, signature, **SAID | {name: other})
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    for key in (other, b"", bytes(31)):
        assert not is_approval(key, signature, **SAID)
    for bad in (b"", signature[:-1], signature + b"\0", bytes(64)):
        assert not is_approval(PUBLIC, bad, **SAID)


def parse(**changes):
    told = {"repository": "default", "floor": str(B), "images": [IMAGE], **changes}
    return parse_images(json.dumps(told).encode(), max_bytes=10_000)


def test_parse_images_gives_what_is_told():
    image = KnownImage(
        digest=A,
        state="revoked",
        successor=B,
        reason="why",
        proposed_by="",
        proposed_at="",
        approvals={"ann": "2027-01-01T00:00:00+00:00"},
    )
    assert parse() == KnownImages("default", B, (image,))
    assert parse(floor=None, images=[]) == KnownImages("default", None, ())


@pytest.mark.parametrize(
    "changes",
    [
        {"repository": None},
        {"floor": "sha256:x"},
        {"images": [IMAGE | {"manifest_digest": "x"}]},
        {"images": [IMAGE | {"state": 1}]},
        {"images": [IMAGE | {"approvals": [{}]}]},
    ],
)
def test_parse_images_of_what_is_none_refused(changes):
    with pytest.raises(FormatError, match="images of a repository"):
        parse(**changes)
