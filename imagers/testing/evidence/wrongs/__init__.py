# SPDX-License-Identifier: Apache-2.0
"""Evidence of a world with one thing wrong, for each thing: a verifier has to refuse all of it.

wrong      Wrong: the evidence, and which step has to refuse it
snp        of AMD: fields of the report, certificates, lists
cca        of Arm: claims of both tokens, keys, shapes
nitro      of AWS: members of the document, certificates, shapes
intel      of Intel: fields of the quote, what vouches for it, certificates, lists, documents
csv        of Hygon: fields of the report, certificates, the log
azure      of Azure: the paravisor's report, what binds it, and the hardware below
tpm        of a TPM: fields of the quote, registers, the log
nvidia     of NVIDIA: the report, the chain

`world.wrongs()` gives them. What a verifier hands on and does not judge is in `CLAIMS` of each.
"""
