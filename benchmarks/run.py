"""The speed of imagers as ratios to floors and peers of the same run: `make bench`.

    benchmarks/run.py [--mib N] [--samples N] [--json FILE] [--work FOLDER]

A floor is what one stage costs when nothing but its library runs (floors/*.c, compiled here),
and is itself held against `openssl speed`, `igzip -d` and `zstd -b`: the run fails if a floor is
slow. The limit of a layer on n cores is min(n / sum of its stages, 1 / longest stage), from
those floors and the kernel's own rate. Contestants take turns; medians count. Everything lies on
tmpfs, in files that are new each time. On a busy machine wall-clock rows say little: the text
tells the load.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "imagers" / "core" / "src"
sys.path.insert(0, str(HERE.parent))

from imagers.core import CipherParameters, Limits, open_layer, seal_layer  # noqa: E402
from imagers.core.cores import usable_cores  # noqa: E402
from imagers.model.descriptor import Descriptor  # noqa: E402
from imagers.model.digest import Digest  # noqa: E402
from imagers.model.keys import SecretKey  # noqa: E402
from imagers.model.media import Compression  # noqa: E402

FLOOR_MAY_BE_SLOWER = 1.05  # than the tool that it is checked against
GZIP_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"
CODECS = {"gzip": Compression.GZIP, "zstd": Compression.ZSTD, "plain": Compression.NONE}
IMAGERS = [sys.executable, "-m", "imagers"]


def out(*words: object, **settings: object) -> str:
    return subprocess.run(
        [str(word) for word in words], check=True, capture_output=True, text=True, **settings
    ).stdout


def median_of(count: int, *calls: object) -> list[float]:
    """The median of each call's result; they take turns."""
    results = [[call() for call in calls] for _ in range(count)]
    return [statistics.median(column) for column in zip(*results, strict=True)]


