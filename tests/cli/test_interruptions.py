# SPDX-License-Identifier: Apache-2.0
"""Commands that are ended from outside: signals, a disk that fills, a server that stalls."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

REMOTE, FORMAT, LOCAL, DENIED, INTERRUPTED, TERMINATED = 10, 11, 13, 21, 130, 143
ENDS_WITHIN = 30  # seconds from the signal to the end


@pytest.fixture
def big(images):
    """A layout of two layers, of which the last one is 4 MB that cannot be compressed."""
    return images.build(images.tar(("a", b"1")), images.tar(("b", os.urandom(4_000_000))))


@pytest.fixture
def stalled(imagers, big, stalling, accept):
    """A pull that has unpacked the first layer and waits in the middle of the last one."""
    registry = stalling(big)
    words = ("pull", f"{registry.address}/team/app:v1", "bundle", "--policy", accept)
    with imagers.start(*words) as process:
        try:
            assert registry.reached.wait(20)
            wait_until(lambda: staged(imagers))
            yield process
        finally:
            process.kill()


def without_progress(stderr):
    """The lines but those of layers, which depend on how far it was."""
    return [line for line in stderr.splitlines() if not line.startswith("imagers: layer ")]


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def staged(imagers):
    """The staging places beside the bundle that have the first layer."""
    return [path for path in imagers.here.iterdir() if (path / "rootfs" / "a").exists()]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        pytest.param(signal.SIGINT, INTERRUPTED, "interrupted", id="SIGINT"),
        pytest.param(signal.SIGTERM, TERMINATED, "terminated", id="SIGTERM"),
    ],
)
def test_pull_that_gets_a_signal_ends_at_once_and_leaves_nothing(
    imagers, stalled, number, code, word
):
    start = time.monotonic()
    stalled.send_signal(number)
    stdout, stderr = stalled.communicate(timeout=60)
    assert time.monotonic() - start < ENDS_WITHIN
    assert stalled.returncode == code
    assert without_progress(stderr) == [f"imagers: error: {word}"]
    assert stdout == ""
    assert imagers.leftovers() == []


def test_pull_that_gets_twenty_signals_leaves_nothing(imagers, stalled):
    for _ in range(20):
        stalled.send_signal(signal.SIGINT)
        time.sleep(0.005)
    _, stderr = stalled.communicate(timeout=60)
    assert stalled.returncode == INTERRUPTED
    assert without_progress(stderr) == ["imagers: error: interrupted"]
    assert imagers.leftovers() == []


def test_pull_that_is_killed_publishes_nothing_and_the_next_one_cleans_up(
    imagers, stalled, images, accept
):
    stalled.kill()
    stalled.communicate(timeout=60)
    assert not (imagers.here / "bundle").exists()
    assert len(staged(imagers)) == 1
    imagers.succeed("pull", f"oci:{images.build()}:v1", "bundle", "--policy", accept)
    assert imagers.leftovers() == ["bundle"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
@pytest.mark.parametrize("number", ["INT", "TERM"])
@pytest.mark.parametrize("call", ["rename,renameat,renameat2", "fsync"])
def test_signal_when_the_bundle_appears_does_not_deny_it(imagers, images, accept, call, number):
    """It is there, and was checked: an error, or what is left of it, would be in the way."""
    words = imagers.words("pull", f"oci:{images.build()}:v1", "bundle", "--policy", accept)
    imagers.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
    inject = ["-e", f"inject={call}:signal={number}"]
    done = imagers.run([*strace, *inject, *words, "--no-store"], within=60)
    assert done.code == 0, done
    assert "imagers: error" not in done.stderr
    assert imagers.leftovers() == ["bundle"]
    assert (imagers.here / "bundle/rootfs/etc/hostname").read_bytes() == b"guest\n"


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
@pytest.mark.parametrize("number", ["INT", "TERM"])
def test_signal_while_an_error_is_told_adds_no_other(imagers, accept, number):
    words = imagers.words("pull", "oci:nowhere:v1", "bundle", "--policy", accept, "--no-store")
    imagers.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=write"]
    done = imagers.run([*strace, "-e", f"inject=write:signal={number}", *words], within=60)
    assert done.code == LOCAL, done
    assert "nowhere" in done.error


@pytest.mark.usefixtures("stalled")
def test_pull_beside_a_running_one_to_the_same_place_leaves_it_alone(imagers, images, accept):
    imagers.succeed("pull", f"oci:{images.build()}:v1", "bundle", "--policy", accept)
    assert len(staged(imagers)) == 1


def test_pull_that_comes_last_does_not_replace_what_appeared(imagers, big, stalling, accept):
    registry = stalling(big)
    words = ("pull", f"{registry.address}/team/app:v1", "bundle", "--policy", accept)
    with imagers.start(*words) as process:
        assert registry.reached.wait(20)
        (imagers.here / "bundle").mkdir()
        (imagers.here / "bundle" / "mine").touch()
        registry.go_on.set()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == LOCAL
    assert "appeared during the pull" in stderr
    assert imagers.leftovers() == ["bundle"]
    assert [path.name for path in (imagers.here / "bundle").iterdir()] == ["mine"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_encrypt_into_a_layout_that_is_ended_leaves_no_image(imagers, big, stalling, keys, number):
    registry = stalling(big)
    words = ("encrypt", f"{registry.address}/team/app:v1", "oci:encrypted:v1")
    with imagers.start(*words, "--encryption-key", f"jwe:{keys}/r2048.pub") as process:
        assert registry.reached.wait(20)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode in (INTERRUPTED, TERMINATED, -signal.SIGKILL)
    assert "Traceback" not in stderr
    shown = imagers("inspect", "oci:encrypted:v1")
    assert shown.code in (LOCAL, REMOTE, FORMAT)
    if number != signal.SIGKILL:
        assert imagers.leftovers() == []
    # Whatever is there does not hinder the next one.
    name = ("encrypt", f"oci:{big}:v1", "oci:encrypted:v1")
    imagers.succeed(*name, "--encryption-key", f"jwe:{keys}/r2048.pub")
    imagers.succeed("inspect", "oci:encrypted:v1")


def test_encrypt_into_a_registry_that_is_ended_publishes_no_tag(
    imagers, big, stalling, keys, imagers_registry
):
    registry = stalling(big)
    target = f"{imagers_registry.address}/team/app:v1"
    words = ("encrypt", f"{registry.address}/team/app:v1", target)
    with imagers.start(*words, "--encryption-key", f"jwe:{keys}/r2048.pub") as process:
        assert registry.reached.wait(20)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert without_progress(stderr) == ["imagers: error: interrupted"]
    assert imagers_registry.tags("team/app") == {}
    assert imagers.leftovers() == []


def test_encrypt_that_is_ended_after_its_key_was_stored_says_so(
    imagers, big, stalling, imagers_registry, imagers_broker
):
    registry = stalling(big)
    admin = ("--broker", imagers_broker.url, "--broker-admin-key", imagers_broker.admin_key_file)
    words = ("encrypt", f"{registry.address}/team/app:v1", f"{imagers_registry.address}/team/app")
    with imagers.start(*words, "--encryption-key", "broker:kbs:///a/b/", *admin) as process:
        assert registry.reached.wait(20)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == TERMINATED
    name = imagers.succeed("broker", "list", *admin, "--json").json()["uris"][0]
    assert without_progress(stderr) == [
        f"imagers: the key {name} is in the broker, bound to no image: no guest gets it",
        "imagers: error: terminated",
    ]
    assert imagers_registry.tags("team/app") == {}


def handles_sigterm(process):
    """Whether it has a handler of its own: Python has one for SIGINT only."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)[1], 16)
    return caught >> (signal.SIGTERM - 1) & 1


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("start", ["-m imagers", "script"])
def test_signal_while_modules_are_loaded_is_one_line(imagers, number, code, word, start):
    words = imagers.words("broker", "serve", "--listen", "127.0.0.1:0")
    if start == "script":
        words[1:3] = ["-c", "import re, sys; from imagers.__main__ import main; sys.exit(main())"]
    for delay in (0, 0.003, 0.01, 0.03, 0.06, 0.1, 0.15, 0.25, 0.4):
        with imagers.spawn(words) as process:
            wait_until(lambda: handles_sigterm(process))  # is called here
            time.sleep(delay)
            process.send_signal(number)
            _, stderr = process.communicate(timeout=60)
        told = [line for line in stderr.splitlines() if not line.startswith("imagers: warning")]
        if "listens" in stderr:  # on a fast machine: the server has its own way to stop
            assert process.returncode == 0, stderr
        elif process.returncode or told:
            assert (process.returncode, told[-1]) == (code, f"imagers: error: {word}"), stderr
        assert "Traceback" not in stderr
        assert all(line.startswith("imagers: ") for line in told), stderr


