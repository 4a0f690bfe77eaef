# SPDX-License-Identifier: Apache-2.0
"""Evidence of a world with one thing wrong, for each thing: a verifier has to refuse all of it.

wrong      Wrong: the evidence, and which step has to refuse it
snp        of AMD: fields of the report, certificates, lists
cca        of Arm: claims of both tokens, keys, shapes
intel      of Intel: fields of the quote, what vouches for it, certificates, lists, documents
csv        of Hygon: fields of the report, certificates, the log
nvidia     of NVIDIA: the report, the chain

`world.wrongs()` gives them. What a verifier hands on and does not judge is in `CLAIMS` of each.
"""
