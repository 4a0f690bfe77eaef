# SPDX-License-Identifier: Apache-2.0
"""Signatures of images and the policy that demands them.

What is signed, and how it is kept:

    payload                   the simple-signing payload: digest and name
    formats                   one record a signature format, and what it is made of
    registries_d              where OpenPGP signatures outside of the registry are
    sigstore_key, public_key  keys; keyfiles opens files
    certified                 certificates, logs and time stamps, offline

What is demanded, and the answer:

    policy_json, requirements, identity    the trust settings; policy_lint reads them for people
    materials                              the keys that they name
    find, found                            every place that may have a signature
    verify, decision                       the decision, without IO, and the tree that explains it

What signs: `image`, `formats.simple`, `formats.notation.make`. What is named in
`__all__` is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.sign.image import SignedManifest
    from imagers.sign.keyfiles import load_policy, load_private_key, save_key_pair
    from imagers.sign.materials import Trust
    from imagers.sign.places import Lookasides
    from imagers.sign.policy_json import Policy, parse_policy
    from imagers.sign.sigstore_key import SigstorePrivateKey, generate_private_key
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "image": ("SignedManifest",),
            "keyfiles": ("load_policy", "load_private_key", "save_key_pair"),
            "policy_json": ("Policy", "parse_policy"),
            "materials": ("Trust",),
            "places": ("Lookasides",),
            "sigstore_key": ("SigstorePrivateKey", "generate_private_key"),
        },
    )

__all__ = [
    "Lookasides",
    "Policy",
    "SignedManifest",
    "SigstorePrivateKey",
    "Trust",
    "generate_private_key",
    "load_policy",
    "load_private_key",
    "parse_policy",
    "save_key_pair",
]
