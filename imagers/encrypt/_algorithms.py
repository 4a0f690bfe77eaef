"""The JWE algorithms that layer keys are wrapped with: what every peer reads, and no other.

Spec: RFC 7518 sections 4 and 5; go-jose v4 as ocicrypt v1.3.2 calls it (keywrap/jwe).
"""

from __future__ import annotations

__all__ = ["CONTENT_ALGORITHMS", "KEY_ALGORITHMS"]

# Name -> kty of the keys that it is for. RSA1_5, dir and PBES2 are left out on purpose.
KEY_ALGORITHMS = {
    "RSA-OAEP": "RSA",
    "RSA-OAEP-256": "RSA",
    "ECDH-ES+A128KW": "EC",
    "ECDH-ES+A192KW": "EC",
    "ECDH-ES+A256KW": "EC",
}
CONTENT_ALGORITHMS = (
    "A128GCM",
    "A192GCM",
    "A256GCM",
    "A128CBC-HS256",
    "A192CBC-HS384",
    "A256CBC-HS512",
)
