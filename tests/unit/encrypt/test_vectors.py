# SPDX-License-Identifier: Apache-2.0
"""Images that other tools encrypted, and images damaged after that: tests/vectors/ocicrypt.

Every case of the categories `encrypted`, `crafted-valid` and `tampered` runs, through the
library and through the command, with each of its key sets.
"""

import base64
import hashlib
import json
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from imagers.cli.main import run
from imagers.core import open_layer
from imagers.encrypt.image import LayerAction, decrypt_image, unwrap_layer_keys
from imagers.encrypt.recipients import parse_decryption_key
from imagers.encrypt.schemes.broker import BrokerKeyUnwrapper
from imagers.encrypt.schemes.providers.remote import decode_message, encode_message
from imagers.encrypt.wrappers import ProviderSettings, opened_unwrappers
from imagers.errors import (
    DigestMismatch,
    FormatError,
    KeyUnavailable,
    NoMatchingKey,
    PolicyDenied,
    SizeMismatch,
    TagMismatch,
    Truncated,
    Unsupported,
)
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.digest import digest_of, parse_digest
from imagers.model.image import load_image
from imagers.model.keys import SecretKey
from imagers.model.manifest import Index, parse_manifest, parse_manifest_or_index

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"
MANIFEST = json.loads((VECTORS / "manifest.json").read_text())
CASES = {case["id"]: case for case in MANIFEST["cases"]}
CATEGORIES = ("encrypted", "crafted-valid", "tampered")
# Each of these is one JSON document; ours is stricter than the reference tool here.
REFUSED_BY_CHOICE = {
    "tampered/jwe-zip-def": Unsupported,  # the README allows it: no inflating before a check
}
# The README's kinds of failure, and what they are here.
ERRORS = {
    "blob-digest-mismatch": DigestMismatch,
    "manifest-digest-mismatch": DigestMismatch,
    "size-mismatch": (SizeMismatch, Truncated),
    "hmac-mismatch": TagMismatch,
    "missing-hmac": FormatError,
    "missing-cipher": FormatError,
    "unsupported-cipher": Unsupported,
    "malformed-annotation": FormatError,
    "malformed-private-options": FormatError,
    "bad-nonce": FormatError,
    "bad-key-length": FormatError,
    "no-matching-key": NoMatchingKey,
    "missing-certificate": NoMatchingKey,
    "wrong-password": KeyUnavailable,
    "unsupported-jwe-algorithm": Unsupported,
    "plaintext-mismatch": FormatError,  # the public nonce is refused before it does harm
    "diffid-mismatch": (DigestMismatch, FormatError),  # FormatError: ciphertext is no gzip
    "diffid-count-mismatch": SizeMismatch,
    "unencrypted-layer": PolicyDenied,
}
# Where the reason is another one than the kind says.
ERRORS_OF_CASE = {
    "tampered/hmac-truncated": FormatError,  # no HMAC-SHA256 has this length
}
# The keys that the vectors' key providers held.
KEKS = {"grpc": "kek2.bin", "cmd": "kek1.bin"}
KID = "kbs:///default/image-kek/shared-1"
# The manifest's note: the reference tool needs a token, we take the file of the key.
PKCS11 = {"encrypted/pkcs11-pubkey-rsa3072-C": [["keys/r3072.key"]]}


def key_sets(case):
    """Every key set of a case with what is expected of it: None or a kind of failure."""
    for keys in case.get("decrypt_ok") or PKCS11.get(case["id"], []):
        yield keys, None
    for fail in case.get("decrypt_fail") or []:
        yield fail["keys"], fail["kind"]
    if case["category"] == "tampered":
        for keys in case["keys"]:
            yield keys, case["kind"]


def all_runs():
    """Parameters: case, key set, expected kind of failure."""
    return [
        pytest.param(case, keys, failure, id=f"{case['id']}-{'+'.join(keys)}")
        for case in CASES.values()
        if case["category"] in CATEGORIES
        for keys, failure in key_sets(case)
    ]


def open_layout(case, tmp_path):
    """The case as an OCI layout, whatever it is stored as."""
    path = VECTORS / case["path"]
    if case["transport"] == "oci":
        return path
    layout = tmp_path / "layout"
    if case["transport"] == "oci-archive":
        with tarfile.open(path) as archive:
            # Python before 3.11.4 has no filters; the archive is one of ours.
            if hasattr(tarfile, "data_filter"):
                archive.extractall(layout, filter="data")
            else:
                archive.extractall(layout)  # noqa: S202
        return layout
    assert case["transport"] == "dir"
    raw = (path / "manifest.json").read_bytes()
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in path.iterdir():
        if len(blob.name) == 64:
            shutil.copy(blob, blobs / blob.name)
    digest = hashlib.sha256(raw).hexdigest()
    (blobs / digest).write_bytes(raw)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = {"mediaType": json.loads(raw)["mediaType"], "digest": f"sha256:{digest}"}
    entry |= {
        "size": len(raw),
        "annotations": {"org.opencontainers.image.ref.name": case["ref"] or "v1"},
    }
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return layout


