# SPDX-License-Identifier: Apache-2.0
"""Hygon from a seed."""

from datetime import UTC, datetime

import pytest

from imagers.testing.evidence import CSVWorld

NOW = datetime(2026, 11, 30, tzinfo=UTC)
NONCE = b"n" * 48


@pytest.fixture(scope="session")
def world():
    return CSVWorld(b"imagers.evidence.csv is tested so"[:32], now=NOW)