def test_broker_ends_with_a_signal_and_starts_again_with_its_state(imagers):
    secret = imagers.tmp / "secret"
    secret.write_bytes(b"s" * 32)
    words = ("broker", "serve", "--listen", "127.0.0.1:0", "--url-file", "url")
    for number, stored in ((signal.SIGTERM, False), (signal.SIGINT, True)):
        with imagers.start(*words) as process:
            try:
                wait_until(lambda: (imagers.here / "url").exists() or process.poll() is not None)
                wait_until((imagers.here / "url").read_text)
                url = (imagers.here / "url").read_text().strip()
                if stored:
                    listed = imagers.succeed("broker", "list", "--broker", url, "--json").json()
                    assert listed == {"uris": ["kbs:///a/b/c"]}
                else:
                    put = ("broker", "put", "kbs:///a/b/c", secret, "--broker", url)
                    imagers.succeed(*put)
                process.send_signal(number)
                stdout, stderr = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == 0, stderr
        assert stdout == ""
        assert all(line.startswith("imagers: ") for line in stderr.splitlines())
        assert ("made the master key" in stderr) is not stored
        assert imagers.leftovers() == ["TMPDIR/secret"]


# ---- a full disk --------------------------------------------------------------------------------


@contextmanager
def small_disk(path):
    """A file system of 2 MiB at a path."""
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root")
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "imagers-test", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def assert_says_full(result):
    assert result.code == LOCAL, result
    assert "no space left on device" in result.error.lower()


