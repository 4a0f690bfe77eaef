# SPDX-License-Identifier: Apache-2.0
"""Pulling and pushing an image with large layers: ratios to one SHA-256 stream, and to oras.

    python benchmarks/registry_pull.py [--mebibytes 1024] [--runs 5]

A docker-registry on loopback, files in /dev/shm, two cores for all of it; medians of one run in
which all take turns. It prints ratios, so that the speed of the machine does not matter, but
others at work on its two cores do: see the load that it prints, or start it with `chrt -r 1`.
About three minutes.

A blob is pulled to a file as `imagers copy` does it, held against size and digest; images are
copied whole, between the registry and an OCI layout.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from oras.client import OrasClient

from imagers.layout.oci_layout import OCILayoutSink
from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest, digest_of
from imagers.model.media import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from imagers.model.pieces import checked_pieces
from imagers.net.urls import join_url
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink, open_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.image import ImageSource

_MIB = 1024 * 1024
_CORES = 2
_TICKS = os.sysconf("SC_CLK_TCK")
_REPOSITORIES = itertools.count()

# What is asked of it.
_OF_SHA256 = 0.6  # of one stream of libcrypto
_OF_TWO_CORES = 0.85  # of what the processor time of one layer allows for two at once
_TIMES_ORAS = 1.8
_MEMORY_MIB = 64  # above an interpreter that does nothing

_PEAK = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
_COPY = f"""
import sys
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink, open_source
source = open_source(parse_image_name(sys.argv[1]))
sink = open_sink(parse_image_name(sys.argv[2]))
copy_image(source, sink, jobs=int(sys.argv[3]))
{_PEAK}
"""


@dataclass
class Times:
    """Seconds of each run: on the clock, and on processors, here and in the registry."""

    wall: list[float] = field(default_factory=list)
    here: list[float] = field(default_factory=list)
    there: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def processor(self) -> float:
        return statistics.median(map(sum, zip(self.here, self.there, strict=True)))


class Registry:
    """A docker-registry with its files in `directory`."""

    def __init__(self, directory: Path, program: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        config = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
            "http": {"addr": self.address},
        }
        (directory / "conf.yml").write_text(json.dumps(config))
        command = [program, "serve", str(directory / "conf.yml")]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise SystemExit("docker-registry does not start")

    def seconds(self) -> float:
        """Processor time that it has used."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(text[11]) + int(text[12])) / _TICKS

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def new_name(self) -> str:
        """Of a repository that has nothing."""
        return f"{self.address}/p{next(_REPOSITORIES)}:x"


def _make_layout(path: Path, mebibytes: int) -> list[Path]:
    """Images `one` and `two`, with so many layers of random bytes; the files of the layers."""
    layers = []
    for number in range(2):
        hasher = hashlib.sha256()
        draft = path.parent / f"draft{number}"
        with draft.open("wb") as file:
            for _ in range(mebibytes):
                piece = os.urandom(_MIB)
                hasher.update(piece)
                file.write(piece)
        layers.append((draft, hasher.hexdigest()))
    for name, count in (("one", 1), ("two", 2)):
        sink = OCILayoutSink(path, name, name=f"oci:{path}:{name}")
        digests = [f"sha256:{digest}" for _, digest in layers[:count]]
        told = {"type": "layers", "diff_ids": digests}
        config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": told}).encode()
        blob = Descriptor(OCI_CONFIG, digest_of(config), len(config))
        sink.put_blob(blob, config, what="config")
        for draft, digest in layers[:count]:
            if draft.exists():
                draft.rename(path / "blobs" / "sha256" / digest)
        size = mebibytes * _MIB
        raw = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": blob.to_json(),
                "layers": [
                    {"mediaType": OCI_LAYER, "digest": one, "size": size} for one in digests
                ],
            }
        ).encode()
        sink.put_manifest(raw, OCI_MANIFEST, by_name=True)
        sink.close()
    return [path / "blobs" / "sha256" / digest for _, digest in layers]


