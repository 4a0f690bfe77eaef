# SPDX-License-Identifier: Apache-2.0
"""Evidence of confidential machines of Azure, on AMD SEV-SNP or Intel TDX, by their vTPM.

vtpm       the steps that both share, and the report of the paravisor (HCL)
snp, tdx   whether evidence is genuine, and what it says
collect    it, in the guest

Nothing is imported here.
"""
