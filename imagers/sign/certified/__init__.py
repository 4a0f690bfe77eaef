"""What makes a certificate believable: chains, logs and time stamps, all offline.

`chain` verifies X.509 chains at a given time, `rekor` the entries of a transparency log,
`timestamp` the stamps of RFC 3161. Roots and keys are handed in; nothing is fetched, and the
time is a value. Nothing is imported here, so that a start without certificates costs nothing.
"""