def _hash_file(path: Path) -> None:
    """As `openssl dgst -sha256`: one stream of libcrypto over a file."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_MIB))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    if hasher.hexdigest() != path.name and path.parent.name == "sha256":
        raise SystemExit("the layout was damaged")


def _copy(source_name: str, sink_name: str, jobs: int) -> None:
    source = open_source(parse_image_name(source_name))
    sink = open_sink(parse_image_name(sink_name))
    try:
        copy_image(source, sink, jobs=jobs)
    finally:
        source.close()
        sink.close()


def _pull(source: ImageSource, blob: Descriptor, target: Path) -> None:
    with (
        closing(source.open_raw_blob(blob, what="blob")) as raw,
        closing(checked_pieces(raw, blob, what="blob")) as pieces,
        target.open("wb", buffering=0) as file,
    ):
        for piece in pieces:
            file.write(piece)


def _send_bare(registry: Registry, layer: Path) -> None:
    """What the registry can take: one PUT of bytes that nobody here looks at.

    By `send`, not sendfile(2): with that the registry takes 10 % longer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", registry.port)
    connection.request("POST", f"/v2/bare{next(_REPOSITORIES)}/blobs/uploads/")
    answer = connection.getresponse()
    answer.read()
    location = join_url(f"http://{registry.address}/", answer.headers["Location"])
    target = location.removeprefix(f"http://{registry.address}")
    connection.putrequest("PUT", f"{target}&digest=sha256:{layer.name}")
    connection.putheader("Content-Length", str(layer.stat().st_size))
    connection.endheaders()
    buffer = memoryview(bytearray(_MIB))
    with layer.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            connection.sock.sendall(buffer[:count])
    if connection.getresponse().status != http.client.CREATED:
        raise SystemExit("the registry did not take the blob")
    connection.close()


