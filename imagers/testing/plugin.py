# SPDX-License-Identifier: Apache-2.0
"""Fixtures for pytest, found by its entry point: nothing to import, nothing to set up.

    def test_release(imagers_broker):
        imagers_broker.put("kbs:///default/key/1", b"0" * 32, image=digest)
        with imagers_broker.client() as client:
            ...

pytest loads this module in every run of an environment that has imagers, so it imports
nothing of weight; each fixture loads what it needs. `imagers_broker` needs the extra `broker`
and the plugin `sample_tee`; a test that asks for it is skipped where one is missing.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.testing.broker import EmbeddedBroker
    from imagers.testing.registry import EmbeddedRegistry

__all__ = ["imagers_broker", "imagers_registry"]

_OF_THE_EXTRA = ("sqlalchemy", "starlette", "uvicorn")


@pytest.fixture
def imagers_registry() -> Iterator[EmbeddedRegistry]:
    """An empty registry on a free loopback port, for one test."""
    from imagers.testing.registry import EmbeddedRegistry

    with EmbeddedRegistry() as registry:
        yield registry


@pytest.fixture
def imagers_broker() -> Iterator[EmbeddedBroker]:
    """An empty broker on a free loopback port that takes the sample TEE, for one test."""
    missing = [name for name in _OF_THE_EXTRA if find_spec(name) is None]
    if missing:
        needs = f"imagers_broker needs {', '.join(missing)}"
        pytest.skip(f"{needs}; in the clone of imagers: pip install '.[broker]'")
    if not entry_points(group="imagers.attesters", name="sample"):
        needs = "imagers_broker needs the sample TEE"
        pytest.skip(f"{needs}; in the clone of imagers: pip install ./plugins/sample_tee")
    from imagers.testing.broker import EmbeddedBroker

    with EmbeddedBroker() as broker:
        yield broker