def images_of(case, tmp_path):
    """Every image of the case, loaded."""
    source = OCILayoutSource(open_layout(case, tmp_path), case["ref"] or "v1", name=case["id"])
    raw = source.read_manifest()
    document = parse_manifest_or_index(raw.raw, media_type=raw.media_type)
    if isinstance(document, Index):
        raws = [source.read_manifest(entry.digest) for entry in document.manifests]
        manifests = [parse_manifest(one.raw, media_type=one.media_type) for one in raws]
    else:
        manifests = [document]
    return [load_image(manifest, source) for manifest in manifests]


@pytest.fixture(scope="module")
def grpc_provider():
    """The key provider of the `grpc` cases, served: packets of kek2 under AES-256-GCM."""
    kek = AESGCM((VECTORS / "keys" / KEKS["grpc"]).read_bytes())

    def unwrap(message, _context):
        question = json.loads(decode_message(message))
        packet = json.loads(base64.b64decode(question["keyunwrapparams"]["annotation"]))
        assert packet["kid"] == KID
        iv, data = (base64.b64decode(packet[name]) for name in ("iv", "wrapped_data"))
        # As Rust writes bytes.
        answer = {"keyunwrapresults": {"optsdata": list(kek.decrypt(iv, data, None))}}
        return encode_message(json.dumps(answer).encode())

    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(unwrap)
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "keyprovider.KeyProviderService", {"UnWrapKey": handler}
            )
        ]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def provider_config(request, tmp_path):
    """A function: the path of the provider configuration that the README names for a case."""

    def config_of(case):
        if "grpc" not in case["id"]:
            return str(VECTORS / "keys" / "ocicrypt.conf")
        config = json.loads((VECTORS / "keys" / "ocicrypt-grpc.conf").read_text())
        config["key-providers"]["attestation-agent"]["grpc"] = request.getfixturevalue(
            "grpc_provider"
        )
        path = tmp_path / "ocicrypt-grpc.conf"
        path.write_text(json.dumps(config))
        return str(path)

    return config_of


def expected_failure(case, failure):
    return REFUSED_BY_CHOICE.get(case["id"]) or (
        failure and ERRORS_OF_CASE.get(case["id"], ERRORS[failure])
    )


@pytest.mark.parametrize(("case", "keys", "failure"), all_runs())
def test_decrypt_image_of_the_vectors_does_what_they_say(
    case, keys, failure, tmp_path, monkeypatch, provider_config
):
    monkeypatch.chdir(VECTORS)  # the provider's program has a relative path
    failure = expected_failure(case, failure)
    target = tmp_path / "target"
    settings = ProviderSettings(config_path=provider_config(case))
    if failure is None:
        decrypted = decrypt_case(case, keys, settings, tmp_path, target)
        for (image, result), expected in zip(decrypted, case["images"], strict=True):
            check_result(image, result, expected, target)
        return
    with pytest.raises(failure):
        decrypt_case(case, keys, settings, tmp_path, target)
    assert not target.exists(), "a failure leaves nothing behind"


def decrypt_case(case, keys, settings, tmp_path, target):
    """Each image of the case, and what `decrypt_image` made of it in `target`."""
    sink = OCILayoutSink(target, "v1", name="oci:target")
    try:
        with opened_unwrappers([parse_decryption_key(key) for key in keys], settings) as unwrappers:
            return [
                (
                    image,
                    decrypt_image(
                        image,
                        sink,
                        unwrappers,
                        require_encrypted=case.get("kind") == "unencrypted-layer",
                    ),
                )
                for image in images_of(case, tmp_path)
            ]
    finally:
        sink.close()


@pytest.mark.parametrize(("case", "keys", "failure"), all_runs())
def test_decrypt_command_of_the_vectors_does_what_they_say(
    case, keys, failure, tmp_path, monkeypatch, capsys, provider_config
):
    """One process for all cases: what differs from a command of its own is the start alone."""
    monkeypatch.chdir(VECTORS)
    monkeypatch.setenv("OCICRYPT_KEYPROVIDER_CONFIG", provider_config(case))
    failure = expected_failure(case, failure)
    target = tmp_path / "target"
    source = f"{case['transport']}:{VECTORS / case['path']}"
    if case["transport"] != "dir":
        source += f":{case['ref'] or 'v1'}"
    words = ["decrypt", source, f"oci:{target}:v1", "--json"]
    for key in keys:
        words += ["--decryption-key", key]
    if len(case.get("images") or []) > 1:
        words.append("--all")
    if case.get("kind") == "unencrypted-layer":
        words.append("--require-encrypted")
    code = run(words)
    said = capsys.readouterr()
    assert "correct horse" not in said.err + said.out
    if failure is not None:
        allowed = failure if isinstance(failure, tuple) else (failure,)
        assert code in {one.exit_code for one in allowed}
        assert said.err.count("error: ") == 1
        assert not target.exists(), "a failure leaves nothing behind"
        return
    assert code == 0, said.err
    for manifest, expected in zip(written_manifests(target), case["images"], strict=True):
        for after, layer in zip(manifest.layers, expected["layers"], strict=True):
            found = (after.media_type, str(after.digest), after.size)
            if plain := layer.get("plaintext"):
                assert found == (plain["media_type"], plain["digest"], plain["size"])
            assert digest_of(blob(target, after)) == after.digest


