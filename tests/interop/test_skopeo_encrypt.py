# SPDX-License-Identifier: Apache-2.0
"""Encrypted images to and from the real skopeo, in both directions."""

import gzip
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from random import Random

import pytest
import zstandard

from imagers.encrypt.image import LayerAction, decrypt_image, encrypt_image
from imagers.encrypt.keyfiles import load_certificate, load_private_key, load_public_key
from imagers.encrypt.options import AES256_GCM_HKDF_1MB
from imagers.encrypt.recipients import parse_recipients
from imagers.encrypt.rewrap import PacketTarget, rewrap_image
from imagers.encrypt.schemes.jwe import JWEUnwrapper, JWEWrapper
from imagers.encrypt.schemes.pkcs7 import PKCS7Wrapper
from imagers.encrypt.wrappers import ProviderSettings, opened_wrappers
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.digest import digest_of
from imagers.model.image import load_image
from imagers.model.manifest import parse_manifest
from imagers.model.media import Compression
from imagers.testing import make_image, make_layer, make_tar

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "ocicrypt"
KEYS = VECTORS / "keys"
PLAIN = ["gzip", "zstd", "mixed", "raw", "tiny"]
# PKCS1 without a password, DER, and the kinds of keys that skopeo 1.9.3 reads.
PAIRS = {
    "rsa": [("r2048.pub", "r2048.key")],
    "rsa in DER": [("rder.pub", "rder.key")],
    "ec": [("ec256.pub", "ec256.key")],
    "several": [("r4096.pub", "r4096.key"), ("ec384.pub", "ec384.key"), ("r2048.pub", "r2048.key")],
}

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")


def skopeo(*arguments, check=True):
    return subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=check,
        timeout=60,
    )


def load(path):
    source = OCILayoutSource(path, "v1", name=f"oci:{path}")
    raw = source.read_manifest()
    return load_image(parse_manifest(raw.raw, media_type=raw.media_type), source)


def encrypt(source, target, *names, **options):
    keys = [load_public_key(str(KEYS / name)) for name in names]
    sink = OCILayoutSink(target, "v1", name=f"oci:{target}")
    try:
        return encrypt_image(load(source), sink, [JWEWrapper(keys)], **options)
    finally:
        sink.close()


def decrypt(source, target, name):
    sink = OCILayoutSink(target, "v1", name=f"oci:{target}")
    try:
        key = load_private_key(str(KEYS / name))
        return decrypt_image(load(source), sink, [JWEUnwrapper(key)], require_encrypted=True)
    finally:
        sink.close()


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("name", PLAIN)
def test_image_encrypted_here_decrypts_with_skopeo_to_the_same_layers(name, pairs, tmp_path):
    plain = VECTORS / "plain" / name
    encrypt(plain, tmp_path / "encrypted", *(public for public, _ in pairs), compress=None)
    for number, (_, private) in enumerate(pairs):
        back = tmp_path / f"back-{number}"
        skopeo(
            "--decryption-key",
            KEYS / private,
            "--dest-oci-accept-uncompressed-layers",
            f"oci:{tmp_path}/encrypted:v1",
            f"oci:{back}:v1",
        )
        result, source = load(back).manifest, load(plain).manifest
        assert result.layers == source.layers
        assert result.config.digest == source.config.digest


def test_plain_layers_compressed_and_encrypted_here_decrypt_with_skopeo(tmp_path):
    expand = {
        Compression.GZIP: gzip.decompress,
        Compression.ZSTD: lambda data: zstandard.ZstdDecompressor().stream_reader(data).read(),
    }
    for compress, expanded in expand.items():
        encrypted = tmp_path / compress.value
        encrypt(VECTORS / "plain" / "raw", encrypted, "r2048.pub", compress=compress)
        back = tmp_path / f"{compress.value}-back"
        skopeo("--decryption-key", KEYS / "r2048.key", f"oci:{encrypted}:v1", f"dir:{back}")
        manifest = json.loads((back / "manifest.json").read_text())
        diff_ids = load(encrypted).config.diff_ids
        for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True):
            assert layer["mediaType"].endswith(f"+{compress.value}")
            data = (back / layer["digest"].partition(":")[2]).read_bytes()
            assert digest_of(expanded(data)) == diff_id


def test_some_layers_encrypted_here_decrypt_with_skopeo(tmp_path):
    plain = VECTORS / "plain" / "gzip"
    result = encrypt(plain, tmp_path / "encrypted", "r2048.pub", layers=[0, -1])
    assert result.count(LayerAction.ENCRYPTED) == 2
    skopeo(
        "--decryption-key",
        KEYS / "r2048.key",
        f"oci:{tmp_path}/encrypted:v1",
        f"oci:{tmp_path}/back:v1",
    )
    assert load(tmp_path / "back").manifest.layers == load(plain).manifest.layers


