# SPDX-License-Identifier: Apache-2.0
"""Evidence of Arm CCA: the token of a realm, and that of the platform that it runs on.

token      both, read from CBOR
verify     whether they are genuine, and what they say
collect    them, in the guest

There is no vendor's root: the operator gives the keys of the platforms. Nothing is imported here.
"""
