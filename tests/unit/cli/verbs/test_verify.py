# SPDX-License-Identifier: Apache-2.0
"""The command as people ask it; the decision itself is tested in tests/unit/sign."""

import json
import shutil
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from imagers.model.digest import digest_of
from imagers.model.media import OCI_MANIFEST
from imagers.sign.formats.lookaside import parse_signature_file
from imagers.sign.formats.sigstore import build_signature_manifest, signature_tag

VECTORS = Path(__file__).resolve().parents[3] / "vectors" / "ocicrypt"


@pytest.fixture
def signer(run):
    run("key", "generate", "cosign", "--output", "signer")
    return ("--sign-by-sigstore-private-key", "signer.key")


@pytest.fixture
def pushed(run, plain, imagers_registry):
    name = f"{imagers_registry.address}/team/app:v1"
    assert run("copy", plain, name).code == 0
    return name


@pytest.fixture
def policy(tmp_path):
    def write(*requirements, **transports):
        path = tmp_path / "policy.json"
        document = {"default": list(requirements), "transports": transports}
        path.write_text(json.dumps(document))
        return ("--policy", path)

    return write


KEY = {"type": "sigstoreSigned", "keyPath": "signer.pub"}
BUNDLE = {"type": "sigstoreBundle", "keyPath": "signer.pub"}


def test_verify_signed_image_is_yes(run, pushed, signer, policy):
    run("sign", pushed, *signer)
    outcome = run("verify", pushed, *policy(KEY))
    assert outcome.code == 0
    assert outcome.out.startswith("trusted sha256:")
    assert f"signed as {pushed} by key sha256:" in outcome.out
    facts = run("verify", pushed, *policy(KEY), "--json").json()
    assert (facts["answer"], facts["basis"]) == ("yes", "signature")
    assert "tree" not in facts


@pytest.mark.usefixtures("signer")
def test_verify_unsigned_image_is_no_and_says_where_it_looked(run, pushed, policy):
    outcome = run("verify", pushed, *policy(KEY), "--explain")
    assert outcome.code == 21
    assert "is not signed" in outcome.err
    assert "looked at tag sha256-" in outcome.out
    assert "could not look" not in outcome.out
    facts = run("verify", pushed, *policy(KEY), "--explain", "--json")
    assert facts.code == 21
    assert facts.json()["answer"] == "no"
    assert facts.json()["tree"]["checks"][0]["answer"] == "no"


def test_verify_registry_that_fails_is_could_not_look(
    run, pushed, signer, policy, imagers_registry
):
    run("sign", pushed, *signer)
    imagers_registry.answer_with(503, path=".sig", times=99)
    outcome = run("verify", pushed, *policy(KEY), "--explain")
    assert outcome.code == 22
    assert "could not look" in outcome.out
    assert run("verify", pushed, *policy(KEY), "--json").json()["answer"] == "could not look"


def test_verify_says_which_scope_was_chosen_and_which_were_not_there(run, pushed, signer, policy):
    run("sign", pushed, *signer)
    host, _, _ = pushed.partition("/")
    words = policy({"type": "reject"}, docker={f"{host}/team": [KEY]})
    out = run("verify", pushed, *words, "--explain").out
    assert f"list $.transports.docker['{host}/team']" in out
    assert f"not there: '{pushed}', '{host}/team/app'" in out
    out = run("verify", pushed, *policy(KEY), "--explain").out
    assert "list $.default: none of the" in out


def test_verify_tells_of_a_bundle_that_the_policy_does_not_see(run, pushed, signer, policy):
    """The most common question: "a signature was required, but no signature exists"."""
    run("sign", pushed, *signer, "--new-bundle-format")
    assert run("verify", pushed, *policy(BUNDLE)).code == 0
    name, _, _ = pushed.rpartition(":")
    moved = f"{name}2:v1"
    run("copy", pushed, moved)
    assert run("verify", moved, *policy(BUNDLE)).code == 21


