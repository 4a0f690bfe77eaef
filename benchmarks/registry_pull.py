"""Pulling and pushing one large blob: ratios to one SHA-256 stream, and to oras.

    python benchmarks/registry_pull.py [--mebibytes 1024] [--runs 3]

A docker-registry on loopback and files in /dev/shm; medians of one run. It prints ratios, so
that a slow or noisy machine does not matter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest
from imagers.model.media import OCI_LAYER
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink, open_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.image import StagedBlob

_MIB = 1024 * 1024


def _hash_file(path: Path) -> str:
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_MIB))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    return hasher.hexdigest()


def _median(runs: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _start_registry(directory: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": address},
    }
    (directory / "conf.yml").write_text(json.dumps(config))
    command = ["docker-registry", "serve", str(directory / "conf.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(_address_of(address)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return process, address
    raise SystemExit("docker-registry does not start")


def _address_of(address: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def _pull(name: str, descriptor: Descriptor, target: Path) -> None:
    source = open_source(parse_image_name(name))
    buffer = memoryview(bytearray(_MIB))
    with source.open_blob(descriptor, what="blob") as stream, target.open("wb", 0) as file:
        while count := stream.readinto(buffer):
            file.write(buffer[:count])
    source.close()


def _push(name: str, descriptor: Descriptor, path: Path) -> None:
    sink = open_sink(parse_image_name(name))
    with sink.stage_blob() as staged, path.open("rb", 0) as file:
        _send(file.fileno(), staged)
        staged.commit(descriptor, what="blob")
    sink.close()


def _send(fd: int, staged: StagedBlob) -> None:
    while os.sendfile(staged.fileno(), fd, None, 64 * _MIB):
        pass


def _both(*work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if not shutil.which("docker-registry"):
        raise SystemExit("docker-registry is not installed")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as text:
        directory = Path(text)
        blob = directory / "blob"
        with blob.open("wb") as file:
            for _ in range(options.mebibytes):
                file.write(os.urandom(_MIB))
        floor = _median(options.runs, lambda: _hash_file(blob))
        digest = _hash_file(blob)
        size = blob.stat().st_size
        descriptor = Descriptor(OCI_LAYER, Digest("sha256", digest), size)
        process, address = _start_registry(directory)
        try:
            repositories = iter(range(1000))
            push = _median(
                options.runs,
                lambda: _push(f"{address}/p{next(repositories)}:x", descriptor, blob),
            )
            name, target = f"{address}/p0:x", directory / "out"
            processor = time.process_time()
            pull = _median(options.runs, lambda: _pull(name, descriptor, target))
            processor = (time.process_time() - processor) / options.runs
            other = directory / "out2"
            two = _median(
                options.runs,
                lambda: _both(
                    lambda: _pull(name, descriptor, target), lambda: _pull(name, descriptor, other)
                ),
            )
            from oras.client import OrasClient  # noqa: PLC0415  # the peer

            client = OrasClient(hostname=address, insecure=True)
            container = client.get_container(f"{address}/p0:x")
            peer = _median(
                options.runs,
                lambda: client.download_blob(container, f"sha256:{digest}", str(target)),
            )
        finally:
            process.terminate()
            process.wait()
        rate = size / _MIB
        print(f"one SHA-256 stream        {rate / floor:8.0f} MiB/s  1.00")
        print(f"pull, checked             {rate / pull:8.0f} MiB/s  {floor / pull:.2f}")
        print(f"  processor time of it    {rate / processor:8.0f} MiB/s  {floor / processor:.2f}")
        print(f"two pulls at once         {2 * rate / two:8.0f} MiB/s  {2 * pull / two:.2f} of one")
        print(f"push, with spooling       {rate / push:8.0f} MiB/s  {floor / push:.2f}")
        print(
            f"oras, unchecked           {rate / peer:8.0f} MiB/s  ours: {peer / pull:.2f} times it"
        )


if __name__ == "__main__":
    main()
