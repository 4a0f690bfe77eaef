# SPDX-License-Identifier: Apache-2.0
"""Whatever is encrypted is opened again, to the same diff_ids, by `decrypt` and by `pull`.

Also where the media type of a layer is not what its bytes are: skopeo writes such manifests
from archives with plain layers, and every engine looks at the bytes.
"""

import gzip
import io
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagers.encrypt import sealing
from imagers.encrypt.image import decrypt_image, encrypt_image
from imagers.encrypt.options import AES256_GCM_HKDF_1MB, AES_256_CTR_HMAC_SHA256
from imagers.encrypt.rekey import rekey_image
from imagers.encrypt.schemes.jwe import JWEUnwrapper, JWEWrapper
from imagers.errors import Unsupported
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.descriptor import Platform
from imagers.model.digest import digest_of
from imagers.model.image import load_image
from imagers.model.manifest import parse_manifest
from imagers.model.media import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_NONDISTRIBUTABLE,
    Compression,
    compression_of,
    compression_of_bytes,
)
from imagers.pull.named import open_image
from imagers.pull.run import PullOptions, pull_image
from imagers.sign.policy_json import parse_policy
from imagers.testing import make_image, make_layer

NAMES = ["file", "\x1f\x8b\x08", "BZh91AY", "(\xb5/\xfd", "\xfd7zXZ", "PK\x03\x04", "d/e"]
OCI_TYPES = [
    *(OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD),
    *(OCI_NONDISTRIBUTABLE, OCI_NONDISTRIBUTABLE + "+gzip", OCI_NONDISTRIBUTABLE + "+zstd"),
]
DOCKER_TYPES = [DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD]


def tar_of(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def members(data):
    return b"".join(gzip.compress(data[at : at + 3000]) for at in range(0, len(data) + 1, 3000))


def frames(data):
    skippable = b"\x5a\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    return skippable + zstandard.compress(data)


PACKINGS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip with zeros behind it": lambda data: gzip.compress(data) + bytes(100),
    "gzip of several members": members,
    "zstd": zstandard.compress,
    "zstd of several frames": lambda data: zstandard.compress(data[:9]) + frames(data[9:]),
}

# None: no tar at all, an empty layer.
contents = st.none() | st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3000), max_size=3)


def tar_with(content):
    if content is None:
        return b""
    return tar_of({name: name.encode("utf-8") * size for name, size in content.items()})


def image_at(path, layers, *, docker=False):
    """An image in a layout; `layers` are media types with stored bytes and tars."""
    made = [make_layer(tar, stored=stored, media_type=kind) for kind, stored, tar in layers]
    make_image(*made, docker=docker).save(path)
    return load(path)


def load(path):
    source = OCILayoutSource(path, None, name=f"oci:{path}")
    answer = source.read_manifest()
    return load_image(parse_manifest(answer.raw, media_type=answer.media_type), source)


def pull(path, bundle, unwrappers=()):
    policy = parse_policy(b'{"default": [{"type": "insecureAcceptAnything"}]}')
    options = PullOptions(policy, Platform("linux", "amd64"))
    with open_image(f"oci:{path}") as image:
        return pull_image(image, bundle, options, unwrappers=unwrappers)


def check_honest(image):
    """The types of an image that we wrote say what the bytes are."""
    for layer in image.layers():
        with layer.open_stored() as stream:
            data = bytearray(layer.descriptor.size)
            at = 0
            with memoryview(data) as view:
                while at < len(data) and (count := stream.readinto(view[at:])):
                    at += count
        told = compression_of(layer.descriptor.media_type)
        assert compression_of_bytes(bytes(data[:512]), what="layer") is told


def to_layout(path, write):
    sink = OCILayoutSink(path, None, name=f"oci:{path}")
    try:
        write(sink)
    finally:
        sink.close()
    return load(path)