def _peak_mib(*arguments: str) -> float:
    """The most memory that an interpreter had, in MiB."""
    command = [sys.executable, "-c", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1024


class Rows:
    """The table as it is printed, and whether all of it is reached."""

    def __init__(self, mebibytes: int) -> None:
        self._mebibytes = mebibytes
        print(f"{'':56}{'MiB/s':>8}{'ratio':>8}{'target':>8}  reached")

    def speed(
        self,
        name: str,
        seconds: float,
        ratio: float,
        target: float | None = None,
        *,
        layers: int = 1,
    ) -> None:
        self._row(name, f"{layers * self._mebibytes / seconds:8.0f}", ratio, target)

    def ratio(self, name: str, ratio: float, target: float | None) -> None:
        self._row(name, f"{'':8}", ratio, target)

    def memory(self, name: str, mebibytes: float) -> None:
        reached = "yes" if mebibytes <= _MEMORY_MIB else "no"
        print(f"{name:56}{'':8}{mebibytes:8.1f}{_MEMORY_MIB:8d}  {reached}")

    def _row(self, name: str, speed: str, ratio: float, target: float | None) -> None:
        rest = ""
        if target is not None:
            rest = f"{target:8.2f}  {'yes' if ratio >= target else 'no'}"
        print(f"{name:56}{speed}{ratio:8.2f}{rest}".rstrip())


class Bench:
    """All that takes turns, and its times."""

    def __init__(self, directory: Path, registry: Registry, layers: list[Path]) -> None:
        layout, layer = f"oci:{directory / 'layout'}", layers[0]
        self._out = directory / "out"
        self._registry = registry
        self._layer_bytes = layer.stat().st_size
        client = OrasClient(hostname=registry.address, insecure=True)
        there = f"docker://{registry.address}/image"
        container = client.get_container(f"{registry.address}/image:one")
        told = {"digest": f"sha256:{layer.name}", "size": layer.stat().st_size}
        source = open_source(parse_image_name(f"{there}:one"))
        blob = Descriptor(OCI_LAYER, Digest("sha256", layer.name), layer.stat().st_size)

        def oras_pull() -> None:
            client.download_blob(container, told["digest"], str(self._out))

        def oras_push() -> None:
            target = client.get_container(registry.new_name())
            client.upload_blob(str(layer), target, told).raise_for_status()

        self.calls: dict[str, Callable[[], None]] = {
            "sha256": lambda: _hash_file(layer),
            "pull": lambda: _pull(source, blob, self._out),
            "oras pull": oras_pull,
            "copy here": lambda: _copy(f"{there}:one", f"oci:{self._out}:x", 1),
            "copy two here": lambda: _copy(f"{there}:two", f"oci:{self._out}:x", 2),
            "copy there": lambda: _copy(f"{layout}:one", f"docker://{registry.new_name()}", 1),
            "copy two there": lambda: _copy(f"{layout}:two", f"docker://{registry.new_name()}", 2),
            "bare push": lambda: _send_bare(registry, layer),
            "oras push": oras_push,
        }
        self.times = {name: Times() for name in self.calls}
        _copy(f"{layout}:two", f"{there}:two", 2)
        _copy(f"{layout}:one", f"{there}:one", 1)

    def run(self, runs: int) -> None:
        for number in range(runs):
            names = list(self.calls)
            # Not always after the same one.
            for name in names[number % len(names) :] + names[: number % len(names)]:
                self._once(name)

    def _once(self, name: str) -> None:
        self._touch_memory(self._layer_bytes * (2 if "two" in name else 1))
        here, there = time.process_time(), self._registry.seconds()
        started = time.perf_counter()
        self.calls[name]()
        times = self.times[name]
        times.wall.append(time.perf_counter() - started)
        times.here.append(time.process_time() - here)
        times.there.append(self._registry.seconds() - there)
        if self._out.is_dir():
            shutil.rmtree(self._out)
        else:
            self._out.unlink(missing_ok=True)

    def _touch_memory(self, size: int) -> None:
        """Make the host give the memory that the next one needs.

        A virtual machine gives free memory back; the first touch of a page then costs as much
        as hashing it, for whoever comes next.
        """
        zeros = bytes(_MIB)
        path = self._out.with_name("touched")
        with path.open("wb", buffering=0) as file:
            for _ in range(size * 5 // 4 // _MIB):
                file.write(zeros)
        path.unlink()

    def print(self, rows: Rows) -> None:
        times = self.times
        floor = times["sha256"].median
        rows.speed("one SHA-256 stream of libcrypto", floor, 1.0)
        pull = times["pull"].median
        rows.speed("pull of a blob to a file, checked", pull, floor / pull, _OF_SHA256)
        peer = times["oras pull"].median
        rows.speed("  so many times faster than oras, which checks nothing", peer, peer / pull,
                   _TIMES_ORAS)  # fmt: skip
        peer += floor
        rows.speed("  than oras and SHA-256 of the file afterwards", peer, peer / pull,
                   _TIMES_ORAS)  # fmt: skip
        self._print_two(rows, "pull", times["copy here"], times["copy two here"])
        push = times["copy there"].median
        rows.speed("push of an image of one layer", push, floor / push, _OF_SHA256)
        peer, bare = times["oras push"].median, times["bare push"].median
        rows.speed("  so many times faster than oras, which checks nothing", peer, peer / push,
                   _TIMES_ORAS)  # fmt: skip
        # It hashes and writes what it is sent in one thread; nobody is faster than that.
        rows.speed("  what the registry takes at most, unchecked", bare, floor / bare)
        rows.ratio("  push, of that", bare / push, None)
        rows.ratio("  that, so many times faster than oras", peer / bare, None)
        self._print_two(rows, "push", times["copy there"], times["copy two there"])

    @staticmethod
    def _print_two(rows: Rows, way: str, one: Times, two: Times) -> None:
        # Two layers are twice the work of one, and both cores can do it.
        allowed = 2 * one.processor / _CORES
        name = f"{way} of two layers at once, of what two cores allow"
        rows.speed(name, two.median, allowed / two.median, _OF_TWO_CORES, layers=2)

    def print_processor(self, mebibytes: int) -> None:
        print("\nprocessor seconds per GiB, here + in the registry")
        for name, times in self.times.items():
            scale = 1024 / mebibytes / (2 if "two" in name else 1)
            here, there = statistics.median(times.here), statistics.median(times.there)
            print(f"  {name:24}{scale * here:6.2f} + {scale * there:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--registry", default="docker-registry", help="program")
    options = parser.parse_args()
    if not shutil.which(options.registry):
        raise SystemExit("docker-registry is not installed")
    cores = sorted(os.sched_getaffinity(0))[:_CORES]
    os.sched_setaffinity(0, cores)  # and of what is started here
    print(f"{len(cores)} cores, load before {os.getloadavg()[0]:.1f}, {options.runs} runs")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as text:
        directory = Path(text)
        layers = _make_layout(directory / "layout", options.mebibytes)
        registry = Registry(directory, options.registry)
        try:
            bench = Bench(directory, registry, layers)
            bench.run(options.runs)
            rows = Rows(options.mebibytes)
            bench.print(rows)
            idle = _peak_mib(_PEAK)
            layout, there = f"oci:{directory}/layout", f"docker://{registry.address}/image"
            for name, source, sink in (
                ("pull", there, f"oci:{directory}/out"),
                ("push", layout, f"docker://{registry.address}/memory"),
            ):
                for jobs, tag in ((1, "one"), (2, "two")):
                    peak = _peak_mib(_COPY, f"{source}:{tag}", f"{sink}{jobs}:x", str(jobs))
                    rows.memory(f"memory of a {name} of {tag}, MiB above an idle python",
                                peak - idle)  # fmt: skip
            bench.print_processor(options.mebibytes)
        finally:
            registry.stop()
    print(f"load after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
