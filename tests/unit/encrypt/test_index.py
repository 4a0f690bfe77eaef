# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
from dataclasses import replace

import pytest

from imagers.encrypt.image import LayerAction, decrypt_image, encrypt_image
from imagers.encrypt.index import rewrite_index
from imagers.encrypt.rewrite import Run
from imagers.encrypt.schemes.jwe import JWEUnwrapper, JWEWrapper
from imagers.encrypt.sealing import SharedLayers
from imagers.errors import FormatError, SizeMismatch, UsageError, VerificationError
from imagers.layout.oci_layout import OCILayoutSource
from imagers.model.digest import digest_of, parse_digest
from imagers.model.manifest import RawManifest, parse_manifest
from imagers.model.media import DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST


@pytest.fixture
def make_index(vectors, tmp_path):
    """A function: a layout with an index of plain images of the vectors, and its source."""

    def make(*entries, media_type=OCI_INDEX):
        layout = tmp_path / "index"
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)

        def put(data):
            digest = hashlib.sha256(data).hexdigest()
            (blobs / digest).write_bytes(data)
            return {"digest": f"sha256:{digest}", "size": len(data)}

        found = []
        for name, platform in entries:
            source = vectors / "plain" / name
            for blob in (source / "blobs" / "sha256").iterdir():
                (blobs / blob.name).write_bytes(blob.read_bytes())
            (entry,) = json.loads((source / "index.json").read_text())["manifests"]
            os_, _, architecture = platform.partition("/")
            manifest = json.loads((blobs / entry["digest"][7:]).read_text())
            config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
            config |= {"os": os_, "architecture": architecture}
            manifest["config"] |= put(json.dumps(config).encode())
            found.append(
                {
                    "mediaType": OCI_MANIFEST,
                    **put(json.dumps(manifest).encode()),
                    "annotations": {"note": name},
                    "platform": {"os": os_, "architecture": architecture},
                }
            )
        index = {"schemaVersion": 2, "mediaType": media_type, "manifests": found, "x": 1}
        top = put(json.dumps(index).encode()) | {
            "mediaType": media_type,
            "annotations": {"org.opencontainers.image.ref.name": "v1"},
        }
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
        (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        return OCILayoutSource(layout, "v1", name="oci:index")

    return make


def encrypt(source, sink, public_key, **options):
    shared = SharedLayers()
    wrappers = [JWEWrapper([public_key("ec256.pub")])]
    return rewrite_index(
        source,
        sink,
        lambda image: encrypt_image(
            image, sink, wrappers, shared=shared, run=Run(by_name=False), allow_nothing=True
        ),
        **options,
    )


def test_image_for_another_platform_than_its_entry_says_is_refused(make_index, new_sink):
    source = make_index(("gzip", "linux/amd64"))
    index = json.loads(source.read_manifest().raw)
    index["manifests"][0]["platform"]["architecture"] = "arm64"
    raw = json.dumps(index).encode()
    sink, _ = new_sink()
    top = RawManifest(raw, OCI_INDEX, digest_of(raw))
    with pytest.raises(VerificationError, match="'linux/arm64', got one for 'linux/amd64'"):
        rewrite_index(source, sink, lambda image: decrypt_image(image, sink, []), top=top)
    sink.close()


def test_index_is_rewritten_with_all_its_images_and_shared_layers_once(
    make_index, new_sink, public_key, private_key
):
    source = make_index(("gzip", "linux/amd64"), ("gzip", "linux/arm64"), ("tiny", "linux/386"))
    sink, path = new_sink()
    done = encrypt(source, sink, public_key)
    sink.close()
    assert [platform for platform, _ in done.images] == ["linux/amd64", "linux/arm64", "linux/386"]
    first, second, third = (image for _, image in done.images)
    assert first.count(LayerAction.ENCRYPTED) == len(first.layers)
    assert second.count(LayerAction.SHARED) == len(second.layers)
    assert third.count(LayerAction.ENCRYPTED) == len(third.layers)
    assert parse_manifest(first.raw).layers == parse_manifest(second.raw).layers
    document = json.loads(done.raw)
    assert document["x"] == 1
    assert [one["annotations"]["note"] for one in document["manifests"]] == ["gzip", "gzip", "tiny"]
    assert [one["digest"] for one in document["manifests"]] == [
        str(image.descriptor.digest) for _, image in done.images
    ]
    back, _ = new_sink("back")
    shared = SharedLayers()
    encrypted = OCILayoutSource(path, "v1", name="oci:out")
    opened = rewrite_index(
        encrypted,
        back,
        lambda image: decrypt_image(
            image,
            back,
            [JWEUnwrapper(private_key("ec256.key"))],
            shared=shared,
            run=Run(by_name=False),
        ),
    )
    plain = [
        parse_manifest(source.read_manifest(entry).raw).layers
        for entry in dict.fromkeys(
            parse_digest_of(one) for one in json.loads(source.read_manifest().raw)["manifests"]
        )
    ]
    assert [one.digest for one in parse_manifest(opened.images[0][1].raw).layers] == [
        one.digest for one in plain[0]
    ]
    assert opened.images[1][1].count(LayerAction.SHARED) == len(second.layers)


def test_layers_that_images_share_lose_what_speaks_of_them_in_the_clear_in_all(
    make_index, new_sink, public_key
):
    """The second image has the annotation on a layer that the first has without it."""
    source = make_index(("tiny", "linux/amd64"), ("tiny", "linux/arm64"))
    chunked = "io.github.containers.zstd-chunked.manifest-position"
    sink, _ = new_sink()
    shared = SharedLayers()
    wrappers = [JWEWrapper([public_key("ec256.pub")])]
    seen = []

    def change(image):
        layers = [
            replace(one, annotations={chunked: "1:2:3:1"}) if seen else one
            for one in image.manifest.layers
        ]
        seen.append(image)
        image = replace(image, manifest=replace(image.manifest, layers=tuple(layers)))
        return encrypt_image(image, sink, wrappers, shared=shared, run=Run(by_name=False))

    done = rewrite_index(source, sink, change)
    _, second = (image for _, image in done.images)
    assert {one.left_out for one in second.layers} == {(chunked,)}
    assert all(chunked not in one.annotations for one in parse_manifest(second.raw).layers)


def parse_digest_of(entry):
    return parse_digest(entry["digest"])


def test_attestations_are_left_out_and_told(make_index, new_sink, public_key):
    source = make_index(("gzip", "linux/amd64"), ("tiny", "unknown/unknown"))
    sink, _ = new_sink()
    done = encrypt(source, sink, public_key)
    assert len(json.loads(done.raw)["manifests"]) == 1
    assert len(done.left_out) == 1


@pytest.mark.parametrize(
    "members",
    [
        {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
        {"artifactType": "application/vnd.example.sbom"},
        {"mediaType": "application/vnd.example"},
        {"platform": None, "artifactType": "a/b"},
    ],
)
def test_entries_that_say_that_they_are_no_images_are_left_out(
    make_index, new_sink, public_key, members
):
    source = make_index(("gzip", "linux/amd64"), ("tiny", "linux/arm64"))
    index = json.loads(source.read_manifest().raw)
    index["manifests"][1] |= members
    raw = json.dumps(index).encode()
    sink, _ = new_sink()
    done = encrypt(source, sink, public_key, top=RawManifest(raw, OCI_INDEX, digest_of(raw)))
    assert len(json.loads(done.raw)["manifests"]) == 1
    (left,) = done.left_out
    assert str(left.descriptor.digest) == index["manifests"][1]["digest"]
    assert left.artifact_type == members.get(
        "artifactType", "attestation-manifest" if "annotations" in members else ""
    )
    assert (left.subject, left.platform) == (None, "")


@pytest.mark.parametrize("about", ["an image", "another index", "no digest"])
def test_attestation_that_is_left_out_says_which_image_it_was_about(
    make_index, new_sink, public_key, about
):
    """As BuildKit writes it."""
    source = make_index(("gzip", "linux/amd64"), ("tiny", "unknown/unknown"))
    index = json.loads(source.read_manifest().raw)
    subject = {
        "an image": index["manifests"][0]["digest"],
        "another index": "sha256:" + "0" * 64,
        "no digest": "../../etc",
    }[about]
    index["manifests"][1]["annotations"] = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": subject,
    }
    raw = json.dumps(index).encode()
    sink, _ = new_sink()
    done = encrypt(source, sink, public_key, top=RawManifest(raw, OCI_INDEX, digest_of(raw)))
    (left,) = done.left_out
    assert left.artifact_type == "attestation-manifest"
    assert left.platform == ("linux/amd64" if about == "an image" else "")
    assert left.subject == (None if about == "no digest" else parse_digest(subject))


def test_entry_that_turns_out_to_be_an_artifact_is_left_out(make_index, new_sink, public_key):
    """Nothing in the entry says so; helm charts are in indexes like this."""
    source = make_index(("gzip", "linux/amd64"))
    index = json.loads(source.read_manifest().raw)
    blob = {"digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}", "size": 2}
    chart = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", **blob},
            "layers": [{"mediaType": "application/octet-stream", **blob}],
        }
    ).encode()
    digest = digest_of(chart)
    index["manifests"].append(
        {"mediaType": OCI_MANIFEST, "digest": str(digest), "size": len(chart)}
    )
    raw = json.dumps(index).encode()

    class Source:
        name, open_blob, open_raw_blob = source.name, source.open_blob, source.open_raw_blob

        def read_manifest(self, asked=None):
            if asked == digest:
                return RawManifest(chart, OCI_MANIFEST, digest)
            return source.read_manifest(asked)

    sink, _ = new_sink()
    done = encrypt(Source(), sink, public_key, top=RawManifest(raw, OCI_INDEX, digest_of(raw)))
    (left,) = done.left_out
    assert left.descriptor.digest == digest
    assert left.artifact_type == "application/vnd.cncf.helm.config.v1+json"
    assert len(done.images) == 1


