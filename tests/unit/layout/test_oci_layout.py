# SPDX-License-Identifier: Apache-2.0
import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from imagers import files
from imagers.errors import (
    DigestMismatch,
    FormatError,
    LocalError,
    NotFound,
    SizeMismatch,
    Unsupported,
)
from imagers.layout.layout import Layout
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.manifest import parse_manifest
from imagers.model.media import OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from imagers.model.stream import read_all


@pytest.fixture
def path(tmp_path):
    return tmp_path / "layout"


def sink_of(path, ref="v1"):
    return OCILayoutSink(path, ref, name=f"oci:{path}:{ref}")


def source_of(path, ref="v1", **options):
    return OCILayoutSource(path, ref, name=f"oci:{path}:{ref}", **options)


@pytest.fixture
def written(path, image_of):
    image = image_of("one")
    sink = sink_of(path)
    image.write(sink)
    sink.close()
    return image


def blob_path(path, descriptor):
    return path / "blobs" / "sha256" / descriptor.digest.hex


def layer_of(image):
    return list(image.blobs)[1]


# Reading.


def test_source_reads_what_the_sink_wrote(path, written):
    source = source_of(path)
    answer = source.read_manifest()
    assert answer.raw == written.raw
    assert answer.media_type == OCI_MANIFEST
    assert answer.digest == written.descriptor.digest
    manifest = parse_manifest(answer.raw, media_type=answer.media_type)
    for descriptor in (manifest.config, *manifest.layers):
        with source.open_blob(descriptor, what="blob") as stream:
            assert read_all(stream, size=descriptor.size) == written.blobs[descriptor]
    source.close()


def test_source_raw_blob_is_a_file_at_its_start(path, written):
    descriptor = layer_of(written)
    raw = source_of(path).open_raw_blob(descriptor, what="layer")
    assert os.read(raw.fileno(), 100) == written.blobs[descriptor]
    raw.close()


def test_source_manifest_by_digest_is_checked(path, written):
    source = source_of(path, "another")
    answer = source.read_manifest(written.descriptor.digest)
    assert (answer.raw, answer.media_type) == (written.raw, OCI_MANIFEST)
    blob_path(path, written.descriptor).write_bytes(written.raw + b" ")
    with pytest.raises(DigestMismatch) as caught:
        source.read_manifest(written.descriptor.digest)
    assert caught.value.expected == written.descriptor.digest


def test_source_by_position(path, written, image_of):
    other = image_of("two")
    other.write(sink_of(path, "v2"))
    assert source_of(path, None, position=1).read_manifest().raw == other.raw
    assert source_of(path, None, position=0).read_manifest().raw == written.raw


def test_source_read_tag_is_another_entry(path, written):
    sink = sink_of(path)
    sink.put_manifest_as(written.raw, OCI_MANIFEST, "sha256-1.sig")
    assert source_of(path).read_tag("sha256-1.sig").raw == written.raw
    with pytest.raises(NotFound, match=r"sha256-2.sig"):
        source_of(path).read_tag("sha256-2.sig")


def test_source_missing_directory_is_a_local_error(path):
    with pytest.raises(LocalError, match="no such directory") as caught:
        source_of(path).read_manifest()
    assert caught.value.path == str(path)


def test_source_directory_that_is_no_layout_is_a_local_error(tmp_path):
    with pytest.raises(LocalError, match="no file oci-layout"):
        source_of(tmp_path).read_manifest()


def test_source_file_in_place_of_a_layout_is_a_local_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LocalError):
        source_of(tmp_path / "file").read_manifest()