def test_pull_to_a_full_disk_leaves_nothing(imagers, big, accept):
    with small_disk(imagers.here / "disk") as disk:
        result = imagers("pull", f"oci:{big}:v1", disk / "bundle", "--policy", accept)
        assert_says_full(result)
        assert not list(disk.iterdir())


def test_encrypt_to_a_full_disk_leaves_nothing(imagers, big, keys):
    with small_disk(imagers.here / "disk") as disk:
        words = ("encrypt", f"oci:{big}:v1", f"oci:{disk}/encrypted:v1")
        result = imagers(*words, "--encryption-key", f"jwe:{keys}/r2048.pub")
        assert_says_full(result)
        assert not list(disk.iterdir())


def test_encrypt_with_a_full_spool_publishes_nothing(imagers, big, keys, imagers_registry):
    with small_disk(imagers.here / "disk") as disk:
        environment = {**imagers.environment, "TMPDIR": str(disk)}
        words = ("encrypt", f"oci:{big}:v1", f"{imagers_registry.address}/team/app:v1")
        recipient = ("--encryption-key", f"jwe:{keys}/r2048.pub")
        result = imagers(*words, *recipient, env=environment)
        assert_says_full(result)
        assert not list(disk.iterdir())
    assert imagers_registry.tags("team/app") == {}


@pytest.mark.parametrize("verb", ["pull", "encrypt", "copy"])
def test_file_size_limit_leaves_nothing(imagers, big, keys, accept, verb):
    """Like a full disk, for those who cannot mount one."""
    words = {
        "pull": ("bundle", "--policy", accept),
        "encrypt": ("oci:out:v1", "--encryption-key", f"jwe:{keys}/r2048.pub"),
        "copy": ("oci:out:v1",),
    }[verb]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    result = imagers(verb, f"oci:{big}:v1", *words, preexec_fn=limit)
    assert result.code == LOCAL, result
    assert "file too large" in result.error.lower()
    assert imagers.leftovers() == []


def test_results_to_a_full_disk_are_an_error_and_not_lost(imagers, images):
    with open("/dev/full", "w") as full:
        result = imagers("inspect", f"oci:{images.build()}:v1", stdout=full)
    assert result.code == LOCAL
    assert result.error == "standard output: no space left on device"


@pytest.mark.parametrize("how", ["--explain", "--json"])
def test_no_that_nobody_reads_is_no_yes(imagers, images, how):
    """`imagers verify REF --explain | head -1` with pipefail must not go on."""
    policy = imagers.here / "policy.json"
    policy.write_text('{"default": [{"type": "reject"}]}')
    words = ("verify", f"oci:{images.build()}:v1", "--policy", policy, how)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        result = imagers(*words, stdout=closed)
    assert result.code == DENIED, result
    assert "is rejected by the policy" in result.error
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", [("--version",), ("inspect", "oci:nowhere", "--json")])
def test_closed_standard_output_is_no_bug(imagers, words):
    result = imagers(*words, preexec_fn=lambda: os.close(1))
    assert result.code == (0 if len(words) == 1 else LOCAL), result
    assert "Traceback" not in result.stderr


def test_stalling_registry_is_given_up(imagers, images, imagers_registry):
    """A registry that says nothing for 30 seconds is tested with the client; here: it resets."""
    reference = f"{imagers_registry.address}/team/app:v1"
    imagers.succeed("copy", f"oci:{images.build()}:v1", reference)
    digest = json.loads(imagers.succeed("inspect", reference, "--json").stdout)["digest"]
    imagers_registry.break_off(path="/manifests/v1", after=10, times=50)
    result = imagers("copy", reference, "oci:out:v1")
    assert result.code == REMOTE
    assert digest not in result.error
    assert imagers.leftovers() == []
