# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import (
    FormatError,
    KeyRefused,
    KeyUnavailable,
    LocalError,
    Unsupported,
    UsageError,
)
from imagers.model.origin import Origin
from imagers.settings.documents import Document, key_reader, path_of, read_document

URI = "kbs:///default/security-policy/test"


@pytest.fixture
def broker(imagers_broker):
    """A guest's side of a broker that gives `URI` to any guest."""
    imagers_broker.admin.set_policy(
        '{"rules": [{"name": "all", "effect": "allow", "resource": "*/*/*", "image": "any"}]}'
    )
    imagers_broker.put(URI, b"document")
    with imagers_broker.client() as client:
        yield client


def test_path_and_file_uri_are_read(tmp_path):
    path = tmp_path / "d"
    path.write_bytes(b"x")
    for place in (str(path), f"file://{path}"):
        assert read_document(place, max_bytes=1, resources=None) == b"x"
    with pytest.raises(LocalError, match="expected at most 0 bytes"):
        read_document(str(path), max_bytes=0, resources=None)


def test_document_of_a_broker_is_read_and_bounded(broker):
    assert read_document(URI, max_bytes=8, resources=broker) == b"document"
    with pytest.raises(FormatError, match=f"{URI}: expected at most 7 bytes, got 8"):
        read_document(URI, max_bytes=7, resources=broker)
    with pytest.raises(KeyUnavailable, match="has no resource 'kbs:///a/b/c'"):
        read_document("kbs:///a/b/c", max_bytes=8, resources=broker)


def test_document_that_the_broker_refuses_says_what_its_policy_needs(broker, imagers_broker):
    imagers_broker.allow_bound()
    with pytest.raises(KeyRefused, match="the broker refuses 'kbs:///default/") as caught:
        read_document(URI, max_bytes=8, resources=broker)
    assert "needs a rule that asks for no image" in caught.value.hint


def test_document_of_a_broker_without_one_is_refused():
    with pytest.raises(UsageError, match="is at a broker, and none is named") as caught:
        read_document(URI, max_bytes=8, resources=None)
    assert "imagers pull --broker" in caught.value.hint


@pytest.mark.parametrize(
    ("place", "kind", "told"),
    [
        ("kbs://broker.example.org/a/b/c", FormatError, "expected 'kbs:///repository/type/tag'"),
        ("kbs:///a/b", FormatError, "expected 'repository/type/tag'"),
        ("kbs:///a/b/c?x=1", FormatError, "expected 'repository/type/tag'"),
        ("kbs+pkcs11:///a/b/c", Unsupported, "expected a path, file:///PATH or kbs:///"),
        ("https://example.org/p", Unsupported, "expected a path, file:///PATH or kbs:///"),
        ("file://host/p", FormatError, "expected file:///PATH"),
        ("file://", FormatError, "expected file:///PATH"),
    ],
)
def test_what_is_no_place_is_refused(broker, place, kind, told):
    with pytest.raises(kind, match=told):
        read_document(place, max_bytes=8, resources=broker)


def test_path_of_a_place_without_a_scheme_is_itself():
    assert path_of("a:b/c") == "a:b/c"


def test_document_that_stands_in_a_configuration_is_its_text():
    document = Document("key of c.json", "key", Origin.FILE, "é")
    assert document.read(max_bytes=9, resources=None) == "é".encode()


def test_keys_of_policies_are_read_from_files_and_from_a_broker(tmp_path, broker):
    (tmp_path / "k").write_bytes(b"k")
    assert key_reader(broker)(URI) == b"document"
    for reader in (key_reader(broker), key_reader(None)):
        assert reader(f"file://{tmp_path}/k") == b"k"
    with pytest.raises(Unsupported, match="which only a broker has"):
        key_reader(None)(URI)
