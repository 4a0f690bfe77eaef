# SPDX-License-Identifier: Apache-2.0
"""Bytes at speed: one layer through decryption, decompression, hashing and unpacking.

Beside that, what of libcrypto nothing else brings: SM2 and KMAC256.

This is the only door to the package.

=====================  =====================================================
`seal_layer`           check, compress, encrypt and write one layer
`open_layer`           check, decrypt, decompress, unpack one layer
`check_layer`          only check one, so that it can be opened afterwards
`look_at`              what the first bytes of a layer say of its compression
`compression_of_checked`
                       the same of a layer that was checked
`open_range`           a part of a layer, with the cipher that can
`CipherParameters`     cipher name, key and nonce of a layer
`DirectorySink`        a directory to unpack into
`Limits`               what a layer may cost
`Allowance`            what is left of that for the other layers of an image
`Budget`               what the layers of an image may use together
`Resources`                what one of them may use
`run_layers`           several layers at once, within a budget
`run_together`         several pieces of work at once
`make_directories`     missing directories below one, as a layer would make them
`Watch`                tells how far the work on a blob is, as `BlobProgress`
`Cancellation`         ends a job, from elsewhere or after some time
`verify_sm2`           whether an SM2 signature is good
`kmac256`              KMAC256 of NIST SP 800-185
`BACKEND`              "c", or "plain" where the extension is missing
=====================  =====================================================
"""

from imagers.core.algorithms import kmac256, verify_sm2
from imagers.core.beginning import compression_of_checked, look_at
from imagers.core.budget import Budget, run_layers
from imagers.core.layer import BACKEND, check_layer, open_layer, open_range, seal_layer
from imagers.core.plain_unpack import make_directories
from imagers.core.together import run_together
from imagers.core.values import (
    AES256_GCM_HKDF_1MB,
    AES_256_CTR_HMAC_SHA256,
    Allowance,
    CheckedLayer,
    CipherParameters,
    DirectorySink,
    Limits,
    OpenedLayer,
    Ownership,
    Progress,
    Resources,
    SealedLayer,
)
from imagers.core.watch import BlobProgress, OnProgress, Watch
from imagers.waiting import Cancellation

__all__ = [
    "AES256_GCM_HKDF_1MB",
    "AES_256_CTR_HMAC_SHA256",
    "BACKEND",
    "Allowance",
    "BlobProgress",
    "Budget",
    "Cancellation",
    "CheckedLayer",
    "CipherParameters",
    "DirectorySink",
    "Limits",
    "OnProgress",
    "OpenedLayer",
    "Ownership",
    "Progress",
    "Resources",
    "SealedLayer",
    "Watch",
    "check_layer",
    "compression_of_checked",
    "kmac256",
    "look_at",
    "make_directories",
    "open_layer",
    "open_range",
    "run_layers",
    "run_together",
    "seal_layer",
    "verify_sm2",
]
