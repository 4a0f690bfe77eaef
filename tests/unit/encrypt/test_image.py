# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import itertools
import json

import pytest

from imagers.core import Cancellation
from imagers.encrypt.annotations import read_annotations
from imagers.encrypt.image import LayerAction, decrypt_image, encrypt_image, select_layers
from imagers.encrypt.rewrite import Run
from imagers.encrypt.schemes.broker import BrokerKeyUnwrapper, BrokerKeyWrapper
from imagers.encrypt.schemes.jwe import JWEUnwrapper, JWEWrapper
from imagers.errors import (
    Cancelled,
    DigestMismatch,
    KeyRefused,
    LocalError,
    NoMatchingKey,
    PolicyDenied,
    ProviderFailed,
    TagMismatch,
    Unsupported,
    UsageError,
)
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.keys import SecretKey
from imagers.model.manifest import MAX_MANIFEST_BYTES
from imagers.model.media import Compression

KID = "kbs:///default/demo/1"
OCI = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
PLAIN = ["gzip", "mixed", "raw", "tiny", "zstd"]


class Broker:
    def __init__(self, kek=bytes(32)):
        self.kek = kek

    def get(self, uri, *, manifest_digest):
        assert manifest_digest is None, "a plain decryption trusts no image"
        if uri != KID:
            raise KeyRefused("refused", reason="no such key")
        return SecretKey(self.kek)


@pytest.fixture
def rsa(public_key, private_key):
    """A wrapper and its unwrapper."""
    return JWEWrapper([public_key("r2048.pub")]), JWEUnwrapper(private_key("r2048.key"))


@pytest.fixture
def ec(public_key, private_key):
    """Another wrapper and its unwrapper."""
    return JWEWrapper([public_key("ec256.pub")]), JWEUnwrapper(private_key("ec256.key"))


def blobs(path):
    return sorted(blob.name for blob in (path / "blobs" / "sha256").iterdir())


def corrupt(path, descriptor, at=0):
    blob = path / "blobs" / "sha256" / descriptor.digest.hex
    data = bytearray(blob.read_bytes())
    data[at] ^= 1
    blob.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "compress"), list(itertools.product(PLAIN, [None, Compression.GZIP, Compression.ZSTD]))
)
def test_encrypt_and_decrypt_gives_the_same_tars(request, new_sink, load_layout, name, compress):
    rsa = request.getfixturevalue("rsa")
    image = request.getfixturevalue("plain_image")(name)
    sink, path = new_sink("encrypted")
    encrypted = encrypt_image(image, sink, [rsa[0]], compress=compress)
    assert encrypted.count(LayerAction.ENCRYPTED) == len(encrypted.layers)
    assert not encrypted.was_docker
    sink, back = new_sink("decrypted")
    decrypted = decrypt_image(load_layout(path), sink, [rsa[1]], require_encrypted=True)
    result = load_layout(back)
    assert result.manifest.raw == decrypted.raw
    assert result.config.raw == image.config.raw
    for before, after in zip(image.manifest.layers, result.manifest.layers, strict=True):
        assert after.annotations == before.annotations
        if before.media_type != OCI or compress is None:
            assert after == before
        else:
            assert after.media_type == f"{OCI}+{compress.value}"


def test_encrypt_draws_a_key_and_a_nonce_of_its_own_for_each_layer(
    plain_image, new_sink, load_layout, rsa
):
    seen = []
    for run in ("one", "two"):
        sink, path = new_sink(run)
        encrypt_image(plain_image("gzip"), sink, [rsa[0]])
        for layer in load_layout(path).layers():
            info = read_annotations(layer.descriptor, what=layer.what)
            with (
                rsa[1].unwrap(info.wrapped[0], None) as document,
                document.view() as data,
            ):
                private = json.loads(bytes(data))
            seen.append((private["symkey"], private["cipheroptions"]["nonce"], layer.descriptor))
    for column in range(2):
        assert len({one[column] for one in seen}) == 6
    assert len({one[2].digest for one in seen}) == 6


def test_encrypt_writes_the_digest_it_was_handed_into_the_private_options(
    plain_image, new_sink, load_layout, rsa
):
    image = plain_image("raw")
    sink, path = new_sink()
    encrypt_image(image, sink, [rsa[0]])
    for before, layer in zip(image.manifest.layers, load_layout(path).layers(), strict=True):
        info = read_annotations(layer.descriptor, what="x")
        with rsa[1].unwrap(info.wrapped[0], None) as document, document.view() as data:
            assert json.loads(bytes(data))["digest"] == str(before.digest)
            assert len(data) == 193


