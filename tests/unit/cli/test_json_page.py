# SPDX-License-Identifier: Apache-2.0
"""docs/json.md and what `--json` prints, against each other in both directions."""

import json
import os
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
import pytest

from imagers.cli.main import VERBS, root
from imagers.errors import KeyUnavailable
from imagers.evidence.tdx.collect import RTMR
from imagers.model.descriptor import Platform
from imagers.model.digest import digest_of
from imagers.model.media import Compression
from imagers.model.strict_json import dump_json
from imagers.store import Store, load_store_key
from imagers.store.seal import Checks, Seal, entry_name
from imagers.store.store import BUNDLE
from imagers.testing import (
    EmbeddedRegistry,
    TarEntry,
    make_image,
    make_index,
    make_layer,
    make_tar,
)
from imagers.testing.evidence import Machine
from tests.unit.evidence.sgx.test_sigstruct import make_sigstruct
from tests.unit.evidence.tdx.test_collect import Registers
from tests.unit.evidence.test_corim import pem, platform_manifest
from tests.unit.evidence.test_ear import KEY, NOW, token

PAGE = Path(__file__).resolve().parents[3] / "docs" / "json.md"
HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)
ROW = re.compile(r"^\| `([a-z_]+)` \| (.+?) \| (.+?) \| (.*?) ?\|$", re.MULTILINE)
LINK = re.compile(r"\[([^]]+)\]\(#([a-z-]+)\)")
PRIMITIVES = {"text": str, "bool": bool, "map": dict, "document": dict, "null": type(None)}
# Words that print no facts: a server, and nothing else.
WITHOUT = {"broker serve", "attest ak request", "attest ak challenge", "attest ak answer"}


def read_page():
    """The tables by heading, each member with its type and whether it may be absent."""
    text = PAGE.read_text()
    starts = [*HEADING.finditer(text)]
    tables = {}
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        section = text[start.end() : end.start() if end else len(text)]
        rows = {name: (kind, bool(absent)) for name, kind, _, absent in ROW.findall(section)}
        if rows:
            lines = [line for line in section.splitlines() if line.startswith("| `")]
            assert len(lines) == len(rows), f"a row of {start[1]} that is none, or twice"
            tables[start[1].strip("`").removeprefix("imagers ")] = rows
    return tables


TABLES = read_page()


def fits(kind, value, path, seen):
    """Whether a value is of a type of the page; notes the members that it has."""
    if kind.startswith("list of ") and not kind.endswith(" or null"):
        return isinstance(value, list) and all(
            fits(kind.removeprefix("list of "), one, path, seen) for one in value
        )
    if " or " in kind:
        return any(fits(one, value, path, seen) for one in kind.rsplit(" or ", 1))
    if link := LINK.fullmatch(kind):
        assert link[1].replace(" ", "-") == link[2], f"{path}: the link leads elsewhere"
        check(link[1], value, path, seen)
        return True
    if kind in {"integer", "number"}:
        numbers = (int,) if kind == "integer" else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, PRIMITIVES[kind])


def check(name, document, path, seen):
    """Hold a document against a table: no member that is not there, none that is missing."""
    table = TABLES[name]
    assert isinstance(document, dict), path
    assert set(document) <= set(table), f"{path}: members that the page has not, of {name}"
    for member, (kind, may_be_absent) in table.items():
        at = f"{path}.{member}"
        if member not in document:
            assert may_be_absent, f"{at}: is missing"
            continue
        value = document[member]
        assert fits(kind, value, at, seen), f"{at}: expected {kind}, got {value!r}"
        if value is not None or kind == "null":
            seen.add((name, member))


def words_below(command, path):
    if not isinstance(command, click.Group):
        yield path
        return
    for name in command.list_commands(click.Context(command)):
        yield from words_below(command.get_command(click.Context(command), name), f"{path} {name}")


