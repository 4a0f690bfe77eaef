# SPDX-License-Identifier: Apache-2.0
"""What holds for whole images, whatever bit of them is changed, with each cipher and scheme."""

import base64
import hashlib
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from imagers.encrypt.image import decrypt_image, encrypt_image
from imagers.encrypt.options import AES256_GCM_HKDF_1MB, AES_256_CTR_HMAC_SHA256
from imagers.encrypt.recipients import parse_decryption_key, parse_recipients
from imagers.encrypt.schemes.broker import BrokerKeyUnwrapper, BrokerKeyWrapper
from imagers.encrypt.wrappers import opened_unwrappers, opened_wrappers
from imagers.errors import DigestMismatch, ImagersError, KeyUnavailable, PolicyDenied
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.image import load_image
from imagers.model.keys import SecretKey
from imagers.model.manifest import parse_manifest

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"
KEYS = VECTORS / "keys"
KID = "kbs:///default/image/key"
ENC = "org.opencontainers.image.enc."
CIPHERS = [AES_256_CTR_HMAC_SHA256, AES256_GCM_HKDF_1MB]
SCHEMES = {
    "jwe": (f"jwe:{KEYS}/ec256.pub", [f"{KEYS}/ec256.key"]),
    "pkcs7": (f"pkcs7:{KEYS}/cert1.crt", [f"{KEYS}/cert1.key", f"{KEYS}/cert1.crt"]),
    "pkcs11": (f"pkcs11:{KEYS}/r3072.pub", [f"{KEYS}/r3072.key"]),
    "broker": (None, []),
}
QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Store:
    """A broker with one key."""

    def get(self, uri, *, manifest_digest):
        del manifest_digest
        if uri != KID:
            raise KeyUnavailable("no such key")
        return SecretKey(bytes(32))


def load(path):
    source = OCILayoutSource(path, "v1", name="oci:x")
    raw = source.read_manifest()
    return load_image(parse_manifest(raw.raw, media_type=raw.media_type), source)


@cache
def encrypted(scheme, cipher):
    """A layout, its manifest as a document, and the layers that it decrypts to."""
    path = Path(tempfile.mkdtemp(prefix="imagers-test-")) / "layout"
    sink = OCILayoutSink(path, "v1", name="oci:x")
    plain = load(VECTORS / "plain" / "gzip")
    recipient = SCHEMES[scheme][0]
    try:
        if recipient is None:
            encrypt_image(plain, sink, [BrokerKeyWrapper(SecretKey(bytes(32)), KID)], cipher=cipher)
        else:
            with opened_wrappers(parse_recipients([recipient])) as wrappers:
                encrypt_image(plain, sink, wrappers, cipher=cipher)
    finally:
        sink.close()
    return path, load(path).manifest.raw, plain.manifest.layers


@pytest.fixture(scope="module", autouse=True)
def _removed():
    yield
    for scheme in SCHEMES:
        for cipher in CIPHERS:
            shutil.rmtree(encrypted(scheme, cipher)[0].parent, ignore_errors=True)