def test_docker_index_becomes_an_oci_index(make_index, new_sink, public_key):
    source = make_index(("gzip", "linux/amd64"), media_type=DOCKER_INDEX)
    sink, _ = new_sink()
    done = encrypt(source, sink, public_key)
    assert done.was_docker
    assert json.loads(done.raw)["mediaType"] == done.descriptor.media_type == OCI_INDEX


def test_check_is_asked_before_the_index_has_a_name(make_index, new_sink, public_key):
    def refuse(images):
        assert len(images) == 1
        raise UsageError("not this one")

    sink, path = new_sink()
    with pytest.raises(UsageError, match="not this one"):
        encrypt(make_index(("gzip", "linux/amd64")), sink, public_key, check=refuse)
    sink.close()
    assert not path.exists()


def test_index_without_images_or_no_index_raises(make_index, new_sink, public_key, vectors):
    sink, _ = new_sink()
    with pytest.raises(UsageError, match="holds no image of a platform"):
        encrypt(make_index(("tiny", "unknown/unknown")), sink, public_key)
    single = OCILayoutSource(vectors / "plain" / "tiny", "v1", name="oci:tiny")
    with pytest.raises(UsageError, match="oci:tiny: is one image and no index"):
        encrypt(single, sink, public_key)


def test_entry_with_another_size_raises(make_index, new_sink, public_key, tmp_path):
    make_index(("gzip", "linux/amd64"))
    layout = tmp_path / "index"
    top = json.loads((layout / "index.json").read_text())
    blob = layout / "blobs" / "sha256" / top["manifests"][0]["digest"][7:]
    document = json.loads(blob.read_text())
    document["manifests"][0]["size"] += 1
    raw = json.dumps(document).encode()
    digest = hashlib.sha256(raw).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(raw)
    top["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(raw)}
    (layout / "index.json").write_text(json.dumps(top))
    sink, _ = new_sink()
    with pytest.raises((SizeMismatch, FormatError)):
        encrypt(OCILayoutSource(layout, "v1", name="oci:index"), sink, public_key)
