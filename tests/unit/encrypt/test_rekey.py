# SPDX-License-Identifier: Apache-2.0
import hashlib
import json

import pytest

from imagers.encrypt.image import LayerAction, decrypt_image, encrypt_image
from imagers.encrypt.options import AES256_GCM_HKDF_1MB
from imagers.encrypt.rekey import rekey_image
from imagers.encrypt.schemes.jwe import JWEUnwrapper, JWEWrapper
from imagers.errors import NoMatchingKey, TagMismatch, UsageError
from imagers.model.manifest import parse_manifest


@pytest.fixture
def rekeyed(plain_image, new_sink, load_layout, public_key, private_key):
    """A function: an image for the old key, encrypted anew for the new one; both images."""

    def rekey(name, *, layers=None, change=None, **options):
        sink, path = new_sink("old")
        encrypt_image(
            plain_image(name),
            sink,
            [JWEWrapper([public_key("r2048.pub")])],
            layers=layers,
            compress=None,
        )
        sink.close()
        if change is not None:
            change(path)
        sink, new = new_sink("new")
        try:
            report = rekey_image(
                load_layout(path),
                sink,
                [JWEWrapper([public_key("ec256.pub")])],
                [JWEUnwrapper(private_key("r2048.key"))],
                **options,
            )
        finally:
            sink.close()
        return load_layout(path), load_layout(new), report

    return rekey


@pytest.mark.parametrize("name", ["gzip", "zstd", "mixed", "tiny"])
def test_rekey_gives_new_keys_and_the_same_layers(
    rekeyed, name, plain_image, new_sink, private_key
):
    old, new, report = rekeyed(name)
    assert report.count(LayerAction.ENCRYPTED) == len(report.layers)
    assert not {one.digest for one in old.manifest.layers if one.size} & {
        one.digest for one in new.manifest.layers if one.size
    }
    sink, _ = new_sink("back")
    with pytest.raises(NoMatchingKey):
        decrypt_image(new, sink, [JWEUnwrapper(private_key("r2048.key"))])
    back = decrypt_image(new, sink, [JWEUnwrapper(private_key("ec256.key"))])
    assert parse_manifest(back.raw).layers == plain_image(name).manifest.layers


def test_rekey_leaves_layers_in_the_clear_as_they_are(rekeyed):
    old, new, report = rekeyed("gzip", layers=[0])
    assert [one.action for one in report.layers][1:] == [LayerAction.COPIED] * (
        len(report.layers) - 1
    )
    assert new.manifest.layers[1:] == old.manifest.layers[1:]


def test_rekey_to_the_other_cipher(rekeyed, new_sink, private_key):
    _, new, report = rekeyed("gzip", cipher=AES256_GCM_HKDF_1MB)
    assert {one.cipher for one in report.layers} == {AES256_GCM_HKDF_1MB}
    sink, _ = new_sink("back")
    decrypt_image(new, sink, [JWEUnwrapper(private_key("ec256.key"))], require_encrypted=True)


def test_rekey_of_changed_bytes_raises_and_writes_nothing(rekeyed, tmp_path):
    def change(path):
        """Other ciphertext, with the digest that it has: only the HMAC knows."""
        index = json.loads((path / "index.json").read_text())
        (entry,) = index["manifests"]
        blobs = path / "blobs" / "sha256"
        manifest = json.loads((blobs / entry["digest"][7:]).read_text())
        layer = manifest["layers"][0]
        data = bytearray((blobs / layer["digest"][7:]).read_bytes())
        data[0] ^= 1
        layer["digest"] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        (blobs / layer["digest"][7:]).write_bytes(data)
        raw = json.dumps(manifest).encode()
        entry |= {"digest": f"sha256:{hashlib.sha256(raw).hexdigest()}", "size": len(raw)}
        (blobs / entry["digest"][7:]).write_bytes(raw)
        (path / "index.json").write_text(json.dumps(index))

    with pytest.raises(TagMismatch):
        rekeyed("gzip", change=change)
    assert not (tmp_path / "new").exists()


def test_rekey_of_an_image_in_the_clear_raises(plain_image, new_sink, public_key):
    sink, _ = new_sink()
    with pytest.raises(UsageError, match="no layer of the image is encrypted"):
        rekey_image(plain_image("gzip"), sink, [JWEWrapper([public_key("ec256.pub")])], [])
    with pytest.raises(UsageError, match="at least one recipient"):
        rekey_image(plain_image("gzip"), sink, [], [])
