# SPDX-License-Identifier: Apache-2.0
"""Some runs of tests/faults/pulls.py; IMAGERS_LONG=1: two hundred."""

import os
import shutil

import pytest

from imagers.testing import EmbeddedRegistry
from tests.faults.pulls import run

IS_LONG = os.environ.get("IMAGERS_LONG") == "1"


@pytest.fixture(scope="module")
def registry():
    with EmbeddedRegistry() as running:
        yield running


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(200 if IS_LONG else 12))
def test_pull_through_faults_is_right_or_leaves_nothing(registry, seed):
    said, _ = run(seed, registry)
    print(said)