def written_manifests(target):
    source = OCILayoutSource(target, "v1", name="target")
    raw = source.read_manifest()
    document = parse_manifest_or_index(raw.raw, media_type=raw.media_type)
    if not isinstance(document, Index):
        return [document]
    return [parse_manifest(source.read_manifest(one.digest).raw) for one in document.manifests]


def check_result(image, result, expected, target):
    """The image in `target` is what the vectors say of the plaintext."""
    written = parse_manifest(result.raw, media_type=result.media_type)
    assert str(image.manifest.descriptor.digest) == expected["manifest"]
    assert str(written.config.digest) == expected["config"]
    assert blob(target, written.config) == image.config.raw
    for before, after, layer, report in zip(
        image.manifest.layers, written.layers, expected["layers"], result.layers, strict=True
    ):
        found = (after.media_type, str(after.digest), after.size)
        if plain := layer.get("plaintext"):  # else its diff_id was checked on the way
            assert found == (plain["media_type"], plain["digest"], plain["size"])
        assert digest_of(blob(target, after)) == after.digest
        kept = {k: v for k, v in before.annotations.items() if ".image.enc" not in k}
        assert after.annotations == kept
        assert (report.action is LayerAction.DECRYPTED) == layer["encrypted"]


def blob(layout, descriptor):
    return (layout / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex).read_bytes()


class Broker:
    """A `ResourceStore` with the key that the vectors' key provider held."""

    def __init__(self, case):
        self.asked = []
        (name,) = [file for word, file in KEKS.items() if word in case["id"]]
        self.kek = (VECTORS / "keys" / name).read_bytes()

    def get(self, uri, *, manifest_digest):
        assert manifest_digest is not None
        self.asked.append(uri)
        assert uri == KID
        return SecretKey(self.kek)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case["id"])
        for case in CASES.values()
        if ["provider:attestation-agent"] in (case.get("decrypt_ok") or [])
    ],
)
def test_unwrap_packets_of_the_vectors_through_a_broker(case, tmp_path):
    """As a guest does: one request for all layers, then each layer opens to its diff_id."""
    broker = Broker(case)
    for image in images_of(case, tmp_path):
        layers = list(image.layers())
        with (
            BrokerKeyUnwrapper(broker) as unwrapper,
            unwrap_layer_keys(
                layers, [unwrapper], manifest_digest=image.manifest.descriptor.digest
            ) as found,
        ):
            for layer, key, expected in zip(
                layers, found, case["images"][0]["layers"], strict=True
            ):
                assert key.media_type == expected["plaintext"]["media_type"]
                assert key.scheme == "provider.attestation-agent"
                source = layer.open_raw()
                opened = open_layer(
                    source,
                    None,
                    expected=layer.descriptor,
                    cipher=key.cipher,
                    hmac=key.hmac,
                    compression=key.compression,
                    diff_id=layer.diff_id,
                    what=layer.what,
                )
                source.close()
                assert opened.diff_id == parse_digest(expected["diff_id"])
    assert broker.asked == [KID]


@pytest.mark.parametrize("case_id", ["provider-cmd-coco-C", "provider-cmd-and-jwe-B"])
def test_unwrap_unauthenticated_packets_of_the_vectors_is_refused_without_a_trusted_image(
    case_id, tmp_path
):
    case = CASES[f"encrypted/{case_id}"]
    (image,) = images_of(case, tmp_path)
    broker = Broker(case)
    with pytest.raises(Unsupported, match="'A256CTR' has no authentication"):
        unwrap_layer_keys(list(image.layers()), [BrokerKeyUnwrapper(broker)], manifest_digest=None)
    assert broker.asked == []


def test_no_case_of_the_vectors_is_left_out():
    cases = {case["id"] for case in CASES.values() if case["category"] in CATEGORIES}
    assert cases == {run.values[0]["id"] for run in all_runs()}
    assert (len(cases), len(all_runs())) == (93, 136)
