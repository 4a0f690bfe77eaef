# SPDX-License-Identifier: Apache-2.0
"""What a registry keeps for images, from one with and one without the referrers API."""

import json

import pytest

from imagers.errors import RemoteError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_MANIFEST
from imagers.registry.referrers import referrers_tag
from imagers.registry.signatures import RegistrySignatures


@pytest.fixture
def subject(pushed):
    return Descriptor(OCI_MANIFEST, digest_of(pushed.raw), len(pushed.raw))


@pytest.fixture
def sink(registry, opened):
    return opened.sink(f"{registry.address}/app:v1")


def attach(sink, subject, *, noun="one"):
    empty = b"{}"
    config = Descriptor("application/vnd.oci.empty.v1+json", digest_of(empty), len(empty))
    sink.put_blob(config, empty, what="config")
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": f"x/{noun}",
            "config": config.to_json(),
            "layers": [config.to_json()],
            "subject": subject.to_json(),
        }
    ).encode()
    entry = Descriptor(OCI_MANIFEST, digest_of(raw), len(raw), artifact_type=f"x/{noun}")
    RegistrySignatures(sink).put_referrer(raw, entry, subject.digest)
    return entry


def test_referrers_of_nothing_are_none(registry, sink, subject, opened):
    source = opened.source(f"{registry.address}/app:v1")
    assert RegistrySignatures(source).read_referrers(subject.digest) == ((), True)
    registry.referrers_api = False
    assert RegistrySignatures(source).read_referrers(subject.digest) == ((), False)
    assert RegistrySignatures(sink).read_referrers(subject.digest) == ((), False)


@pytest.mark.parametrize("has_api", [True, False])
def test_referrers_that_were_put_are_listed(registry, sink, subject, has_api):
    registry.referrers_api = has_api
    entries = [attach(sink, subject, noun=noun) for noun in ("one", "two", "one")]
    listed, said = RegistrySignatures(sink).read_referrers(subject.digest)
    assert said is has_api
    assert {one.digest for one in listed} == {one.digest for one in entries}
    assert len(listed) == 2
    assert (referrers_tag(subject.digest) in registry.tags("app")) is not has_api


def test_referrers_registry_that_fails_is_not_one_without_the_api(registry, sink, subject):
    for status in (403, 500, 503):
        registry.answer_with(status, path="/referrers/", times=3 if status > 499 else 1)
        with pytest.raises(RemoteError) as caught:
            RegistrySignatures(sink).read_referrers(subject.digest)
        assert caught.value.status == status


def test_extension_is_there_if_the_registry_says_so(registry, sink, subject):
    signatures = RegistrySignatures(sink)
    assert not signatures.supports_signatures()
    headers = {"X-Registry-Supports-Signatures": "1"}
    registry.answer_with(200, path="/v2/", headers=headers)
    assert signatures.supports_signatures()
    registry.answer_with(200, path="/v2/", headers={"X-Registry-Supports-Signatures": "2"})
    assert not signatures.supports_signatures()
    registry.answer_with(200, path="/extensions/v2/app/signatures/", body=b'{"signatures":[]}')
    assert signatures.read_signatures(subject.digest, max_bytes=99) == b'{"signatures":[]}'
    registry.answer_with(201, path="/extensions/", method="PUT")
    signatures.put_signature(subject.digest, b"{}")
    asked = [path for _, path in registry.asked() if path.startswith("/extensions")]
    assert asked == [f"/extensions/v2/app/signatures/{subject.digest}"] * 2


def test_extension_answer_that_is_too_long_is_refused(registry, sink, subject):
    registry.answer_with(200, path="/extensions/", body=bytes(2_000_000))
    with pytest.raises(RemoteError):
        RegistrySignatures(sink).read_signatures(subject.digest, max_bytes=99)
