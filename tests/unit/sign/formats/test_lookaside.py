# SPDX-License-Identifier: Apache-2.0
import base64
import json
import os
import threading

import pytest

from imagers.errors import (
    CouldNotVerify,
    FormatError,
    LocalError,
    NotFound,
    RemoteError,
    Unsupported,
)
from imagers.model.digest import digest_of
from imagers.model.reference import parse_reference
from imagers.sign.formats.lookaside import (
    MAX_SIGNATURE_BYTES,
    MAX_SIGNATURES,
    find_in_directory,
    find_in_extension,
    find_in_lookaside,
    parse_signature_file,
    write_to_extension,
    write_to_lookaside,
)
from imagers.sign.found import Found, SigstoreSignature, SimpleSignature, UnreadableSignature

REFERENCE = parse_reference("r.example:5000/team/app:v1")
DIGEST = digest_of(b"manifest")
SIGSTORE = b'\0sigstore-json\n{"mimeType":"t","payload":"cA==","annotations":{"a":"b"}}'


def test_file_of_each_format_is_told_by_its_first_bytes():
    assert parse_signature_file(b"\xa3x", "p") == SimpleSignature(b"\xa3x", "p")
    assert parse_signature_file(b"\0simple-signing\n\xa3x", "p") == SimpleSignature(b"\xa3x", "p")
    assert parse_signature_file(SIGSTORE, "p") == SigstoreSignature(b"p", {"a": "b"}, "t")


@pytest.mark.parametrize(
    ("error", "raw"),
    [
        (Unsupported, b"\0"),
        (Unsupported, b"\0sigstore-json"),
        (Unsupported, b"\0other\n{}"),
        (FormatError, b"\0sigstore-json\n"),
        (FormatError, b'\0sigstore-json\n{"mimeType":"t","payload":"cA=="}'),
        (FormatError, SIGSTORE.replace(b"cA==", b"!")),
        (FormatError, SIGSTORE.replace(b'"b"', b"5")),
        (FormatError, SIGSTORE.replace(b'"annotations"', b'"mimeType"')),
    ],
)
def test_file_that_is_damaged_is_no_good_signature(error, raw):
    found = parse_signature_file(raw, "p")
    assert isinstance(found, UnreadableSignature)
    assert type(found.error) is error
    assert found.format is (None if error is Unsupported else "sigstore")
    # It was looked at: it is one signature of its form, and none that was not found.
    assert Found((found,)).of("sigstore") == (found,)
    assert bool(Found((found,)).of("simple signing")) == (error is Unsupported)


def test_file_that_is_too_long_is_not_looked_at():
    with pytest.raises(FormatError):
        parse_signature_file(b"\xa3" * (MAX_SIGNATURE_BYTES + 1), "p")


def find(tmp_path, **options):
    return find_in_lookaside(f"file://{tmp_path}", REFERENCE, DIGEST, fetch=None, **options)


def folder_of(tmp_path):
    folder = tmp_path / "team" / f"app@sha256={DIGEST.hex}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_lookaside_gives_files_in_order_until_one_is_missing(tmp_path):
    for number in (1, 2, 4):
        (folder_of(tmp_path) / f"signature-{number}").write_bytes(b"\xa3%d" % number)
    found = find(tmp_path)
    assert [one.blob for one in found.signatures] == [b"\xa31", b"\xa32"]
    assert [(one.format, one.count) for one in found.looked] == [("simple signing", 2)]
    assert found.failures == ()


def test_lookaside_without_a_directory_has_none(tmp_path):
    found = find(tmp_path)
    assert (found.signatures, found.failures) == ((), ())
    assert found.looked[0].count == 0


def test_lookaside_goes_on_behind_a_damaged_file(tmp_path):
    for number, raw in enumerate((b"\xa3", b"\0sigstore-json\n{", b"\0", b"\xa4"), 1):
        (folder_of(tmp_path) / f"signature-{number}").write_bytes(raw)
    found = find(tmp_path)
    assert [type(one) for one in found.signatures] == [
        SimpleSignature,
        UnreadableSignature,
        UnreadableSignature,
        SimpleSignature,
    ]
    assert found.failures == ()