@pytest.mark.parametrize(
    ("name", "data", "kind", "text"),
    [
        ("oci-layout", b"{}", FormatError, "oci-layout"),
        ("oci-layout", b'{"imageLayoutVersion":"9"}', Unsupported, "layout version '9'"),
        ("oci-layout", b" " * 10_000, FormatError, "at most 4096 bytes"),
        ("index.json", b"{", FormatError, "index.json"),
        ("index.json", b" " * (4 * 1024 * 1024 + 1), FormatError, "at most 4194304 bytes"),
        ("index.json", b'{"schemaVersion":2,"manifests":[]}', NotFound, "has no image"),
    ],
)
@pytest.mark.usefixtures("written")
def test_source_malformed_layout_refused(path, name, data, kind, text):
    (path / name).write_bytes(data)
    with pytest.raises(kind, match=text):
        source_of(path).read_manifest()


@pytest.mark.usefixtures("written")
def test_source_without_index_refused(path):
    (path / "index.json").unlink()
    with pytest.raises(FormatError, match=r"expected a file index.json"):
        source_of(path).read_manifest()


@pytest.mark.usefixtures("written")
def test_source_index_that_is_a_fifo_refused_without_waiting(path):
    (path / "index.json").unlink()
    os.mkfifo(path / "index.json")
    with pytest.raises(FormatError, match="regular file"):
        source_of(path).read_manifest()


def test_source_manifest_missing_is_not_found(path, written):
    blob_path(path, written.descriptor).unlink()
    with pytest.raises(NotFound, match="has no manifest"):
        source_of(path).read_manifest()


def test_source_manifest_of_another_size_than_its_entry_refused(path, written):
    index = json.loads((path / "index.json").read_bytes())
    index["manifests"][0]["size"] += 1
    (path / "index.json").write_text(json.dumps(index))
    with pytest.raises(SizeMismatch) as caught:
        source_of(path).read_manifest()
    assert caught.value.actual == len(written.raw)


def test_source_huge_manifest_refused_unread(path, written):
    with blob_path(path, written.descriptor).open("r+b") as file:
        file.truncate(10 * 1024**3)
    with pytest.raises(FormatError, match="at most 4194304 bytes"):
        source_of(path).read_manifest()


def test_source_blob_missing_is_not_found(path, written):
    descriptor = layer_of(written)
    blob_path(path, descriptor).unlink()
    with pytest.raises(NotFound, match="layer 1 of 1") as caught:
        source_of(path).open_blob(descriptor, what="layer 1 of 1")
    assert str(descriptor.digest) in str(caught.value)


@pytest.mark.parametrize("change", [b"", b"short", b"longer than it is expected to be"])
def test_source_blob_of_another_size_refused_before_the_first_byte(path, written, change):
    descriptor = layer_of(written)
    blob_path(path, descriptor).write_bytes(change)
    with pytest.raises(SizeMismatch) as caught:
        source_of(path).open_raw_blob(descriptor, what="layer")
    assert (caught.value.expected, caught.value.actual) == (descriptor.size, len(change))


def test_source_blob_of_other_bytes_refused_at_the_end(path, written):
    descriptor = layer_of(written)
    blob_path(path, descriptor).write_bytes(b"x" * descriptor.size)
    with (
        source_of(path).open_blob(descriptor, what="layer") as stream,
        pytest.raises(DigestMismatch),
    ):
        read_all(stream, size=descriptor.size)


# Writing.


def test_sink_makes_a_layout_with_modes_by_umask(path, image_of, files_below):
    before = os.umask(0o027)
    try:
        image = image_of("one")
        image.write(sink_of(path / "deep" / "down"))
    finally:
        os.umask(before)
    layout = path / "deep" / "down"
    names = files_below(layout)
    assert names[:3] == ["blobs", "blobs/sha256", names[2]]
    assert {"oci-layout", "index.json"} < set(names)
    assert len(names) == 2 + 3 + 2
    for name in names:
        one = layout / name
        assert one.stat().st_mode & 0o777 == (0o750 if one.is_dir() else 0o640)


def test_sink_other_entries_stay(path, written, image_of):
    image_of("two").write(sink_of(path, "v2"))
    assert source_of(path, "v1").read_manifest().raw == written.raw


@pytest.mark.usefixtures("written")
def test_sink_same_name_is_replaced(path, image_of):
    other = image_of("two")
    other.write(sink_of(path))
    assert source_of(path, None).read_manifest().raw == other.raw