layers_of_all_kinds = st.lists(
    st.tuples(contents, st.sampled_from(sorted(PACKINGS)), st.integers(0, 5)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layers=layers_of_all_kinds,
    docker=st.booleans(),
    cipher=st.sampled_from([AES_256_CTR_HMAC_SHA256, AES256_GCM_HKDF_1MB]),
    compress=st.sampled_from([None, Compression.GZIP, Compression.ZSTD]),
    again=st.booleans(),
)
def test_what_is_encrypted_is_opened_to_the_same_diff_ids(
    public_key, private_key, layers, docker, cipher, compress, again
):
    types = DOCKER_TYPES * 2 if docker else OCI_TYPES
    wrappers = [JWEWrapper([public_key("ec256.pub")])]
    unwrappers = [JWEUnwrapper(private_key("ec256.key"))]
    place = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        made = []
        for content, packing, kind in layers:
            tar = tar_with(content)
            made.append((types[kind], PACKINGS[packing](tar), tar))
        image = image_at(place / "plain", made, docker=docker)
        encrypted = to_layout(
            place / "encrypted",
            lambda sink: encrypt_image(image, sink, wrappers, cipher=cipher, compress=compress),
        )
        if again:
            encrypted = to_layout(
                place / "again",
                lambda sink: rekey_image(encrypted, sink, wrappers, unwrappers, cipher=cipher),
            )
        opened = to_layout(
            place / "opened", lambda sink: decrypt_image(encrypted, sink, unwrappers)
        )
        check_honest(opened)
        for path in ("plain", "again" if again else "encrypted", "opened"):
            report = pull(place / path, place / "bundle", unwrappers)
            assert [str(one.opened.diff_id) for one in report.layers] == [
                str(digest_of(tar)) for *_, tar in made
            ]
            shutil.rmtree(place / "bundle")
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize(
    ("media_type", "packing"),
    [(OCI_LAYER, "gzip"), (OCI_LAYER, "zstd"), (OCI_LAYER_GZIP, "plain"), (OCI_LAYER_ZSTD, "gzip")],
)
@pytest.mark.parametrize("cipher", [AES_256_CTR_HMAC_SHA256, AES256_GCM_HKDF_1MB])
def test_what_others_encrypted_under_a_wrong_type_is_opened(
    tmp_path, public_key, private_key, monkeypatch, media_type, packing, cipher
):
    """As skopeo does, which looks neither at the bytes nor at the diff_id."""
    tar = tar_of({"a": b"data"})
    image = image_at(tmp_path / "plain", [(media_type, PACKINGS[packing](tar), tar)])
    wrappers = [JWEWrapper([public_key("ec256.pub")])]
    unwrappers = [JWEUnwrapper(private_key("ec256.key"))]
    with monkeypatch.context() as patch:
        patch.setattr(sealing, "look_at", lambda source, *, told, **_: (source, told))
        patch.setattr(sealing, "_sees_tar", lambda _: False)
        to_layout(
            tmp_path / "encrypted",
            lambda sink: encrypt_image(image, sink, wrappers, compress=None, cipher=cipher),
        )
    encrypted = load(tmp_path / "encrypted")
    assert encrypted.manifest.layers[0].media_type == media_type + "+encrypted"
    opened = to_layout(tmp_path / "opened", lambda sink: decrypt_image(encrypted, sink, unwrappers))
    check_honest(opened)
    report = pull(tmp_path / "encrypted", tmp_path / "bundle", unwrappers)
    assert report.layers[0].opened.diff_id == digest_of(tar)


@pytest.mark.parametrize(("start", "name"), [(b"BZh91AY&SY", "bzip2"), (b"\xfd7zXZ\x00\x00", "xz")])
@pytest.mark.parametrize("media_type", [OCI_LAYER, OCI_LAYER_GZIP])
def test_a_compression_that_is_not_opened_is_named(tmp_path, public_key, start, name, media_type):
    stored = start + bytes(1000)
    image = image_at(tmp_path / "plain", [(media_type, stored, stored)])
    wrappers = [JWEWrapper([public_key("ec256.pub")])]
    message = f"layer 1 of 1: is compressed with {name}, which is not supported"
    with pytest.raises(Unsupported, match=message):
        to_layout(tmp_path / "encrypted", lambda sink: encrypt_image(image, sink, wrappers))
    with pytest.raises(Unsupported, match=message):
        pull(tmp_path / "plain", tmp_path / "bundle")
