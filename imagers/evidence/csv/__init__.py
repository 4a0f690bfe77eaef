# SPDX-License-Identifier: Apache-2.0
"""Evidence of Hygon CSV: the attestation report of a guest and the certificates of its chip.

report       its bytes, from the guest's device or out of the protocol's JSON
certificates of Hygon, of a chip and of its firmware
verify       whether it is genuine, and what it says
collect      it, in the guest
collateral   what Hygon gives beside it
roots        Hygon's own certificate

Nothing is imported here.
"""
