# SPDX-License-Identifier: Apache-2.0
"""Evidence of trusted execution environments: who makes it, who judges it.

plugins     attesters and verifiers by the name of their TEE: ours, and those of plugins
judge       the one way from evidence to claims
appraise    whether a machine that is genuine is one's own
claims      claims as JSON
snp         reports of AMD SEV-SNP, and whether they are genuine; who collects them
tdx, sgx    the same for quotes of Intel; what both share is in intel
cca         the same for realms of Arm CCA, by keys of platforms that the operator gives
nitro       the same for enclaves of AWS
azure       the same for machines of Azure, by their vTPM, on SNP or TDX
tpm         the same for quotes of a TPM, and what makes its key worth anything
steps       numbered steps, and refusals that name them
veraison    a service of others that is asked what it thinks of evidence
ratls       certificates that carry evidence, and whether a peer is one's own by it
collateral  what verifiers need beside evidence: kept, fetched, carried
roots       certificates of vendors that come along
tsm         the kernel's own interface for evidence
ccel        logs of what a guest measured
reference   reference values from files of others; corim, swid: two of their forms
ear         what other verifiers found, in their tokens
init_data   what a host hands to a guest, bound by its digest
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.evidence.appraise import Appraisal, appraise_claims
    from imagers.evidence.collateral.directory import CollateralDirectory
    from imagers.evidence.judge import judge_evidence
    from imagers.evidence.plugins import load_attester, load_verifier
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "appraise": ("Appraisal", "appraise_claims"),
            "collateral.directory": ("CollateralDirectory",),
            "judge": ("judge_evidence",),
            "plugins": ("load_attester", "load_verifier"),
        },
    )

__all__ = [
    "Appraisal",
    "CollateralDirectory",
    "appraise_claims",
    "judge_evidence",
    "load_attester",
    "load_verifier",
]
