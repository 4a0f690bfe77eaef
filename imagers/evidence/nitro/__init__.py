# SPDX-License-Identifier: Apache-2.0
"""Evidence of AWS Nitro Enclaves: the document that the hypervisor's security module signs.

document   read from CBOR
verify     whether it is genuine, and what it says
collect    it, in the enclave
roots      the root certificate of AWS, G1

Nothing is imported here.
"""
