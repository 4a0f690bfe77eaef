# SPDX-License-Identifier: Apache-2.0
"""AMD's world, for the modules that documents of any vendor pass through."""

from tests.unit.evidence.snp.conftest import as_pem, genoa

__all__ = ["as_pem", "genoa"]
