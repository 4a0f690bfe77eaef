"""The fuzz target for a few seconds, under sanitizers; `make fuzz` takes a minute."""

import gzip
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "imagers" / "core" / "src"
COMPILER = shutil.which("cc")
SECONDS = int(os.environ.get("FUZZ_SECONDS", "4"))
SEED = os.environ.get("FUZZ_SEED", "1")

pytestmark = [
    pytest.mark.skipif(
        COMPILER is None or not Path("/usr/include/isa-l/igzip_lib.h").exists(),
        reason="needs a C compiler and ISA-L",
    ),
    pytest.mark.timeout(SECONDS + 110),
]


def seeds(folder):
    """A small tar of all kinds of entries, in each codec, and in two members."""
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            for name, kind in (
                ("d", tarfile.DIRTYPE),
                ("d/f", tarfile.REGTYPE),
                ("d/s", tarfile.SYMTYPE),
                ("d/h", tarfile.LNKTYPE),
                ("d/.wh.f", tarfile.REGTYPE),
                ("d/.wh..wh..opq", tarfile.REGTYPE),
                ("d/" + "long" * 60, tarfile.REGTYPE),
                ("p", tarfile.FIFOTYPE),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.mtime = kind, 1.5
                info.linkname = {"d/s": "../d/f", "d/h": "d/f"}.get(name, "")
                info.size = 700 if name == "d/f" else 0
                tar.addfile(info, io.BytesIO(b"x" * info.size))
        data = out.getvalue()
        half = len(data) // 2
        for suffix, value in (
            ("tar", data),
            ("gz", gzip.compress(data[:half], 6, mtime=0) + gzip.compress(data[half:], 1, mtime=0)),
            ("zst", zstandard.compress(data[:half]) + zstandard.compress(data[half:])),
        ):
            path = folder / f"{form}.{suffix}"
            path.write_bytes(value)
            yield path


def test_any_bytes_as_a_layer_end_with_a_fault_and_nothing_beside_the_root(tmp_path):
    program = tmp_path / "fuzz_layer"
    files = [
        one
        for one in SOURCES.glob("*.c")
        if not one.name.startswith(("py_", "test_")) and one.name != "inflate_zlib.c"
    ]
    words = [COMPILER, "-std=gnu17", "-O1", "-g", "-fsanitize=address,undefined",
             "-fno-sanitize-recover=all", f"-I{SOURCES}", HERE / "fuzz_layer.c", *files,
             "-o", program, "-lcrypto", "-lzstd", "-lisal", "-lpthread"]  # fmt: skip
    built = subprocess.run([str(one) for one in words], check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [str(program), str(SECONDS), SEED, *map(str, seeds(tmp_path))],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "runs, seed" in done.stdout
