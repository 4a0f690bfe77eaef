# SPDX-License-Identifier: Apache-2.0
"""Build the demo's image: an OCI layout with three real layers.

    python examples/demo_image.py DIRECTORY

1. busybox as a root file system that runs (gzip)
2. some thousand files of the Python library (gzip)
3. some 100 MB of the machine's own binary libraries (zstd)
"""

from __future__ import annotations

import io
import json
import os
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from imagers.core import seal_layer
from imagers.layout.oci_layout import OCILayoutSink
from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest, digest_of, new_hasher
from imagers.model.media import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Compression

BUSYBOX = Path("/bin/busybox")
LIBRARIES_BYTES = 100_000_000
APPLETS = ["sh", "echo", "ls", "cat", "uname", "find", "wc", "id"]


def add_directory(tar: tarfile.TarFile, name: str, mode: int = 0o755) -> None:
    """A directory that belongs to root."""
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    entry.mode = mode
    tar.addfile(entry)


def add_bytes(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    """A regular file that belongs to root."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(data))


def add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    """A symbolic link."""
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.SYMTYPE
    entry.linkname = target
    tar.addfile(entry)


def write_busybox(tar: tarfile.TarFile) -> None:
    """A root file system in which /bin/busybox runs."""
    for name in ("bin", "dev", "etc", "proc", "root", "sys"):
        add_directory(tar, name)
    add_directory(tar, "tmp", 0o1777)
    add_bytes(tar, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
    for applet in APPLETS:
        add_link(tar, f"bin/{applet}", "busybox")
    add_bytes(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    add_bytes(tar, "etc/group", b"root:x:0:\n")


def write_library(tar: tarfile.TarFile) -> None:
    """The sources of the Python standard library and of what is installed beside it."""
    for name in ("usr", "usr/lib", "usr/lib/python"):
        add_directory(tar, name)
    for label, place in (("standard", "stdlib"), ("packages", "purelib")):
        top = Path(sysconfig.get_path(place))
        for directory, names, files in os.walk(top):
            names[:] = sorted(set(names) - {"site-packages", "dist-packages", "__pycache__"})
            inside = (Path("usr/lib/python", label) / Path(directory).relative_to(top)).as_posix()
            add_directory(tar, inside)
            for name in sorted(files):
                path = Path(directory, name)
                if path.suffix in (".py", ".txt", ".json") and path.is_file():
                    add_bytes(tar, f"{inside}/{name}", path.read_bytes())


def write_binaries(tar: tarfile.TarFile) -> None:
    """Shared libraries of this machine, up to a size."""
    for name in ("usr", "usr/lib", "usr/lib/machine"):
        add_directory(tar, name)
    total = 0
    seen: set[str] = set()
    for top in (Path("/usr/lib"), Path(sysconfig.get_path("platlib")), Path(sys.prefix)):
        for path in sorted(top.rglob("*.so*")):
            if path.is_symlink() or not path.is_file() or path.name in seen:
                continue
            seen.add(path.name)
            data = path.read_bytes()
            add_bytes(tar, f"usr/lib/machine/{path.name}", data, 0o755)
            total += len(data)
            if total >= LIBRARIES_BYTES:
                return


LAYERS = [
    (write_busybox, Compression.GZIP),
    (write_library, Compression.GZIP),
    (write_binaries, Compression.ZSTD),
]


def main() -> None:
    """Build the image."""
    target = Path(sys.argv[1])
    sink = OCILayoutSink(target, "latest", name=f"oci:{target}:latest")
    layers, diff_ids = [], []
    for index, (write, compression) in enumerate(LAYERS):
        what = f"layer {index + 1} of {len(LAYERS)}"
        with tempfile.TemporaryFile() as file, sink.stage_blob() as blob:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                write(tar)
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            hasher = new_hasher("sha256")
            while piece := file.read(1 << 20):
                hasher.update(piece)
            diff_id = Digest("sha256", hasher.hexdigest())
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            sealed = seal_layer(
                file.fileno(),
                blob.fileno(),
                expected=Descriptor(OCI_LAYER, diff_id, size),
                cipher=None,
                source_compression=Compression.NONE,
                compress=compression,
                diff_id=diff_id,
                what=what,
            )
            descriptor = Descriptor(f"{OCI_LAYER}+{compression.value}", sealed.digest, sealed.size)
            blob.commit(descriptor, what=what)
        layers.append(descriptor)
        diff_ids.append(str(diff_id))
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                os.uname().machine, "amd64"
            ),
            "os": "linux",
            "config": {
                "Entrypoint": ["/bin/busybox"],
                "Cmd": ["echo", "busybox says hello from a verified, decrypted image"],
                "Env": ["PATH=/bin"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
    config_descriptor = Descriptor(OCI_CONFIG, digest_of(config), len(config))
    sink.put_blob(config_descriptor, config, what="config")
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config_descriptor.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    ).encode()
    sink.put_manifest(manifest, OCI_MANIFEST, by_name=True)
    sink.close()
    total = sum(layer.size for layer in layers)
    print(f"built oci:{target}:latest with {len(layers)} layers, {total / 1e6:.1f} MB stored")


if __name__ == "__main__":
    main()
