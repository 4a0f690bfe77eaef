# SPDX-License-Identifier: Apache-2.0
"""The whole way once, as a user would type it: `make demo`.

    python examples/demo.py [--image oci:PATH:TAG]

Builds an image (or takes yours), starts the embedded registry and a broker on free
loopback ports, and shows each command with its output: keys, encrypt, sign, inspect, the
measurement of the guest, pull, run; then four refusals; then what each step cost. Everything is in
a temporary directory, $W in what is shown, which is removed at the end.

The guest's machine is one for tests: an AMD SEV-SNP whose vendor is made here, from a random seed.
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
# runc and chroot are in directories that Debian gives to root only.
PATH = f"{BIN}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
ENVIRONMENT = {**os.environ, "PATH": PATH}
READY_WITHIN = 20  # seconds
MEASUREMENT = "d3" * 48  # of the firmware of our guest
RUNS_FOR = 20  # seconds: an image of the user may hold a server, which does not end

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
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, *words: str, expect: int = 0, machine: Path | None = None) -> tuple[str, float]:
        """Show a command, run it, show its output; its standard output and seconds.

        Args:
            machine: directory of the machine for tests that runs it.
        """
        variables = {} if machine is None else {"IMAGERS_TEST_TEE": str(machine / "tee.json")}
        told = (*(f"{name}={value}" for name, value in variables.items()), *map(shlex.quote, words))
        shown = " ".join(told).replace(str(self.work), "$W")
        print(f"{BOLD}$ {shown}{PLAIN}", flush=True)
        start = time.perf_counter()
        done = subprocess.run(
            words,
            env=ENVIRONMENT | variables,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.work,
        )
        seconds = time.perf_counter() - start
        self.show(done.stdout + done.stderr)
        if expect:
            print(f"  exit code {done.returncode}")
        if done.returncode != expect:
            raise Failure(f"expected exit code {expect}, got {done.returncode}")
        return done.stdout, seconds

    def show(self, output: str) -> None:
        """What a command said, indented."""
        for line in output.splitlines():
            print("  " + line.replace(str(self.work), "$W"), flush=True)

    def start(self, *words: str, ready: Path) -> str:
        """Start a server; the content of the file that it writes when it is ready.

        It is stopped by its own process id at the end.
        """
        log = ready.with_suffix(".log")
        with log.open("w") as output:
            process = subprocess.Popen(
                words, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT, cwd=self.work
            )
        self.processes.append(process)
        end = time.monotonic() + READY_WITHIN
        while time.monotonic() < end:
            if ready.exists() and (text := ready.read_text().strip()):
                self.show(log.read_text())
                return text
            if process.poll() is not None:
                raise Failure(f"the server ended before it was ready: {log.read_text()}")
            time.sleep(0.02)
        raise Failure(f"the server was not ready after {READY_WITHIN} s: {log.read_text()}")

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


def run_container(demo: Demo, bundle: Path, *, own: bool) -> None:
    """Start the image's process: by runc where that works, by chroot where not.

    Args:
        own: the image is the one of the demo, whose process must start and end. What one of
            the user does is shown and is no fault: it may need what is not here.
    """
    config = json.loads((bundle / "config.json").read_text())
    chroot = ["chroot", str(bundle / "rootfs"), *config["process"]["args"]]
    if os.geteuid() != 0:
        chroot = ["unshare", "--map-root-user", *chroot]
    ways = [chroot]
    if shutil.which("runc", path=PATH):
        runc = ["runc", "--root", str(demo.work / "runc"), "run", "--bundle", str(bundle), "demo"]
        ways.insert(0, runc)
    for words in ways if own else ways[:1]:
        print(f"{BOLD}$ {shlex.join(words).replace(str(demo.work), '$W')}{PLAIN}", flush=True)
        process = subprocess.Popen(
            words,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=RUNS_FOR)
        except subprocess.TimeoutExpired:
            if words[0] == "runc":
                subprocess.run(
                    [*words[:3], "delete", "--force", "demo"], env=ENVIRONMENT, check=False
                )
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            output += f"still running after {RUNS_FOR} s: stopped\n"
        demo.show(output)
        if process.returncode == 0:
            return
        print(f"  exit code {process.returncode}")
    if own and os.geteuid() == 0:
        raise Failure("the image did not run")
    # A user without the right to make namespaces, or an image that needs more than a demo has.
    print("  the bundle is complete; it does not run here")


def flip_one_byte(directory: Path, digest: str) -> None:
    """Do what an evil registry would: change one byte of a blob, length unchanged."""
    name = digest.partition(":")[2]
    blob = next(path for path in directory.rglob("*") if name in path.as_posix() and path.is_file())
    with blob.open("r+b") as file:
        file.seek(blob.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    print(f"  one bit of the last layer, {digest[:19]}…, is changed in the registry")


def check_nothing(bundle: Path) -> None:
    """A refused pull leaves nothing, neither the bundle nor anything beside it."""
    left = [path.name for path in bundle.parent.iterdir() if bundle.name in path.name]
    print(f"  at the destination: {left or 'nothing'}")
    if left:
        raise Failure("something is left at the destination")


def main() -> int:
    """Run the demo; its exit code."""
    parser = argparse.ArgumentParser(description="The whole way once, on a real image.")
    parser.add_argument("--image", help="oci:PATH:TAG; default: one that is built")
    image = parser.parse_args().image
    if image and image.startswith("oci:") and not image.startswith("oci:/"):
        image = "oci:" + str(Path.cwd() / image.removeprefix("oci:"))
    # SIGTERM as Ctrl-C: the servers are stopped and the directory is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="imagers-demo-") as directory:
        print(f"W={directory}  (all files of the demo; removed at the end)")
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
    own = image is None
    title("An image: busybox, a Python library, 100 MB of binaries" if own else "Your image")
    if image is None:
        demo.run(
            sys.executable, str(Path(__file__).with_name("demo_image.py")), str(work / "image")
        )
        image = f"oci:{work}/image:latest"
    demo.run("imagers", "inspect", image)

    title("A registry and a key broker, on loopback")
    registry_file = work / "registry.address"
    registry = demo.start(
        sys.executable,
        "-m",
        "imagers.testing.registry",
        "--directory",
        str(work / "registry"),
        "--address-file",
        str(registry_file),
        ready=registry_file,
    )
    print(f"  registry at {registry}")
    machine, other_machine = make_machines(demo)
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
        "--tee",
        "snp",
        "--collateral",
        str(machine / "collateral"),
        "--insecure-test-root",
        f"snp={machine / 'root.pem'}",
    ]
    shown = " ".join(broker_words).replace(str(work), "$W")
    print(f"{BOLD}$ {shown} &{PLAIN}")
    broker = demo.start(*broker_words, ready=broker_file)
    admin = ["--broker", broker, "--broker-admin-key", str(work / "broker" / "admin.key")]
    guest = ["--broker", broker, "--tee", "snp-test"]

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
            env=ENVIRONMENT,
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

    title("Whose guest: the measurement of its firmware becomes a reference value")
    demo.run(
        "imagers",
        "attest",
        "verify",
        str(machine / "report.bin"),
        "--collateral",
        str(machine / "collateral"),
        "--insecure-test-root",
        str(machine / "root.pem"),
    )
    demo.run(
        "imagers",
        "broker",
        "reference-value",
        "set",
        "snp_launch_measurement",
        MEASUREMENT,
        "--source",
        "the firmware of the demo",
        *admin,
    )

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
    pull = ["--no-store", "--policy", str(work / "policy.json"), *guest]
    app = str(bundles / "app")
    _, seconds = demo.run("imagers", "pull", reference, app, *pull, machine=machine)
    demo.measured("pull, decrypt, unpack", stored, count, seconds)

    title("Run it")
    run_container(demo, bundles / "app", own=own)

    title("Refusal 1: a genuine machine with another firmware is not ours")
    other = str(bundles / "other")
    demo.run("imagers", "pull", reference, other, *pull, machine=other_machine, expect=31)
    check_nothing(bundles / "other")
    demo.run("imagers", "broker", "audit", "--event", "release", "--outcome", "refused", *admin)

    title("Refusal 2: the broker's policy denies the guest")
    closed = {
        "name": "demo-is-closed",
        "effect": "deny",
        "resource": "default/demo/*",
        "image": "any",
    }
    (work / "deny.json").write_text(json.dumps({"rules": [closed]}))
    demo.run("imagers", "broker", "policy", "set", str(work / "deny.json"), *admin)
    denied = str(bundles / "denied")
    demo.run("imagers", "pull", reference, denied, *pull, machine=machine, expect=31)
    check_nothing(bundles / "denied")
    demo.run("imagers", "broker", "policy", "reset", *admin)

    title("Refusal 3: one byte of a layer is changed in the registry")
    flip_one_byte(work / "registry", described["layers"][-1]["digest"])
    changed = str(bundles / "changed")
    demo.run("imagers", "pull", reference, changed, *pull, machine=machine, expect=20)
    check_nothing(bundles / "changed")

    title("Refusal 4: the image is not signed; no key is asked for")
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
    before = releases(admin)
    bundle = str(bundles / "unsigned")
    demo.run("imagers", "pull", unsigned, bundle, *pull, machine=machine, expect=21)
    check_nothing(bundles / "unsigned")
    released = releases(admin) - before
    print(f"  keys released meanwhile: {released}")
    if released:
        raise Failure("a key was released for an unsigned image")

    title("What each step cost")
    print(f"  {'step':24} {'bytes':>12} {'layers':>7} {'seconds':>8} {'MB/s':>8}")
    for step, size, layers, seconds in demo.rows:
        rate = f"{size / seconds / 1e6:8.1f}" if size else f"{'-':>8}"
        print(f"  {step:24} {size or '-':>12} {layers or '-':>7} {seconds:8.2f} {rate}")


def make_machines(demo: Demo) -> tuple[Path, Path]:
    """Two machines for tests on one chip: ours, and one with another firmware."""
    seed = demo.work / "seed"
    seed.write_bytes(os.urandom(32))
    seed.chmod(0o600)
    machines = []
    for name, measurement in (("machine", MEASUREMENT), ("other-machine", "0f" * 48)):
        directory = demo.work / name
        demo.run(
            sys.executable,
            "-m",
            "imagers.testing.evidence",
            "make",
            "--tee",
            "snp",
            "--seed",
            str(seed),
            "--measurement",
            measurement,
            "--out",
            str(directory),
        )
        machines.append(directory)
    ours, other = machines
    return ours, other


def releases(admin: list[str]) -> int:
    """How many keys the broker has released so far, from its audit log."""
    listing = subprocess.run(
        ["imagers", "broker", "audit", "--json", *admin],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = json.loads(listing)["entries"]
    return sum((row["event"], row["outcome"]) == ("release", "ok") for row in rows)


if __name__ == "__main__":
    sys.exit(main())
