# SPDX-License-Identifier: Apache-2.0
"""The plan of a pull: every layer of the trusted image, in its order, and nothing fetched yet."""

import base64
import dataclasses
import inspect
import json

import pytest

from imagers.model.descriptor import Platform
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.manifest import RawManifest
from imagers.model.media import (
    DOCKER_LAYER_GZIP,
    ENCRYPTED_SUFFIX,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Compression,
)
from imagers.model.reference import parse_reference
from imagers.pull.plan import make_plan
from imagers.pull.trust import TrustDecision, TrustedImage
from imagers.sign.found import Found
from imagers.sign.policy_json import parse_policy
from imagers.sign.verify import load_trust

PUBLIC_OPTIONS = json.dumps(
    {
        "cipher": "AES_256_CTR_HMAC_SHA256",
        "hmac": base64.b64encode(bytes(32)).decode(),
        "cipheroptions": {},
    }
).encode()
ANNOTATIONS = {
    "org.opencontainers.image.enc.pubopts": base64.b64encode(PUBLIC_OPTIONS).decode(),
    "org.opencontainers.image.enc.keys.jwe": base64.b64encode(b"{}").decode(),
}


class Blobs:
    """A source that is asked for nothing while a plan is made."""

    def open_blob(self, descriptor, *, what):
        raise AssertionError(f"{what}, {descriptor} was fetched")

    open_raw_blob = open_blob


def trust(*media_types):
    """The trusted image with layers of these types, by way of the decision itself."""
    policy = parse_policy(b'{"default": [{"type": "insecureAcceptAnything"}]}')
    identity = docker_identity(parse_reference("registry.example.org/app:v1"))
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {
                "type": "layers",
                "diff_ids": [str(digest_of(b"tar %d" % n)) for n in range(len(media_types))],
            },
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": OCI_CONFIG,
                "digest": str(digest_of(config)),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": media_type,
                    "digest": str(digest_of(b"stored %d" % number)),
                    "size": 100 + number,
                    "annotations": ANNOTATIONS if media_type.endswith(ENCRYPTED_SUFFIX) else {},
                }
                for number, media_type in enumerate(media_types)
            ],
        }
    ).encode()
    decision = TrustDecision(load_trust(policy.select(identity), None), Platform("linux", "amd64"))
    decision.receive_top(RawManifest(manifest, OCI_MANIFEST, digest_of(manifest)))
    decision.receive_signatures(Found.everywhere([]))
    decision.receive_config(config)
    return decision.conclude()


def test_plan_has_every_layer_in_order_with_what_trust_fixed():
    trusted = trust(
        OCI_LAYER_GZIP + ENCRYPTED_SUFFIX,
        OCI_LAYER_ZSTD + ENCRYPTED_SUFFIX,
        OCI_LAYER + ENCRYPTED_SUFFIX,
        DOCKER_LAYER_GZIP,
        OCI_LAYER,
    )
    blobs = Blobs()
    plan = make_plan(trusted, blobs)
    assert plan.trusted is trusted
    assert [planned.is_encrypted for planned in plan.layers] == [True, True, True, False, False]
    assert [planned.compression for planned in plan.layers] == [
        Compression.GZIP,
        Compression.ZSTD,
        Compression.NONE,
        Compression.GZIP,
        Compression.NONE,
    ]
    for number, planned in enumerate(plan.layers):
        layer = planned.layer
        assert layer.descriptor is trusted.manifest.layers[number]
        assert layer.diff_id == digest_of(b"tar %d" % number)
        assert layer.what == f"layer {number + 1} of 5"
        assert layer.source is blobs


def test_plan_of_an_image_without_layers_is_empty():
    plan = make_plan(trust(), Blobs())
    assert plan.layers == ()


def test_plan_cannot_be_changed_afterwards():
    plan = make_plan(trust(OCI_LAYER), Blobs())
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.layers = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.layers[0].is_encrypted = True


def test_plan_is_made_of_nothing_but_a_trusted_image():
    """A manifest and a config that nobody judged do not become one by themselves."""
    trusted = trust(OCI_LAYER)
    with pytest.raises(RuntimeError, match=r"made by TrustDecision.conclude\(\) only"):
        dataclasses.replace(trusted, _seal=None)
    values = dict.fromkeys(inspect.signature(TrustedImage).parameters)
    with pytest.raises(RuntimeError, match="TrustDecision"):
        TrustedImage(**values)
