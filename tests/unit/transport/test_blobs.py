# SPDX-License-Identifier: Apache-2.0
"""A blob that stays as it is: which way it takes, and that nothing else comes into the sink."""

import pytest

from imagers.core import Cancellation, Watch
from imagers.errors import Cancelled, DigestMismatch
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.transport.blobs import Way, bring_blob

BLOB = b"a layer that stays" * 1000
OTHER = b"another of its size" * 1000


@pytest.fixture
def bring(places):
    """A function: the way that the blob takes between two places, and the news of it."""

    def bring(source, sink, data=BLOB, stop=None):
        descriptor = Descriptor("text/plain", digest_of(data), len(data))
        news = []
        with Watch(news.append, "layer 1 of 1", len(data)) as watch:
            way = bring_blob(
                descriptor,
                places.source(source),
                places.sink(sink),
                what="layer 1 of 1",
                stop=stop or Cancellation(),
                watch=watch,
            )
        return way, news

    return bring


@pytest.fixture
def put(places):
    def put(where, data=BLOB):
        descriptor = Descriptor("text/plain", digest_of(data), len(data))
        places.sink(where).put_blob(descriptor, data, what="blob")

    return put


def test_blob_that_the_sink_has_is_not_moved(registry, tmp_path, put, bring):
    put(f"oci:{tmp_path}/here:v1")
    put(f"{registry.address}/app:v1")
    registry.requests.clear()
    way, news = bring(f"oci:{tmp_path}/here:v1", f"{registry.address}/app:v1")
    assert way is Way.THERE
    asked = [(one.method, one.status) for one in registry.requests if "/blobs/" in one.path]
    assert asked == [("HEAD", 200)]
    assert len(news) == 1  # its end


def test_blob_of_another_repository_of_the_registry_is_mounted(registry, put, bring):
    put(f"{registry.address}/app:v1")
    registry.requests.clear()
    way, news = bring(f"{registry.address}/app:v1", f"{registry.address}/other:v1")
    assert way is Way.MOUNTED
    asked = {one.method for one in registry.requests if "/blobs/" in one.path}
    assert asked == {"HEAD", "POST"}
    assert len(news) == 1


def test_blob_passes_here_between_two_places(registry, tmp_path, put, bring):
    put(f"{registry.address}/app:v1")
    for source, sink in (
        (f"{registry.address}/app:v1", f"oci:{tmp_path}/there:v1"),
        (f"oci:{tmp_path}/there:v1", f"{registry.address}/sent:v1"),
        (f"oci:{tmp_path}/there:v1", f"dir:{tmp_path}/directory"),
    ):
        way, news = bring(source, sink)
        assert way is Way.MOVED
        assert (news[0].done, news[-2].done) == (0, len(BLOB))
        assert news[-1].seconds is not None
    assert registry.read(str(digest_of(BLOB))) == BLOB


@pytest.mark.parametrize("sink", ["oci", "docker"])
def test_blob_with_other_bytes_does_not_come_into_the_sink(registry, tmp_path, put, bring, sink):
    put(f"oci:{tmp_path}/here:v1")
    name = digest_of(BLOB)
    (tmp_path / "here" / "blobs" / "sha256" / name.hex).write_bytes(OTHER[: len(BLOB)])
    there = f"oci:{tmp_path}/there:v1" if sink == "oci" else f"{registry.address}/app:v1"
    with pytest.raises(DigestMismatch, match="layer 1 of 1") as caught:
        bring(f"oci:{tmp_path}/here:v1", there)
    assert caught.value.expected == name
    assert not (tmp_path / "there" / "blobs" / "sha256" / name.hex).exists()
    assert not any(one.method == "PUT" and one.status == 201 for one in registry.requests)


def test_nothing_comes_into_the_sink_after_the_end(tmp_path, put, bring):
    put(f"oci:{tmp_path}/here:v1")
    stop = Cancellation()
    stop.cancel()
    with pytest.raises(Cancelled):
        bring(f"oci:{tmp_path}/here:v1", f"oci:{tmp_path}/there:v1", stop=stop)
    assert not (tmp_path / "there").exists() or not list((tmp_path / "there").rglob("sha256/*"))
