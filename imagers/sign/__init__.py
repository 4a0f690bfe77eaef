"""Signatures of images and the policy that demands them.

What is signed, and how it is kept:

    payload                   the simple-signing payload: digest and name
    formats                   one module a signature format
    registries_d              where OpenPGP signatures outside of the registry are
    sigstore_key, public_key  keys; keyfiles opens files
    certified                 certificates, logs and time stamps, offline

What is demanded, and the answer:

    policy_json, requirements, identity    the trust settings; policy_lint reads them for people
    materials                              the keys that they name
    find, found                            every place that may have a signature
    verify, decision                       the decision, without IO, and the tree that explains it

What signs: `image`, `formats.simple`, `formats.notation.make`. Nothing is imported here, so that
a start without signatures costs nothing.
"""
