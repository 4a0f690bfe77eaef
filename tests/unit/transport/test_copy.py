# SPDX-License-Identifier: Apache-2.0
import io
import json
import os
import threading
from dataclasses import replace

import pytest

from imagers.core import Cancellation, together
from imagers.errors import (
    Cancelled,
    DigestMismatch,
    FormatError,
    IntegrityError,
    LocalError,
    NotFound,
    RemoteError,
    SizeMismatch,
    VerificationError,
)
from imagers.model.descriptor import Descriptor, Platform
from imagers.model.digest import digest_of
from imagers.model.manifest import RawManifest
from imagers.model.media import OCI_INDEX, OCI_MANIFEST
from imagers.model.stream import read_all
from imagers.transport import resolve
from imagers.transport.copy import copy_image
from imagers.transport.open import TransportOptions


@pytest.fixture
def index(image_of, index_of):
    """An index over two images that share a layer, and the two."""
    images = [image_of("amd64"), image_of("arm64", (b"first layer", b"for arm"))]
    return index_of(*(one.descriptor for one in images)), images


def put_index(sink, index):
    raw, images = index
    for one in images:
        one.write(sink, by_name=False)
    sink.put_manifest(raw, OCI_INDEX, by_name=True)


def all_bytes(source, descriptor):
    with source.open_blob(descriptor, what="blob") as stream:
        return read_all(stream, size=descriptor.size)


def test_copy_image_bytes_and_digests_unchanged(way, places, image_of):
    image = image_of()
    image.write(places.sink(way[0]))
    report = copy_image(places.source(way[0]), places.sink(way[1]))
    copied = places.source(way[1])
    assert copied.read_manifest().raw == image.raw
    for descriptor, data in image.blobs.items():
        assert all_bytes(copied, descriptor) == data
    assert (report.digest, report.media_type) == (image.descriptor.digest, OCI_MANIFEST)
    assert (report.blobs, report.skipped) == (3, 0)
    # Within one registry nothing is sent.
    sent = 0 if report.mounted == 3 else sum(map(len, image.blobs.values()))
    assert report.size == sent


def test_copy_image_second_time_skips_all(way, places, image_of):
    image_of().write(places.sink(way[0]))
    for skipped in (0, 3):
        report = copy_image(places.source(way[0]), places.sink(way[1]))
        assert (report.blobs, report.skipped) == (3, skipped)
    assert report.size == 0


def test_copy_image_tells_how_far_each_blob_is(way, places, image_of):
    image = image_of()
    image.write(places.sink(way[0]))
    sizes, news = [], []
    copy_image(
        places.source(way[0]),
        places.sink(way[1]),
        on_size=sizes.append,
        on_progress=news.append,
        jobs=3,
    )
    ends = {one.what: one.done for one in news if one.seconds is not None}
    assert set(ends) == {"config", "layer 1 of 2", "layer 2 of 2"}
    assert sizes == [sum(ends.values())] == [sum(map(len, image.blobs.values()))]


def test_copy_image_all_platforms_tells_which_image_a_blob_is_of(places, registry, index, tmp_path):
    put_index(places.sink(f"{registry.address}/a:v1"), index)
    sizes, news = [], []
    copy_image(
        places.source(f"{registry.address}/a:v1"),
        places.sink(f"oci:{tmp_path}/all:v1"),
        all_platforms=True,
        on_size=sizes.append,
        on_progress=news.append,
    )
    assert {one.what for one in news if one.seconds is not None} == {
        "linux/amd64 config",
        "linux/amd64 layer 1 of 2",
        "linux/amd64 layer 2 of 2",
        "linux/arm64 config",
        "linux/arm64 layer 2 of 2",  # the other is the one of linux/amd64
    }
    assert len(sizes) == 2


def test_copy_image_is_ended_from_elsewhere(places, registry, image_of, tmp_path):
    image_of().write(places.sink(f"{registry.address}/a:v1"))
    stop = Cancellation()
    with pytest.raises(Cancelled):
        copy_image(
            places.source(f"{registry.address}/a:v1"),
            places.sink(f"oci:{tmp_path}/copy:v1"),
            on_progress=lambda _: stop.cancel(),
            cancellation=stop,
        )
    with pytest.raises((NotFound, LocalError)):
        places.source(f"oci:{tmp_path}/copy:v1").read_manifest()


