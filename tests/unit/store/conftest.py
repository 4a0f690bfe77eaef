# SPDX-License-Identifier: Apache-2.0
"""A store, a key, and seals for what is put into it."""

import pytest

from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.store import Store
from imagers.store.seal import Checks, Seal, StoredAs, entry_name

CHECKS = Checks(
    image=digest_of(b"manifest"), basis="signature", policy="ab" * 32, signers=("K1",), at=1_700_000
)


def make_seal(name, *, size=100, needs=(), **more):
    return Seal(
        name=name,
        size=size,
        checks=CHECKS,
        needs=tuple(needs),
        diff_id=digest_of(b"tar"),
        stored_as=(StoredAs(digest_of(b"stored"), ""),),
        **more,
    )


def name_of(text, kind="blob"):
    return entry_name(kind, digest_of(text.encode()))


@pytest.fixture
def key():
    with SecretKey(b"k" * 32) as secret:
        yield secret


@pytest.fixture
def make_store(tmp_path, key):
    """Opens a store in the test's directory, with its key or another."""
    opened = []

    def open_store(path=tmp_path / "store", key=key, **more):
        opened.append(Store(path, key, **more))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(make_store):
    return make_store()


@pytest.fixture
def put():
    """Keeps an entry with one file."""

    def keep(store, name, data=b"data", **more):
        with store.prepare(name) as new:
            (new.path / "blob").write_bytes(data)
            return new.commit(make_seal(name, **more))

    return keep
