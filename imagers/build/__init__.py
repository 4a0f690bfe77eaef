# SPDX-License-Identifier: Apache-2.0
"""What a build pipeline does with an image, each a whole use case.

encrypt      encrypt, rekey, other recipients, decrypt: one image, or all of an index
broker_key   the life of an image's key-encryption key at a broker
sign         sign an image in every format
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.build.broker_key import BrokerKey, load_kek
    from imagers.build.change import Change, Kind, Work, decrypt, encrypt
    from imagers.build.inspect import inspect_image
    from imagers.build.signers import SigstoreSigner, sign
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "broker_key": ("BrokerKey", "load_kek"),
            "change": ("Change", "Kind", "Work", "decrypt", "encrypt"),
            "inspect": ("inspect_image",),
            "signers": ("SigstoreSigner", "sign"),
        },
    )

__all__ = [
    "BrokerKey",
    "Change",
    "Kind",
    "SigstoreSigner",
    "Work",
    "decrypt",
    "encrypt",
    "inspect_image",
    "load_kek",
    "sign",
]
