# SPDX-License-Identifier: Apache-2.0
"""What the rows work on: a tar of system files in three forms, and images of it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from functools import cached_property
from typing import TYPE_CHECKING

from floor import Floors
from measure import IMAGERS, out
from system_tar import write_tar

from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path

    from measure import Report

MIB = 1024 * 1024
GZIP_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"


def describe(path: Path) -> Descriptor:
    """A descriptor of the file."""
    with path.open("rb") as file:
        hexadecimal = hashlib.file_digest(file, "sha256").hexdigest()
    return Descriptor("application/x", Digest("sha256", hexadecimal), path.stat().st_size)


class Bench:
    """Folder, settings and report of a run; data that is made when a row first wants it."""

    def __init__(self, work: Path, mib: int, samples: int, report: Report) -> None:
        self.work = work
        self.mib = mib
        self.samples = samples
        self.report = report
        self.target = work / "target"  # of commands

    @cached_property
    def data(self) -> dict[str, Path]:
        """The tar, `mib` large when gzip -6 has compressed it, and compressed by gzip and zstd."""
        tar = self.work / "layer.tar"
        found = {
            "plain": tar,
            "gzip": self.work / "layer.tar.gz",
            "zstd": self.work / "layer.tar.zst",
        }
        if not found["zstd"].exists():
            write_tar(tar, found["gzip"], self.mib * MIB)
            out("zstd", "-q", "-f", "-3", tar)
        size = found["plain"].stat().st_size
        ratios = {name: size / found[name].stat().st_size for name in ("gzip", "zstd")}
        self.report.note(
            f"layer: {size / MIB:.0f} MiB of tar, gzip -6 {ratios['gzip']:.2f}:1, "
            f"zstd -3 {ratios['zstd']:.2f}:1"
        )
        return found

    @cached_property
    def floors(self) -> Floors:
        """Compiled and checked."""
        return Floors(self.work, self.data, self.report)

    @cached_property
    def tar(self) -> Descriptor:
        """Of the uncompressed layer."""
        return describe(self.data["plain"])

    @cached_property
    def keys(self) -> tuple[Path, Path]:
        """An RSA key and its public half."""
        private, public = self.work / "key.pem", self.work / "public.pem"
        out("openssl", "genrsa", "-out", private, 2048)
        out("openssl", "rsa", "-in", private, "-pubout", "-out", public)
        return private, public

    @cached_property
    def gzip_image(self) -> str:
        """Of one gzip layer."""
        layers = [(self.data["gzip"], GZIP_TYPE, str(self.tar.digest))]
        return make_layout(self.fresh("image"), layers)

    @cached_property
    def sealed_image(self) -> str:
        """The same, encrypted."""
        return self.encrypted("sealed", self.gzip_image)

    @cached_property
    def sealed_four(self) -> str:
        """Four zstd layers of a quarter of `mib` each, encrypted."""
        tar, packed = self.data["plain"], self.data["zstd"]
        total = tar.stat().st_size
        size = min(total, total * self.mib * MIB // 4 // packed.stat().st_size)
        layers = []
        for number in range(4):
            path = self.work / f"part{number}"
            with tar.open("rb") as source, path.open("wb") as sink:
                source.seek((total - size) // 3 * number)
                left = size
                while left > 0:
                    left -= sink.write(source.read(min(left, MIB)))
            diff_id = str(describe(path).digest)
            out("zstd", "-q", "-f", "-3", "--rm", path)
            layers.append((path.with_suffix(".zst"), ZSTD_TYPE, diff_id))
        sealed = self.encrypted("four-sealed", make_layout(self.fresh("four"), layers))
        shutil.rmtree(self.work / "four")
        for path, _, _ in layers:
            path.unlink()
        return sealed

    @cached_property
    def sealed_small(self) -> str:
        """A layer of 4 KiB, encrypted."""
        tar = os.urandom(4096)
        path = self.work / "small.gz"
        path.write_bytes(gzip.compress(tar))
        layers = [(path, GZIP_TYPE, f"sha256:{hashlib.sha256(tar).hexdigest()}")]
        return self.encrypted("small-sealed", make_layout(self.fresh("small"), layers))

    def encrypted(self, name: str, image: str) -> str:
        sealed = f"oci:{self.fresh(name)}:v1"
        out(*IMAGERS, "encrypt", image, sealed, "--encryption-key", f"jwe:{self.keys[1]}")
        return sealed

    def fresh(self, name: str) -> Path:
        """A folder that is not there."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder


def make_layout(folder: Path, layers: list[tuple[Path, str, str]]) -> str:
    """An OCI layout of (blob, media type, diff_id) layers; its name for the command line."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(value: object, media_type: str) -> dict[str, object]:
        raw = json.dumps(value).encode()
        digest = hashlib.sha256(raw).hexdigest()
        (blobs / digest).write_bytes(raw)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(raw)}

    rows = []
    for path, media_type, _ in layers:
        found = describe(path)
        if not (blobs / found.digest.hex).exists():
            os.link(path, blobs / found.digest.hex)
        rows.append({"mediaType": media_type, "digest": str(found.digest), "size": found.size})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, _, diff_id in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(config, "application/vnd.oci.image.config.v1+json"),
        "layers": rows,
    }
    top = put(manifest, "application/vnd.oci.image.manifest.v1+json")
    top["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{folder}:v1"
