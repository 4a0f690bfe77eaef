# SPDX-License-Identifier: Apache-2.0
"""AMD SEV and SEV-ES, whose guests give no evidence: their owner looks at the launch from outside.

measurement  whether a launch measurement is of the guest that its owner means

Nothing is imported here. What the measurement is to be of, `imagers.evidence.snp.launch` computes.
"""