def test_verify_vector_of_cosign_3_gets_the_hint(run, policy, imagers_registry):
    folder = VECTORS / "signed" / "cosign3-bundle" / "repository"
    name = f"{imagers_registry.address}/cosign/app"
    tag = json.loads((folder / "index.json").read_bytes())["manifests"][0]["annotations"]
    listed = tag["org.opencontainers.image.ref.name"]
    assert run("copy", f"oci:{folder}:v1", f"{name}:v1").code == 0
    push_referrers(imagers_registry, folder, listed)
    key = str(VECTORS / "keys" / "cosign1.pub")
    outcome = run("verify", f"{name}:v1", *policy({**KEY, "keyPath": key}))
    assert outcome.code == 21
    assert "there is a bundle as cosign 3 writes it" in outcome.err
    outcome = run("verify", f"{name}:v1", *policy({**BUNDLE, "keyPath": key}), "--explain")
    assert outcome.code == 0, outcome.err


def send(registry, method, path, data, media_type):
    request = urllib.request.Request(
        f"{registry.url}{path}", data, {"Content-Type": media_type}, method=method
    )
    with urllib.request.urlopen(request) as answer:
        return answer.headers.get("Location", "")


def put_blob(registry, repository, data):
    place = send(registry, "POST", f"/v2/{repository}/blobs/uploads/", b"", "")
    mark = "&" if "?" in place else "?"
    send(registry, "PUT", f"{place}{mark}digest={digest_of(data)}", data, "x/y")


def push_referrers(registry, folder, tag):
    """The signature as cosign pushed it: blobs, manifest, list under the tag."""
    index = json.loads((folder / "index.json").read_bytes())
    digest = next(
        one["digest"]
        for one in index["manifests"]
        if one["annotations"]["org.opencontainers.image.ref.name"] == tag
    )

    def blob(digest):
        return (folder / "blobs" / "sha256" / digest[7:]).read_bytes()

    listed = blob(digest)
    for entry in json.loads(listed)["manifests"]:
        raw = blob(entry["digest"])
        document = json.loads(raw)
        for one in (document["config"], *document["layers"]):
            put_blob(registry, "cosign/app", blob(one["digest"]))
        place = f"/v2/cosign/app/manifests/{entry['digest']}"
        send(registry, "PUT", place, raw, document["mediaType"])
    media_type = json.loads(listed)["mediaType"]
    send(registry, "PUT", f"/v2/cosign/app/manifests/{tag}", listed, media_type)


def test_verify_index_whose_platform_alone_or_index_alone_is_signed(
    run, multi, signer, policy, imagers_registry
):
    name = f"{imagers_registry.address}/team/multi:v1"
    run("copy", multi, name, "--all")
    signed = run("sign", name, *signer, "--json").json()["signed"]
    on_index = {"type": "index", "requirements": [KEY]}
    amd64 = ("--platform", "linux/amd64")
    both = policy({"type": "allOf", "requirements": [KEY, on_index]})
    assert run("verify", name, *both, *amd64).code == 0
    # The index loses its signature: the platform's image is still signed, and the reverse.
    imagers_registry.drop_manifest("team/multi", signed[-1]["place"])
    assert run("verify", name, *policy(KEY), *amd64).code == 0
    assert run("verify", name, *policy(on_index), *amd64).code == 21
    run("sign", name, *signer)
    for one in signed[:-1]:
        imagers_registry.drop_manifest("team/multi", one["place"])
    assert run("verify", name, *policy(on_index), *amd64).code == 0
    outcome = run("verify", name, *policy(KEY), *amd64)
    assert outcome.code == 21
    assert "the index is signed and the manifest of this platform is not" in outcome.err
    either = policy({"type": "anyOf", "requirements": [KEY, on_index]})
    assert run("verify", name, *either, *amd64).code == 0


def test_verify_image_that_accepts_anything_warns(run, pushed, policy):
    outcome = run("verify", pushed, *policy({"type": "insecureAcceptAnything"}))
    assert outcome.code == 0
    assert "unsigned" in outcome.err


def test_verify_image_that_is_not_there_is_no_answer_of_the_policy(run, pushed, policy):
    name = pushed.replace("v1", "v2")
    outcome = run("verify", name, *policy({"type": "insecureAcceptAnything"}), "--explain")
    assert outcome.code == 10
    assert "the policy was not asked" in outcome.out