def test_encrypt_for_several_schemes_opens_for_each(plain_image, new_sink, load_layout, rsa):
    sink, path = new_sink("encrypted")
    kek = SecretKey(bytes(range(32)))
    result = encrypt_image(plain_image("gzip"), sink, [rsa[0], BrokerKeyWrapper(kek, KID)])
    assert result.layers[0].keys[1] == f"broker:{KID}"
    for number, unwrapper in enumerate([rsa[1], BrokerKeyUnwrapper(Broker(bytes(range(32))))]):
        sink, back = new_sink(f"decrypted-{number}")
        decrypted = decrypt_image(load_layout(path), sink, [unwrapper])
        assert load_layout(back).manifest.layers == plain_image("gzip").manifest.layers
        assert decrypted.layers[0].keys == (unwrapper.description,)


def test_encrypt_report_says_what_was_done(plain_image, new_sink, load_layout, rsa):
    image = plain_image("mixed")
    sink, path = new_sink()
    result = encrypt_image(image, sink, [rsa[0]], layers=[-1, 0])
    reports = result.layers
    assert [one.action.value for one in reports] == ["encrypted", "copied", "encrypted"]
    assert [one.index for one in reports] == [0, 1, 2]
    assert [one.media_type for one in reports] == [
        f"{OCI}+gzip+encrypted",
        f"{OCI}+zstd",
        f"{OCI}+gzip+encrypted",
    ]
    assert [one.cipher for one in reports] == [
        "AES_256_CTR_HMAC_SHA256",
        "",
        "AES_256_CTR_HMAC_SHA256",
    ]
    assert [one.source_size for one in reports] == [layer.size for layer in image.manifest.layers]
    assert [one.size for one in reports] == [x.size for x in load_layout(path).manifest.layers]
    assert reports[0].keys == rsa[0].recipients
    assert reports[1].keys == ()
    assert all(one.seconds >= 0 for one in reports)
    assert result.descriptor == load_layout(path).manifest.descriptor


def test_encrypt_again_keeps_encrypted_layers_as_they_are(
    plain_image, new_sink, load_layout, rsa, ec
):
    sink, first = new_sink("first")
    encrypt_image(plain_image("gzip"), sink, [rsa[0]], layers=[0])
    image = load_layout(first)
    sink, second = new_sink("second")
    result = encrypt_image(image, sink, [ec[0]])
    assert [one.action.value for one in result.layers] == ["kept", "encrypted", "encrypted"]
    assert load_layout(second).manifest.layers[0] == image.manifest.layers[0]
    sink, back = new_sink("back")
    decrypt_image(load_layout(second), sink, [rsa[1], ec[1]])
    assert load_layout(back).manifest.layers == plain_image("gzip").manifest.layers


def test_encrypt_nothing_is_refused_unless_it_is_allowed(plain_image, new_sink, load_layout, rsa):
    sink, first = new_sink("first")
    encrypt_image(plain_image("gzip"), sink, [rsa[0]])
    image = load_layout(first)
    sink, second = new_sink("second")
    with pytest.raises(UsageError, match="every selected layer is encrypted already"):
        encrypt_image(image, sink, [rsa[0]])
    with pytest.raises(UsageError, match="nothing to encrypt"):
        encrypt_image(plain_image("gzip"), sink, [rsa[0]], layers=[])
    assert not second.exists()
    result = encrypt_image(image, sink, [rsa[0]], allow_nothing=True)
    assert result.raw == image.manifest.raw
    assert result.count(LayerAction.KEPT) == 3


@pytest.mark.parametrize(
    ("layers", "chosen"), [(None, {0, 1, 2}), ([0], {0}), ([-1, 2], {2}), ([-3], {0}), ([], set())]
)
def test_select_layers_counts_from_both_ends(layers, chosen):
    assert select_layers(3, layers) == chosen


@pytest.mark.parametrize("index", [3, -4, 100])
def test_select_layers_out_of_range_raises(index):
    with pytest.raises(UsageError, match=f"no layer {index}: expected a number from -3 to 2"):
        select_layers(3, [0, index])


def test_select_layers_of_an_image_without_layers_raises():
    with pytest.raises(UsageError, match="it has none at all"):
        select_layers(0, [0])


def test_encrypt_for_nobody_or_with_another_cipher_raises(plain_image, new_sink, rsa):
    sink, path = new_sink()
    with pytest.raises(UsageError, match="at least one recipient"):
        encrypt_image(plain_image("gzip"), sink, [])
    with pytest.raises(Unsupported, match="cipher 'ROT13' is not supported"):
        encrypt_image(plain_image("gzip"), sink, [rsa[0]], cipher="ROT13")
    assert not path.exists()


