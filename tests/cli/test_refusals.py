# SPDX-License-Identifier: Apache-2.0
"""Everything that must be refused: one clear line, the right exit code, and nothing left.

Each table has a sentence, which is the test's id, and what the line must say.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from imagers.testing.registry import EmbeddedRegistry

USAGE, REMOTE, FORMAT, UNSUPPORTED, LOCAL, INTEGRITY, DENIED = 2, 10, 11, 12, 13, 20, 21
COULD_NOT_VERIFY, NO_KEY, KEY_REFUSED, ATTESTATION, PLUGIN = 22, 30, 31, 40, 50

SECONDS = 60  # that a refusal may take, the start of Python and a busy machine included


class Expect:
    """How a refusal looks: exit code, and pieces of its line."""

    def __init__(self, code, *pieces):
        self.code = code
        self.pieces = pieces


@pytest.fixture
def refused(imagers):
    """A function: run a command that must be refused as expected, and leave no trace."""

    def run(expect, *words, stays=(), **options):
        before = {*imagers.leftovers(), *stays}
        start = time.monotonic()
        result = imagers(*words, **options)
        seconds = time.monotonic() - start
        line = result.error
        assert result.code == expect.code, result
        for piece in expect.pieces:
            assert piece.lower() in line.lower(), result
        assert result.stdout == "", result
        assert set(imagers.leftovers()) <= before, result
        assert seconds < SECONDS, result
        return result

    return run


# ---- damaged images in a layout -----------------------------------------------------------


def table(**rows):
    """Rows by sentence: the words of the name, with underscores."""
    return pytest.mark.parametrize(
        "case", rows.values(), ids=[name.replace("_", " ") for name in rows]
    )


def no_manifest(images):
    layout = images.build()
    images.blob(layout, images.manifest_digest(layout)).unlink()
    return layout


def raw_manifest(data):
    return lambda images: images.build(change_manifest=lambda _: data)


def changed_manifest(**members):
    return lambda images: images.build(change_manifest=lambda manifest: {**manifest, **members})


def changed_layer(**members):
    def build(images):
        return images.build(change_layer=lambda _index, layer, _put: layer.update(members))

    return build


def changed_config(change):
    return lambda images: images.build(change_config=change)


def changed_blob(change, number=0):
    """The bytes of a layer are others; its descriptor stays."""

    def build(images):
        layout = images.build(images.tar(("a", b"x" * 3000)), images.tar(("b", os.urandom(3000))))
        path = images.blob(layout, images.manifest(layout)["layers"][number]["digest"])
        path.write_bytes(change(path.read_bytes()))
        return layout

    return build


def other_bytes(data, media_type="application/vnd.oci.image.layer.v1.tar+gzip"):
    """The layer is other bytes, with the right descriptor for them."""

    def build(images):
        def change(_index, layer, put):
            layer.update(digest=put(data), size=len(data), mediaType=media_type)

        return images.build(change_layer=change)

    return build


def of_tar(*entries):
    """A layer of these entries; each is a function of `images` or a (name, content)."""

    def build(images):
        listed = [entry(images) if callable(entry) else entry for entry in entries]
        return images.build(images.tar(*listed))

    return build


def wrong_size_in_index(images):
    layout = images.build()
    name = images.manifest_digest(layout)
    images.write_index(layout, name, 17)
    return layout


def other_diff_id(config):
    config["rootfs"]["diff_ids"] = ["sha256:" + "5" * 64]


def one_more_diff_id(config):
    config["rootfs"]["diff_ids"].append("sha256:" + "5" * 64)


def for_windows(config):
    config["os"] = "windows"


def no_rootfs(config):
    del config["rootfs"]


def of_user(name):
    def change(config):
        config["config"]["User"] = name

    return change


def flip(data):
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


NO_LAYER = "application/vnd.example.nothing"
DAMAGED = {
    "a manifest that is missing": (no_manifest, Expect(REMOTE, "manifest")),
    "a manifest that is no JSON": (raw_manifest(b"hello"), Expect(FORMAT, "manifest")),
    "a manifest that is empty": (raw_manifest(b""), Expect(FORMAT, "manifest")),
    "a manifest of binary garbage": (raw_manifest(bytes(range(256))), Expect(FORMAT, "manifest")),
    "a manifest that is a list": (raw_manifest(b"[]"), Expect(FORMAT, "manifest")),
    "a manifest of ten thousand brackets": (raw_manifest(b"[" * 10_000), Expect(FORMAT)),
    "a manifest with a member twice": (
        raw_manifest(b'{"schemaVersion":2,"schemaVersion":2}'),
        Expect(FORMAT, "manifest", "schemaVersion"),
    ),
    "a manifest of version 1": (changed_manifest(schemaVersion=1), Expect(UNSUPPORTED, "1")),
    "a manifest of an unknown media type": (
        changed_manifest(mediaType=NO_LAYER),
        Expect(FORMAT, NO_LAYER),
    ),
    "a manifest of a list of layers that is none": (
        changed_manifest(layers="all"),
        Expect(FORMAT, "$.layers"),
    ),
    "a manifest without layers": (changed_manifest(layers=[]), Expect(INTEGRITY, "0", "1")),
    "a manifest with more layers than its config": (
        changed_manifest(
            layers=[
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": "sha256:" + "5" * 64,
                    "size": 1,
                }
            ]
            * 513
        ),
        Expect(INTEGRITY, "expected 1", "got 513"),
    ),
    "a manifest shorter than its descriptor": (wrong_size_in_index, Expect(INTEGRITY, "17")),
    "an unknown media type of a layer": (
        changed_layer(mediaType=NO_LAYER),
        Expect(UNSUPPORTED, "layer 1 of 1", NO_LAYER),
    ),
    "a layer with a size that is no number": (
        changed_layer(size="9"),
        Expect(FORMAT, "$.layers[0].size"),
    ),
    "a layer with a negative size": (changed_layer(size=-1), Expect(FORMAT, "$.layers[0].size")),
    "a layer with a digest that leads elsewhere": (
        changed_layer(digest="sha256:../../../../etc/passwd"),
        Expect(FORMAT, "$.layers[0].digest"),
    ),
    "a layer that is missing": (
        changed_layer(digest="sha256:" + "7" * 64),
        Expect(REMOTE, "layer 1 of 1"),
    ),
    "a layer shorter than its descriptor": (
        changed_blob(lambda data: data[:-1]),
        Expect(INTEGRITY, "layer 1 of 2", "expected"),
    ),
    "the last layer shorter than its descriptor": (
        changed_blob(lambda data: data[: len(data) // 2], number=1),
        Expect(INTEGRITY, "layer 2 of 2", "expected"),
    ),
    "a layer that is empty": (
        changed_blob(lambda _: b""),
        Expect(INTEGRITY, "layer 1 of 2", "got 0"),
    ),
    "a layer longer than its descriptor": (
        changed_blob(lambda data: data + b"!"),
        Expect(INTEGRITY, "layer 1 of 2", "expected"),
    ),
    "a layer other than its descriptor": (
        changed_blob(flip, number=1),
        Expect(INTEGRITY, "layer 2 of 2", "digest mismatch: expected 'sha256:", "got 'sha256:"),
    ),
    "a wrong diff_id": (
        changed_config(other_diff_id),
        Expect(INTEGRITY, "layer 1 of 1", "diff_id mismatch", f"'sha256:{'5' * 64}'", "got"),
    ),
    "a config with one diff_id more than layers": (
        changed_config(one_more_diff_id),
        Expect(INTEGRITY, "expected", "2", "1"),
    ),
    "a config that is no JSON": (changed_config(lambda _: b"\x00\x01"), Expect(FORMAT, "config")),
    "a config without rootfs": (
        changed_config(no_rootfs),
        Expect(INTEGRITY, "count of layers", "0", "1"),
    ),
    "an image for windows": (changed_config(for_windows), Expect(DENIED, "windows", "linux/amd64")),
    "a user that the image does not have": (
        changed_config(of_user("nobody-here")),
        Expect(FORMAT, "nobody-here"),
    ),
    "a layer that is no gzip": (other_bytes(b"hello" * 1000), Expect(FORMAT, "layer 1 of 1")),
    "a layer that is no zstd": (
        other_bytes(b"hello" * 1000, "application/vnd.oci.image.layer.v1.tar+zstd"),
        Expect(FORMAT, "layer 1 of 1"),
    ),
    "a layer that is no tar": (
        other_bytes(b"hello" * 1000, "application/vnd.oci.image.layer.v1.tar"),
        Expect(FORMAT, "layer 1 of 1"),
    ),
    "a tar that goes up": (of_tar(("../out", b"x")), Expect(FORMAT, "../out")),
    "a tar that goes up in the middle": (
        of_tar(("a/b/../../../out", b"x")),
        Expect(FORMAT, "a/b/../../../out"),
    ),
    "a tar with a hard link that goes up": (
        of_tar(lambda images: images.hard_link("passwd", "../../../../../../etc/passwd")),
        Expect(FORMAT, "passwd"),
    ),
    "a tar with a hard link through a symlink": (
        of_tar(
            lambda images: images.link("way", "/etc"),
            lambda images: images.hard_link("passwd", "way/passwd"),
        ),
        Expect(FORMAT, "passwd"),
    ),
    "a tar with a whiteout that goes up": (
        of_tar(("../.wh.out", b"")),
        Expect(FORMAT, "../.wh.out"),
    ),
    "a tar with a whiteout of dot dot": (of_tar(("a/.wh...", b"")), Expect(FORMAT, ".wh...")),
    "a tar with an entry of an unknown kind": (
        of_tar(lambda images: images.volume_label("label")),
        Expect(UNSUPPORTED, "label"),
    ),
}


@pytest.fixture
def outside(tmp_path):
    """Looks where those tars aim at: above the bundle and its directory."""
    yield
    assert {path.name for path in tmp_path.iterdir()} <= {
        "accept.json",
        "here",
        "home",
        "images",
        "run",
        "store",
        "tmp",
    }


@pytest.mark.parametrize("case", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.usefixtures("outside")
def test_pull_refuses(refused, images, accept, imagers, case):
    build, expect = case
    layout = build(images)
    refused(expect, "pull", f"oci:{layout}:v1", "bundle", "--policy", accept)
    assert imagers.leftovers() == []


def test_pull_of_an_absolute_name_stays_below_the_root(imagers, images, accept, tmp_path):
    """A leading slash means the top of the image, as for all who unpack layers."""
    target = tmp_path / "absolute"
    layout = images.build(images.tar((f"{target}/file", b"x")))
    result = imagers("pull", f"oci:{layout}:v1", "bundle", "--policy", accept)
    assert not target.exists()
    if result.code == 0:
        assert (imagers.here / f"bundle/rootfs{target}/file").read_bytes() == b"x"
    else:
        assert result.code == FORMAT
        assert imagers.leftovers() == []


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("target", ["/", "../../../..", "/etc/../.."])
def test_pull_of_a_tar_through_a_symlink_stays_below_the_root(imagers, images, accept, target):
    """A link of the image is followed as inside a container: its top is the image's."""
    layout = images.build(images.tar(images.link("way", target), ("way/out", b"x")))
    result = imagers("pull", f"oci:{layout}:v1", "bundle", "--policy", accept)
    assert not Path("/out").exists()
    if result.code == 0:
        assert (imagers.here / "bundle/rootfs/out").read_bytes() == b"x"
        assert [path.name for path in imagers.here.iterdir()] == ["bundle"]
    else:
        assert result.code == FORMAT
        assert imagers.leftovers() == []