def test_verify_image_directory_with_its_signatures(run, policy):
    case = VECTORS / "signed" / "gpg-dir"
    key = str(VECTORS / "keys" / "alice.pub.gpg")
    identity = {"type": "exactReference", "dockerReference": "registry.example.com/team/app:v1"}
    rule = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": key, "signedIdentity": identity}
    outcome = run("verify", f"dir:{case}/image", *policy(rule), "--explain")
    assert outcome.code == 0, outcome.err
    assert "one good signature by key D5AF00CA" in outcome.out
    wrong = {**rule, "keyPath": str(VECTORS / "keys" / "bob.pub.gpg")}
    assert run("verify", f"dir:{case}/image", *policy(wrong)).code == 21


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"junk",
        b"\0unknown\n{}",
        b"\0sigstore-json\n{",
        b'\0sigstore-json\n{"mimeType":"t","payload":"!","annotations":{}}',
    ],
)
@pytest.mark.parametrize("kind", ["sigstoreSigned", "signedBy"])
def test_verify_signature_file_that_is_damaged_is_a_no_whatever_its_form(
    run, policy, tmp_path, damaged, kind
):
    shutil.copytree(VECTORS / "signed" / "gpg-dir" / "image", tmp_path / "image")
    (tmp_path / "image" / "signature-1").write_bytes(damaged)
    rule = {"type": kind, "keyPath": str(VECTORS / "keys/alice.pub.gpg"), "keyType": "GPGKeys"}
    if kind == "sigstoreSigned":
        run("key", "generate", "cosign", "--output", "other")
        rule = {"type": kind, "keyPath": "other.pub"}
    assert run("verify", f"dir:{tmp_path}/image", *policy(rule)).code == 21


def test_verify_without_a_policy_of_ones_own_fails(run, pushed):
    # The tools of containers install one that accepts everything.
    has_policy = Path("/etc/containers/policy.json").exists()
    assert run("verify", pushed).code == (22 if has_policy else 13)


@pytest.mark.parametrize("form", [(), ("--new-bundle-format",)])
def test_verify_with_a_key_sees_a_signature_of_either_form(run, pushed, signer, form):
    run("sign", pushed, *signer, *form)
    outcome = run("verify", pushed, "--key", "signer.pub", "--explain")
    assert outcome.code == 0, outcome.err
    assert outcome.out.endswith("  basis: signature; policy: --key signer.pub\n")
    assert outcome.out.startswith("policy --key signer.pub\n")
    assert run("verify", pushed, "--key", "signer.pub", "--json").json()["answer"] == "yes"


def test_verify_with_a_key_refuses_what_another_one_signed(run, pushed, signer):
    run("sign", pushed, *signer)
    run("key", "generate", "cosign", "--output", "other")
    outcome = run("verify", pushed, "--key", "other.pub")
    assert outcome.code == 21
    assert "verifies with none of the trusted keys" in outcome.err


@pytest.mark.usefixtures("signer")
def test_verify_with_a_key_refuses_what_nobody_signed(run, pushed):
    outcome = run("verify", pushed, "--key", "signer.pub")
    assert outcome.code == 21
    assert "is not signed" in outcome.err


def test_verify_with_a_key_refuses_a_signature_for_another_name(run, pushed, signer):
    name, _, _ = pushed.rpartition(":")
    run("sign", pushed, *signer)
    assert run("copy", pushed, f"{name}2:v1", "--with-referrers").code == 0
    outcome = run("verify", f"{name}2:v1", "--key", "signer.pub")
    assert outcome.code == 21
    assert "is for another name" in outcome.err


def test_verify_with_a_key_of_gpg_reads_its_signatures(run, tmp_path):
    shutil.copytree(VECTORS / "signed" / "gpg-dir" / "image", tmp_path / "image")
    # It is for a name in a registry, and a directory has none.
    key = VECTORS / "keys" / "alice.pub.gpg"
    outcome = run("verify", f"dir:{tmp_path}/image", "--key", key, "--explain")
    assert outcome.code == 21
    assert "gpg" in outcome.out
    assert "is for another name" in outcome.out


