# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime

import pytest

from imagers.testing.evidence import TPMWorld
from tests.swtpm import start

SEED = b"imagers.evidence.tpm is tested .."[:32]


@pytest.fixture(scope="session", params=["rsa", "p256", "p384"])
def world(request):
    return TPMWorld(SEED, request.param, now=datetime(2026, 11, 29, tzinfo=UTC))


@pytest.fixture(scope="session")
def swtpm(tmp_path_factory):
    yield from start(tmp_path_factory.mktemp("tpm"))


@pytest.fixture
def line(swtpm):
    with swtpm.connect() as line:
        yield line