def test_page_has_a_table_for_every_verb_and_no_other():
    verbs = {
        word
        for name in VERBS
        for word in words_below(root.get_command(click.Context(root), name), name)
    }
    kinds = [kind for rows in TABLES.values() for kind, _ in rows.values()]
    parts = {link[0] for kind in kinds for link in LINK.findall(kind)}
    assert set(TABLES) == (verbs - WITHOUT) | parts | {"Errors"}


class Documents:
    """Runs commands with `--json` and holds what they print against the page."""

    def __init__(self, run):
        self._run = run
        self.seen = set()

    def __call__(self, verb, *words, code=0):
        outcome = self._run(*verb.split(), *words, "--json")
        assert outcome.code == code, outcome.err
        document = outcome.json()  # one document, and nothing else
        check("Errors" if set(document) == {"error"} else verb, document, verb, self.seen)
        return document


@pytest.fixture
def made(run):
    return Documents(run)


TOC = "containerd.io/snapshot/stargz/toc.digest"
CONFIG = {
    "created": "2026-01-31T12:00:00Z",
    "config": {
        "User": "1000",
        "WorkingDir": "/",
        "Entrypoint": ["/bin/sh"],
        "Cmd": ["-c"],
        "Env": ["A=b"],
        "Labels": {"any name": "text"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
    },
}


@pytest.fixture
def labelled(tmp_path):
    """An image with all that is shown of a config, and with what `pull` leaves out."""
    tar = make_tar(TarEntry.file("sh", pax_headers={"SCHILY.xattr.security.selinux": "x\0"}))
    layer = make_layer(tar, Compression.NONE)
    members = {"layers": [layer.descriptor.to_json() | {"annotations": {TOC: "sha256:1"}}]}
    return make_image(layer, config=CONFIG, manifest=members).save(tmp_path / "labelled")


@pytest.fixture
def index(tmp_path):
    """An index: an image, and an attestation of it as BuildKit writes it."""
    image = make_image(make_layer(make_tar(TarEntry.file("sh"))))
    attestation = make_image(make_layer(b"{}"), platform=Platform("unknown", "unknown"))
    annotations = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": str(image.descriptor.digest),
    }
    entries = [
        image.descriptor.to_json(),
        attestation.descriptor.to_json() | {"annotations": annotations},
    ]
    return make_index(image, attestation, index={"manifests": entries}).save(tmp_path / "index")


def change_images(made, keys, plain, labelled, index, admin):
    recipient, new = f"jwe:{keys}/r2048.pub", f"jwe:{keys}/ec256.pub"
    jwe, key = ("--encryption-key", recipient), ("--decryption-key", f"{keys}/r2048.key")
    made("copy", plain, "oci:copied:v1")
    facts = made("encrypt", labelled, "oci:e:v1", *jwe, "--platform", "linux/amd64")
    assert facts["layers"][0]["left_out"] == [TOC]
    made("encrypt", plain, "oci:k:v1", "--encryption-key", "broker:kbs:///a/b/", *admin)
    words = ("--add-recipient", new, "--remove-recipient", recipient)
    made("encrypt", "oci:e:v1", "oci:r:v1", *words, *key, "--platform", "linux/amd64")
    made("encrypt", index, "oci:all:v1", *jwe, "--all")
    made("encrypt", "oci:all:v1", "oci:more:v1", "--add-recipient", new, *key, "--all")
    made("decrypt", "oci:e:v1", "oci:d:v1", *key, "--platform", "linux/amd64")
    made("decrypt", "oci:all:v1", "oci:dall:v1", *key, "--all")
    made("decrypt", "oci:e:v1", "oci:no:v1", code=30)


def make_keys(made):
    for kind, name in (("cosign", "signer"), ("rsa", "r"), ("ec", "e"), ("kek", "k")):
        made("key generate", kind, "--output", name)
    made("key show", "r.pub")
    made("key show", "signer.key")
    made("key show", "k.kek", code=11)