def test_pull_never_reads_the_users_of_the_host(imagers, images, accept):
    """The image's /etc leads to the host's: no name of it may be looked up there."""
    layout = images.build(
        images.tar(images.link("etc", "/etc")),
        change_config=lambda config: config["config"].update(User="daemon"),
    )
    result = imagers("pull", f"oci:{layout}:v1", "bundle", "--policy", accept)
    assert result.code == FORMAT
    assert "'daemon'" in result.error
    assert imagers.leftovers() == []


# ---- the vectors: everything that was damaged on purpose must be refused by the command ---


def tampered_cases():
    vectors = Path(__file__).resolve().parent.parent / "vectors" / "ocicrypt"
    document = json.loads((vectors / "manifest.json").read_text())
    cases = [
        (case, keys)
        for case in document["cases"]
        if case["category"] == "tampered" and case["transport"] == "oci"
        for keys in case["keys"]
    ]
    assert len(cases) >= 48
    return cases


@pytest.mark.parametrize(
    "case", tampered_cases(), ids=[case["id"].partition("/")[2] for case, _ in tampered_cases()]
)
def test_pull_refuses_the_tampered_vector(imagers, vectors, accept, case):
    case, keys = case
    words = ["pull", f"oci:{vectors / case['path']}:{case['ref']}", "bundle", "--policy", accept]
    for key in keys:
        words += ["--decryption-key", vectors / key]
    if case["kind"] == "unencrypted-layer":
        # The content is genuine: only a demand for encryption refuses it.
        words.append("--require-encrypted")
    result = imagers(*words)
    assert result.error
    assert result.code in (FORMAT, UNSUPPORTED, INTEGRITY, DENIED, NO_KEY), result
    assert result.stdout == ""
    assert imagers.leftovers() == []


