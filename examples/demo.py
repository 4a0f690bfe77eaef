"""The whole way once, as a user would type it: `make demo`.

    python examples/demo.py [--image oci:PATH:TAG]

Builds an image (or takes yours), starts the embedded registry and a broker on free
loopback ports, and shows each command with its output: keys, encrypt, sign, inspect, pull,
run; then three refusals; then what each step cost. Everything is in a temporary directory,
which is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
QUIET = {**os.environ, "PATH": f"{BIN}:{os.environ.get('PATH', '')}"}
READY_WITHIN = 20  # seconds

BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


class Failure(Exception):
    """A step of the demo did not do what it should."""


def title(text: str) -> None:
    """A heading."""
    print(f"\n{BOLD}== {text}{PLAIN}", flush=True)


class Demo:
    """One run: its directory, its servers, its measurements."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.rows: list[tuple[str, int, int, float]] = []
        self.processes: list[subprocess.Popen[str]] = []

    def run(self, *words: str, expect: int = 0) -> tuple[str, float]:
        """Show a command, run it, show its output; its standard output and seconds."""
        shown = " ".join(shlex.quote(word).replace(str(self.work), "$W") for word in words)
        print(f"{BOLD}$ {shown}{PLAIN}", flush=True)
        start = time.perf_counter()
        done = subprocess.run(
            words, env=QUIET, capture_output=True, text=True, check=False, cwd=self.work
        )
        seconds = time.perf_counter() - start
        for line in (done.stdout + done.stderr).splitlines():
            print("  " + line.replace(str(self.work), "$W"))
        if expect:
            print(f"  exit code {done.returncode}")
        if done.returncode != expect:
            raise Failure(f"expected exit code {expect}, got {done.returncode}")
        return done.stdout, seconds

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a server; it is stopped by its own process id at the end."""
        process = subprocess.Popen(
            words,
            env=QUIET,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.work,
        )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """Stop what was started."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()

    def measured(self, step: str, stored: int, layers: int, seconds: float) -> None:
        """A row of the closing table."""
        self.rows.append((step, stored, layers, seconds))


def wait_for_file(path: Path, process: subprocess.Popen[str]) -> str:
    """The content of a file that a server writes when it is ready."""
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text().strip()):
            return text
        if process.poll() is not None:
            output = process.stdout.read() if process.stdout else ""
            raise Failure(f"the server ended before it was ready: {output}")
        time.sleep(0.02)
    raise Failure("the server was not ready in time")


def run_container(demo: Demo, bundle: Path) -> None:
    """Start the image's process: by runc where that works, by chroot where not."""
    if shutil.which("runc") and os.geteuid() == 0:
        words = ["runc", "--root", str(demo.work / "runc"), "run", "--bundle", str(bundle), "demo"]
        try:
            demo.run(*words)
        except Failure:
            # As in a container without the right to make namespaces or cgroups.
            print("  runc cannot start containers on this machine; chroot instead")
        else:
            return
    config = json.loads((bundle / "config.json").read_text())
    words = ["chroot", str(bundle / "rootfs"), *config["process"]["args"]]
    if os.geteuid() != 0:
        words = ["unshare", "--map-root-user", *words]
    demo.run(*words)