def put_bundle_entry():
    name = entry_name(BUNDLE, digest_of(b"path"))
    with (
        load_store_key(Path(os.environ["XDG_RUNTIME_DIR"], "imagers")) as key,
        Store(Path(os.environ["IMAGERS_STORE"]), key) as store,
        store.prepare(name) as new,
    ):
        checks = Checks(digest_of(b"image"), "signature", "00" * 32, (), 0)
        new.commit(Seal(name, 0, checks, facts={"bundle": "/b", "boot": "earlier"})).close()


def sign_and_verify(made, pushed):
    made("policy init", "--scope", "h/app", "--key", "signer.pub")
    made("policy init", "--scope", "h/app", "--key", "signer.pub", "--output", "p.json")
    made("policy init", "--scope", "h/app", "--key", "none.pub", code=13)
    Path("odd.json").write_text(
        json.dumps({"default": [{"type": "sigstoreSigned", "keyPath": "signer.pub"}]})
    )
    made("policy check", "odd.json")
    policy = ("--policy", "odd.json")
    made("verify", pushed, *policy, "--explain", code=21)
    made("verify", "127.0.0.1:1/a:v1", *policy, code=10)
    made("sign", pushed, "--key", "signer.key", "--new-bundle-format")
    made("verify", pushed, *policy)
    made("verify", pushed, *policy, "--explain")
    made("pull", pushed, "signed", *policy)
    names = [one["name"] for one in made("store list")["entries"]]
    made("store verify")
    put_bundle_entry()
    Path(os.environ["IMAGERS_STORE"], names[0], "seal").write_text("none")
    made("store list")
    made("store verify", code=20)
    made("store gc")
    made("store remove", names[1])
    made("inspect", pushed, "--referrers")
    made("list-tags", pushed.removesuffix(":v1"))
    made("delete", pushed)


def verify_evidence(made, snp_words):
    policy = "ours.json"
    Path("nobody.json").write_text("{}")
    for name, words in (
        ("attest verify", (*snp_words[2:], "--policy", policy)),
        ("attest diff", (snp_words[2], policy, *snp_words[3:])),
    ):
        made(name, *words)
        made(name, *words, "--report-data", "00", code=40)
        other = ["nobody.json" if word == policy else word for word in words]
        made(name, *other, code=40)
    for crl in Path("collateral").rglob("*.crl"):
        crl.unlink()
    made("attest verify", *snp_words[2:], code=22)
    made("attest diff", snp_words[2], policy, *snp_words[3:], code=22)


def use_a_broker(made, admin):
    Path("secret").write_bytes(b"secret")
    Path("policy").write_text('{"rules": [{"allow": true, "resource": "**"}]}')
    Path("broker.toml").write_text('state = "state"\n')
    made("broker check-config", "broker.toml")
    made("broker init", "first", "--name", "broker.example.org")
    made("broker put", "kbs:///x/y/z", "secret", *admin)
    made("broker put", "kbs:///x/y/z", "secret", *admin, code=10)
    made("broker get", "kbs:///x/y/z", *admin)
    made("broker list", *admin)
    text = made("broker policy show", *admin)["text"]
    Path("policy").write_text(text)
    made("broker policy set", "policy", *admin)
    made("broker policy reset", *admin)
    submod = {"ear.status": "warning", "ear.trustworthiness-vector": {"hardware": 40}}
    Path("token.json").write_bytes(dump_json({"submods": {"cpu0": submod}}))
    Path("resource.rego").write_text(
        "package policy\ndefault allow := false\nallow if input.imagers.image\n"
        'reason := base64.decode(input.submods.cpu0["ear.status"])\n'
    )
    Path("attestation.rego").write_text('package policy\ntrust_claims := {"hardware": 2}\n')
    asked = ("--claims", "token.json", "--resource", "kbs:///x/y/z")
    made("broker policy test", "policy", *asked, code=21)
    made("broker policy test", "resource.rego", *asked, code=21)
    image = f"sha256:{'ab' * 32}"
    Path("rule.rego").write_text('package policy\nallow if input.submods\nrule := "r"\n')
    made("broker policy test", "rule.rego", *asked, "--image", image)
    made("broker policy test", "attestation.rego", *asked)
    made("broker delete", "kbs:///x/y/z", *admin)
    until = ("--expires", "2030-01-01T00:00:00Z", "--source", "the test")
    made("broker reference-value set", "a", "x", "5", "true", *until, *admin)
    made("broker reference-value set", "a", "y", "--add", *admin)
    made("broker reference-value set", "b", "5", "--single", *admin)
    made("broker reference-value list", *admin)
    made("broker reference-value delete", "a", *admin)
    made("key generate", "admin", "--output", "alice")
    made("broker tenant add", "team-a", *admin)
    made("broker tenant assign", "team-a", "app-a", *admin)
    made("broker tenant list", *admin)
    words = ("--role", "owner", "--tenant", "team-a")
    made("broker admin-key add", "alice", "alice.pub", *words, *admin)
    made("broker admin-key list", "--tenant", "team-a", *admin)
    made("broker tenant remove", "team-a", *admin)
    made("broker admin-key add", "bob", "alice.pub", "--role", "auditor", *admin)
    made("broker admin-key remove", "bob", *admin)