def decrypt(scheme, cipher, raw, blobs=None):
    """The layers of the image with another manifest, and blobs beside its own."""
    with tempfile.TemporaryDirectory() as directory:
        layout = Path(directory) / "layout"
        shutil.copytree(encrypted(scheme, cipher)[0], layout)
        for name, data in (blobs or {}).items():
            (layout / "blobs" / "sha256" / name).write_bytes(data)
        digest = hashlib.sha256(raw).hexdigest()
        (layout / "blobs" / "sha256" / digest).write_bytes(raw)
        index = json.loads((layout / "index.json").read_text())
        index["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(raw)}
        (layout / "index.json").write_text(json.dumps(index))
        keys = [parse_decryption_key(key) for key in SCHEMES[scheme][1]]
        sink = OCILayoutSink(Path(directory) / "out", "v1", name="oci:out")
        try:
            with opened_unwrappers(keys) as unwrappers, BrokerKeyUnwrapper(Store()) as broker:
                done = decrypt_image(
                    load(layout), sink, [*unwrappers, broker], require_encrypted=True
                )
        finally:
            sink.close()
        return parse_manifest(done.raw).layers


def changed_bit(data, bit):
    changed = bytearray(data)
    changed[bit % len(data)] ^= 1 << (bit // len(data) % 8)
    return bytes(changed)


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_unchanged_image_decrypts_to_what_it_was(scheme, cipher):
    _, raw, plain = encrypted(scheme, cipher)
    assert decrypt(scheme, cipher, raw) == plain


@pytest.mark.parametrize("cipher", CIPHERS)
@QUICK
@given(number=st.integers(0, 2), bit=st.integers(0, 2**40))
def test_any_bit_of_the_ciphertext_changed_is_refused(cipher, number, bit):
    """With a digest that fits, so that only the cipher's tag knows."""
    path, raw, _ = encrypted("jwe", cipher)
    document = json.loads(raw)
    layer = document["layers"][number]
    data = changed_bit((path / "blobs" / "sha256" / layer["digest"][7:]).read_bytes(), bit)
    digest = hashlib.sha256(data).hexdigest()
    layer["digest"] = f"sha256:{digest}"
    with pytest.raises(ImagersError):
        decrypt("jwe", cipher, json.dumps(document).encode(), {digest: data})


@QUICK
@given(number=st.integers(0, 2), bit=st.integers(0, 255))
def test_any_bit_of_the_hmac_changed_is_refused(number, bit):
    _, raw, _ = encrypted("jwe", CIPHERS[0])
    document = json.loads(raw)
    annotations = document["layers"][number]["annotations"]
    public = json.loads(base64.b64decode(annotations[ENC + "pubopts"]))
    hmac = changed_bit(base64.b64decode(public["hmac"]), bit)
    public["hmac"] = base64.b64encode(hmac).decode()
    annotations[ENC + "pubopts"] = base64.b64encode(json.dumps(public).encode()).decode()
    with pytest.raises(ImagersError):
        decrypt("jwe", CIPHERS[0], json.dumps(document).encode())


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("scheme", SCHEMES)
@settings(QUICK, max_examples=10)
@given(number=st.integers(0, 2), bit=st.integers(0, 2**40))
def test_any_bit_of_a_wrapped_key_changed_is_refused(scheme, cipher, number, bit):
    """Or it is none of the key: a version, or a number that nobody reads."""
    _, raw, plain = encrypted(scheme, cipher)
    document = json.loads(raw)
    annotations = document["layers"][number]["annotations"]
    (name,) = (one for one in annotations if one.startswith(ENC + "keys."))
    packet = changed_bit(base64.b64decode(annotations[name]), bit)
    annotations[name] = base64.b64encode(packet).decode()
    try:
        found = decrypt(scheme, cipher, json.dumps(document).encode())
    except ImagersError:
        return
    assert scheme != "jwe", "all of a JWE for one recipient is authenticated"
    assert found == plain


@pytest.mark.parametrize("cipher", CIPHERS)
@QUICK
@given(bit=st.integers(0, 2**40))
def test_any_bit_of_the_manifest_changed_is_refused_or_leaves_the_plaintext(cipher, bit):
    _, raw, plain = encrypted("jwe", cipher)
    try:
        found = decrypt("jwe", cipher, changed_bit(raw, bit))
    except ImagersError:
        return
    assert [(one.digest, one.size) for one in found] == [(one.digest, one.size) for one in plain]


@pytest.mark.parametrize("cipher", CIPHERS)
@QUICK
@given(order=st.lists(st.integers(0, 2), min_size=1, max_size=5))
def test_layers_in_another_order_or_number_are_refused(cipher, order):
    assume(order != [0, 1, 2])
    _, raw, _ = encrypted("jwe", cipher)
    document = json.loads(raw)
    document["layers"] = [document["layers"][number] for number in order]
    with pytest.raises(ImagersError):
        decrypt("jwe", cipher, json.dumps(document).encode())


@pytest.mark.parametrize("cipher", CIPHERS)
def test_layer_whose_encryption_was_taken_away_is_refused(cipher):
    _, raw, plain = encrypted("jwe", cipher)
    document = json.loads(raw)
    document["layers"][1] |= {
        "mediaType": plain[1].media_type,
        "digest": str(plain[1].digest),
        "size": plain[1].size,
    }
    with pytest.raises(PolicyDenied, match="layer 2 of 3: is not encrypted"):
        decrypt("jwe", cipher, json.dumps(document).encode())


def test_key_of_another_layer_is_refused_before_a_byte_is_read():
    """The diff_id in the wrapped options of the second cipher."""
    path, raw, _ = encrypted("jwe", AES256_GCM_HKDF_1MB)
    document = json.loads(raw)
    first, second = document["layers"][:2]
    document["layers"][:2] = [second, first]
    blobs = {}
    for layer in (first, second):
        name = layer["digest"][7:]
        blobs[name] = b"x" * (path / "blobs" / "sha256" / name).stat().st_size  # not looked at
    with pytest.raises(DigestMismatch, match="layer 1 of 3: diff_id mismatch") as caught:
        decrypt("jwe", AES256_GCM_HKDF_1MB, json.dumps(document).encode(), blobs)
    assert "made for another layer" in caught.value.hint