def test_image_encrypted_here_does_not_decrypt_with_another_key(tmp_path):
    encrypt(VECTORS / "plain" / "gzip", tmp_path / "encrypted", "r2048.pub")
    done = skopeo(
        "--decryption-key",
        KEYS / "wrong.key",
        f"oci:{tmp_path}/encrypted:v1",
        f"oci:{tmp_path}/back:v1",
        check=False,
    )
    assert done.returncode != 0
    assert "no suitable key" in done.stderr


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("name", PLAIN)
def test_image_encrypted_by_skopeo_decrypts_here_to_the_same_layers(name, pairs, tmp_path):
    plain = VECTORS / "plain" / name
    skopeo(
        *(word for public, _ in pairs for word in ("--encryption-key", f"jwe:{KEYS / public}")),
        "--dest-oci-accept-uncompressed-layers",
        f"oci:{plain}:v1",
        f"oci:{tmp_path}/encrypted:v1",
    )
    for number, (_, private) in enumerate(pairs):
        back = tmp_path / f"back-{number}"
        result = decrypt(tmp_path / "encrypted", back, private)
        assert result.count(LayerAction.DECRYPTED) == len(result.layers)
        assert load(back).manifest.layers == load(plain).manifest.layers
        assert load(back).config.raw == load(plain).config.raw


def test_layers_compressed_and_encrypted_by_skopeo_in_one_copy_decrypt_here(tmp_path):
    """The private options then name the digest of the tar, which nothing may trip over."""
    skopeo(
        "--encryption-key",
        f"jwe:{KEYS / 'r2048.pub'}",
        f"oci:{VECTORS / 'plain' / 'raw'}:v1",
        f"oci:{tmp_path}/encrypted:v1",
    )
    result = decrypt(tmp_path / "encrypted", tmp_path / "back", "r2048.key")
    assert all(layer.media_type.endswith("tar+gzip") for layer in result.layers)


def test_image_encrypted_by_skopeo_and_again_here_needs_both_keys(tmp_path):
    plain = VECTORS / "plain" / "gzip"
    skopeo(
        "--encryption-key",
        f"jwe:{KEYS / 'r2048.pub'}",
        "--encrypt-layer=0",
        f"oci:{plain}:v1",
        f"oci:{tmp_path}/first:v1",
    )
    result = encrypt(tmp_path / "first", tmp_path / "second", "ec256.pub")
    assert [one.action.value for one in result.layers] == ["kept", "encrypted", "encrypted"]
    skopeo(
        "--decryption-key",
        KEYS / "r2048.key",
        "--decryption-key",
        KEYS / "ec256.key",
        f"oci:{tmp_path}/second:v1",
        f"oci:{tmp_path}/back:v1",
    )
    assert load(tmp_path / "back").manifest.layers == load(plain).manifest.layers


# --- a random sample: whatever imagers encrypts, skopeo decrypts to the same digests

RECIPIENTS = {
    "jwe:r2048.pub": ["r2048.key"],
    "jwe:ec256.pub": ["ec256.key"],
    "jwe:ec384.pub": ["ec384.key"],
    "jwe:jwkrsa.jwk": ["jwkrsa.priv.jwk"],
    "pkcs7:cert1.crt": ["cert1.key", "cert1.crt"],
    "pkcs7:cert2.crt": ["cert2.key", "cert2.crt"],
    "pgp:alice@example.com": ["alice.sec.gpg"],
    "pgp:Bob Example": ["bob.sec.gpg"],
}


@pytest.fixture(scope="module")
def gpg_home():
    home = tempfile.mkdtemp(prefix="gpg-")
    for name in ("alice", "bob"):
        words = ["gpg", "--batch", "-q", "--homedir", home, "--import", KEYS / f"{name}.pub.gpg"]
        subprocess.run(words, check=True, capture_output=True, timeout=60)
    yield home
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True, timeout=30)
    shutil.rmtree(home, ignore_errors=True)


def random_image(layout, random):
    """One to four layers of random sizes, each a tar, a gzip or a zstd."""
    layers = []
    for number in range(random.randint(1, 4)):
        content = random.randbytes(random.choice([0, 1, 511, 512, 70_000, 1_200_000]))
        tar = make_tar((f"file-{number}", content))
        layers.append(make_layer(tar, random.choice(list(Compression))))
    make_image(*layers).save(layout)