@pytest.mark.parametrize(
    ("words", "code", "piece"),
    [
        (("--key", "none.pub"), 13, "--key: none.pub: no such file"),
        (("--key", "signer.key"), 11, "--key: "),
        (("--key", "awskms:///alias/k"), 13, "keys of a KMS"),
        (("--key", "signer.pub", "--policy", "p.json"), 2, "expected one of --policy, --key"),
        (("--key", "signer.pub", "--trusted-root", "r"), 2, "goes with --certificate-identity"),
        (("--certificate-oidc-issuer", "https://i"), 2, "goes with --certificate-identity"),
        (("--certificate-identity", "a@b"), 2, "expected --certificate-oidc-issuer too"),
        (
            ("--certificate-identity", "a@b", "--certificate-oidc-issuer", "https://i"),
            2,
            "cosign initialize",
        ),
        (
            ("--certificate-identity", "a@b", "--certificate-identity-regexp", "x"),
            2,
            "expected one of",
        ),
    ],
)
@pytest.mark.usefixtures("signer")
def test_verify_with_words_that_do_not_fit_is_refused(run, pushed, words, code, piece):
    outcome = run("verify", pushed, *words)
    assert outcome.code == code
    assert piece in outcome.err


LOGIN_IMAGE = VECTORS / "signed" / "sigstore-fulcio" / "image"
LOGIN_SIGNATURE = "/v2/team/app/manifests/" + signature_tag(
    digest_of((LOGIN_IMAGE / "manifest.json").read_bytes())
)


@pytest.fixture
def login(run, imagers_registry, tmp_path, monkeypatch):
    """An image that somebody signed with a login, under the name that the signature has.

    The registry of that name is this one: registries.conf says so.
    """
    name = f"{imagers_registry.address}/team/app:v1"
    assert run("copy", f"dir:{LOGIN_IMAGE}", name).code == 0
    signature = parse_signature_file((LOGIN_IMAGE / "signature-1").read_bytes(), "signature-1")
    manifest, config = build_signature_manifest(None, [signature])
    for blob in (signature.payload, config):
        put_blob(imagers_registry, "team/app", blob)
    send(imagers_registry, "PUT", LOGIN_SIGNATURE, manifest, OCI_MANIFEST)
    (tmp_path / "registries.conf").write_text(
        "[[registry]]\nprefix='registry.example.com'\ninsecure=true\n"
        f"location='{imagers_registry.address}'\n"
    )
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    write_trusted_root(tmp_path / "trusted_root.json")
    return "registry.example.com/team/app:v1"


def write_trusted_root(path):
    """The authority and the log of the vectors, as one file of sigstore."""

    def raw(pem):
        body = "".join(pem.decode().split("-----")[2].split())
        return {"rawBytes": body}

    log, authority = (
        (VECTORS / "keys" / name).read_bytes() for name in ("rekor.pub", "fulcio-ca.pem")
    )
    document = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [{"publicKey": raw(log)}],
        "certificateAuthorities": [{"certChain": {"certificates": [raw(authority)]}}],
    }
    path.write_text(json.dumps(document))


LOGIN = {
    "--certificate-identity": "signer@example.com",
    "--certificate-oidc-issuer": "https://issuer.example.com",
    "--trusted-root": "../trusted_root.json",
}


def words_of(options):
    return [word for pair in options.items() for word in pair if word is not None]


def test_verify_with_an_identity_sees_who_logged_in(run, login):
    outcome = run("verify", login, *words_of(LOGIN), "--explain")
    assert outcome.code == 0, outcome.err
    assert "signer@example.com" in outcome.out
    assert "the login was at 'https://issuer.example.com'" in outcome.out
    assert "a given log has seen it" in outcome.out


def test_verify_with_an_identity_wants_a_witness_of_the_time(run, login, imagers_registry):
    """A certificate of ten minutes says nothing without the log that saw the signature."""
    signature = parse_signature_file((LOGIN_IMAGE / "signature-1").read_bytes(), "signature-1")
    notes = {k: v for k, v in signature.annotations.items() if not k.endswith("cosign/bundle")}
    assert len(notes) == len(signature.annotations) - 1
    manifest, _ = build_signature_manifest(None, [replace(signature, annotations=notes)])
    send(imagers_registry, "PUT", LOGIN_SIGNATURE, manifest, OCI_MANIFEST)
    outcome = run("verify", login, *words_of(LOGIN))
    assert outcome.code == 21
    assert "nobody witnessed the time of signing" in outcome.err