def know_images(made, admin, broker):
    one, two = (digest_of(name) for name in (b"one", b"two"))
    for name, image in (("kbs:///i/b/1", one), ("kbs:///i/b/2", two)):
        broker.put(name, b"secret", image=image)
    made("key generate", "admin", "--output", "carol")
    made("broker admin-key add", "carol", "carol.pub", "--role", "writer", *admin)
    made("broker image approve", "i", one, *admin[:-1], "carol.key")
    made("broker image supersede", "i", one, "--by", two, *admin)
    made("broker image floor", "i", two, *admin)
    made("broker image revoke", "i", one, "--reason", "CVE-2026-1", *admin)
    made("broker image list", "i", *admin)
    made("broker put", "kbs:///x/y/w", "secret", "--expires", "2099-01-01T00:00:00Z", *admin)
    made("broker get", "kbs:///x/y/w", *admin)
    made("broker put", "kbs:///x/y/w", "secret", "--replace", "--max-uses", "3", *admin)
    made("broker get", "kbs:///x/y/w", *admin)
    made("broker delete", "kbs:///x/y/w", *admin)
    made("broker put", "kbs:///x/y/w", "secret", *admin)
    made("broker get", "kbs:///x/y/w", *admin)
    made("broker delete", "kbs:///x/y/w", *admin)
    made("broker undelete", "kbs:///x/y/w", *admin)


def look_after_collateral(made, world, monkeypatch):
    words = ("--insecure-test-root", "roots.pem", "--into", "c")
    crl = world.crl(begin=datetime.now(UTC))
    Path("crl").write_bytes(crl)
    name = ("--name", "snp/Genoa/vcek.crl")
    made("attest collateral import", "crl", *name, *words)
    made("attest collateral show", *words)
    source = ("--tee", "snp", "--source", "http://127.0.0.1:1", *words)
    made("attest collateral fetch", "evidence.json", *source)
    made("attest collateral export", "c.tar", "--into", "c")
    made("attest evidence", "--tee", "sample")
    Path("tee.json").write_bytes(dump_json(Machine(tee="sgx", seed=bytes(32)).to_json()))
    monkeypatch.setenv("IMAGERS_TEST_TEE", "tee.json")
    with pytest.warns(UserWarning, match="made up"):
        made("attest ratls", "cert.pem", "cert.key", "--tee", "sgx-test")
    Path("aa").write_text("a = 1")
    made("attest initdata make", "aa.toml=aa", "--output", "init.toml")
    made("attest initdata digest", "init.toml")
    made("attest initdata show", "init.toml")
    Path("answer").write_text(json.dumps({"secret": "AA" * 21 + "A="}))
    kept = {"secret": "AA" * 21 + "A=", "trusted_aks": "MIIB"}
    Path("kept").write_text(json.dumps(kept))
    made("attest ak accept", "answer", "--secret", "kept")
    Path("theirs").write_text('{"mr_td": ["00"]}')
    made("attest reference import", "theirs", "--expires", "2099-01-01T00:00:00Z")
    made("attest reference import", "theirs", "--output", "refs.json")
    made("attest reference show", "refs.json")
    Path("platform.corim").write_bytes(platform_manifest())
    made("attest reference import", "platform.corim")
    Path("result.jwt").write_text(token())
    Path("key.pem").write_bytes(pem(KEY))
    made("attest token", "result.jwt", "--key", "key.pem", "--at", NOW.isoformat())
    Path("x.sig").write_bytes(make_sigstruct())
    made("attest reference make", "x.sig", "--tee", "sgx")


