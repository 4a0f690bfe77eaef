# SPDX-License-Identifier: Apache-2.0
import json
from datetime import UTC, datetime

import pytest

from imagers.model.digest import digest_of
from imagers.model.manifest import parse_manifest
from imagers.model.media import OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.sign.find import read_attached
from imagers.sign.formats.notation.envelope import COSE_TYPE, JWS_TYPE, parse_envelope
from imagers.sign.formats.notation.make import attach_notation

NOW = datetime(2026, 6, 1, tzinfo=UTC)
REFERENCE = parse_reference("r.example/app:v1")


@pytest.mark.parametrize("media_type", [JWS_TYPE, COSE_TYPE])
def test_attach_notation_adds_and_keeps_others(repository, envelopes, media_type):
    repository.put_manifest_as(envelopes.manifest, OCI_MANIFEST, "v1")
    digest = digest_of(envelopes.manifest)
    for count in (1, 2):
        (signed,) = attach_notation(
            repository,
            repository,
            repository,
            REFERENCE,
            envelopes.key,
            created=NOW.replace(day=count),
            media_type=media_type,
        )
        assert (signed.digest, signed.count) == (digest, count)
    found = read_attached(repository, repository, digest, {"notation"})
    assert [one.media_type for one in found.signatures] == [media_type] * 2
    for one in found.signatures:
        parse_envelope(one.raw, media_type).check_integrity()


def test_attached_manifest_has_the_thumbprints(repository, envelopes):
    repository.put_manifest_as(envelopes.manifest, OCI_MANIFEST, "v1")
    attach_notation(repository, repository, repository, REFERENCE, envelopes.key, created=NOW)
    (entry,), _ = repository.read_referrers(digest_of(envelopes.manifest))
    manifest = parse_manifest(repository.read_manifest(entry.digest).raw)
    assert manifest.config.media_type == "application/vnd.cncf.notary.signature"
    listed = json.loads(manifest.annotations["io.cncf.notary.x509chain.thumbprint#S256"])
    assert len(listed) == 3
    assert entry.artifact_type == "application/vnd.cncf.notary.signature"