@pytest.mark.parametrize("seed", range(12))
def test_random_image_for_random_recipients_decrypts_with_skopeo(seed, tmp_path, gpg_home):
    random = Random(seed)  # noqa: S311  # a sample, no secret
    random_image(tmp_path / "plain", random)
    chosen = random.sample(list(RECIPIENTS), random.randint(1, 4))
    texts = [one if one.startswith("pgp:") else one.replace(":", f":{KEYS}/") for one in chosen]
    image = load(tmp_path / "plain")
    sink = OCILayoutSink(tmp_path / "encrypted", "v1", name="oci:encrypted")
    with opened_wrappers(parse_recipients(texts), ProviderSettings(gpg_home=gpg_home)) as wrappers:
        encrypt_image(image, sink, wrappers, compress=None)
    sink.close()
    for recipient in chosen:
        back = tmp_path / f"back-{chosen.index(recipient)}"
        words = [word for key in RECIPIENTS[recipient] for word in ("--decryption-key", KEYS / key)]
        words += ["--dest-oci-accept-uncompressed-layers"]
        skopeo(*words, f"oci:{tmp_path}/encrypted:v1", f"oci:{back}:v1")
        assert load(back).manifest.layers == image.manifest.layers


def test_recipient_added_here_decrypts_with_skopeo_and_removed_one_does_not(tmp_path):
    skopeo(
        "--encryption-key",
        f"jwe:{KEYS}/r2048.pub",
        f"oci:{VECTORS}/plain/gzip:v1",
        f"oci:{tmp_path}/skopeo:v1",
    )
    sink = OCILayoutSink(tmp_path / "added", "v1", name="oci:added")
    wrapper = PKCS7Wrapper([load_certificate(str(KEYS / "cert1.crt"))])
    wrappers = [JWEWrapper([load_public_key(str(KEYS / "ec256.pub"))]), wrapper]
    unwrapper = JWEUnwrapper(load_private_key(str(KEYS / "r2048.key")))
    rewrap_image(load(tmp_path / "skopeo"), sink, added=wrappers, unwrappers=[unwrapper])
    sink.close()
    sink = OCILayoutSink(tmp_path / "left", "v1", name="oci:left")
    rewrap_image(load(tmp_path / "added"), sink, removed=[PacketTarget("jwe", 1)])
    sink.close()
    for name, keys, opens in (
        ("added", ["r2048.key"], True),
        ("added", ["ec256.key"], True),
        ("added", ["cert1.key", "cert1.crt"], True),
        ("left", ["ec256.key"], True),
        ("left", ["r2048.key"], False),
    ):
        words = [word for key in keys for word in ("--decryption-key", KEYS / key)]
        back = f"oci:{tmp_path}/back-{name}-{keys[0]}:v1"
        done = skopeo(*words, f"oci:{tmp_path}/{name}:v1", back, check=False)
        assert (done.returncode == 0) == opens, done.stderr


def test_rotated_image_of_skopeo_opens_with_skopeo_and_the_new_key_only(tmp_path):
    plain, first = f"oci:{VECTORS}/plain/gzip:v1", f"oci:{tmp_path}/skopeo:v1"
    skopeo("--encryption-key", f"jwe:{KEYS}/r2048.pub", plain, first)
    sink = OCILayoutSink(tmp_path / "rotated", "v1", name="oci:rotated")
    # ocicrypt writes no key id: its packet has a number only.
    done = rewrap_image(
        load(tmp_path / "skopeo"),
        sink,
        added=[JWEWrapper([load_public_key(str(KEYS / "ec256.pub"))])],
        removed=[PacketTarget("jwe", 1)],
        unwrappers=[JWEUnwrapper(load_private_key(str(KEYS / "r2048.key")))],
    )
    sink.close()
    assert not done.opens
    for key, opens in (("ec256.key", True), ("r2048.key", False)):
        words = ("--decryption-key", KEYS / key, f"oci:{tmp_path}/rotated:v1")
        ended = skopeo(*words, f"oci:{tmp_path}/back-{key}:v1", check=False)
        assert (ended.returncode == 0) == opens, ended.stderr
    back = load(tmp_path / "back-ec256.key").manifest.layers
    assert back == load(VECTORS / "plain" / "gzip").manifest.layers


def test_image_with_the_second_cipher_is_refused_by_skopeo(tmp_path):
    encrypt(
        VECTORS / "plain" / "gzip", tmp_path / "encrypted", "r2048.pub", cipher=AES256_GCM_HKDF_1MB
    )
    done = skopeo(
        "--decryption-key",
        KEYS / "r2048.key",
        f"oci:{tmp_path}/encrypted:v1",
        f"oci:{tmp_path}/back:v1",
        check=False,
    )
    assert done.returncode != 0
    assert "AES256_GCM_HKDF_1MB" in done.stderr
    decrypt(tmp_path / "encrypted", tmp_path / "here", "r2048.key")
