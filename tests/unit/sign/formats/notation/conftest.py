# SPDX-License-Identifier: Apache-2.0
"""A key with its chain, and an envelope that a test may change member by member."""

import base64
import json
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.sign.formats.notation.key import NotationKey
from imagers.sign.formats.notation.make import build_envelope

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SUBJECT = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "BE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "acme, inc"),
        x509.NameAttribute(NameOID.COMMON_NAME, "release"),
    ]
)


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Envelopes:
    """Builds good envelopes, and JWS ones whose content is changed and then signed again."""

    def __init__(self, pki, manifest):
        self.pki, self.manifest = pki, manifest
        self.leaf = pki.leaf(subject=SUBJECT, sans=[])
        self.key = NotationKey((self.leaf, pki.middle, pki.root), pki.keys["leaf"])
        self.subject = Descriptor(
            "application/vnd.oci.image.manifest.v1+json", digest_of(manifest), len(manifest)
        )

    def good(self, media_type="application/jose+json", **options):
        options = {"created": NOW, **options}
        return build_envelope(self.key, self.subject, media_type=media_type, **options)

    def changed(self, *, protected=(), payload=None, header=(), key=None):
        """A JWS that is signed anew over what was changed."""
        document = json.loads(self.good())
        signed = json.loads(decode(document["protected"]))
        for name, value in dict(protected).items():
            signed.pop(name, None)
            if value is not None:
                signed[name] = value
        document["protected"] = encode(json.dumps(signed).encode())
        if payload is not None:
            document["payload"] = encode(payload)
        document["header"] |= dict(header)
        text = f"{document['protected']}.{document['payload']}".encode()
        document["signature"] = encode((key or self.key).sign(text))
        return json.dumps(document).encode()

    def x5c(self, *certificates):
        der = serialization.Encoding.DER
        return [base64.b64encode(one.public_bytes(der)).decode() for one in certificates]


@pytest.fixture
def envelopes(pki, manifest):
    return Envelopes(pki, manifest)
