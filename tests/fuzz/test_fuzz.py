# SPDX-License-Identifier: Apache-2.0
"""The fuzz targets under sanitizers, by libFuzzer: what they hold is in fuzz_NAME.c.

Every run of the suite takes the seeds of corpus/NAME and a fixed number of mutations of them;
with IMAGERS_LONG=1 (CI's long mode) each target runs for a minute, with FUZZ_SECONDS (`make fuzz`)
as long as that says, going on from build/fuzz/NAME, which keeps what was found.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCES = ROOT / "imagers" / "core" / "src"
CLANG = shutil.which("clang")
MUTATIONS = {"tar": 6000, "codec": 2000, "layer": 200}  # about a second each
BY_HAND = os.environ.get("FUZZ_SECONDS")
SECONDS = int(BY_HAND or (60 if os.environ.get("IMAGERS_LONG") == "1" else 0))
FLAGS = ["-std=gnu17", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
         "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]  # fmt: skip

pytestmark = [
    pytest.mark.skipif(
        CLANG is None or not Path("/usr/include/isa-l/igzip_lib.h").exists(),
        reason="needs clang and ISA-L",
    ),
    pytest.mark.timeout(SECONDS + 300),
]


def run(*words, folder):
    """Return code and what was said."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout.decode(errors="replace")


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """The plain half as objects that tell libFuzzer which way they went."""
    folder = tmp_path_factory.mktemp("core")
    probe = folder / "probe.c"
    probe.write_text("int LLVMFuzzerTestOneInput(void) { return 0; }\n")
    if run(CLANG, "-fsanitize=fuzzer", probe, "-o", "probe", folder=folder)[0] != 0:
        pytest.skip("needs libFuzzer (libclang-rt-dev)")
    files = [
        one
        for one in SOURCES.glob("*.c")
        if not one.name.startswith(("py_", "test_")) and one.name != "inflate_zlib.c"
    ]
    code, said = run(CLANG, *FLAGS, "-c", *files, folder=folder)
    assert code == 0, said
    return list(folder.glob("*.o"))


@pytest.fixture
def working():
    """An empty folder, on tmpfs where there is one: most runs make and remove files."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as name:
        yield Path(name)


@pytest.mark.parametrize("name", MUTATIONS)
def test_any_bytes_keep_what_the_target_holds(name, core, working, tmp_path):
    program = tmp_path / f"fuzz_{name}"
    code, said = run(CLANG, *FLAGS, f"-I{SOURCES}", HERE / f"fuzz_{name}.c", *core, "-o", program,
                     "-lcrypto", "-lzstd", "-lisal", "-lpthread", folder=tmp_path)  # fmt: skip
    assert code == 0, said

    kept = ROOT / "build" / "fuzz" / name if BY_HAND else tmp_path
    found = kept / "corpus"  # libFuzzer writes to the first folder that it is given
    found.mkdir(parents=True, exist_ok=True)
    length = f"-max_total_time={SECONDS}" if SECONDS else f"-runs={MUTATIONS[name]}"
    code, said = run(
        program, length, f"-seed={0 if SECONDS else 1}", "-max_len=4096", "-timeout=100",
        f"-artifact_prefix={kept}/", "-print_final_stats=1", found, HERE / "corpus" / name,
        folder=working,
    )  # fmt: skip
    assert code == 0, said[-6000:]
    stats = [line for line in said.splitlines() if line.startswith("stat::")]
    print(f"fuzz_{name}:", *stats)  # noqa: T201  # `make fuzz` shows it