@pytest.mark.parametrize("damage", ["directory", "loop"])
def test_lookaside_that_is_damaged_could_not_be_looked_at(tmp_path, damage):
    """What came before the damaged file stays: it may be good enough."""
    folder = folder_of(tmp_path)
    (folder / "signature-1").write_bytes(b"\xa3")
    second = folder / "signature-2"
    if damage == "directory":
        second.mkdir()
    else:
        second.symlink_to(second)
    found = find(tmp_path)
    assert len(found.signatures) == 1
    (failure,) = found.failures
    assert failure.format == "simple signing"
    assert found.looked == ()


def test_lookaside_with_a_fifo_does_not_hang(tmp_path):
    os.mkfifo(folder_of(tmp_path) / "signature-1")
    assert find(tmp_path).signatures == (SimpleSignature(b"", f"file://{tmp_path}, signature-1"),)


def test_lookaside_with_too_many_or_too_large_files_could_not_be_looked_at(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "signature-1").write_bytes(b"\xa3" * (MAX_SIGNATURE_BYTES + 9))
    assert "expected at most" in str(find(tmp_path).failures[0].error)
    for number in range(1, MAX_SIGNATURES + 2):
        (folder / f"signature-{number}").write_bytes(b"\xa3")
    found = find(tmp_path)
    assert "at most 256 signatures" in str(found.failures[0].error)
    assert len(found.signatures) == MAX_SIGNATURES


def test_lookaside_over_http_asks_for_each_number():
    asked = []

    def fetch(url):
        asked.append(url)
        return b"\xa3" if len(asked) < 3 else None

    found = find_in_lookaside("https://s.example/x", REFERENCE, DIGEST, fetch=fetch)
    base = f"https://s.example/x/team/app@sha256={DIGEST.hex}/signature-"
    assert asked == [base + "1", base + "2", base + "3"]
    assert len(found.signatures) == 2


def test_lookaside_server_that_fails_could_not_be_looked_at():
    def fetch(_):
        raise RemoteError("down", status=503)

    for function in (fetch, None):
        found = find_in_lookaside("https://s.example", REFERENCE, DIGEST, fetch=function)
        assert isinstance(found.failures[0].error, RemoteError | CouldNotVerify)


def test_image_directory_has_both_forms(tmp_path):
    (tmp_path / "signature-1").write_bytes(SIGSTORE)
    (tmp_path / "signature-2").write_bytes(b"\xa3")
    found = find_in_directory(str(tmp_path), DIGEST)
    assert {one.format: one.count for one in found.looked} == {"simple signing": 1, "sigstore": 1}
    (tmp_path / "signature-2").unlink()
    (tmp_path / "signature-2").mkdir()
    assert find_in_directory(str(tmp_path), DIGEST).failures[0].format is None


def test_image_directory_of_an_index_keeps_those_of_a_manifest_apart(tmp_path):
    (tmp_path / "signature-1").write_bytes(b"\xa3index")
    (tmp_path / f"{DIGEST.hex}.manifest.json").write_bytes(b"{}")
    (tmp_path / f"{DIGEST.hex}.signature-1").write_bytes(b"\xa3child")
    (one,) = find_in_directory(str(tmp_path), DIGEST).signatures
    assert one.blob == b"\xa3child"
    (one,) = find_in_directory(str(tmp_path), digest_of(b"index")).signatures
    assert one.blob == b"\xa3index"