def wall(call: object) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Report:
    """Rows as they come, and at the end as JSON."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def row(self, what: str, value: float, target: float | None, *, most: bool = False) -> None:
        """`target` is the least that is wanted, or with `most` the most."""
        good = None if target is None else (value <= target if most else value >= target)
        self.rows.append({"what": what, "value": value, "target": target, "reached": good})
        word = {None: "", True: "reached", False: "MISSED"}[good]
        aim = "" if target is None else f"{'at most' if most else 'at least'} {target:g}"
        print(f"{what:<66} {value:8.3f}  {aim:<13} {word}", flush=True)


# ---- data ------------------------------------------------------------------------------


def make_data(work: Path, mib: int) -> dict[str, Path]:
    """A tar of system files in three forms."""
    tar = work / "layer.tar"
    if not tar.exists():
        size = mib * 1024 * 1024 * 13 // 4  # gzip -6 makes 3.2 to 3.3 times less of it
        with tar.open("wb") as sink:
            while sink.tell() < size:
                command = ["tar", "cf", "-", "--ignore-failed-read", "/usr/lib", "/usr/bin"]
                with subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                ) as source:
                    while sink.tell() < size and (piece := source.stdout.read(1 << 20)):
                        sink.write(piece[: size - sink.tell()])
                    source.kill()
        subprocess.run(["gzip", "-6", "-k", tar], check=True)
        subprocess.run(["zstd", "-q", "-3", tar], check=True)
    return {"plain": tar, "gzip": work / "layer.tar.gz", "zstd": work / "layer.tar.zst"}


def describe(path: Path) -> Descriptor:
    with path.open("rb") as file:
        hexadecimal = hashlib.file_digest(file, "sha256").hexdigest()
    return Descriptor("application/x", Digest("sha256", hexadecimal), path.stat().st_size)


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


# ---- floors ----------------------------------------------------------------------------


class Floors:
    """Seconds per GB of each stage, by thread CPU time."""

    def __init__(self, work: Path, data: dict[str, Path]) -> None:
        self._work = work
        self.kernel: dict[str, dict[str, float]] = {}
        for name, library in (
            ("crypto", "crypto"),
            ("sha", "crypto"),
            ("inflate", "isal"),
            ("zstd", "zstd"),
        ):
            source = HERE / "floors" / f"floor_{name}.c"
            out("cc", "-O2", source, "-o", work / f"floor_{name}", f"-l{library}")
        out("cc", "-O2", "-std=gnu17", f"-I{SOURCES}", HERE / "bench_kernel.c",
            SOURCES / "layer_shani.c", "-o", work / "bench_kernel", "-lcrypto")  # fmt: skip
        self.checks: list[tuple[str, float, float]] = []
        self.sha, speed = median_of(3, lambda: self.cost("sha"), self._openssl)
        self._check("SHA-256 by openssl speed", self.sha, speed)
        self.gzip, tool = median_of(
            3,
            lambda: self.cost("inflate", data["gzip"]),
            lambda: self._tool(data, "igzip", "-dc", data["gzip"]),
        )
        self._check("inflate by igzip -d", self.gzip, tool)
        self.zstd, tool = median_of(
            3, lambda: self.cost("zstd", data["zstd"]), lambda: self._zstd(data["plain"])
        )
        self._check("zstd by zstd -b", self.zstd, tool)
        self.read = 0.042  # page cache, 256 KiB a call: facts of another run, 3 % of a stage

    def cost(self, name: str, *arguments: object) -> float:
        found = json.loads(out(self._work / f"floor_{name}", *arguments))
        return found["seconds"] / found["bytes"] * 1e9

    def _check(self, what: str, floor: float, tool: float) -> None:
        self.checks.append((what, floor, tool))
        print(f"floor: {what:<40} {1 / floor:6.3f} GB/s, the tool {1 / tool:6.3f}", flush=True)

    @property
    def slow(self) -> list[str]:
        return [what for what, floor, tool in self.checks if floor > tool * FLOOR_MAY_BE_SLOWER]

    @staticmethod
    def _openssl() -> float:
        words = ["openssl", "speed", "-seconds", "1", "-bytes", "262144", "-evp", "sha256"]
        return 1e6 / float(out(*words).split()[-1].rstrip("k"))

    @staticmethod
    def _tool(data: dict[str, Path], *words: object) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        with open(os.devnull, "wb") as null:
            subprocess.run([str(word) for word in words], check=True, stdout=null)
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        return used / data["plain"].stat().st_size * 1e9

    @staticmethod
    def _zstd(tar: Path) -> float:
        sample = tar.with_name("sample")
        with tar.open("rb") as file:
            sample.write_bytes(file.read(200_000_000))
        found = subprocess.run(
            ["zstd", "-b3", "-i2", sample], check=True, capture_output=True, text=True
        )
        return 1e3 / float(re.findall(r"([\d.]+) MB/s", found.stdout + found.stderr)[-1])


def limit(cores: int, layers: int, stages: list[float]) -> float:
    """GB/s that no arrangement of these stages can exceed (facts, section 3)."""
    return min(cores / sum(stages), layers / max(stages))


# ---- rows ------------------------------------------------------------------------------


def kernel_rows(report: Report, work: Path, samples: int) -> dict[str, float]:
    runs = []
    for _ in range(max(3, samples // 2)):
        done = subprocess.run(
            [str(work / "bench_kernel"), "--json"], check=False, capture_output=True, text=True
        )
        if done.returncode == 77:
            print("no SHA instructions here: no kernel rows")
            return {}
        runs.append(json.loads(done.stdout))
    intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()

    def ratio(name: str) -> float:
        return statistics.median(one[name]["times_floor"] for one in runs)

    targets = {"K2": 1.45 if intel else 1.65, "K3": 1.6}
    for name in runs[0]:
        if name[:2] in targets and "bare" not in name:
            report.row(f"{name}: times the passes of libcrypto", ratio(name), targets[name[:2]])
        elif "bare" in name:
            report.row(f"{name}: the bound of this CPU, times the passes", ratio(name), None)
    return {
        name[:2]: 1 / statistics.median(one[name]["gb_per_second"] for one in runs)
        for name in runs[0]
        if name.endswith("open")
    }


class Layers:
    """The layer in its three forms, sealed."""

    def __init__(self, work: Path, data: dict[str, Path]) -> None:
        self.cipher = CipherParameters("AES_256_CTR_HMAC_SHA256", SecretKey(bytes(32)), bytes(16))
        self.tar = describe(data["plain"])
        self.sealed = {}
        for name, path in data.items():
            target = work / f"sealed-{name}"
            with path.open("rb") as source, target.open("wb") as sink:
                done = seal_layer(source.fileno(), sink.fileno(), expected=describe(path),
                                  cipher=self.cipher, source_compression=CODECS[name],
                                  what="layer")  # fmt: skip
            self.sealed[name] = (target, Descriptor("x", done.digest, done.size), done.hmac)

    def open(self, name: str) -> None:
        path, expected, hmac = self.sealed[name]
        with path.open("rb") as source:
            open_layer(source.fileno(), None, expected=expected, cipher=self.cipher, hmac=hmac,
                       compression=CODECS[name], diff_id=self.tar.digest, limits=Limits(),
                       what="layer")  # fmt: skip

    def open_two(self, name: str) -> None:
        threads = [threading.Thread(target=self.open, args=(name,)) for _ in range(2)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    def ratio(self, name: str) -> float:
        return self.tar.size / self.sealed[name][1].size


def layer_rows(
    report: Report, layers: Layers, floors: Floors, kernel: dict[str, float], samples: int
) -> None:
    cores = min(2, usable_cores())
    size = layers.tar.size / 1e9
    k2 = kernel.get("K2", floors.cost("crypto", 3))
    k3 = kernel.get("K3", floors.cost("crypto", 4))
    for name, target in (("gzip", 0.88), ("zstd", 0.80), ("plain", 0.85)):
        stage = {"gzip": [floors.gzip], "zstd": [floors.zstd], "plain": []}[name]
        stages = [(floors.read + k2) / layers.ratio(name), *stage, floors.sha]
        one, two = median_of(
            samples,
            lambda name=name: wall(lambda: layers.open(name)),
            lambda name=name: wall(lambda: layers.open_two(name)),
        )
        bound = limit(cores, 1, stages)
        report.row(f"{name}, one layer, {cores} cores: {size / one:.2f} of {bound:.2f} GB/s",
                   size / one / bound, target)  # fmt: skip
        both = [floors.read + k3] if name == "plain" else stages
        bound = limit(cores, 2, both)
        report.row(f"{name}, two layers, {cores} cores: {2 * size / two:.2f} of {bound:.2f} GB/s",
                   2 * size / two / bound, 0.85)  # fmt: skip


def busy_rows(report: Report, layers: Layers, samples: int) -> None:
    def beside_python() -> float:
        stop = threading.Event()

        def spin() -> None:
            while not stop.is_set():
                pass

        thread = threading.Thread(target=spin)
        thread.start()
        try:
            return wall(lambda: layers.open("gzip"))
        finally:
            stop.set()
            thread.join()

    def beside_c() -> float:
        with subprocess.Popen(
            ["openssl", "speed", "-seconds", "60", "sha1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as busy:
            try:
                return wall(lambda: layers.open("gzip"))
            finally:
                busy.kill()

    python, program = median_of(samples, beside_python, beside_c)
    report.row("gzip beside a busy Python thread, to beside a C process", program / python, 0.95)


def fresh(folder: Path) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    return f"oci:{folder}:v1"


def timed(folder: Path, *words: object, cores: str = "") -> float:
    """Wall time of a command that writes an image into the new `folder`, with its sync."""
    pin = ["taskset", "-c", cores] if cores else []
    fresh(folder)

    def call() -> None:
        out(*pin, *words, cwd=HERE.parent)
        out("sync", "-f", folder)

    return wall(call)


def command_rows(report: Report, work: Path, data: dict[str, Path], layers: Layers,
                 bound: float, samples: int) -> None:  # fmt: skip
    diff = str(layers.tar.digest)
    image = make_layout(work / "image", [(data["gzip"], GZIP_TYPE, diff)])
    key, public = work / "key.pem", work / "public.pem"
    out("openssl", "genrsa", "-out", key, "2048")
    out("openssl", "rsa", "-in", key, "-pubout", "-out", public)
    sealed = fresh(work / "sealed")
    target = work / "target"
    out(*IMAGERS, "encrypt", image, sealed, "--encryption-key", f"jwe:{public}", cwd=HERE.parent)
    seal = [*IMAGERS, "encrypt", image, f"oci:{target}:v1", "--encryption-key", f"jwe:{public}"]
    open_ = [*IMAGERS, "decrypt", sealed, f"oci:{target}:v1", "--decryption-key", key]
    if shutil.which("skopeo") is None:
        print("no skopeo here: no rows of the peer")
    else:
        seal_peer = ["skopeo", "copy", "--encryption-key", f"jwe:{public}", image,
                     f"oci:{target}:v1"]  # fmt: skip
        open_peer = ["skopeo", "copy", "--decryption-key", key, sealed, f"oci:{target}:v1"]
        ours, peer = median_of(
            samples, lambda: timed(target, *seal), lambda: timed(target, *seal_peer)
        )
        report.row(f"encrypt: {peer:.2f} s by skopeo, {ours:.2f} s", peer / ours, 5)
        ours, peer, loose = median_of(
            samples,
            lambda: timed(target, *open_),
            lambda: timed(target, *open_peer),
            lambda: timed(target, *open_, "--insecure-skip-diff-id"),
        )
        report.row(f"decrypt: {peer:.2f} s by skopeo, {ours:.2f} s", peer / ours, 1.9)
        report.row(f"decrypt --insecure-skip-diff-id: {loose:.2f} s", peer / loose, 6)
        rate = layers.tar.size / 1e9 / ours
        report.row(f"decrypt: {rate:.2f} of {bound:.2f} GB/s", rate / bound, 0.85)
    memory = int(out(sys.executable, "-c", _MEMORY, *IMAGERS[1:], *open_[3:], cwd=HERE.parent))
    report.row("decrypt: MiB resident above python -c pass", memory / 1024, 96, most=True)


# The peak of a command, less that of an interpreter that does nothing.
_MEMORY = """
import resource, subprocess, sys
def peak(*words):
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
floor = peak("-c", "pass")
import shutil
shutil.rmtree(sys.argv[5].split(":")[1])
print(peak(*sys.argv[1:]) - floor)
"""


def many_row(report: Report, work: Path, data: dict[str, Path], samples: int) -> None:
    """Four zstd layers, on two cores and on one."""
    rows = []
    with data["plain"].open("rb") as file:
        size = data["plain"].stat().st_size // 4
        for number in range(4):
            path = work / f"part{number}"
            path.write_bytes(file.read(size))
            diff = str(describe(path).digest)
            out("zstd", "-q", "-f", "-3", path)
            rows.append((work / f"part{number}.zst", ZSTD_TYPE, diff))
    image = make_layout(work / "four", rows)
    sealed = fresh(work / "four-sealed")
    target = work / "target"
    out(*IMAGERS, "encrypt", image, sealed, "--encryption-key", f"jwe:{work / 'public.pem'}",
        cwd=HERE.parent)  # fmt: skip
    words = [*IMAGERS, "decrypt", sealed, f"oci:{target}:v1", "--decryption-key", work / "key.pem"]
    one, two = median_of(
        samples,
        lambda: timed(target, *words, cores="0"),
        lambda: timed(target, *words, cores="0,1"),
    )
    report.row(f"four zstd layers: {one:.2f} s on one core, {two:.2f} s on two", one / two, 1.8)


def small_row(report: Report, work: Path, samples: int) -> None:
    """A layer of 4 KiB: the command, to the import of what it needs."""
    tar = os.urandom(4096)
    path = work / "small.gz"
    path.write_bytes(gzip.compress(tar))
    diff = f"sha256:{hashlib.sha256(tar).hexdigest()}"
    image = make_layout(work / "small", [(path, GZIP_TYPE, diff)])
    sealed = fresh(work / "small-sealed")
    target = work / "target"
    out(*IMAGERS, "encrypt", image, sealed, "--encryption-key", f"jwe:{work / 'public.pem'}",
        cwd=HERE.parent)  # fmt: skip
    words = [*IMAGERS, "decrypt", sealed, f"oci:{target}:v1", "--decryption-key", work / "key.pem"]
    shutil.rmtree(target, ignore_errors=True)
    probe = (
        "import sys; sys.argv[0] = 'imagers'\nfrom imagers.cli.main import main\n"
        "try:\n    main()\nfinally:\n    print(*[n for n in sys.modules if '.' not in n or "
        "n.split('.')[0] in ('imagers','cryptography','jwcrypto')], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *map(str, words[3:])],
        check=False,
        capture_output=True,
        text=True,
        cwd=HERE.parent,
    )
    names = [name for name in done.stderr.splitlines()[-1].split() if name != "__main__"]
    body = (
        "import importlib\nfor n in "
        + repr(names)
        + ":\n"
        + ("    try: importlib.import_module(n)\n    except Exception: pass\n")
    )
    floor, ours = median_of(
        samples,
        lambda: wall(lambda: out(sys.executable, "-W", "ignore", "-c", body, cwd=HERE.parent)),
        lambda: timed(target, *words),
    )
    report.row(f"4 KiB: {ours:.2f} s, its imports {floor:.2f} s", ours / floor, 2, most=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256, help="of the gzip layer; the table: 1024")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, help="a folder on tmpfs that is kept")
    options = parser.parse_args()
    report = Report()
    print(f"load {os.getloadavg()[0]:.2f} on {usable_cores()} cores, {options.mib} MiB of gzip")
    with contextlib.ExitStack() as stack:
        work = options.work or Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        )
        work.mkdir(exist_ok=True)
        for old in work.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
        data = make_data(work, options.mib)
        floors = Floors(work, data)
        kernel = kernel_rows(report, work, options.samples)
        layers = Layers(work, data)
        layer_rows(report, layers, floors, kernel, options.samples)
        busy_rows(report, layers, options.samples)
        k3 = kernel.get("K3", floors.cost("crypto", 4))
        stages = [(floors.read + k3 + 0.4) / layers.ratio("gzip"), floors.gzip, floors.sha]
        command_rows(report, work, data, layers, limit(min(2, usable_cores()), 1, stages),
                     options.samples)  # fmt: skip
        many_row(report, work, data, options.samples)
        small_row(report, work, options.samples)
    if options.json is not None:
        options.json.write_text(json.dumps({
            "load": os.getloadavg()[0],
            "rows": report.rows,
            "floors": [dict(zip(("what", "floor", "tool"), one, strict=True))
                       for one in floors.checks],
        }, indent=2))  # fmt: skip
    for what in floors.slow:
        print(f"the floor is slow: {what}", file=sys.stderr)
    return 1 if floors.slow else 0


if __name__ == "__main__":
    sys.exit(main())
