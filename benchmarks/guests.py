# SPDX-License-Identifier: Apache-2.0
"""A guest's pull as whole processes: a registry on loopback, keys, images, and what runs take."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from measure import IMAGERS, out
from registry_pull import Registry

from imagers.testing import MemoryRepository, TarEntry, make_image, make_tar
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MIB = 1024 * 1024


@dataclass
class Runs:
    """What each run took: CPU and clock in seconds, and its most memory in MiB."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def add(self, peak: Path, *commands: Sequence[object]) -> None:
        """Run programs once more, one after the other; `peak` is that of `peak.c`."""
        before = os.times()
        start = time.perf_counter()
        kibibytes = max(int(out(peak, *words)) for words in commands)
        self.wall.append(time.perf_counter() - start)
        after = os.times()
        self.cpu.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
        self.memory.append(kibibytes / 1024)

    def __str__(self) -> str:
        return (
            f"CPU {statistics.median(self.cpu):6.2f} s (least {min(self.cpu):6.2f})  "
            f"clock {statistics.median(self.wall):6.2f} s (least {min(self.wall):6.2f})  "
            f"memory {max(self.memory):4.0f} MiB"
        )


@dataclass(frozen=True)
class Guest:
    """Where a guest works. All of it goes with `guest`.

    Attributes:
        folder: of its files; what a benchmark makes goes there, too.
        registry: on loopback; None without one.
        peak: the program of `peak.c`.
    """

    folder: Path
    registry: Registry | None
    peak: Path

    @property
    def bundle(self) -> Path:
        """Where it pulls to."""
        return self.folder / "bundle"

    @property
    def private_key(self) -> Path:
        """Of RSA; `public_key` is its other half."""
        return self.folder / "private.pem"

    @property
    def public_key(self) -> Path:
        """See `private_key`."""
        return self.folder / "public.pem"

    def image(self, name: str) -> str:
        """A name for the command line: in the registry, or in an OCI layout."""
        if self.registry is None:
            return f"oci:{self.folder}/{name}"
        return f"docker://{self.registry.address}/{name}:v1"

    def pull(self, image: str, *more: object) -> list[object]:
        """The words for a pull into `bundle`."""
        return [*IMAGERS, "pull", "-q", image, self.bundle, "--policy",
                self.folder / "policy.json", "--tls-verify=false",
                "--decryption-key", self.private_key, *more]  # fmt: skip

    def encrypt(self, plain: str, target: str) -> int:
        """Encrypt an image; its stored bytes."""
        out(*IMAGERS, "encrypt", "--encryption-key", f"jwe:{self.public_key}", plain, target,
            "--dest-tls-verify=false")  # fmt: skip
        facts = json.loads(out(*IMAGERS, "inspect", "--raw", "--tls-verify=false", target))
        return sum(layer["size"] for layer in facts["layers"])

    def encrypted(self, layers: int, mebibytes: int, target: str, *, files: int = 0) -> int:
        """An encrypted image at `target`, of layers that half compress; its stored bytes.

        Args:
            files: small ones, in the last layer.
        """
        size = mebibytes * MIB // layers
        tars = []
        for number in range(layers):
            # A part that gzip shrinks to nothing beside one that it leaves.
            data = (os.urandom(48 * 1024) + bytes(48 * 1024)) * (2 * size // (96 * 1024))
            small = files if number == layers - 1 else 0
            more = [
                TarEntry.file(f"small/{one % 100}/{one}", os.urandom(one % 8192))
                for one in range(small)
            ]
            tars.append(make_tar(TarEntry.file(f"data-{number}", data), *more))
        plain = self.folder / "plain"
        with open_sink(parse_image_name(f"oci:{plain}")) as sink:
            copy_image(MemoryRepository(make_image(*tars)), sink)
        stored = self.encrypt(f"oci:{plain}", target)
        shutil.rmtree(plain)
        return stored


@contextmanager
def guest(place: Path | None, *, layout: bool = False) -> Iterator[Guest]:
    """A guest below `place`; with `layout` its images are in OCI layouts, and no registry runs."""
    program = None if layout else shutil.which("docker-registry")
    if program is None and not layout:
        raise SystemExit("there is no docker-registry")
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        for command in (
            ["genrsa", "-out", "private.pem", "2048"],
            ["rsa", "-in", "private.pem", "-pubout", "-out", "public.pem"],
        ):
            subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
        out("cc", "-O2", Path(__file__).with_name("peak.c"), "-o", folder / "peak")
        accept = {"default": [{"type": "insecureAcceptAnything"}]}
        (folder / "policy.json").write_text(json.dumps(accept))
        registry = None if program is None else Registry(folder, program)
        try:
            cores = len(os.sched_getaffinity(0))
            print(f"load {os.getloadavg()[0]:.1f}, {cores} cores, {out('openssl', 'version')}")
            yield Guest(folder, registry, folder / "peak")
        finally:
            if registry is not None:
                registry.stop()