def test_write_takes_the_first_free_number_and_leaves_nothing_else(tmp_path):
    base = f"file://{tmp_path}"
    paths = [write_to_lookaside(base, REFERENCE, DIGEST, b"\xa3%d" % n) for n in range(3)]
    assert [os.path.basename(path) for path in paths] == [f"signature-{n}" for n in (1, 2, 3)]
    assert sorted(os.listdir(folder_of(tmp_path))) == [f"signature-{n}" for n in (1, 2, 3)]
    assert [one.blob for one in find(tmp_path).signatures] == [b"\xa30", b"\xa31", b"\xa32"]


def test_write_by_many_at_once_loses_none(tmp_path):
    barrier = threading.Barrier(8)

    def write(number):
        barrier.wait()
        for turn in range(5):
            write_to_lookaside(
                f"file://{tmp_path}", REFERENCE, DIGEST, b"\xa3%d-%d" % (number, turn)
            )

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.blob for one in find(tmp_path).signatures}) == 40


def test_write_to_a_place_that_takes_none_is_refused(tmp_path):
    with pytest.raises(Unsupported, match="for reading only"):
        write_to_lookaside("https://s.example", REFERENCE, DIGEST, b"\xa3")
    (tmp_path / "team").write_text("a file")
    with pytest.raises(LocalError):
        write_to_lookaside(f"file://{tmp_path}", REFERENCE, DIGEST, b"\xa3")


class Extension:
    def __init__(self, document, *, supports=True):
        self.document = document
        self.supports = supports
        self.put = []

    def supports_signatures(self):
        if isinstance(self.supports, Exception):
            raise self.supports
        return self.supports

    def read_signatures(self, digest, *, max_bytes):
        assert digest == DIGEST
        assert max_bytes > 0
        if isinstance(self.document, Exception):
            raise self.document
        return json.dumps(self.document).encode()

    def put_signature(self, digest, body):
        if isinstance(self.document, Exception):
            raise self.document
        self.put.append((digest, json.loads(body)))


ONE = {"schemaVersion": 2, "type": "atomic", "name": "x", "content": "ow=="}


def test_extension_gives_its_signatures_and_passes_over_others():
    others = [{**ONE, "schemaVersion": 1}, {**ONE, "type": "new"}]
    found = find_in_extension(Extension({"signatures": [*others, ONE]}), DIGEST, "p")
    assert [one.blob for one in found.signatures] == [b"\xa3"]


def test_extension_that_is_none_is_not_asked():
    assert find_in_extension(Extension(None, supports=False), DIGEST, "p") is None


def test_extension_without_the_manifest_has_none():
    found = find_in_extension(Extension(NotFound("no", status=404)), DIGEST, "p")
    assert (found.signatures, found.failures) == ((), ())


@pytest.mark.parametrize(
    "document",
    [
        RemoteError("down", status=500),
        {},
        {"signatures": 5},
        {"signatures": [5]},
        {"signatures": [{}]},
        {"signatures": [ONE] * 257},
    ],
)
def test_extension_that_fails_could_not_be_looked_at(document):
    found = find_in_extension(Extension(document), DIGEST, "p")
    assert found.failures[0].format == "simple signing"
    assert find_in_extension(Extension({}, supports=RemoteError("down")), DIGEST, "p").failures


def test_extension_with_one_that_is_damaged_has_the_others():
    found = find_in_extension(
        Extension({"signatures": [{**ONE, "content": "!"}, ONE]}), DIGEST, "p"
    )
    assert [type(one) for one in found.signatures] == [UnreadableSignature, SimpleSignature]
    assert found.failures == ()


def test_write_to_the_extension_adds_one_object():
    extension = Extension({})
    name = write_to_extension(extension, DIGEST, b"\xa3")
    ((digest, body),) = extension.put
    assert (digest, body["name"], body["schemaVersion"]) == (DIGEST, name, 2)
    assert base64.b64decode(body["content"]) == b"\xa3"
    assert name.startswith(f"{DIGEST}@")
    with pytest.raises(RemoteError, match="no place for them"):
        write_to_extension(Extension(NotFound("no", status=404)), DIGEST, b"\xa3")