def with_pattern(pattern):
    rest = {name: value for name, value in LOGIN.items() if name != "--certificate-identity"}
    return {**rest, "--certificate-identity-regexp": pattern}


def test_verify_with_a_pattern_of_an_identity_wants_it_from_end_to_end(run, login):
    assert run("verify", login, *words_of(with_pattern(r".*@example\.com"))).code == 0
    for part in (r"example\.com", "signer@", "^signer"):
        outcome = run("verify", login, *words_of(with_pattern(part)))
        assert outcome.code == 21
        assert "from end to end" in outcome.err


@pytest.mark.parametrize(
    ("change", "code", "piece"),
    [
        ({"--certificate-identity": "other@example.com"}, 21, "another e-mail address"),
        ({"--certificate-oidc-issuer": "https://evil.example.com"}, 21, "another issuer"),
        ({"--certificate-identity": "signer"}, 2, "expected an e-mail address or a URI"),
        ({"--trusted-root": "none.json"}, 13, "none.json: no such file"),
        ({"--trusted-root": "empty.json"}, 11, "expected an authority and a log"),
    ],
)
def test_verify_with_another_identity_is_refused(run, login, change, code, piece):
    root = json.loads(Path("../trusted_root.json").read_bytes())
    Path("empty.json").write_text(json.dumps({**root, "tlogs": []}))
    outcome = run("verify", login, *words_of({**LOGIN, **change}))
    assert outcome.code == code
    assert piece in outcome.err


def test_verify_with_a_pattern_that_is_none_is_refused(run, login):
    outcome = run("verify", login, *words_of(with_pattern("(?=x)")))
    assert outcome.code == 11
    assert "--certificate-identity-regexp: " in outcome.err
    assert "regular expression of RE2" in outcome.err


def test_verify_notation_signature_of_ours(run, pushed, policy, tmp_path, keys):
    words = ("--notation-key", keys / "notary-ec-leaf.key")
    words += ("--notation-chain", keys / "notary-ec-full.pem")
    assert run("sign", pushed, *words, "--signature-format", "cose").code == 0
    store = tmp_path / "store" / "x509" / "ca" / "acme"
    store.mkdir(parents=True)
    (store / "root.pem").write_bytes((keys / "notary-ec-root.pem").read_bytes())
    statement = {
        "name": "p",
        "registryScopes": ["*"],
        "signatureVerification": {"level": "strict"},
        "trustStores": ["ca:acme"],
        "trustedIdentities": ["*"],
    }
    trust = {"version": "1.0", "trustPolicies": [statement]}
    (tmp_path / "trust.json").write_text(json.dumps(trust))
    rule = {
        "type": "notation",
        "trustPolicyPath": str(tmp_path / "trust.json"),
        "trustStorePath": str(tmp_path / "store"),
    }
    outcome = run("verify", pushed, *policy(rule), "--json")
    assert outcome.json()["signers"][0]["subject"] == "CN=notary-ec leaf,O=imagers test"
    (store / "root.pem").write_bytes((keys / "notary-rsa-root.pem").read_bytes())
    assert run("verify", pushed, *policy(rule)).code == 21


@pytest.mark.parametrize("words", [("--json",), ("--explain",), ("--explain", "--json")])
def test_verify_under_a_policy_without_its_key_gives_no_answer(run, plain, tmp_path, words):
    """It said "no", and that the image could not be read, which nobody had tried."""
    policy = tmp_path / "policy.json"
    requirement = {"type": "sigstoreSigned", "keyPath": str(tmp_path / "none.pub")}
    policy.write_text(json.dumps({"default": [requirement]}))
    outcome = run("verify", plain, "--policy", policy, *words)
    assert outcome.code == 13
    if "--json" in words:
        assert set(outcome.json()) == {"error"}
    else:
        assert outcome.out == ""
    assert "none.pub" in outcome.err


@pytest.mark.usefixtures("signer")
def test_verify_of_an_image_that_can_have_no_signature_says_where_it_could(run, plain):
    outcome = run("verify", plain, "--key", "signer.pub")
    assert outcome.code == 21
    assert "hint: signatures are kept in registries: push the image" in outcome.err
