# SPDX-License-Identifier: Apache-2.0
"""Vendors of confidential machines for tests: from a seed, all that one has and its chips say.

    world = SNPWorld(bytes(32))
    verifier = load_verifier("snp", roots=world.roots)
    read, now = world.collateral().get, world.now
    judge_evidence(verifier, world.evidence(), bound=Bound(), read=read, now=now)

The bytes are in the formats of the real vendors, which others' verifiers accept once the root is
replaced. Nothing of it is worth anything where the real roots are in force.

snp        SNPWorld: AMD's authorities, and one chip
tdx, sgx   TDXWorld, SGXWorld: Intel's, and one machine; intel is what they share, eventlog of TDX
cca        CCAWorld: a platform of Arm CCA, and a realm
nitro      NitroWorld: AWS, and one enclave
csv        CSVWorld: Hygon's, and one chip
azure      AzureSNPWorld, AzureTDXWorld: machines of Azure, in the worlds of AMD and Intel
tpm        TPMWorld: a TPM, and the key of it that an operator trusts
nvidia     NVIDIAWorld: NVIDIA's, and one GPU
guests     World, Vendor: what all worlds have and do; Guest: their attester
server     CollateralServer: the services that give collateral; Fault: what one does wrong
machine    Machine: a guest of a world, as a file says it
make       files for pages: python -m imagers.testing.evidence make
wrongs     evidence with one thing wrong, for each thing
authorities, keys   what certificates of all vendors have alike, and what comes from a seed
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.testing.evidence.azure import AzureSNPWorld, AzureTDXWorld
    from imagers.testing.evidence.cca import CCAWorld
    from imagers.testing.evidence.csv import CSVWorld
    from imagers.testing.evidence.machine import Machine
    from imagers.testing.evidence.nitro import NitroWorld
    from imagers.testing.evidence.nvidia import NVIDIAWorld
    from imagers.testing.evidence.server import CollateralServer, Fault
    from imagers.testing.evidence.sgx import SGXWorld
    from imagers.testing.evidence.snp import SNPWorld
    from imagers.testing.evidence.tdx import TDXWorld
    from imagers.testing.evidence.tpm import TPMWorld
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "cca": ("CCAWorld",),
            "csv": ("CSVWorld",),
            "azure": ("AzureSNPWorld", "AzureTDXWorld"),
            "machine": ("Machine",),
            "nitro": ("NitroWorld",),
            "nvidia": ("NVIDIAWorld",),
            "server": ("CollateralServer", "Fault"),
            "sgx": ("SGXWorld",),
            "snp": ("SNPWorld",),
            "tdx": ("TDXWorld",),
            "tpm": ("TPMWorld",),
        },
    )

__all__ = [
    "AzureSNPWorld",
    "AzureTDXWorld",
    "CCAWorld",
    "CSVWorld",
    "CollateralServer",
    "Fault",
    "Machine",
    "NVIDIAWorld",
    "NitroWorld",
    "SGXWorld",
    "SNPWorld",
    "TDXWorld",
    "TPMWorld",
]
