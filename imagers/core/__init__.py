"""Bytes at speed: one layer through decryption, decompression, hashing and unpacking.

This is the only door to the package.

=====================  =====================================================
`seal_layer`           check, compress, encrypt and write one layer
`open_layer`           check, decrypt, decompress, unpack one layer
`open_range`           a part of a layer, with the cipher that can
`CipherParameters`     cipher name, key and nonce of a layer
`DirectorySink`        a directory to unpack into
`Limits`               what a layer may cost
`Cancellation`         ends a job from elsewhere
`BACKEND`              "c", or "plain" where the extension is missing
=====================  =====================================================
"""

from imagers.core.layer import BACKEND, open_layer, open_range, seal_layer
from imagers.core.values import (
    AES256_GCM_HKDF_1MB,
    AES_256_CTR_HMAC_SHA256,
    Cancellation,
    CipherParameters,
    DirectorySink,
    Limits,
    OpenedLayer,
    Ownership,
    Progress,
    SealedLayer,
)

__all__ = [
    "AES256_GCM_HKDF_1MB",
    "AES_256_CTR_HMAC_SHA256",
    "BACKEND",
    "Cancellation",
    "CipherParameters",
    "DirectorySink",
    "Limits",
    "OpenedLayer",
    "Ownership",
    "Progress",
    "SealedLayer",
    "open_layer",
    "open_range",
    "seal_layer",
]
