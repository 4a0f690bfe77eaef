# SPDX-License-Identifier: Apache-2.0
"""What evidence and signatures share: certificates, signed messages, algorithms; no IO, no clock.

    chain       X.509 paths from a leaf to a given root, at a given time
    timestamp   the stamps of RFC 3161
    cose        COSE_Sign1
    jose        JWS, tokens, and the key derivation of ECDH-ES
    algorithms  a key's one algorithm: its names in JWS and COSE, signing, verifying
    jwk         JSON Web Keys as keys of `cryptography`
    der         elements of BER and DER, one level at a time

Roots, keys and times are handed in; nothing is fetched. Nothing is imported here, so that a start
without certificates costs nothing.
"""