def test_sink_without_a_name_writes_an_entry_without_one(path, image_of):
    image_of("one").write(sink_of(path, None))
    other = image_of("two")
    other.write(sink_of(path, None))
    assert source_of(path, None).read_manifest().raw == other.raw


def test_sink_child_manifest_has_no_entry(path, written, image_of):
    child = image_of("child")
    sink = sink_of(path, "all")
    child.write(sink, by_name=False)
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child.descriptor.to_json()]}
    ).encode()
    sink.put_manifest(index, OCI_INDEX, by_name=True)
    entries = json.loads((path / "index.json").read_bytes())["manifests"]
    assert [one["digest"] for one in entries] == [
        str(written.descriptor.digest),
        str(digest_of(index)),
    ]


def test_sink_replaces_a_damaged_blob_that_is_there(path, written):
    """Its size is right: believed, it would stay and be published again."""
    descriptor = layer_of(written)
    stored = blob_path(path, descriptor)
    stored.write_bytes(bytes(reversed(stored.read_bytes())))
    sink = sink_of(path, "v2")
    assert not sink.has_blob(descriptor)
    written.write(sink)
    sink.close()
    assert stored.read_bytes() == written.blobs[descriptor]


def test_sink_has_blob_compares_sizes(path, written):
    descriptor = layer_of(written)
    sink = sink_of(path)
    assert sink.has_blob(descriptor)
    blob_path(path, descriptor).write_bytes(b"x")
    assert not sink.has_blob(descriptor)
    assert not sink_of(path / "none").has_blob(descriptor)


def test_sink_damaged_blob_is_replaced(path, written):
    descriptor = layer_of(written)
    blob_path(path, descriptor).write_bytes(b"x" * descriptor.size)
    sink_of(path).put_blob(descriptor, written.blobs[descriptor], what="layer")
    assert blob_path(path, descriptor).read_bytes() == written.blobs[descriptor]


def test_sink_put_blob_of_other_bytes_refused(path, image_of):
    image = image_of("one")
    descriptor = layer_of(image)
    sink = sink_of(path)
    with pytest.raises(DigestMismatch):
        sink.put_blob(descriptor, b"x" * descriptor.size, what="layer")
    with pytest.raises(SizeMismatch):
        sink.put_blob(descriptor, b"x", what="layer")
    sink.close()
    assert not path.exists()


def test_sink_commit_of_another_size_refused(path, image_of):
    descriptor = layer_of(image_of("one"))
    sink = sink_of(path)
    with sink.stage_blob() as staged:
        os.write(staged.fileno(), b"abc")
        with pytest.raises(SizeMismatch) as caught:
            staged.commit(descriptor, what="layer")
    assert (caught.value.expected, caught.value.actual) == (descriptor.size, 3)
    assert not sink.has_blob(descriptor)
    sink.close()


def test_sink_sha512_blob_has_its_own_folder(path):
    data = b"data"
    descriptor = Descriptor(OCI_LAYER, digest_of(data, "sha512"), len(data))
    sink = sink_of(path)
    sink.put_blob(descriptor, data, what="layer")
    assert (path / "blobs" / "sha512" / descriptor.digest.hex).read_bytes() == data
    sink.close()
    assert not path.exists()


def test_sink_manifest_with_a_missing_blob_refused(path, image_of, files_below):
    image = image_of("one")
    sink = sink_of(path)
    with pytest.raises(NotFound, match="which the manifest names"):
        sink.put_manifest(image.raw, OCI_MANIFEST, by_name=True)
    sink.close()
    assert not path.exists() or files_below(path) == []


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"schemaVersion":2,"layers":[]}'])
def test_sink_malformed_manifest_refused(path, raw):
    with pytest.raises(FormatError):
        sink_of(path).put_manifest(raw, OCI_MANIFEST, by_name=True)
    assert not path.exists()


def test_sink_empty_directory_becomes_a_layout(path, image_of):
    path.mkdir()
    image_of("one").write(sink_of(path))
    source_of(path).read_manifest()