def test_copy_image_of_an_index_takes_the_platform_asked_for(way, places, index):
    put_index(places.sink(way[0]), index)
    report = copy_image(
        places.source(way[0]), places.sink(way[1]), platform=Platform("linux", "arm64")
    )
    assert report.digest == index[1][1].descriptor.digest
    assert places.source(way[1]).read_manifest().raw == index[1][1].raw


def test_copy_image_of_an_index_takes_this_machine_by_default(registry, places, index, monkeypatch):
    put_index(places.sink(f"{registry.address}/a:v1"), index)
    monkeypatch.setattr(resolve.machine, "machine", lambda: "aarch64")
    report = copy_image(
        places.source(f"{registry.address}/a:v1"), places.sink(f"{registry.address}/b:v1")
    )
    assert report.digest == index[1][1].descriptor.digest


def test_copy_image_of_an_index_without_the_platform_is_not_found(registry, places, index):
    put_index(places.sink(f"{registry.address}/a:v1"), index)
    with pytest.raises(NotFound, match="linux/s390x") as caught:
        copy_image(
            places.source(f"{registry.address}/a:v1"),
            places.sink(f"{registry.address}/b:v1"),
            platform=Platform("linux", "s390x"),
        )
    assert "linux/amd64, linux/arm64" in str(caught.value)
    assert registry.tags("b") == {}


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_copy_image_that_its_index_says_no_platform_of_is_held_to_its_config(
    registry, places, image_of, index_of, architecture
):
    image = image_of("amd64")
    entry = replace(image.descriptor, platform=None)
    put_index(places.sink(f"{registry.address}/a:v1"), (index_of(entry), [image]))

    def copy_for():
        return copy_image(
            places.source(f"{registry.address}/a:v1"),
            places.sink(f"{registry.address}/b:v1"),
            platform=Platform("linux", architecture),
        )

    if architecture == "amd64":
        assert copy_for().digest == image.descriptor.digest
        return
    with pytest.raises(VerificationError, match="an image for 'linux/arm64', got one for"):
        copy_for()
    assert registry.tags("b") == {}


def test_copy_image_all_platforms_takes_the_index_byte_for_byte(way, places, index):
    put_index(places.sink(way[0]), index)
    report = copy_image(places.source(way[0]), places.sink(way[1]), all_platforms=True)
    copied = places.source(way[1])
    assert copied.read_manifest().raw == index[0]
    for image in index[1]:
        assert copied.read_manifest(image.descriptor.digest).raw == image.raw
        for descriptor, data in image.blobs.items():
            assert all_bytes(copied, descriptor) == data
    assert (report.blobs, report.media_type) == (5, OCI_INDEX)


def test_copy_image_all_platforms_of_one_image_is_that_image(registry, places, image_of):
    image_of().write(places.sink(f"{registry.address}/a:v1"))
    report = copy_image(
        places.source(f"{registry.address}/a:v1"),
        places.sink(f"{registry.address}/b:v1"),
        all_platforms=True,
    )
    assert report.digest == image_of().descriptor.digest


def test_copy_image_indexes_in_indexes_up_to_a_bound(registry, places, image_of, index_of):
    image = image_of()
    sink = places.sink(f"{registry.address}/a:v1")
    image.write(sink, by_name=False)
    raw, descriptor = b"", image.descriptor
    for depth in range(1, 5):
        raw = index_of(descriptor)
        sink.put_manifest(raw, OCI_INDEX, by_name=True)
        descriptor = Descriptor(OCI_INDEX, digest_of(raw), len(raw))
        source, target = places.source(f"{registry.address}/a:v1"), f"{registry.address}/b:v{depth}"
        if depth <= 3:
            copy_image(source, places.sink(target), all_platforms=True)
        else:
            with pytest.raises(FormatError, match="nested at most 3 deep"):
                copy_image(source, places.sink(target), all_platforms=True)
    assert set(registry.tags("b")) == {"v1", "v2", "v3"}


