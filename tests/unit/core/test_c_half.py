# SPDX-License-Identifier: Apache-2.0
"""The plain C half, built by itself: no Python, both gzip libraries, under sanitizers."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from imagers.model.media import compression_of

SOURCES = Path(__file__).resolve().parents[3] / "imagers" / "core" / "src"
VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"
COMPILER = shutil.which("cc") or shutil.which("gcc")
FLAGS = [
    "-std=gnu17",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Werror",
    "-fno-omit-frame-pointer",
]
MEMORY = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
THREADS = ["-fsanitize=thread"]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0"}

# A machine that others use compiles for a minute, and does under a sanitizer in minutes what takes
# this one half of one: a hang is told late, not taken for one.
PATIENCE_S = 400
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler"),
    pytest.mark.timeout(3 * PATIENCE_S),
]


def run(arguments):
    return subprocess.run(
        [str(one) for one in arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=ENVIRONMENT,
    )


def build(name, sanitizers, path):
    library = {"isal": "-lisal", "zlib": "-lz"}[name]
    header = {"isal": "isa-l/igzip_lib.h", "zlib": "zlib.h"}[name]
    if not (Path("/usr/include") / header).exists():
        pytest.skip(f"needs {header}")
    files = [
        one
        for one in SOURCES.glob("*.c")
        if not one.name.startswith(("py_", "inflate_")) or one.name == f"inflate_{name}.c"
    ]
    libraries = ["-lcrypto", "-lzstd", library, "-lpthread"]
    done = run([COMPILER, *FLAGS, *sanitizers, *files, "-o", path, *libraries])
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module", params=["isal", "zlib"])
def program(request, tmp_path_factory):
    return build(request.param, MEMORY, tmp_path_factory.mktemp("core") / "core-test")


def test_stages_in_threads_have_no_data_race(tmp_path):
    done = run([build("isal", THREADS, tmp_path / "core-test"), "split"])
    assert done.returncode == 0, done.stderr
    assert "core-test: good: split" in done.stdout


def test_plain_half_knows_no_python():
    for path in SOURCES.iterdir():
        if not path.name.startswith("py_"):
            assert "Python.h" not in path.read_text().replace("without Python", "").replace(
                "no Python.h here", ""
            )


def test_plain_half_passes_its_vectors(program):
    done = run([program])
    assert done.returncode == 0, done.stderr
    assert "core-test: good: libcrypto" in done.stdout


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_plain_half_unpacks_every_vector_without_a_complaint(program, tmp_path):
    cases = json.loads((VECTORS / "manifest.json").read_text())["cases"]
    for number, case in enumerate(case for case in cases if case["category"] == "tar"):
        root = tmp_path / str(number) / "a" / "root"
        root.mkdir(parents=True)
        faults = []
        for layer in case["layers"][:5]:
            blob = VECTORS / case["path"] / "blobs" / layer["digest"].replace(":", "/")
            codec = compression_of(layer["media_type"]).value
            done = run([program, "unpack", root, blob, layer["digest"], codec, layer["diff_id"]])
            assert done.returncode == 0, (case["id"], done.stderr)
            faults.append(done.stdout.strip())
        assert [path.name for path in root.parent.iterdir()] == ["root"], case["id"]
        if case["expect"] == "fail":
            assert set(faults) != {"OK"}, case["id"]
