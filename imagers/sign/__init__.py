"""Signatures of images and the policy that demands them.

`payload` is what is signed, `sigstore` the form that registries keep, `sigstore_key` and
`public_key` are the keys, `policy_json` the trust settings, `identity` the rules for names,
`verify` the decision (without IO), `image` signs and finds signatures, `keyfiles` is the one
module that opens files. Nothing is imported here, so that a start without signatures costs
nothing.
"""