def test_encrypt_tries_all_recipients_for_all_layers_before_it_writes(plain_image, new_sink, rsa):
    class Fails:
        scheme = "provider.x"
        recipients = ("x",)
        calls = 0

        def wrap(self, _options, _context):
            self.calls += 1
            return b"" if self.calls == 3 else b"packet"

    sink, path = new_sink()
    with pytest.raises(
        ProviderFailed, match=r"layer 3 of 3: the scheme provider\.x gave no packet"
    ):
        encrypt_image(plain_image("gzip"), sink, [rsa[0], Fails()])
    assert not path.exists()


def test_encrypt_beyond_the_size_of_a_manifest_raises_before_it_writes(plain_image, new_sink, rsa):
    class Large:
        scheme = "provider.x"
        recipients = ("x",)

        def wrap(self, _options, _context):
            return bytes(MAX_MANIFEST_BYTES // 4)

    sink, path = new_sink()
    with pytest.raises(UsageError, match="the manifest would have") as caught:
        encrypt_image(plain_image("gzip"), sink, [rsa[0], Large()])
    assert caught.value.hint == "encrypt for fewer recipients"
    assert not path.exists()


def test_encrypt_docker_manifest_becomes_oci_and_says_so(changed_image, new_sink, load_layout, rsa):
    def docker(document):
        document["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
        document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
        for layer in document["layers"]:
            layer["mediaType"] = f"{DOCKER}.gzip"

    image = changed_image("gzip", docker)
    sink, path = new_sink()
    result = encrypt_image(image, sink, [rsa[0]], layers=[1])
    assert result.was_docker
    written = load_layout(path)
    assert written.manifest.document["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert written.manifest.config.media_type == "application/vnd.oci.image.config.v1+json"
    assert [one.media_type for one in written.manifest.layers] == [
        f"{OCI}+gzip",
        f"{OCI}+gzip+encrypted",
        f"{OCI}+gzip",
    ]
    assert written.config.raw == image.config.raw


def test_encrypt_leaves_no_copy_of_the_layer_in_the_manifest(changed_image, new_sink, rsa):
    def embed(document):
        document["layers"][0]["data"] = base64.b64encode(b"the layer in the clear").decode()
        document["layers"][0]["urls"] = ["https://example.org/the-layer-in-the-clear"]

    sink, _ = new_sink()
    result = encrypt_image(changed_image("gzip", embed), sink, [rsa[0]])
    assert b"clear" not in result.raw
    assert base64.b64encode(b"the layer in the clear") not in result.raw


def test_encrypt_replaces_stale_annotations_of_encryption(
    changed_image, new_sink, load_layout, rsa
):
    def stale(document):
        document["layers"][0]["annotations"] = {
            "org.opencontainers.image.enc.keys.pgp": "QQ==",
            "org.opencontainers.image.enc.pubopts": "QQ==",
            "org.example.keep": "yes",
        }

    sink, path = new_sink()
    encrypt_image(changed_image("gzip", stale), sink, [rsa[0]])
    assert set(load_layout(path).manifest.layers[0].annotations) == {
        "org.opencontainers.image.enc.keys.jwe",
        "org.opencontainers.image.enc.pubopts",
        "org.example.keep",
    }


def test_encrypt_leaves_out_what_speaks_of_a_layer_in_the_clear_and_reports_it(
    changed_image, new_sink, load_layout, rsa
):
    toc = "containerd.io/snapshot/stargz/toc.digest"

    def chunked(document):
        for layer in document["layers"]:
            layer["annotations"] = {toc: "sha256:" + "0" * 64, "org.example.keep": "yes"}

    sink, path = new_sink()
    done = encrypt_image(changed_image("gzip", chunked), sink, [rsa[0]], layers=[0])
    assert [layer.left_out for layer in done.layers] == [(toc,), (), ()]
    after = [set(layer.annotations) for layer in load_layout(path).manifest.layers]
    assert toc not in after[0]
    assert "org.example.keep" in after[0]
    assert after[1] == {toc, "org.example.keep"}  # it stays in the clear


def test_encrypt_layer_of_unknown_type_is_refused_if_chosen_and_copied_if_not(
    changed_image, new_sink, load_layout, rsa
):
    def unknown(document):
        document["layers"][1]["mediaType"] = "application/vnd.example"

    image = changed_image("gzip", unknown)
    sink, path = new_sink()
    with pytest.raises(Unsupported, match=r"application/vnd\.example.* of layer \d of \d is not"):
        encrypt_image(image, sink, [rsa[0]])
    assert not path.exists()
    encrypt_image(image, sink, [rsa[0]], layers=[0, 2])
    assert load_layout(path).manifest.layers[1] == image.manifest.layers[1]


@pytest.mark.parametrize("chosen", [True, False], ids=["encrypted", "copied"])
def test_encrypt_of_a_changed_blob_raises_and_leaves_nothing(
    changed_image, new_sink, rsa, tmp_path, chosen
):
    image = changed_image("gzip", dict)
    corrupt(tmp_path / "changed-gzip", image.manifest.layers[2], at=100)
    sink, path = new_sink()
    with pytest.raises(DigestMismatch, match="layer 3 of 3"):
        encrypt_image(image, sink, [rsa[0]], layers=[0, 2] if chosen else [0])
    sink.close()
    assert not path.exists()


def test_encrypt_of_a_tar_with_another_diff_id_raises(changed_image, new_sink, rsa):
    def swap(document):
        document["layers"].reverse()

    sink, path = new_sink()
    with pytest.raises(DigestMismatch, match="diff_id mismatch"):
        encrypt_image(changed_image("raw", swap), sink, [rsa[0]])
    sink.close()
    assert not path.exists()


@pytest.mark.parametrize("work", ["encrypt", "decrypt"])
def test_cancelled_work_leaves_nothing(plain_image, new_sink, load_layout, rsa, work):
    sink, path = new_sink("encrypted")
    image = plain_image("gzip")
    if work == "decrypt":
        encrypt_image(image, sink, [rsa[0]])
        image = load_layout(path)
        sink, path = new_sink("decrypted")
    cancellation = Cancellation()
    cancellation.cancel()
    run, key = (encrypt_image, rsa[0]) if work == "encrypt" else (decrypt_image, rsa[1])
    with pytest.raises(Cancelled):
        run(image, sink, [key], run=Run(cancellation=cancellation))
    sink.close()
    assert not path.exists()


def test_encrypt_that_ends_while_a_source_opens_touches_the_sink_no_more(
    plain_image, new_sink, rsa, monkeypatch
):
    """It may be closed by then."""
    image, cancellation = plain_image("tiny"), Cancellation()
    real = OCILayoutSource.open_raw_blob

    def open_slowly(*args, **names):
        cancellation.cancel()
        return real(*args, **names)

    monkeypatch.setattr(OCILayoutSource, "open_raw_blob", open_slowly)
    sink, path = new_sink()
    with pytest.raises(Cancelled):
        encrypt_image(image, sink, [rsa[0]], run=Run(cancellation=cancellation))
    assert not path.exists()


def test_progress_names_the_layer_and_counts_to_its_size(plain_image, new_sink, load_layout, rsa):
    sink, path = new_sink("encrypted")
    seen = {}
    encrypt_image(
        plain_image("gzip"),
        sink,
        [rsa[0]],
        run=Run(on_progress=lambda news: seen.update({news.what: news.done})),
    )
    sizes = [layer.size for layer in load_layout(path).manifest.layers]
    assert seen == {f"layer {number} of 3": size for number, size in enumerate(sizes, 1)}


def test_result_prints_without_the_packets_of_its_layers(plain_image, new_sink, load_layout, rsa):
    sink, path = new_sink()
    done = encrypt_image(plain_image("gzip"), sink, [rsa[0]])
    image = load_layout(path)
    packet = image.manifest.layers[0].annotations["org.opencontainers.image.enc.keys.jwe"]
    for printed in (repr(done), repr(image)):
        assert packet[:20] not in printed
        assert "schemaVersion" not in printed
        assert len(printed) < 4000
    assert done.descriptor.digest.hex in repr(done)


def test_decrypt_asks_for_all_keys_before_it_writes(plain_image, new_sink, load_layout, rsa, ec):
    sink, first = new_sink("first")
    encrypt_image(plain_image("gzip"), sink, [rsa[0]], layers=[0, 1])
    sink, second = new_sink("second")
    encrypt_image(load_layout(first), sink, [ec[0]])
    sink, path = new_sink("decrypted")
    with pytest.raises(NoMatchingKey, match="layer 3 of 3"):
        decrypt_image(load_layout(second), sink, [rsa[1]])
    assert not path.exists()


@pytest.mark.parametrize("require", [False, True])
def test_decrypt_of_a_partly_plain_image_is_refused_if_all_must_be_encrypted(
    plain_image, new_sink, load_layout, rsa, require
):
    sink, first = new_sink("first")
    encrypt_image(plain_image("gzip"), sink, [rsa[0]], layers=[0])
    sink, path = new_sink("decrypted")
    if require:
        with pytest.raises(PolicyDenied, match="layer 2 of 3: is not encrypted"):
            decrypt_image(load_layout(first), sink, [rsa[1]], require_encrypted=True)
        assert not path.exists()
        return
    result = decrypt_image(load_layout(first), sink, [rsa[1]])
    assert [one.action.value for one in result.layers] == ["decrypted", "copied", "copied"]


def test_decrypt_holds_plain_layers_to_their_diff_ids_too(
    changed_image, new_sink, load_layout, rsa
):
    def swap(document):
        document["layers"][1:] = document["layers"][:0:-1]

    sink, path = new_sink("encrypted")
    encrypt_image(changed_image("gzip", swap), sink, [rsa[0]], layers=[0])
    sink, back = new_sink("decrypted")
    with pytest.raises(DigestMismatch, match=r"layer [23] of 3"):  # both are wrong
        decrypt_image(load_layout(path), sink, [rsa[1]])
    sink.close()
    assert not back.exists()
    sink, back = new_sink("unchecked")  # and to nothing else, if that is left out
    decrypt_image(load_layout(path), sink, [rsa[1]], skip_diff_id=True)
    sink.close()
    assert back.exists()


def test_decrypt_of_a_changed_blob_whose_digest_was_renewed_raises_tag_mismatch(
    plain_image, new_sink, load_layout, rsa
):
    sink, path = new_sink("encrypted")
    encrypt_image(plain_image("gzip"), sink, [rsa[0]])
    image = load_layout(path)
    layer = image.manifest.layers[0]
    blob = bytearray((path / "blobs" / "sha256" / layer.digest.hex).read_bytes())
    blob[-1] ^= 0x80
    digest = hashlib.sha256(blob).hexdigest()
    (path / "blobs" / "sha256" / digest).write_bytes(blob)
    object.__setattr__(layer.digest, "hex", digest)
    sink, back = new_sink("decrypted")
    with pytest.raises(TagMismatch, match="layer 1 of 3"):
        decrypt_image(image, sink, [rsa[1]])
    sink.close()
    assert not back.exists()


class FullDisk(OCILayoutSink):
    """A layout on a disk that has no room for blobs."""

    def stage_blob(self):
        return FullFile()


class FullFile:
    def __init__(self):
        self.file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115  # closed by abort

    def fileno(self):
        return self.file.fileno()

    def commit(self, *_, **__):
        raise AssertionError("nothing may be published")

    def abort(self):
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.abort()


@pytest.mark.parametrize("work", ["encrypt", "decrypt"])
def test_a_full_disk_is_a_local_error_and_leaves_no_image(
    plain_image, new_sink, load_layout, rsa, work
):
    sink, path = new_sink("encrypted")
    encrypt_image(plain_image("gzip"), sink, [rsa[0]])
    full_path = path.with_name("full")
    full = FullDisk(full_path, "v1", name="oci:full")
    image, run, key = plain_image("gzip"), encrypt_image, rsa[0]
    if work == "decrypt":
        image, run, key = load_layout(path), decrypt_image, rsa[1]
    with pytest.raises(LocalError, match="no space left"):
        run(image, full, [key])
    assert not full_path.exists()


def test_images_go_by_name_or_by_digest_only(plain_image, new_sink, rsa):
    sink, path = new_sink()
    result = encrypt_image(plain_image("gzip"), sink, [rsa[0]], run=Run(by_name=False))
    assert result.descriptor.digest.hex in blobs(path)
    assert not (path / "index.json").exists()


def test_encrypt_some_layers_beside_the_plain_image_copies_nothing_twice(
    changed_image, load_layout, rsa, tmp_path
):
    image = changed_image("gzip", dict)
    path = tmp_path / "changed-gzip"
    before = blobs(path)
    sink = OCILayoutSink(path, "encrypted", name="oci:changed-gzip:encrypted")
    encrypt_image(image, sink, [rsa[0]], layers=[0])
    sink.close()
    assert len(blobs(path)) == len(before) + 2  # the encrypted layer and the manifest
    sink = OCILayoutSink(path, "decrypted", name="oci:changed-gzip:decrypted")
    reports = decrypt_image(load_layout(path, "encrypted"), sink, [rsa[1]]).layers
    sink.close()
    assert [one.action.value for one in reports] == ["decrypted", "copied", "copied"]
    assert load_layout(path, "decrypted").manifest.layers == image.manifest.layers
