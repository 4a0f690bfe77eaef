# SPDX-License-Identifier: Apache-2.0
"""Evidence of AMD SEV-SNP: the attestation report of a guest and the certificate of its chip.

report     its bytes, from the guest's device or rebuilt from the protocol's JSON
verify     whether it is genuine, and what it says
collect    it, in the guest
collateral what AMD gives beside it
roots      the certificates of AMD for Milan, Genoa and Turin

Nothing is imported here.
"""
