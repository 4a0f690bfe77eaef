# SPDX-License-Identifier: Apache-2.0
"""Signature formats: how they are made, kept and read, and when a signature is good.

    format            what a format is, and the table of them; each line is one of
    signed_by         OpenPGP signatures of simple signing: `lookaside` has them, `gpg` reads and
                      `simple` makes them
    sigstore_signed   signatures under a tag of the image's repository: `sigstore` has their bytes
    sigstore_bundle   sigstore bundles that refer to the manifest, as cosign 3 writes them:
                      `bundle` has their bytes
    notation.signed   envelopes of the Notary Project, which refer to the manifest

Nothing is imported here, so that a start without signatures costs nothing.
"""