def test_copy_image_index_that_many_paths_lead_to_is_copied_once(
    registry, places, image_of, index_of
):
    """Three indexes of a thousand entries make a thousand million paths to the last manifest."""
    image = image_of()
    sink = places.sink(f"{registry.address}/a:v1")
    image.write(sink, by_name=False)
    descriptor = image.descriptor
    for _ in range(3):
        raw = index_of(*[descriptor] * 200)
        sink.put_manifest(raw, OCI_INDEX, by_name=True)
        descriptor = Descriptor(OCI_INDEX, digest_of(raw), len(raw))
    before = len(registry.asked())
    source = places.source(f"{registry.address}/a:v1")
    copy_image(source, places.sink(f"{registry.address}/b:v1"), all_platforms=True)
    assert len(registry.asked()) - before < 50


def test_copy_image_manifest_comes_after_its_blobs(registry, places, index, tmp_path):
    put_index(places.sink(f"oci:{tmp_path}/l:v1"), index)
    copy_image(
        places.source(f"oci:{tmp_path}/l:v1"),
        places.sink(f"{registry.address}/a:v1"),
        all_platforms=True,
    )
    puts = [path.split("?")[0] for method, path in registry.asked() if method == "PUT"]
    kinds = ["blob" if "/blobs/" in path else path.rsplit("/", 1)[1] for path in puts]
    first, second = (str(one.descriptor.digest) for one in index[1])
    assert kinds == ["blob"] * 3 + [first] + ["blob"] * 2 + [second, "v1"]


def test_copy_image_corrupt_blob_refused_and_nothing_named(registry, places, image_of, tmp_path):
    image = image_of()
    image.write(places.sink(f"{registry.address}/a:v1"))
    registry.corrupt_blob(list(image.blobs)[2].digest, 3)
    sink = places.sink(f"oci:{tmp_path}/l:v1")
    with pytest.raises(DigestMismatch, match="layer 2 of 2"):
        copy_image(places.source(f"{registry.address}/a:v1"), sink)
    sink.close()
    assert not (tmp_path / "l").exists()


@pytest.mark.parametrize("jobs", [1, 3])
def test_copy_image_from_a_layout_needs_no_spool(registry, places, image_of, tmp_path, jobs):
    image = image_of()
    image.write(places.sink(f"oci:{tmp_path}/l:v1"))
    options = TransportOptions(spool_directory=tmp_path / "none")
    sink = places.sink(f"{registry.address}/a:v1", options)
    copy_image(places.source(f"oci:{tmp_path}/l:v1"), sink, jobs=jobs)
    assert places.source(f"{registry.address}/a:v1").read_manifest().raw == image.raw
    with pytest.raises(LocalError, match="spool"):
        sink.stage_blob()


@pytest.mark.parametrize("jobs", [1, 3])
def test_copy_image_corrupt_local_blob_refused_and_not_sent(
    registry, places, image_of, tmp_path, jobs
):
    image = image_of()
    image.write(places.sink(f"oci:{tmp_path}/l:v1"))
    blob = list(image.blobs)[2]
    (tmp_path / "l" / "blobs" / "sha256" / blob.digest.hex).write_bytes(b"second loyer")
    sink = places.sink(f"{registry.address}/a:v1")
    with pytest.raises(DigestMismatch, match="layer 2 of 2"):
        copy_image(places.source(f"oci:{tmp_path}/l:v1"), sink, jobs=jobs)
    assert not sink.has_blob(blob)
    assert registry.uploads == {}
    assert registry.tags("a") == {}


@pytest.mark.parametrize("change", [slice(0, -1), slice(0, 0)])
def test_copy_image_short_blob_refused(registry, places, image_of, change):
    image = image_of()
    image.write(places.sink(f"{registry.address}/a:v1"))
    descriptor = list(image.blobs)[1]
    registry.replace_blob(descriptor.digest, image.blobs[descriptor][change])
    with pytest.raises(IntegrityError, match="layer 1 of 2"):
        copy_image(
            places.source(f"{registry.address}/a:v1"), places.sink(f"{registry.address}/b:v1")
        )
    assert registry.tags("b") == {}


def test_copy_image_entry_of_another_size_refused(registry, places, image_of, index_of):
    image = image_of()
    sink = places.sink(f"{registry.address}/a:v1")
    image.write(sink, by_name=False)
    told = image.descriptor
    lie = Descriptor(told.media_type, told.digest, told.size + 1, platform=told.platform)
    sink.put_manifest(index_of(lie), OCI_INDEX, by_name=True)
    with pytest.raises(SizeMismatch) as caught:
        copy_image(
            places.source(f"{registry.address}/a:v1"),
            places.sink(f"{registry.address}/b:v1"),
            platform=told.platform,
        )
    assert caught.value.actual == told.size