@pytest.mark.parametrize("name", ["file", "index.json", "blobs.old"])
def test_sink_directory_of_something_else_refused(path, image_of, name, files_below):
    path.mkdir()
    (path / name).touch()
    sink = sink_of(path)
    with pytest.raises(LocalError, match="expected an OCI layout") as caught:
        image_of("one").write(sink)
    assert caught.value.path == str(path)
    sink.close()
    assert files_below(path) == [name]


def test_sink_file_in_the_way_refused(path, image_of):
    path.write_bytes(b"precious")
    with pytest.raises(LocalError):
        image_of("one").write(sink_of(path))
    assert path.read_bytes() == b"precious"


@pytest.mark.usefixtures("written")
def test_sink_malformed_index_refused_before_the_work_and_kept(path, files_below):
    (path / "index.json").write_bytes(b"{broken")
    names = files_below(path)
    sink = sink_of(path, "v2")
    with pytest.raises(FormatError, match=r"index.json"):
        sink.stage_blob()
    sink.close()
    assert files_below(path) == names
    assert (path / "index.json").read_bytes() == b"{broken"


# Nothing is left of what failed.


def half(image, sink):
    """Everything but the manifest, and one more blob on its way."""
    for descriptor, data in image.blobs.items():
        sink.put_blob(descriptor, data, what="blob")
    staged = sink.stage_blob()
    os.write(staged.fileno(), b"half a layer")


def test_sink_closed_before_the_manifest_leaves_no_layout(path, image_of):
    sink = sink_of(path / "deep")
    half(image_of("one"), sink)
    sink.close()
    sink.close()
    assert not path.exists()


def test_sink_closed_before_the_manifest_leaves_the_old_state(path, written, image_of, files_below):
    before = files_below(path), (path / "index.json").read_bytes()
    sink = sink_of(path)
    half(image_of("two"), sink)
    assert files_below(path) != before[0]
    sink.close()
    assert (files_below(path), (path / "index.json").read_bytes()) == before
    assert source_of(path).read_manifest().raw == written.raw


def test_sink_closed_after_the_manifest_keeps_all(path, image_of):
    image = image_of("one")
    sink = sink_of(path)
    image.write(sink)
    sink.close()
    assert source_of(path).read_manifest().raw == image.raw


def test_sink_that_is_closed_leaves_descriptors_to_their_writers(path, image_of, tmp_path):
    sink = sink_of(path)
    image_of("one").write(sink)
    with sink.stage_blob() as staged:
        sink.close()
        with open(tmp_path / "other", "wb"):  # it would have got the descriptor
            os.write(staged.fileno(), b"data")
        with pytest.raises(LocalError, match="its destination was closed before"):
            staged.commit(Descriptor(OCI_LAYER, digest_of(b"data"), 4), what="layer")
    assert (tmp_path / "other").read_bytes() == b""
    assert not blob_path(path, Descriptor(OCI_LAYER, digest_of(b"data"), 4)).exists()


def test_sink_works_again_after_close(path, image_of):
    sink = sink_of(path)
    half(image_of("one"), sink)
    sink.close()
    image_of("two").write(sink)
    sink.close()
    assert source_of(path).read_manifest().raw == image_of("two").raw


@pytest.mark.parametrize("step", [1, 2, 3, 4], ids=["config", "layer", "manifest", "index"])
def test_sink_failing_at_any_step_leaves_the_old_state(path, written, image_of, files_below, step):
    def state():
        return files_below(path), (path / "index.json").read_bytes()

    before = state()
    real = files.StagedFile.publish
    left = [step]

    def publish(self, target):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        real(self, target)

    sink = sink_of(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.StagedFile, "publish", publish)
        with pytest.raises(LocalError, match="no space left"):
            image_of("two").write(sink)
    sink.close()
    assert state() == before
    assert source_of(path).read_manifest().raw == written.raw


