import json
from pathlib import Path

import pytest

from imagers.encrypt.keyfiles import load_private_key, load_public_key

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"


@pytest.fixture(scope="session")
def vectors():
    return VECTORS


@pytest.fixture(scope="session")
def vector_keys():
    return json.loads((VECTORS / "manifest.json").read_text())["keys"]


@pytest.fixture(scope="session")
def public_key():
    """A public key of the vectors by its file's name."""
    return lambda name: load_public_key(str(VECTORS / "keys" / name))


@pytest.fixture(scope="session")
def private_key():
    """A private key of the vectors by its file's name."""
    return lambda name: load_private_key(str(VECTORS / "keys" / name))