# ---- keys, policies, places -----------------------------------------------------------------


@pytest.fixture
def sealed(vectors):
    """The name of an image that keys/r2048.key opens."""
    return f"oci:{vectors}/encrypted/jwe-rsa2048-gzip-C/image:v1"


WRONG_KEYS = {
    "no key": ([], Expect(NO_KEY, "layer 1 of 3", "no key was given")),
    "a wrong key": (["{keys}/r4096.key"], Expect(NO_KEY, "layer 1 of 3", "none of the given keys")),
    "a key of another kind": (["{keys}/ec256.key"], Expect(NO_KEY, "layer 1 of 3")),
    "a public key": (["{keys}/r2048.pub"], Expect(FORMAT, "is a public key, expected a private")),
    "a signing key": (["{keys}/cosign1.key"], Expect(UNSUPPORTED, "is a signing key")),
    "a certificate": (
        ["{keys}/cert1.crt"],
        Expect(USAGE, "cert1.crt", "none of the given private"),
    ),
    "a JSON file": (["{accept}"], Expect(FORMAT, "accept.json")),
    "a program": (["/bin/sh"], Expect(FORMAT, "/bin/sh", "expected")),
    "an empty file": (["/dev/null"], Expect(FORMAT, "/dev/null: expected a private key")),
    "an endless file": (["/dev/zero"], Expect(FORMAT, "/dev/zero: expected at most")),
    "a directory": (["/"], Expect(LOCAL, "/: ", "is a directory")),
    "a missing file": (["nowhere.key"], Expect(LOCAL, "nowhere.key: ", "no such file")),
    "an empty name": ([""], Expect(USAGE, "--decryption-key", "empty")),
    "a wrong passphrase": (
        ["{keys}/rpw.key:pass=wrong"],
        Expect(NO_KEY, "rpw.key: the password does not open the key"),
    ),
    "a missing passphrase": (["{keys}/rpw.key"], Expect(NO_KEY, "rpw.key", "none was given")),
    "a needless passphrase": (["{keys}/r2048.key:file={accept}"], Expect(USAGE, "key has none")),
    "a missing passphrase file": (
        ["{keys}/rpw.key:file=nowhere"],
        Expect(LOCAL, "nowhere", "no such file"),
    ),
    "a closed descriptor": (["{keys}/rpw.key:fd=77"], Expect(LOCAL, "file descriptor 77")),
    "a descriptor that is no number": (["{keys}/rpw.key:fd=x"], Expect(USAGE, "fd= and a number")),
}