def test_what_every_verb_prints_is_on_the_page_and_the_reverse(
    made,
    keys,
    plain,
    labelled,
    index,
    accept,
    admin,
    snp_words,
    snp_world,
    imagers_registry,
    imagers_broker,
    monkeypatch,
):
    verify_evidence(made, snp_words)
    look_after_collateral(made, snp_world, monkeypatch)
    pushed = f"docker://{imagers_registry.address}/team/app:v1"
    made("copy", plain, pushed)
    change_images(made, keys, plain, labelled, index, admin)
    made("inspect", labelled, "--platform", "linux/amd64")
    made("inspect", "oci:e:v1", "--platform", "linux/amd64")
    made("inspect", index, "--platform", "linux/amd64")
    monkeypatch.setenv("AAEL_PATH", "eventlog")
    kernel = partial(RTMR, kernel=Registers())
    monkeypatch.setattr("imagers.evidence.tdx.collect.RTMR", kernel)
    words = ("--policy", accept, "--platform", "linux/amd64", "--measure", "rtmr:3")
    words = (*words, "--trace", "trace.html")
    made("pull", labelled, "bundle", *words)
    make_keys(made)
    sign_and_verify(made, pushed)
    use_a_broker(made, admin)
    know_images(made, admin, imagers_broker)
    image = digest_of(b"image")
    imagers_broker.put("kbs:///a/b/c", b"secret", image=image)
    with imagers_broker.client() as guest:
        guest.get("kbs:///a/b/c", manifest_digest=image).close()
        with pytest.raises(KeyUnavailable):
            guest.get("kbs:///a/b/c", manifest_digest=digest_of(b"other"))
    made("broker audit", *admin)
    made("broker ui", *admin)
    newest = imagers_broker.log[-1].id
    made("broker audit", "--why", newest, *admin)
    made("broker audit", "--export-head", "head", *admin)
    state = imagers_broker.admin_key_file.parent
    made("broker audit", "--verify", "--head", "head", "--state", state, *admin)
    made("broker backup", "--state", state, "backup")
    for name in ("a/b/d", "bad"):
        secret = Path("trustee/repository", name)
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_bytes(b"secret")
    made("broker import-trustee", "trustee", *admin, code=12)
    made("broker rotate-master-key", "--state", state)
    made("broker rotate-master-key", "--state", state, "--database", "postgresql:///x")
    other = Path("other")
    other.mkdir(mode=0o700)
    (former,) = state.glob("master.key.*")
    former.rename(other / "master.key")
    made("broker restore", "--state", other, "backup")
    Path("password").write_text("s3cret")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(Path("auth.json").absolute()))
    with EmbeddedRegistry(username="me", password="s3cret") as registry:
        words = ("--username", "me", "--password-file", "password")
        made("login", registry.address, *words)
        made("logout", registry.address)
        made("logout", registry.address, code=2)
    rows = {(name, member) for name, table in TABLES.items() for member in table}
    assert rows - made.seen == set()
