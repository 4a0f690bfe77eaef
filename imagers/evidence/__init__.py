# SPDX-License-Identifier: Apache-2.0
"""Evidence of trusted execution environments: who makes it, who judges it.

plugins     attesters and verifiers of others, found by the name of their TEE
snp         reports of AMD SEV-SNP, and whether they are genuine
roots       certificates of vendors that come along
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.evidence.plugins import load_attester, load_verifier
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "plugins": ("load_attester", "load_verifier"),
        },
    )

__all__ = [
    "load_attester",
    "load_verifier",
]
