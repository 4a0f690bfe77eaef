# SPDX-License-Identifier: Apache-2.0
"""Signatures of the Notary Project (notation): envelopes, trust policy, the check, signing.

`signed` is the record of the format, `envelope` reads JWS and COSE into one value, `trust_policy`
is trustpolicy.json, `check` decides without IO and clock, `make` signs with a local key.
Nothing is imported here, so that a start without them costs nothing.
"""
