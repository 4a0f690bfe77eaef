# SPDX-License-Identifier: Apache-2.0
"""Layer encryption: image in, image out; layer ciphers, key packets, recipients.

Which module holds what:

    image        encrypt_image, decrypt_image, unwrap_layer_keys: the work on whole images
    index        the same for all images of an index
    rewrap       rewrap_image: other recipients, the same layers
    rekey        rekey_image: new layer keys
    selection    which layers: numbers, ranges, all but the base
    sealing      one layer's way into a sink; rewrite: the new manifest
    annotations  what encryption writes beside a layer, and reads back
    options      the two JSON documents inside: public and private options
    schemes      one module a kind of recipient: jwe, pkcs7, pkcs11, pgp, provider, broker
    recipients   the texts of `--encryption-key` and `--decryption-key`
    keyfiles     what is in files of keys, certificates and keyrings
    wrappers     from texts and files to what wraps and unwraps, opened and closed
    describe     for whom a layer is encrypted, without any key

What is named in `__all__` is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.encrypt.image import decrypt_image, encrypt_image
    from imagers.encrypt.keyfiles import load_private_key, load_public_key
    from imagers.encrypt.recipients import parse_decryption_key, parse_recipients
    from imagers.encrypt.schemes.scheme import ProviderSettings
    from imagers.encrypt.wrappers import opened_unwrappers, opened_wrappers
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "image": ("decrypt_image", "encrypt_image"),
            "keyfiles": ("load_private_key", "load_public_key"),
            "recipients": ("parse_decryption_key", "parse_recipients"),
            "schemes.scheme": ("ProviderSettings",),
            "wrappers": ("opened_unwrappers", "opened_wrappers"),
        },
    )

__all__ = [
    "ProviderSettings",
    "decrypt_image",
    "encrypt_image",
    "load_private_key",
    "load_public_key",
    "opened_unwrappers",
    "opened_wrappers",
    "parse_decryption_key",
    "parse_recipients",
]
