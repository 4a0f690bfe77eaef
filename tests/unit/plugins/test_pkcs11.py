# SPDX-License-Identifier: Apache-2.0
"""Keys on a SoftHSM2 token, through the plugin that the entry point names."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from imagers.encrypt.image import decrypt_image, encrypt_image
from imagers.encrypt.keyfiles import load_decryption_file, load_public_key
from imagers.encrypt.recipients import parse_decryption_key, parse_recipients
from imagers.encrypt.schemes.pkcs11 import PKCS11Wrapper, TokenUnwrapper, open_token_key
from imagers.encrypt.wrappers import opened_unwrappers, opened_wrappers
from imagers.errors import KeyUnavailable, LocalError, Unsupported
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.image import load_image
from imagers.model.keys import NotMine, SecretKey, UnwrapContext, WrapContext, WrappedKey
from imagers.model.manifest import parse_manifest

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"
CONTEXT = UnwrapContext("layer 1 of 1", None)

pytestmark = pytest.mark.skipif(
    shutil.which("softhsm2-util") is None, reason="softhsm2 is not installed"
)
pytest.importorskip("imagers_pkcs11", reason="the plugin imagers-pkcs11 is not installed")


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A token with two keys of the vectors; a function that writes a key file."""
    base = tmp_path_factory.mktemp("softhsm")
    (base / "tokens").mkdir()
    (base / "conf").write_text(f"directories.tokendir = {base}/tokens\nlog.level = ERROR\n")
    environment = os.environ | {"SOFTHSM2_CONF": str(base / "conf")}

    def softhsm(*words):
        words = ["softhsm2-util", *map(str, words), "--pin", "1234"]
        subprocess.run(words, env=environment, check=True, capture_output=True, timeout=30)

    softhsm("--init-token", "--free", "--label", "imagers", "--so-pin", "5678")
    for number, name in enumerate(("r2048", "r3072"), 1):
        key = VECTORS / "keys" / f"{name}.key"
        words = ("--token", "imagers", "--label", name, "--id", f"0{number}")
        softhsm("--import", key, *words)

    def write(uri, name="key.yaml"):
        path = base / name
        path.write_text(f"pkcs11:\n  uri: {uri}\nmodule:\n  env:\n    SOFTHSM2_CONF: {base}/conf\n")
        return str(path)

    return write


def key_uri(name, pin="1234", module="module-name=softhsm2"):
    return f"pkcs11:token=imagers;object={name}?{module}&pin-value={pin}"


def test_image_encrypted_for_a_token_is_decrypted_by_it(token, tmp_path):
    """The recipient is the key file; its public half comes from the token."""
    path = token(key_uri("r2048"))
    source = OCILayoutSource(VECTORS / "plain" / "tiny", "v1", name="plain")
    raw = source.read_manifest()
    image = load_image(parse_manifest(raw.raw, media_type=raw.media_type), source)
    sink = OCILayoutSink(tmp_path / "encrypted", "v1", name="encrypted")
    with opened_wrappers(parse_recipients([f"pkcs11:{path}"])) as wrappers:
        written = encrypt_image(image, sink, wrappers, compress=None)
    sink.close()
    encrypted = load_image(
        parse_manifest(written.raw),
        OCILayoutSource(tmp_path / "encrypted", "v1", name="encrypted"),
    )
    sink = OCILayoutSink(tmp_path / "back", "v1", name="back")
    with opened_unwrappers([parse_decryption_key(path)]) as unwrappers:
        back = decrypt_image(encrypted, sink, unwrappers, require_encrypted=True)
    sink.close()
    assert parse_manifest(back.raw).layers == image.manifest.layers
    assert [report.keys for report in back.layers] == [(f"key file {path!r}",)] * len(back.layers)


def unwrap(path, packet):
    file = load_decryption_file(path)
    with TokenUnwrapper(open_token_key(file, private=True), path) as unwrapper:
        return unwrapper.unwrap(WrappedKey("pkcs11", packet), CONTEXT)


def wrap(name, hash_name="sha1"):
    key = load_public_key(str(VECTORS / "keys" / f"{name}.pub"))
    options = SecretKey(b"x" * 193)
    return PKCS11Wrapper([key], hash_name=hash_name).wrap(options, WrapContext("layer"))


@pytest.mark.parametrize(
    "uri",
    [
        key_uri("r3072"),
        key_uri("r3072", module="module-path=/usr/lib/softhsm/libsofthsm2.so"),
        "pkcs11:token=imagers;id=%02?module-name=softhsm2&pin-value=1234",
    ],
    ids=["by label", "by module path", "by id"],
)
def test_unwrap_by_each_way_to_name_a_key(token, uri):
    assert unwrap(token(uri), wrap("r3072")) == SecretKey(b"x" * 193)


def test_unwrap_of_a_packet_for_another_key_is_not_mine(token):
    with pytest.raises(NotMine, match="for other keys"):
        unwrap(token(key_uri("r2048")), wrap("wrong"))


def test_unwrap_with_a_hash_that_the_token_lacks_says_what_to_do(token):
    """SoftHSM 2.6 does OAEP with SHA-1 only."""
    with pytest.raises(Unsupported, match="does not do RSAES-OAEP with sha256") as caught:
        unwrap(token(key_uri("r3072")), wrap("r3072", "sha256"))
    assert "OCICRYPT_OAEP_HASHALG=sha1" in caught.value.hint


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        (key_uri("r2048", pin="9999"), KeyUnavailable, "does not let us in"),
        (key_uri("nobody"), KeyUnavailable, "expected one private RSA key 'nobody'"),
        (key_uri("r2048").replace("token=imagers", "token=other"), KeyUnavailable, "one token"),
        (key_uri("r2048", module="module-name=none"), LocalError, "no PKCS11 library 'none'"),
        (key_uri("r2048", module="module-path=/dev/null"), LocalError, "cannot be loaded"),
    ],
    ids=["pin", "key", "token", "module name", "module path"],
)
def test_open_key_that_is_not_there_raises(token, uri, error, message):
    with pytest.raises(error, match=message):
        open_token_key(load_decryption_file(token(uri)), private=True)
