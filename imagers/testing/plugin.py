# SPDX-License-Identifier: Apache-2.0
"""Fixtures for pytest, found by its entry point: nothing to import, nothing to set up.

    def test_release(imagers_broker):
        imagers_broker.put("kbs:///default/key/1", b"0" * 32, image=digest)
        with imagers_broker.client() as client:
            ...

pytest loads this module in every run of an environment that has imagers, so it imports
nothing of weight; each fixture loads what it needs. `imagers_broker` needs the extra `broker`
and the plugin `sample_tee`; a test that asks for it is skipped where one is missing.

    def test_guest(imagers_tee, imagers_broker):
        imagers_broker.expect("snp_launch_measurement", imagers_tee.measurement.hex())
        imagers_broker.client(imagers_tee.attester())
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.testing.broker import EmbeddedBroker
    from imagers.testing.evidence.snp import SNPWorld
    from imagers.testing.registry import EmbeddedRegistry

__all__ = ["imagers_broker", "imagers_registry", "imagers_tee"]

_OF_THE_EXTRA = ("starlette", "uvicorn")


@pytest.fixture
def imagers_registry() -> Iterator[EmbeddedRegistry]:
    """An empty registry on a free loopback port, for one test."""
    from imagers.testing.registry import EmbeddedRegistry

    with EmbeddedRegistry() as registry:
        yield registry


@pytest.fixture(scope="session")
def imagers_tee() -> SNPWorld:
    """AMD for tests and one chip of it, the same keys each time: it makes evidence of guests."""
    from imagers.testing.evidence import SNPWorld

    return SNPWorld(bytes(32))


@pytest.fixture
def imagers_broker(request: pytest.FixtureRequest) -> Iterator[EmbeddedBroker]:
    """An empty broker on a free loopback port that takes the sample TEE, for one test.

    It takes the machines of `imagers_tee` too, where the test asks for that.
    """
    missing = [name for name in _OF_THE_EXTRA if find_spec(name) is None]
    if missing:
        needs = f"imagers_broker needs {', '.join(missing)}"
        pytest.skip(f"{needs}; in the clone of imagers: pip install '.[broker]'")
    if not entry_points(group="imagers.attesters", name="sample"):
        needs = "imagers_broker needs the sample TEE"
        pytest.skip(f"{needs}; in the clone of imagers: pip install ./plugins/sample_tee")
    from imagers.testing.broker import EmbeddedBroker

    wants_tee = "imagers_tee" in request.fixturenames
    worlds = [request.getfixturevalue("imagers_tee")] if wants_tee else []
    with EmbeddedBroker(worlds=worlds) as broker:
        yield broker
