"""What evidence and signatures share: certificate chains, time stamps, DER, JWK. No IO, no clock.

    chain      X.509 paths from a leaf to a given root, at a given time
    timestamp  the stamps of RFC 3161
    der        elements of BER and DER, one level at a time
    jwk        JSON Web Keys as keys of `cryptography`

Roots, keys and times are handed in; nothing is fetched. Nothing is imported here, so that a start
without certificates costs nothing.
"""