def killed_at(path, image, step):
    """In a process of its own: write `image`, and die by SIGKILL at a step."""
    real = files.StagedFile.publish
    left = [step]

    def publish(self, target):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, target)

    files.StagedFile.publish = publish
    image.write(sink_of(path))


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_sink_killed_at_any_step_leaves_the_old_image_and_no_temporary_files(
    path, written, image_of, files_below, step
):
    process = multiprocessing.get_context("fork").Process(
        target=killed_at, args=(path, image_of("two"), step)
    )
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert source_of(path).read_manifest().raw == written.raw
    assert not [name for name in files_below(path) if Path(name).name.startswith(".")]
    image_of("two").write(sink_of(path))
    assert source_of(path).read_manifest().raw == image_of("two").raw


# Several writers.


def add_many(path, image_of, first, count, gate):
    gate.wait(20)
    for number in range(first, first + count):
        sink = sink_of(path, f"v{number}")
        image_of(number).write(sink)
        sink.close()


def test_sink_many_processes_lose_no_entry(path, image_of):
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(3)
    workers = [
        context.Process(target=add_many, args=(path, image_of, first, 8, gate))
        for first in (0, 100, 200)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    for first in (0, 100, 200):
        for number in range(first, first + 8):
            assert source_of(path, f"v{number}").read_manifest().raw == image_of(number).raw


def test_sink_many_threads_lose_no_entry(path, image_of):
    gate = threading.Barrier(4)
    threads = [
        threading.Thread(target=add_many, args=(path, image_of, first, 5, gate))
        for first in (0, 100, 200, 300)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((path / "index.json").read_bytes())["manifests"]) == 20


def test_sink_layout_made_by_another_since_it_looked_is_used(path, written, image_of, monkeypatch):
    real = Layout.check_version
    answers = [False]
    monkeypatch.setattr(
        Layout, "check_version", lambda self: answers.pop() if answers else real(self)
    )
    image_of("two").write(sink_of(path, "v2"))
    assert source_of(path, "v1").read_manifest().raw == written.raw
    assert source_of(path, "v2").read_manifest().raw == image_of("two").raw


def test_sink_directory_that_another_is_making_is_used(path, image_of):
    (path / "blobs").mkdir(parents=True)
    (path / ".imagers-0123456789abcdef").touch()
    image_of("one").write(sink_of(path))
    assert source_of(path).read_manifest().raw == image_of("one").raw


def test_sink_failing_beside_one_that_works_takes_nothing_from_it(path, image_of):
    image = image_of("shared")
    failing, working = sink_of(path, "a"), sink_of(path, "b")
    half(image, failing)
    image.write(working)  # finds the blobs of the other
    failing.close()
    working.close()
    source = source_of(path, "b")
    assert source.read_manifest().raw == image.raw
    for descriptor, data in image.blobs.items():
        with source.open_blob(descriptor, what="blob") as stream:
            assert read_all(stream, size=descriptor.size) == data


def test_sink_whose_found_blobs_are_taken_back_does_not_publish(path, image_of):
    image = image_of("shared")
    failing, working = sink_of(path, "a"), sink_of(path, "b")
    half(image, failing)
    assert all(working.has_blob(descriptor) for descriptor in image.blobs)
    failing.close()
    with pytest.raises(NotFound, match="which the manifest names"):
        working.put_manifest(image.raw, OCI_MANIFEST, by_name=True)
    working.close()
    assert not path.exists()


def test_sink_whose_layout_is_taken_back_makes_it_again(path, image_of):
    failing, working = sink_of(path, "a"), sink_of(path, "b")
    half(image_of("one"), failing)
    image = image_of("two")
    for descriptor, data in image.blobs.items():
        working.put_blob(descriptor, data, what="blob")
    failing.close()
    # The config was brought by the first one and is gone with it.
    for descriptor, data in image.blobs.items():
        working.put_blob(descriptor, data, what="blob")
    working.put_manifest(image.raw, OCI_MANIFEST, by_name=True)
    working.close()
    assert source_of(path, "b").read_manifest().raw == image.raw
