# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from imagers.errors import FormatError, LocalError, Unsupported
from imagers.model.identity import docker_identity
from imagers.model.reference import parse_reference
from imagers.sign.formats.format import FORMATS
from imagers.sign.keyfiles import load_trust_store, read_key_file
from imagers.sign.materials import load_trust
from imagers.sign.policy_json import parse_policy
from imagers.sign.policy_lint import check_materials
from imagers.sign.sigstore_key import SigstorePrivateKey

IDENTITY = docker_identity(parse_reference("r.example/a:v1"))


@pytest.fixture
def files(tmp_path, pki, pem, key, other_key, gpg_home):
    (tmp_path / "key.pub").write_bytes(key.public_key.to_pem())
    (tmp_path / "log.pub").write_bytes(other_key.public_key.to_pem())
    (tmp_path / "root.pem").write_bytes(pem(pki.root))
    (tmp_path / "middle.pem").write_bytes(pem(pki.middle))
    (tmp_path / "alice.gpg").write_bytes(gpg_home.export(gpg_home.alice))
    store = tmp_path / "store" / "x509" / "ca" / "acme"
    store.mkdir(parents=True)
    (store / "root.pem").write_bytes(pem(pki.root))
    statement = {
        "name": "p",
        "registryScopes": ["*"],
        "signatureVerification": {"level": "strict"},
        "trustStores": ["ca:acme"],
        "trustedIdentities": ["*"],
    }
    policy = {"version": "1.0", "trustPolicies": [statement]}
    (tmp_path / "trustpolicy.json").write_text(json.dumps(policy))
    return tmp_path


def requirements(files):
    return {
        "key": {"type": "sigstoreSigned", "keyPath": f"{files}/key.pub"},
        "logged": {
            "type": "sigstoreSigned",
            "keyPath": f"{files}/key.pub",
            "rekorPublicKeyPath": f"{files}/log.pub",
        },
        "pki": {
            "type": "sigstoreSigned",
            "pki": {
                "caRootsPath": f"{files}/root.pem",
                "caIntermediatesPath": f"{files}/middle.pem",
                "subjectEmail": "a@b",
            },
        },
        "bundle": {
            "type": "sigstoreBundle",
            "fulcio": {"caPath": f"{files}/root.pem", "oidcIssuer": "i", "subjectURI": "u"},
            "tsaCertificatesPath": f"{files}/root.pem",
        },
        "gpg": {"type": "signedBy", "keyType": "GPGKeys", "keyPath": f"{files}/alice.gpg"},
        "notation": {
            "type": "notation",
            "trustPolicyPath": f"{files}/trustpolicy.json",
            "trustStorePath": f"{files}/store",
        },
    }


def policy_of(*requirements):
    return parse_policy(json.dumps({"default": list(requirements)}).encode())


def test_trust_has_what_each_requirement_asks_for(files, pki, key, other_key):
    trust = load_trust(policy_of(*requirements(files).values()).select(IDENTITY), read_key_file)
    key_only, logged, own, bundle, gpg, notation = trust.keys.values()
    assert key_only.keys == (key.public_key,)
    assert logged.rekor == (other_key.public_key,)
    assert (own.keys, own.roots, own.intermediates) == ((), (pki.root,), (pki.middle,))
    assert (bundle.roots, bundle.tsa) == ((pki.root,), (pki.root,))
    assert gpg.keyring[0][0].endswith("alice.gpg'")
    assert notation.stores == {"ca:acme": (pki.root,)}
    assert trust.formats() == set(FORMATS)
    assert trust.formats(on_index=True) == set()


def test_trust_of_nested_requirements_is_loaded_and_knows_what_is_about_the_index(files):
    rules = requirements(files)
    nested = {
        "type": "anyOf",
        "requirements": [rules["key"], {"type": "index", "requirements": [rules["gpg"]]}],
    }
    trust = load_trust(policy_of(nested).select(IDENTITY), read_key_file)
    assert len(trust.keys) == 2
    assert trust.formats() == {"sigstore"}
    assert trust.formats(on_index=True) == {"simple signing"}


def test_check_materials_of_a_whole_policy_reads_everything(files):
    check_materials(policy_of(*requirements(files).values()), read_key_file)


@pytest.mark.parametrize(
    ("error", "name", "content"),
    [
        (FormatError, "key.pub", b"x"),
        (FormatError, "log.pub", b"x"),
        (FormatError, "root.pem", b"x"),
        (FormatError, "middle.pem", b"x"),
        (FormatError, "alice.gpg", b"x"),
        (FormatError, "trustpolicy.json", b"{}"),
        (LocalError, "key.pub", None),
        (LocalError, "trustpolicy.json", None),
        (LocalError, "store/x509/ca/acme/root.pem", None),
        (FormatError, "store/x509/ca/acme/root.pem", b"x"),
    ],
)
def test_check_materials_finds_what_is_broken(files, error, name, content):
    if content is None:
        (files / name).unlink()
    else:
        (files / name).write_bytes(content)
    with pytest.raises(error):
        check_materials(policy_of(*requirements(files).values()), read_key_file)


def test_trust_log_with_another_kind_of_key_is_refused(files):
    key = SigstorePrivateKey(ed25519.Ed25519PrivateKey.generate())
    (files / "log.pub").write_bytes(key.public_key.to_pem())
    with pytest.raises(Unsupported, match="expected ECDSA"):
        load_trust(policy_of(requirements(files)["logged"]).select(IDENTITY), read_key_file)


def test_trust_store_with_a_link_in_it_is_refused(files):
    store = files / "store" / "x509" / "ca"
    assert load_trust_store(str(files / "store"), "ca:acme")
    (store / "acme" / "more.crt").symlink_to(files / "root.pem")
    with pytest.raises(LocalError, match="symbolic link"):
        load_trust_store(str(files / "store"), "ca:acme")
    (store / "linked").symlink_to(store / "acme")
    with pytest.raises(LocalError, match="symbolic link"):
        load_trust_store(str(files / "store"), "ca:linked")


def test_trust_with_a_trusted_root_needs_an_authority_and_a_witness(tmp_path, pki, key):
    der = serialization.Encoding.DER

    def raw(data):
        return {"rawBytes": base64.b64encode(data).decode()}

    document = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [{"publicKey": raw(key.public_key.spki)}],
        "certificateAuthorities": [
            {"certChain": {"certificates": [raw(pki.root.public_bytes(der))]}}
        ],
    }
    rule = {
        "type": "sigstoreBundle",
        "trustedRootPath": f"{tmp_path}/root.json",
        "fulcio": {"oidcIssuer": "i", "subjectEmail": "a@b"},
    }
    selected = policy_of(rule).select(IDENTITY)
    (tmp_path / "root.json").write_text(json.dumps(document))
    (material,) = load_trust(selected, read_key_file).keys.values()
    assert (material.roots, material.rekor) == ((pki.root,), (key.public_key,))
    assert material.one_witness
    for member in ("tlogs", "certificateAuthorities"):
        (tmp_path / "root.json").write_text(json.dumps({**document, member: []}))
        with pytest.raises(FormatError, match="in force"):
            load_trust(selected, read_key_file)
