# SPDX-License-Identifier: Apache-2.0
"""The policies in Rego that come with the broker."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["attestation_policy"]


def attestation_policy() -> str:
    """The attestation policy to start from: it says what `appraise_claims` says."""
    return (files(__package__) / "attestation.rego").read_text()
