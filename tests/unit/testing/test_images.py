# SPDX-License-Identifier: Apache-2.0
"""Images for tests are images: what reads them finds what was asked for."""

import gzip
import io
import json
import tarfile
from dataclasses import replace

import pytest
import zstandard

from imagers.model.descriptor import Platform
from imagers.model.digest import digest_of
from imagers.model.image import load_image
from imagers.model.manifest import parse_index, parse_manifest
from imagers.model.media import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Compression,
)
from imagers.testing import (
    EmbeddedRegistry,
    MemoryRepository,
    TarEntry,
    make_image,
    make_index,
    make_layer,
    make_tar,
)
from imagers.transport import open_source, parse_image_name


def read_tar(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(one, tar.extractfile(one).read() if one.isreg() else b"") for one in tar]


def test_make_tar_has_each_kind_of_entry_as_tarfile_reads_it():
    data = make_tar(
        ("f", b"content"),
        ("s", "target"),
        TarEntry.file("g", "text", mode=0o4755, uid=7, mtime=5),
        TarEntry.directory("d", mode=0o1777),
        TarEntry.link("h", "f"),
        TarEntry.other("c", tarfile.CHRTYPE, devmajor=1, devminor=3),
        TarEntry.file("x", pax_headers={"SCHILY.xattr.user.a": "1"}),
    )
    (f, content), (s, _), (g, text), (d, _), (h, _), (c, _), (x, _) = read_tar(data)
    assert (f.name, content, f.mode, f.uid, f.mtime) == ("f", b"content", 0o644, 0, 0)
    assert (s.issym(), s.linkname) == (True, "target")
    assert (text, g.mode, g.uid, g.mtime) == (b"text", 0o4755, 7, 5)
    assert (d.isdir(), d.mode) == (True, 0o1777)
    assert (h.islnk(), h.linkname) == (True, "f")
    assert (c.ischr(), c.devmajor, c.devminor) == (True, 1, 3)
    assert x.pax_headers["SCHILY.xattr.user.a"] == "1"


def test_make_tar_without_an_end_and_in_other_forms():
    entry = TarEntry.file("n" * 120, b"1")
    whole = make_tar(entry)
    assert whole == make_tar(entry, end=False) + bytes(1024)
    assert whole == make_tar(entry)
    gnu = make_tar(entry, form=tarfile.GNU_FORMAT)
    assert gnu != whole
    assert read_tar(gnu)[0][0].name == entry.name


@pytest.mark.parametrize(
    ("compression", "media_type", "unpack"),
    [
        (Compression.NONE, OCI_LAYER, bytes),
        (Compression.GZIP, OCI_LAYER_GZIP, gzip.decompress),
        (Compression.ZSTD, OCI_LAYER_ZSTD, zstandard.decompress),
    ],
)
def test_make_layer_stores_what_its_type_says(compression, media_type, unpack):
    layer = make_layer(b"a tar", compression, annotations={"a": "b"}, urls=("https://x.example",))
    assert layer.descriptor.media_type == media_type
    assert unpack(layer.stored) == layer.tar == b"a tar"
    assert layer.diff_id == digest_of(b"a tar")
    assert (layer.descriptor.digest, layer.descriptor.size) == (
        digest_of(layer.stored),
        len(layer.stored),
    )
    assert layer.descriptor.annotations == {"a": "b"}
    assert layer.descriptor.urls == ("https://x.example",)
    assert make_layer(b"a tar", stored=b"other", media_type="x/y").stored == b"other"


def test_make_image_agrees_with_its_config_layer_by_layer():
    tars = make_tar(("a", b"1")), make_tar(("b", b"2"))
    platform = Platform("linux", "arm", "v7")
    made = make_image(tars[0], make_layer(tars[1], Compression.ZSTD), platform=platform)
    image = load_image(parse_manifest(made.raw), MemoryRepository(made))
    assert [one.diff_id for one in image.layers()] == [digest_of(one) for one in tars]
    assert image.config.platform == platform
    assert made.descriptor.platform == platform
    assert make_image(*tars) == make_image(*tars)


def test_make_image_says_what_it_is_told_in_place_of_the_usual():
    layer = make_layer(b"x")
    wrong = replace(layer, descriptor=replace(layer.descriptor, size=7))
    made = make_image(
        wrong,
        config={"os": ..., "config": {"User": "app"}},
        manifest={"annotations": {"a": "b"}},
        docker=True,
    )
    manifest = json.loads(made.raw)
    config = json.loads(next(iter(made.blobs.values())))
    assert manifest["layers"][0]["size"] == 7
    assert (manifest["annotations"], manifest["mediaType"]) == ({"a": "b"}, DOCKER_MANIFEST)
    assert manifest["config"]["mediaType"] == DOCKER_CONFIG
    assert "os" not in config
    assert config["config"] == {"User": "app"}
    assert make_image(manifest=b"no JSON").raw == b"no JSON"
    assert next(iter(make_image(config=b"{}").blobs.values())) == b"{}"


@pytest.fixture
def index():
    arm64 = Platform("linux", "arm64")
    return make_index(make_image(b"one"), make_image(b"two", platform=arm64))


def reads_all(source, index):
    """Whether the source has the index, its images, and all that these name."""
    answer = source.read_manifest()
    assert (answer.raw, answer.media_type) == (index.raw, index.media_type)
    for entry, child in zip(parse_index(answer.raw).manifests, index.children, strict=True):
        assert entry == child.descriptor
        image = load_image(parse_manifest(source.read_manifest(entry.digest).raw), source)
        for layer in image.layers():
            with layer.open_stored() as stream:
                while stream.readinto(memoryview(bytearray(100))):
                    pass
    return True


def test_index_is_written_into_memory_a_layout_and_a_registry(index, tmp_path):
    assert reads_all(MemoryRepository(index), index)
    name = index.save(tmp_path / "layout", "v2")
    assert name == f"oci:{tmp_path}/layout:v2"
    with open_source(parse_image_name(name)) as source:
        assert reads_all(source, index)
    with EmbeddedRegistry() as registry:
        name = index.push(f"{registry.address}/team/app:v1")
        assert name == f"docker://{registry.address}/team/app:v1"
        with open_source(parse_image_name(name)) as source:
            assert reads_all(source, index)


def test_make_index_takes_entries_for_what_is_not_there():
    missing = make_image(b"one").descriptor
    index = make_index(missing, index={"annotations": {"a": "b"}})
    assert index.children == ()
    assert parse_index(index.raw).manifests == (missing,)
    assert json.loads(index.raw)["annotations"] == {"a": "b"}


def test_index_in_an_index_is_saved_with_all_that_is_in_it(index, tmp_path):
    outer = make_index(index)
    outer.save(tmp_path / "layout")
    with open_source(parse_image_name(f"oci:{tmp_path}/layout:v1")) as source:
        assert source.read_manifest().raw == outer.raw
        assert source.read_manifest(index.digest).raw == index.raw
        for child in index.children:
            assert source.read_manifest(child.digest).raw == child.raw
