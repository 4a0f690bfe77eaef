"""Signature formats, one module or folder each: how they are made, kept and read.

    simple     OpenPGP signatures of simple signing: `lookaside` has them, `gpg` reads them
    sigstore   signatures under a tag of the image's repository
    bundle     sigstore bundles that refer to the manifest, as cosign 3 writes them
    notation   envelopes of the Notary Project, which refer to the manifest

Nothing is imported here, so that a start without signatures costs nothing.
"""
