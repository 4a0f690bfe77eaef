# SPDX-License-Identifier: Apache-2.0
"""Real quotes, with the documents that they need, at times when those counted."""

from pathlib import Path

VECTORS = Path(__file__).resolve().parents[3] / "vectors" / "attestation"