@pytest.mark.parametrize("case", WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_wrong_keys_are_refused(refused, sealed, keys, accept, case):
    texts, expect = case
    words = ["pull", sealed, "bundle", "--policy", accept]
    for text in texts:
        words += ["--decryption-key", text.format(keys=keys, accept=accept)]
    refused(expect, *words)


POLICIES = {
    "a policy that is missing": (None, Expect(LOCAL, "policy.json", "no such file")),
    "a policy that is no JSON": (b"{", Expect(FORMAT, "policy")),
    "a policy that is empty": (b"", Expect(FORMAT, "policy")),
    "a policy without a default": (b"{}", Expect(FORMAT, "default")),
    "a policy with an empty default": (b'{"default":[]}', Expect(FORMAT, "default")),
    "a policy of an unknown type": (
        b'{"default":[{"type":"insecureAcceptAnythin"}]}',
        Expect(FORMAT, "insecureAcceptAnythin"),
    ),
    "a policy with an unknown member": (
        b'{"default":[{"type":"insecureAcceptAnything","x":1}]}',
        Expect(FORMAT, "x"),
    ),
    "a policy that rejects": (b'{"default":[{"type":"reject"}]}', Expect(DENIED, "reject")),
    "a policy with a missing key": (
        b'{"default":[{"type":"sigstoreSigned","keyPath":"/nowhere.pub"}]}',
        Expect(LOCAL, "/nowhere.pub"),
    ),
    "a policy that wants a signature of a layout": (
        b'{"default":[{"type":"sigstoreSigned","keyPath":"KEYS/cosign1.pub"}]}',
        Expect(DENIED, "signature"),
    ),
}


@pytest.mark.parametrize("case", POLICIES.values(), ids=POLICIES)
def test_pull_under_this_policy_is_refused(refused, sealed, keys, tmp_path, case):
    content, expect = case
    path = tmp_path / "policy.json"
    if content is not None:
        path.write_bytes(content.replace(b"KEYS", os.fsencode(keys)))
    key = ("--decryption-key", keys / "r2048.key")
    refused(expect, "pull", sealed, "bundle", "--policy", path, *key)


def hiding_the_systems_policy():
    """Words before a command that make /etc/containers empty for it; none if it has none."""
    if not os.path.exists("/etc/containers/policy.json"):
        return []
    script = 'mount -t tmpfs none /etc/containers && exec "$@"'
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine has a policy, and does not let us hide it")
    return words


def test_pull_without_any_policy_is_refused(imagers, sealed, keys):
    words = imagers.words("pull", sealed, "bundle", "--decryption-key", keys / "r2048.key")
    result = imagers.run([*hiding_the_systems_policy(), *words])
    assert result.code == LOCAL
    assert "policy" in result.error
    assert str(imagers.home) in result.stderr
    assert "/etc/containers/policy.json" in result.stderr
    assert imagers.leftovers() == []


PLACES = {
    "a bundle with content": ("full", Expect(LOCAL, "full: expected nothing or an empty")),
    "a bundle that is a file": ("file", Expect(LOCAL, "file: expected nothing or an empty")),
    "a bundle that is a symbolic link": ("link", Expect(LOCAL, "link: expected", "symbolic link")),
    "a bundle in a missing directory": ("no/such", Expect(LOCAL, "expected a directory", "got")),
    "a bundle below a file": ("file/bundle", Expect(LOCAL, "expected a directory")),
    "a bundle with an empty name": ("", Expect(USAGE, "BUNDLE")),
    "a bundle with a very long name": ("x" * 300, Expect(LOCAL, "too long")),
    "the root directory": ("/", Expect(LOCAL, "expected a path that ends in a name")),
    "the directory above": ("..", Expect(LOCAL, "expected a path that ends in a name")),
    "a bundle in /proc": ("/proc/bundle", Expect(LOCAL, "/proc")),
}


@pytest.mark.parametrize("case", PLACES.values(), ids=PLACES)
def test_pull_to_this_place_is_refused(refused, sealed, keys, accept, imagers, case):
    (imagers.here / "full").mkdir()
    (imagers.here / "full" / "content").touch()
    (imagers.here / "file").write_text("mine")
    (imagers.here / "empty").mkdir()
    (imagers.here / "link").symlink_to("empty")
    bundle, expect = case
    words = ("--policy", accept, "--decryption-key", keys / "r2048.key")
    refused(expect, "pull", sealed, bundle, *words)
    assert (imagers.here / "file").read_text() == "mine"
    assert [path.name for path in (imagers.here / "full").iterdir()] == ["content"]
    assert not list((imagers.here / "empty").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_pull_into_a_directory_of_somebody_else_is_refused(imagers, images, accept):
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copytree(images.build(), place / "image")
        shutil.copy(accept, place / "accept.json")
        (place / "accept.json").chmod(0o644)
        words = ("pull", "oci:image:v1", "bundle", "--policy", "accept.json")
        # A home of root's would be refused first, for the configuration that may be in it.
        environment = imagers.environment | {"HOME": str(place), "XDG_CONFIG_HOME": str(place)}
        result = imagers.as_somebody_else(*words, cwd=place, env=environment)
        assert result.code == LOCAL, result
        assert str(place) in result.error
        assert "permission denied" in result.error.lower()
        assert sorted(path.name for path in place.iterdir()) == ["accept.json", "image"]


# ---- names and servers ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def closed_port():
    """A port of this machine where nobody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield server.getsockname()[1]


NAMES = {
    "an unreachable registry": ("127.0.0.1:{port}/app:v1", Expect(REMOTE, "refused")),
    "a registry whose name is unknown": (
        "registry.invalid/app",
        Expect(REMOTE, "registry.invalid", "not found"),
    ),
    "a transport that is not done here": ("sif:x", Expect(UNSUPPORTED, "transport 'sif'")),
    "a directory without an image": ("dir:/etc", Expect(REMOTE, "there is no manifest")),
    "a name in capitals": ("registry.example.org/App", Expect(FORMAT, "lower-case")),
    "an empty name": ("", Expect(USAGE, "empty")),
    "a name with a line break": ("app\nimagers: done", Expect(FORMAT, "expected an image name")),
    "a name of a hundred thousand letters": ("x" * 100_000, Expect(FORMAT, "image name")),
    "a layout that is missing": ("oci:nowhere:v1", Expect(LOCAL, "nowhere", "no such directory")),
    "a layout that is a file": ("oci:{accept}:v1", Expect(LOCAL, "accept.json", "OCI layout")),
    "a directory that is no layout": ("oci:/etc:v1", Expect(LOCAL, "/etc", "oci-layout")),
    "a layout without this tag": ("oci:{layout}:v2", Expect(REMOTE, "v2")),
    "a layout without a path": ("oci:", Expect(FORMAT, "path")),
}


@pytest.mark.parametrize("case", NAMES.values(), ids=NAMES)
def test_source_of_this_name_is_refused(refused, accept, images, closed_port, case):
    name, expect = case
    name = name.format(port=closed_port, accept=accept, layout=images.build())
    refused(expect, "inspect", name)


@pytest.mark.parametrize("verb", ["pull", "copy", "encrypt", "decrypt"])
def test_unreachable_registry_is_refused_by_each_verb(refused, accept, keys, closed_port, verb):
    name, expect = NAMES["an unreachable registry"]
    more = {
        "pull": ["bundle", "--policy", accept],
        "copy": ["oci:copy:v1"],
        "encrypt": ["oci:copy:v1", "--encryption-key", f"jwe:{keys}/r2048.pub"],
        "decrypt": ["oci:copy:v1", "--decryption-key", keys / "r2048.key"],
    }[verb]
    refused(expect, verb, name.format(port=closed_port), *more)


def test_wrong_credentials_are_refused(refused, accept):
    with EmbeddedRegistry(username="user", password="right horse") as registry:
        name = f"{registry.address}/team/app:v1"
        words = ("pull", name, "bundle", "--policy", accept)
        wrong = refused(Expect(REMOTE, "401"), *words, "--creds", "user:wrong-secret-horse")
        assert "wrong-secret-horse" not in wrong.stderr
        refused(Expect(REMOTE, "401"), *words)
        refused(Expect(USAGE, "USER:PASSWORD"), *words, "--creds", "user")
        # The right ones get further: to an image that is not there.
        refused(Expect(REMOTE, "team/app"), *words, "--creds", "user:right horse")


BROKERS = {
    "an unreachable broker": (
        ["--broker", "http://127.0.0.1:{port}", "--tee", "sample"],
        Expect(REMOTE, "127.0.0.1:{port}", "refused"),
    ),
    "http to a broker that is not loopback": (
        ["--broker", "http://192.0.2.1:8080", "--tee", "sample"],
        Expect(USAGE, "http", "192.0.2.1"),
    ),
    "a broker that is no URL": (["--broker", "not one", "--tee", "sample"], Expect(FORMAT, "URL")),
    "a broker without a scheme": (
        ["--broker", "broker.example", "--tee", "sample"],
        Expect(USAGE, "https://"),
    ),
    "a broker of another scheme": (
        ["--broker", "ftp://127.0.0.1", "--tee", "sample"],
        Expect(FORMAT, "ftp"),
    ),
    "a CA file that is missing": (
        ["--broker", "https://127.0.0.1:{port}", "--tee", "sample", "--broker-ca", "nowhere.pem"],
        Expect(LOCAL, "nowhere.pem"),
    ),
    "a CA file that is none": (
        ["--broker", "https://127.0.0.1:{port}", "--tee", "sample", "--broker-ca", "{accept}"],
        Expect(FORMAT, "accept.json", "PEM"),
    ),
    "no TEE": (["--broker", "http://127.0.0.1:{port}"], Expect(ATTESTATION, "TEE")),
    "an unknown TEE": (
        ["--broker", "http://127.0.0.1:{port}", "--tee", "nosuch"],
        Expect(PLUGIN, "nosuch"),
    ),
    "a TEE that is a path": (
        ["--broker", "http://127.0.0.1:{port}", "--tee", "../../bin/sh"],
        Expect(PLUGIN, "../../bin/sh"),
    ),
    "a TEE without a broker": (["--tee", "sample"], Expect(USAGE, "--broker")),
}


@pytest.fixture
def pinned(imagers, images, imagers_registry):
    """The name, with digest, of an image whose keys are at a broker that was never asked."""
    (imagers.here.parent / "kek").write_bytes(bytes(32))
    reference = f"{imagers_registry.address}/team/app"
    facts = imagers.succeed(
        "encrypt",
        f"oci:{images.build()}:v1",
        f"{reference}:v1",
        "--encryption-key",
        "broker:kbs:///default/app/key",
        "--kek-file",
        imagers.here.parent / "kek",
        "--json",
    ).json()
    return f"{reference}@{facts['digest']}"


@pytest.mark.parametrize("case", BROKERS.values(), ids=BROKERS)
def test_pull_with_this_broker_is_refused(refused, pinned, accept, closed_port, case):
    words, expect = case
    words = [word.format(port=closed_port, accept=accept) for word in words]
    expect = Expect(expect.code, *(piece.format(port=closed_port) for piece in expect.pieces))
    refused(expect, "pull", pinned, "bundle", "--policy", accept, *words)


# ---- images in a registry, keys in a broker ---------------------------------------------------


def test_broker_that_denies_is_refused_with_its_reason(refused, publish):
    image = publish()
    image.broker.deny()
    refused(Expect(KEY_REFUSED, "polic"), *image.pull())
    assert image.broker.releases == 0
    assert image.broker.refusals == 1


def test_unsigned_image_is_refused_and_no_key_is_asked_for(refused, publish):
    image = publish(sign=False)
    refused(Expect(DENIED, "signature"), *image.pull())
    assert image.broker.handshakes == 0
    assert image.broker.releases == 0
    assert image.broker.refusals == 0


def test_unsigned_image_that_the_policy_accepts_gets_no_key(refused, publish, accept):
    image = publish(sign=False)
    words = ("pull", image.reference, "bundle", "--policy", accept, *image.guest)
    refused(Expect(DENIED, "keys are not asked for"), *words)
    assert image.broker.handshakes == 0


def test_image_signed_by_another_key_is_refused_and_no_key_is_asked_for(refused, publish):
    image = publish()
    image.policy.write_text(image.policy.read_text().replace("cosign1.pub", "cosign2.pub"))
    refused(Expect(DENIED, "key"), *image.pull())
    assert image.broker.handshakes == 0


def test_signatures_that_cannot_be_looked_for_are_no_missing_signatures(refused, publish):
    image = publish()
    image.registry.answer_with(500, path="/manifests/sha256-", times=50)
    refused(Expect(COULD_NOT_VERIFY, "500"), *image.pull())
    assert image.broker.handshakes == 0


def test_one_byte_of_a_layer_changed_in_the_registry_is_refused(refused, publish, images):
    image = publish(images.build(images.tar(("a", b"1")), images.tar(("b", b"2"))))
    image.registry.corrupt_blob(image.layers[1], 7)
    expect = Expect(INTEGRITY, "layer 2 of 2", f"expected '{image.layers[1]}'", "got 'sha256:")
    refused(expect, *image.pull())


def test_manifest_changed_in_the_registry_is_refused_without_a_key(refused, publish):
    image = publish()
    manifest = json.loads(image.registry.read(image.digest))
    manifest["annotations"] = {"changed": "after signing"}
    image.registry.replace_blob(image.digest, json.dumps(manifest).encode())
    refused(Expect(DENIED), *image.pull())
    assert image.broker.handshakes == 0
    pinned = image.reference.removesuffix(":v1") + f"@{image.digest}"
    words = ("pull", pinned, "bundle", "--policy", image.policy, *image.guest)
    refused(Expect(INTEGRITY, f"expected '{image.digest}'", "got"), *words)
    assert image.broker.handshakes == 0


def test_layer_shorter_in_the_registry_is_refused(refused, publish):
    image = publish()
    data = image.registry.read(image.layers[0])
    image.registry.replace_blob(image.layers[0], data[:-3])
    refused(Expect(INTEGRITY, "layer 1 of 1", str(len(data)), str(len(data) - 3)), *image.pull())


def test_layer_lost_by_the_registry_is_refused(refused, publish):
    image = publish()
    image.registry.drop_blob(image.layers[0])
    refused(Expect(REMOTE, "layer 1 of 1"), *image.pull())


def test_registry_that_breaks_off_each_time_is_refused(refused, publish, images):
    image = publish(images.build(images.tar(("a", os.urandom(100_000)))))
    image.registry.break_off(path=image.layers[0], after=10, times=50)
    refused(Expect(REMOTE), *image.pull())


def test_key_of_another_image_is_refused_by_the_broker(refused, publish, imagers):
    """Layers of an image, moved below a manifest of the attacker's, signed or not."""
    image = publish()
    manifest = json.loads(image.registry.read(image.digest))
    manifest["annotations"] = {"mine": "now"}
    raw = json.dumps(manifest).encode()
    image.registry.replace_blob(image.digest, raw)
    moved = imagers("copy", image.reference, image.reference.replace("team", "evil"))
    assert moved.code == 0, moved
    digest = json.loads(imagers("inspect", moved.words[2], "--json").stdout)["digest"]
    assert digest != image.digest
    image.policy.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    pinned = moved.words[2].removesuffix(":v1") + f"@{digest}"
    words = ("pull", pinned, "bundle", "--policy", image.policy, *image.guest)
    refused(Expect(KEY_REFUSED), *words)
    assert image.broker.releases == 0


def test_existing_resource_at_the_broker_is_not_overwritten(refused, publish, images, imagers):
    image = publish()
    (imagers.here.parent / "secret").write_bytes(b"s" * 32)
    name = "kbs:///default/app/taken"
    imagers.succeed("broker", "put", name, imagers.here.parent / "secret", *image.admin)
    new = f"{image.registry.address}/team/new:v1"
    words = ("encrypt", f"oci:{images.build()}:v1", new, "--encryption-key", f"broker:{name}")
    refused(Expect(REMOTE, "default/app/taken", "already"), *words, *image.admin)
    assert image.registry.tags("team/new") == {}
    put = ("broker", "put", name, imagers.here.parent / "secret", *image.admin)
    refused(Expect(REMOTE, "default/app/taken", "already"), *put)
    imagers.succeed(*put, "--replace")
    imagers.succeed(*words, *image.admin, "--replace")


def test_broker_put_of_a_bad_file_or_name_is_refused(refused, publish, imagers):
    image = publish()
    put = ("broker", "put")
    name = "kbs:///default/app/new"
    refused(Expect(LOCAL, "nowhere", "no such file"), *put, name, "nowhere", *image.admin)
    refused(Expect(LOCAL, "expected 1 to"), *put, name, "/dev/null", *image.admin)
    refused(Expect(LOCAL, "expected 1 to"), *put, name, "/dev/zero", *image.admin)
    refused(Expect(LOCAL, "is a directory"), *put, name, ".", *image.admin)
    refused(Expect(FORMAT, "kbs:///"), *put, "nonsense", "/etc/hostname", *image.admin)
    refused(Expect(FORMAT, "'a/../b'"), *put, "kbs:///a/../b", "/etc/hostname", *image.admin)
    refused(Expect(REMOTE, "default/app/new"), "broker", "get", name, *image.admin)
    refused(Expect(REMOTE, "default/app/new"), "broker", "delete", name, *image.admin)
    (imagers.here.parent / "rules").write_text('{"rules": "all"}')
    rules = ("broker", "policy", "set", imagers.here.parent / "rules")
    refused(Expect(FORMAT, "rules: resource policy at $.rules"), *rules, *image.admin)
    (imagers.here.parent / "rules").write_bytes(b"\xff")
    refused(Expect(FORMAT, "rules: is not UTF-8"), *rules, *image.admin)
    before = imagers.succeed("broker", "policy", "show", *image.admin).stdout
    assert "bound" in before


def test_administrator_with_another_key_is_refused(refused, publish, tmp_path):
    image = publish()
    other = tmp_path / "other"
    words = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(other)]
    subprocess.run(words, check=True, capture_output=True)
    words = ("broker", "list", "--broker", image.broker.url, "--broker-admin-key", other)
    refused(Expect(REMOTE, "does not accept the admin key"), *words)
    words = ("broker", "list", "--broker", image.broker.url)
    refused(Expect(LOCAL, "admin.key", "admin key"), *words)


# ---- the build side ------------------------------------------------------------------------------


RECIPIENTS = {
    "no recipient": ([], Expect(USAGE, "--encryption-key")),
    "a private key": (["jwe:{keys}/r2048.key"], Expect(FORMAT, "is a private key")),
    "a certificate": (["jwe:{keys}/cert1.crt"], Expect(FORMAT, "is a certificate")),
    "a program": (["jwe:/bin/sh"], Expect(FORMAT, "/bin/sh")),
    "a directory": (["jwe:/etc"], Expect(LOCAL, "/etc", "is a directory")),
    "a missing file": (["jwe:nowhere"], Expect(LOCAL, "nowhere", "no such file")),
    "a file without a scheme": (["{keys}/r2048.pub"], Expect(USAGE, "jwe:FILE")),
    "a scheme without a file": (["jwe:"], Expect(USAGE, "jwe:FILE")),
    "a scheme that does not exist": (["rsa:x"], Expect(USAGE, "jwe:FILE")),
    "somebody who is not in the keyring": (["pgp:me"], Expect(NO_KEY, "no key of 'me'")),
    "an EC certificate": (
        ["pkcs7:{keys}/pki-leaf.pem"],
        Expect(UNSUPPORTED, "pki-leaf.pem", "expected a certificate with an rsa key"),
    ),
    "a provider that is not configured": (["provider:x"], Expect(NO_KEY, "no provider")),
    "a broker that is not named": (["broker:kbs:///a/b/"], Expect(USAGE, "no broker is named")),
    "two brokers": (["broker:kbs:///a/b/", "broker:kbs:///a/c/"], Expect(USAGE, "one broker")),
}


@pytest.mark.parametrize("case", RECIPIENTS.values(), ids=RECIPIENTS)
def test_encrypt_for_this_recipient_is_refused(refused, images, keys, case):
    texts, expect = case
    words = ["encrypt", f"oci:{images.build()}:v1", "oci:encrypted:v1"]
    for text in texts:
        words += ["--encryption-key", text.format(keys=keys)]
    refused(expect, *words)


def test_encrypt_of_nothing_or_of_no_layer_is_refused(refused, images, sealed, keys):
    recipient = ("--encryption-key", f"jwe:{keys}/r2048.pub")
    nothing = Expect(USAGE, "nothing to encrypt")
    result = refused(nothing, "encrypt", sealed, "oci:encrypted:v1", *recipient)
    assert "--allow-nothing" in result.stderr
    plain = f"oci:{images.build()}:v1"
    words = ("encrypt", plain, "oci:encrypted:v1", *recipient, "--encrypt-layer")
    refused(Expect(USAGE, "no layer 7", "from -1 to 0"), *words, "7")
    refused(Expect(USAGE, "--encrypt-layer"), *words, "first")


def test_encrypt_of_a_damaged_layer_is_refused(refused, images, keys):
    layout = changed_blob(flip)(images)
    words = ("--encryption-key", f"jwe:{keys}/r2048.pub")
    refused(
        Expect(INTEGRITY, "layer 1 of 2", "digest mismatch"),
        *("encrypt", f"oci:{layout}:v1", "oci:encrypted:v1", *words),
    )


def test_encrypt_with_an_unreachable_broker_publishes_nothing(
    refused, images, imagers_broker, imagers_registry, closed_port
):
    target = f"{imagers_registry.address}/team/app:v1"
    words = ("encrypt", f"oci:{images.build()}:v1", target)
    more = ("--encryption-key", "broker:kbs:///a/b/", "--broker", f"http://127.0.0.1:{closed_port}")
    key = ("--broker-admin-key", imagers_broker.admin_key_file)
    refused(Expect(REMOTE, "refused"), *words, *more, *key)
    assert imagers_registry.asked() == []


def test_sign_with_wrong_things_is_refused(refused, publish, keys, tmp_path):
    image = publish(sign=False)
    (tmp_path / "wrong").write_text("wrong-horse")
    words = ("sign", image.reference, "--sign-by-sigstore-private-key")
    secret = ("--passphrase-file", tmp_path / "wrong")
    refused(Expect(NO_KEY, "cosign1.key", "passphrase"), *words, keys / "cosign1.key", *secret)
    refused(Expect(NO_KEY, "cosign1.key", "passphrase"), *words, keys / "cosign1.key")
    refused(Expect(FORMAT, "cosign1.pub"), *words, keys / "cosign1.pub")
    refused(Expect(FORMAT, "r2048.key"), *words, keys / "r2048.key")
    refused(Expect(LOCAL, "nowhere", "no such file"), *words, "nowhere")
    refused(Expect(USAGE, "--key FILE"), "sign", image.reference)
    assert list(image.registry.tags("team/app")) == ["v1"]


def test_key_generate_never_overwrites(refused, imagers):
    (imagers.here / "a.key").write_text("mine")
    (imagers.here / "b.pub").write_text("mine")
    (imagers.here / "c.kek").write_text("mine")
    for kind, name in (("rsa", "a"), ("cosign", "a"), ("ec", "b"), ("cosign", "b"), ("kek", "c")):
        words = ("key", "generate", kind, "--output", name)
        refused(Expect(LOCAL, f"{name}.", "exists"), *words)
    assert imagers.leftovers() == ["a.key", "b.pub", "c.kek"]
    assert {path.read_text() for path in imagers.here.iterdir()} == {"mine"}
    refused(Expect(LOCAL, "no such"), "key", "generate", "ec", "--output", "no/such/place")
    refused(Expect(USAGE, "cosign"), "key", "generate", "dsa", "--output", "d")
    words = ("key", "generate", "rsa", "--output", "d", "--passphrase-file", "a.key")
    refused(Expect(USAGE, "--passphrase-file"), *words)


@pytest.mark.parametrize("file", ["/dev/null", "/bin/sh", "/etc", "nowhere"])
def test_key_show_of_no_key_is_refused(refused, file):
    code = LOCAL if file in ("/etc", "nowhere") else FORMAT
    refused(Expect(code, file), "key", "show", file)