def flip_one_byte(directory: Path, digest: str) -> None:
    """Do what an evil registry would: change one byte of a blob, length unchanged."""
    name = digest.partition(":")[2]
    blob = next(path for path in directory.rglob("*") if name in path.as_posix() and path.is_file())
    with blob.open("r+b") as file:
        file.seek(blob.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    print(f"  (one bit of {digest[:19]}… changed in the registry)")


def check_nothing(bundle: Path) -> None:
    """A refused pull leaves nothing, neither the bundle nor anything beside it."""
    left = [path.name for path in bundle.parent.iterdir() if bundle.name in path.name]
    print(f"  at the destination: {left or 'nothing'}")
    if left:
        raise Failure("something is left at the destination")


def main() -> int:
    """Run the demo; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", help="oci:PATH:TAG; default: one that is built")
    image = parser.parse_args().image
    if image and image.startswith("oci:") and not image.startswith("oci:/"):
        image = "oci:" + str(Path.cwd() / image.removeprefix("oci:"))
    with tempfile.TemporaryDirectory(prefix="imagers-demo-") as directory:
        demo = Demo(Path(directory))
        try:
            story(demo, image)
        except Failure as failure:
            print(f"demo: error: {failure}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("demo: interrupted", file=sys.stderr)
            return 130
        finally:
            demo.stop()
    return 0


def story(demo: Demo, image: str | None) -> None:
    """All steps, in order."""
    work = demo.work
    title("An image" if image else "An image: busybox, a Python library, 100 MB of binaries")
    if image is None:
        demo.run(
            sys.executable, str(Path(__file__).with_name("demo_image.py")), str(work / "image")
        )
        image = f"oci:{work}/image:latest"
    demo.run("imagers", "inspect", image)

    title("A registry and a key broker, on loopback")
    registry_file = work / "registry.address"
    process = demo.start(
        sys.executable,
        "-m",
        "imagers.testing.registry",
        "--directory",
        str(work / "registry"),
        "--address-file",
        str(registry_file),
    )
    registry = wait_for_file(registry_file, process)
    print(f"  registry at {registry}")
    broker_file = work / "broker.url"
    broker_words = [
        "imagers",
        "broker",
        "serve",
        "--state",
        str(work / "broker"),
        "--listen",
        "127.0.0.1:0",
        "--url-file",
        str(broker_file),
        "--allow-sample-tee",
    ]
    shown = " ".join(broker_words).replace(str(work), "$W")
    print(f"{BOLD}$ {shown} &{PLAIN}")
    process = demo.start(*broker_words)
    broker = wait_for_file(broker_file, process)
    print(f"  broker at {broker}")
    admin = ["--broker", broker, "--broker-admin-key", str(work / "broker" / "admin.key")]
    guest = ["--broker", broker, "--tee", "sample"]

    title("Build side: a signing key; encrypt and push; sign")
    (work / "passphrase").write_text("demo")
    (work / "passphrase").chmod(0o600)
    demo.run(
        "imagers",
        "key",
        "generate",
        "cosign",
        "--output",
        str(work / "signer"),
        "--passphrase-file",
        str(work / "passphrase"),
    )
    reference = f"docker://{registry}/demo/app:v1"
    said, seconds = demo.run(
        "imagers",
        "encrypt",
        image,
        reference,
        "--encryption-key",
        "broker:kbs:///default/demo/",
        *admin,
    )
    described = json.loads(
        subprocess.run(
            ["imagers", "inspect", "--json", reference],
            env=QUIET,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    stored = sum(layer["size"] for layer in described["layers"])
    count = len(described["layers"])
    demo.measured("encrypt and push", stored, count, seconds)
    _, seconds = demo.run(
        "imagers",
        "sign",
        reference,
        "--sign-by-sigstore-private-key",
        str(work / "signer.key"),
        "--passphrase-file",
        str(work / "passphrase"),
        "--expected-digest",
        said.split()[-1],
    )
    demo.measured("sign", 0, 0, seconds)
    demo.run("imagers", "inspect", reference)

    title("Guest side: verify, attest, get the keys, decrypt, check, unpack")
    policy = {
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {registry: [{"type": "sigstoreSigned", "keyPath": str(work / "signer.pub")}]}
        },
    }
    (work / "policy.json").write_text(json.dumps(policy, indent=2) + "\n")
    demo.run("cat", str(work / "policy.json"))
    bundles = work / "bundles"
    bundles.mkdir()
    pull = ["--policy", str(work / "policy.json"), *guest]
    _, seconds = demo.run("imagers", "pull", reference, str(bundles / "app"), *pull)
    demo.measured("pull, decrypt, unpack", stored, count, seconds)

    title("Run it")
    run_container(demo, bundles / "app")

    title("Refusal 1: the broker's policy denies the guest")
    closed = {
        "name": "demo-is-closed",
        "effect": "deny",
        "resource": "default/demo/*",
        "image": "any",
    }
    (work / "deny.json").write_text(json.dumps({"rules": [closed]}))
    demo.run("imagers", "broker", "policy", "set", str(work / "deny.json"), *admin)
    demo.run("imagers", "pull", reference, str(bundles / "denied"), *pull, expect=31)
    check_nothing(bundles / "denied")
    demo.run("imagers", "broker", "policy", "reset", *admin)

    title("Refusal 2: one byte of a layer is changed in the registry")
    flip_one_byte(work / "registry", described["layers"][-1]["digest"])
    demo.run("imagers", "pull", reference, str(bundles / "changed"), *pull, expect=20)
    check_nothing(bundles / "changed")

    title("Refusal 3: the image is not signed; no key is asked for")
    unsigned = f"docker://{registry}/demo/unsigned:v1"
    demo.run(
        "imagers",
        "encrypt",
        image,
        unsigned,
        "--encryption-key",
        "broker:kbs:///default/demo/",
        *admin,
    )
    before = releases(demo, admin)
    demo.run("imagers", "pull", unsigned, str(bundles / "unsigned"), *pull, expect=21)
    check_nothing(bundles / "unsigned")
    released = releases(demo, admin) - before
    print(f"  keys released meanwhile: {released}")
    if released:
        raise Failure("a key was released for an unsigned image")

    title("What each step cost")
    print(f"  {'step':24} {'bytes':>12} {'layers':>7} {'seconds':>8} {'MB/s':>8}")
    for step, size, layers, seconds in demo.rows:
        rate = f"{size / seconds / 1e6:8.1f}" if size else f"{'-':>8}"
        print(f"  {step:24} {size or '-':>12} {layers or '-':>7} {seconds:8.2f} {rate}")


def releases(demo: Demo, admin: list[str]) -> int:
    """How many keys the broker has released so far, from its audit log."""
    del demo
    listing = subprocess.run(
        ["imagers", "broker", "audit", "--json", *admin],
        env=QUIET,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sum((row["event"], row["outcome"]) == ("release", "ok") for row in json.loads(listing))


if __name__ == "__main__":
    sys.exit(main())