def test_copy_image_same_digest_with_two_sizes_refused(registry, places, image_of):
    image = image_of()
    document = json.loads(image.raw)
    document["layers"].append({**document["layers"][0], "size": 5})
    raw = json.dumps(document).encode()
    sink = places.sink(f"{registry.address}/a:v1")
    image.write(sink)
    sink.put_manifest(raw, OCI_MANIFEST, by_name=True)
    with pytest.raises(SizeMismatch, match="layer 3 of 3"):
        copy_image(
            places.source(f"{registry.address}/a:v1"), places.sink(f"{registry.address}/b:v1")
        )


def test_copy_image_sha512_entry_of_other_bytes_refused(registry, places, image_of, index_of):
    image = image_of()
    entry = Descriptor(OCI_MANIFEST, digest_of(image.raw + b" ", "sha512"), len(image.raw))
    answers = ((f"/manifests/{entry.digest}", image.raw), ("/manifests/v1", index_of(entry)))
    for path, body in answers:
        registry.answer_with(200, path=path, headers={"Content-Type": OCI_INDEX}, body=body)
    with pytest.raises(DigestMismatch) as caught:
        copy_image(
            places.source(f"{registry.address}/a:v1"),
            places.sink(f"{registry.address}/b:v1"),
            all_platforms=True,
        )
    assert caught.value.expected == entry.digest


def test_copy_image_full_disk_is_a_local_error(registry, places, image_of, monkeypatch, tmp_path):
    image_of().write(places.sink(f"{registry.address}/a:v1"))
    real = os.write

    def full(fd, data):
        if bytes(data) == b"first layer":
            raise OSError(28, "No space left on device")
        return real(fd, data)

    sink, source = (
        places.sink(f"oci:{tmp_path}/b:v1"),
        places.source(f"{registry.address}/a:v1"),
    )
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LocalError, match="no space left") as caught:
        copy_image(source, sink)
    assert "room" in caught.value.hint


class HangingSource:
    """Gives the first layer but for its last bytes until `gate` is set, and not the second."""

    name = "test:hanging"

    def __init__(self, image):
        self.image = image
        self.reached = threading.Event()
        self.gate = threading.Event()

    def read_manifest(self, digest=None):
        assert digest is None
        return RawManifest(self.image.raw, OCI_MANIFEST, self.image.descriptor.digest)

    def open_raw_blob(self, descriptor, *, what):
        data = io.BytesIO(self.image.blobs[descriptor])
        return Hanging(self, data, what)


class Hanging:
    def __init__(self, source, data, what):
        self.source, self.data, self.what = source, data, what

    def readinto(self, buffer):
        if self.what == "layer 2 of 2":
            assert self.source.reached.wait(60)
            raise RemoteError("broken off")
        if self.what == "layer 1 of 2" and self.data.tell() > 0:
            self.source.reached.set()
            assert self.source.gate.wait(60)
        return self.data.readinto(buffer[: max(1, len(buffer) - 1)])

    def close(self):
        pass


@pytest.mark.parametrize("kind", ["oci:", "dir:", "oci-archive:", "docker://"])
def test_copy_image_thread_that_hung_writes_nowhere_when_all_is_over(
    kind, places, image_of, tmp_path, monkeypatch, registry
):
    monkeypatch.setattr(together, "_GRACE_S", 0.05)
    source = HangingSource(image_of(layers=(os.urandom(5_000_000), b"second layer")))
    before = set(threading.enumerate())
    place = f"{registry.address}/app" if kind == "docker://" else f"{tmp_path}/copy"
    sink = places.sink(kind + place)
    with pytest.raises(RemoteError, match="broken off"):
        copy_image(source, sink, jobs=3)
    sink.close()
    files = [open(tmp_path / f"other-{number}", "wb") for number in range(8)]  # noqa: SIM115
    source.gate.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(0 if "imagers-" not in thread.name else 60)
    for file in files:
        file.close()
    found = {one.name: one.stat().st_size for one in tmp_path.iterdir()}
    assert found == {f"other-{number}": 0 for number in range(8)}
