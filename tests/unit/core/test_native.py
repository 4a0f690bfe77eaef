# SPDX-License-Identifier: Apache-2.0
"""The extension itself: its stub, its threads, and what Python code can do to it."""

import ast
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from imagers.core import Limits, _core, failures, layer, native, open_layer
from imagers.errors import LocalError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest, digest_of
from imagers.model.media import Compression

STUB = Path(native.__file__).with_name("_core.pyi")


def test_stub_has_what_the_module_has():
    tree = ast.parse(STUB.read_text())
    names = {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
    names |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    public = {name for name in vars(_core) if not name.startswith("_")}
    assert names | set(classes) == public
    for name, node in classes.items():
        methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
        built = {one for one in vars(getattr(_core, name)) if not one.startswith("_")}
        assert methods == built


EMPTY = {
    "source": None,
    "size": 0,
    "digest": str(digest_of(b"")),
    "diff_id": None,
    "key": None,
    "nonce": None,
    "decode": 0,
    "sees_tar": True,
    "tar_bytes": 1000,
    "window_bytes": 1024,
    "threads": 1,
    "what": "layer",
    "force": None,
}
SEALS = EMPTY | {"sink": 1, "encode": 0}
OPENS = EMPTY | {
    "sink": None,
    "root": None,
    "keep_owner": False,
    "hmac": None,
    "gives_tar": True,
    "max_entries": 1,
    "max_name_bytes": 1,
    "piece_key": None,
    "codes": None,
}
CONSTRUCTORS = {"seal": (_core.LayerJob.seal, SEALS), "open": (_core.LayerJob.open, OPENS)}


def job(**changes):
    return _core.LayerJob.open(**(OPENS | changes))


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_stub_has_the_arguments_of_the_constructor(name):
    call, arguments = CONSTRUCTORS[name]
    tree = ast.parse(STUB.read_text())
    (stub,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    names = [argument.arg for argument in stub.args.kwonlyargs]
    for one in names:  # each of them is known, and is needed
        with pytest.raises(TypeError, match=one):
            call(**{key: value for key, value in arguments.items() if key != one})
    assert set(names) == set(arguments)


def test_job_is_made_for_sealing_or_for_opening_only():
    with pytest.raises(TypeError, match=r"cannot create 'imagers\.core\._core\.LayerJob'"):
        _core.LayerJob()


def test_faults_are_those_of_the_table():
    assert {fault.name: fault.value for fault in failures.Fault} == _core.FAULTS


def test_backend_is_the_extension():
    assert layer.BACKEND == "c"
    assert _core.LAYER_FUNCTIONS[-1] == "libcrypto"
    assert _core.GZIP_LIBRARY in ("isal", "zlib")


@pytest.mark.parametrize("name", CONSTRUCTORS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": -1}, "-1 is no descriptor"),
        ({"sink": 1 << 40}, "1099511627776 is no descriptor"),
        ({"key": bytes(31), "nonce": bytes(16)}, "key must have 32 bytes"),
        ({"key": bytes(32), "nonce": bytes(15)}, "nonce must have 16 bytes"),
        ({"key": bytes(32), "nonce": None}, "nonce must have 16 bytes"),
        ({"decode": 3}, "unknown compression"),
        ({"decode": -1}, "unknown compression"),
        ({"digest": "sha256"}, "not a digest"),
        ({"diff_id": "x" * 300 + ":"}, "not a digest"),
    ],
)
def test_job_refuses_arguments_that_make_no_sense(name, changes, message):
    call, arguments = CONSTRUCTORS[name]
    with pytest.raises(ValueError, match=message):
        call(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": -1}, "-1 is no descriptor"),
        ({"key": bytes(32), "nonce": bytes(16), "hmac": bytes(31)}, "hmac must have 32 bytes"),
        ({"key": bytes(32), "nonce": bytes(16), "hmac": None}, "hmac must have 32 bytes"),
        ({"max_name_bytes": 0}, "max_name_bytes must be from 1 to 4095"),
        ({"max_name_bytes": 4096}, "max_name_bytes must be from 1 to 4095"),
    ],
)
def test_job_that_opens_refuses_arguments_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        job(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"sink": None}, "sealing needs a sink"), ({"encode": 3}, "unknown compression")],
)
def test_job_that_seals_refuses_arguments_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        _core.LayerJob.seal(**(SEALS | changes))


def test_job_refuses_what_is_no_descriptor_at_all():
    with pytest.raises(TypeError, match="integer"):
        job(source="0")


def test_job_with_an_unknown_digest_is_refused():
    with pytest.raises(Exception, match="libcrypto failed"):
        job(digest="md6:00")


def test_job_with_an_unknown_layer_function_is_refused():
    with pytest.raises(Exception, match="libcrypto failed"):
        job(force="layer=abacus")


def test_job_runs_once():
    one = job()
    assert one.run(lambda _: 0, None)[1] == 0
    with pytest.raises(RuntimeError, match="a job runs once"):
        one.run(lambda _: 0, None)


def test_job_that_never_runs_is_freed():
    gc.collect()  # what other tests have left closes now, and not meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        job(key=bytes(32), nonce=bytes(16), hmac=bytes(32))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", _core.LAYER_FUNCTIONS)
def test_each_entry_of_the_table_gives_the_known_answer(name, monkeypatch, core):
    """Answers of facts about the format; see test_layer.py."""
    monkeypatch.setattr(native, "_force", f"layer={name}")
    monkeypatch.setattr(layer, "_backend", native)
    for length in (0, 1, 63, 64, 65, 8 * 64 + 1, 256 * 1024 - 1, 256 * 1024 + 1, 1_000_003):
        data = bytes(range(251)) * (length // 251 + 1)
        data = data[:length]
        nonce = b"\xff" * 15 + b"\xf0"
        sealed, stored = core.seal(data, cipher=core.cipher(nonce=nonce))
        monkeypatch.setattr(native, "_force", "layer=libcrypto")
        reference, expected = core.seal(data, cipher=core.cipher(nonce=nonce))
        monkeypatch.setattr(native, "_force", f"layer={name}")
        assert (sealed, stored) == (reference, expected)
        _, tar = core.open(
            stored, cipher=core.cipher(nonce=nonce), hmac=sealed.hmac, diff_id=digest_of(data)
        )
        assert tar == data


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
@pytest.mark.parametrize("length", [0, 1, 4 << 20, (4 << 20) + 1, 30_000_001])
def test_seal_gives_the_same_bytes_for_any_number_of_threads(
    core, monkeypatch, compression, length
):
    monkeypatch.setattr(layer, "_backend", native)
    monkeypatch.setattr(native, "_force", None)
    block = b"".join(bytes([i % 251]) * (i % 97) + str(i * i).encode() for i in range(20_000))
    data = (block * (length // len(block) + 1))[:length]
    found = set()
    for threads in (1, 2, 3, 9):
        monkeypatch.setattr(native, "usable_cores", lambda threads=threads: threads)
        sealed, stored = core.seal(data, compress=compression)
        found.add((stored, sealed.hmac, sealed.digest, sealed.diff_id, sealed.size))
    assert len(found) == 1


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_seal_in_threads_onto_a_full_disk_tells_that(monkeypatch, core, compression):
    monkeypatch.setattr(layer, "_backend", native)
    monkeypatch.setattr(native, "_force", "split")
    data = os.urandom(20_000_000)
    source = core.path()
    source.write_bytes(data)
    with (
        source.open("rb") as file,
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(LocalError, match="no space left on device"),
    ):
        layer.seal_layer(
            file.fileno(),
            full.fileno(),
            expected=core.descriptor(data),
            cipher=core.cipher(),
            source_compression=Compression.NONE,
            compress=compression,
            what="layer",
        )


def test_memory_of_grows_with_threads_and_window_and_not_with_the_layer():
    """That it is true is asked in C, where every allocation is known (test_main.c)."""
    mib = 1 << 20
    seal = [
        native.memory_of(sealing=True, threads=n, size=size, compress=Compression.ZSTD)
        for n, size in ((1, mib), (2, mib), (3, mib), (3, mib << 20))
    ]
    assert seal[0] < seal[1] < seal[2] == seal[3]
    big, small = (
        native.memory_of(
            sealing=False, threads=1, size=mib, decompress=Compression.ZSTD, window_bytes=window
        )
        for window in (32 * mib, 8 * mib)
    )
    assert big - small == 24 * mib
    one, many = (native.memory_of(sealing=False, threads=n, size=1 << 30) for n in (1, 9))
    assert one < many < 8 * mib


def endless(fd, **settings):
    return open_layer(
        fd,
        None,
        expected=Descriptor("x", Digest("sha256", "0" * 64), 1 << 50),
        cipher=None,
        hmac=None,
        compression=Compression.NONE,
        diff_id=None,
        limits=Limits(max_tar_bytes=1 << 60),
        what="layer",
        **settings,
    )


def test_python_threads_run_while_a_layer_does(tmp_path):
    """The interpreter's lock is not held: a counting thread counts on."""
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    counted = 0
    stop = threading.Event()

    def count():
        nonlocal counted
        while not stop.is_set():
            counted += 1

    thread = threading.Thread(target=count)
    with path.open("rb", buffering=0) as file:
        thread.start()
        before = counted
        with pytest.raises(Exception, match="digest mismatch"):
            open_layer(
                file.fileno(),
                None,
                expected=Descriptor("x", Digest("sha256", "0" * 64), 100_000_000),
                cipher=None,
                hmac=None,
                compression=Compression.NONE,
                diff_id=None,
                what="layer",
            )
        during = counted - before
        stop.set()
        thread.join(10)
    assert during > 1000


def test_several_layers_at_once(core):
    data = [bytes([number]) * 3_000_000 for number in range(6)]
    results = [None] * len(data)
    barrier = threading.Barrier(len(data))

    def work(number):
        barrier.wait(10)
        results[number] = core.open(data[number], piece=100_000)[0].diff_id

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [digest_of(one) for one in data]


def run_program(source, *arguments):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(native.__file__).parents[2],
    )


PROGRAM = """
    import os, signal, sys, threading, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it is ignored
    from imagers.core import open_layer, Limits
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.media import Compression

    def endless(source, **settings):
        expected = Descriptor("x", Digest("sha256", "0" * 64), 1 << 50)
        return open_layer(source, None, expected=expected,
            cipher=None, hmac=None, compression=Compression.NONE, diff_id=None,
            limits=Limits(max_tar_bytes=1 << 60), what="layer", **settings)
"""


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_open_has_as_many_threads_at_work_as_it_was_given(threads):
    """The one that calls waits, and none of them is left. Sealing is asked for its bytes, above."""
    done = run_program(
        PROGRAM
        + """
    from imagers.core import Resources
    threads = int(sys.argv[1])
    class Enough(Exception):
        pass
    def report(progress):
        at_work = len(os.listdir("/proc/self/task")) - 1
        assert at_work <= threads, at_work
        if at_work == threads:
            raise Enough
    try:
        endless(os.open("/dev/zero", os.O_RDONLY), resources=Resources(threads), on_progress=report)
    except Enough:
        print(len(os.listdir("/proc/self/task")))
    """,
        str(threads),
    )
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("source", ["zeros", "pipe", "stream"])
def test_ctrl_c_ends_a_job_soon(source):
    """SIGINT goes to the process; the job's thread is gone when the exception is there."""
    done = run_program(
        PROGRAM
        + f"""
    class Stream:
        def readinto(self, buffer):
            return len(buffer)
        def close(self):
            pass

    sources = {{
        "zeros": lambda: os.open("/dev/zero", os.O_RDONLY),
        "pipe": lambda: os.pipe()[0],
        "stream": Stream,
    }}
    source = sources[{source!r}]()
    sent = []
    def send():
        time.sleep(0.3)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=send).start()
    try:
        endless(source)
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - sent[0] < 20, len(os.listdir("/proc/self/task")))
    """
    )
    assert done.stdout == "interrupted True 1\n", done.stderr


def test_fork_inside_a_callback_is_told_and_does_not_hang():
    done = run_program(
        PROGRAM
        + """
    class Enough(Exception):
        pass
    first = os.getpid()
    children = []
    def report(progress):
        if os.getpid() == first and not children:
            child = os.fork()
            if child:
                children.append(child)
        elif os.getpid() == first:
            raise Enough
    try:
        endless(os.open("/dev/zero", os.O_RDONLY), on_progress=report)
    except RuntimeError as error:
        assert os.getpid() != first
        assert "forked inside a job" in str(error)
        os._exit(7)
    except Enough:
        print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
    """
    )
    assert done.stdout == "7\n", done.stderr


def test_fork_inside_a_source_is_told_and_does_not_hang():
    done = run_program(
        PROGRAM
        + """
    first = os.getpid()
    class Forks:
        calls = 0
        def readinto(self, buffer):
            self.calls += 1
            if self.calls == 3:
                child = os.fork()
                if child:
                    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                    raise KeyboardInterrupt
            return len(buffer)
        def close(self):
            pass
    try:
        endless(Forks())
    except KeyboardInterrupt:
        assert os.getpid() == first
    except RuntimeError as error:
        assert os.getpid() != first
        assert "forked inside a job" in str(error)
        os._exit(7)
    """
    )
    assert done.stdout == "7\n", done.stderr


def test_no_descriptor_left_is_a_local_error():
    done = run_program(
        PROGRAM
        + """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
    zeros = os.open("/dev/zero", os.O_RDONLY)
    try:
        while True:
            os.dup(zeros)
    except OSError:
        pass
    try:
        endless(zeros)
    except Exception as error:
        print(type(error).__name__, error)
    """
    )
    assert done.stdout == "LocalError cannot read layer: too many open files\n", done.stderr


def test_exit_of_the_interpreter_beside_a_job_is_clean():
    done = run_program(
        PROGRAM
        + """
    threading.Thread(target=endless, args=(os.open("/dev/zero", os.O_RDONLY),), daemon=True).start()
    time.sleep(0.3)
    print("bye")
    """
    )
    assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr


def test_broken_pipe_is_an_error_and_no_signal(core, monkeypatch):
    monkeypatch.setattr(layer, "_backend", native)
    read, write = os.pipe()
    os.close(read)
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with pytest.raises(Exception, match="cannot write layer: broken pipe"):
            layer.seal_layer(
                core.Memory(bytes(100)),
                write,
                expected=core.descriptor(bytes(100)),
                cipher=core.cipher(),
                source_compression=Compression.NONE,
                what="layer",
            )
    finally:
        signal.signal(signal.SIGPIPE, before)
        os.close(write)


def test_source_that_keeps_the_buffer_does_no_harm(core):
    kept = []

    class Keeper(core.Memory):
        def readinto(self, buffer):
            kept.append(buffer)
            return super().readinto(buffer)

    data = bytes(range(256)) * 10_000
    assert core.seal(data)[1] == seal_from(core, Keeper(data, 70_000), data)
    for buffer in kept:
        buffer[:] = bytes(len(buffer))


def seal_from(core, source, data):
    with core.path().open("w+b", buffering=0) as sink:
        layer.seal_layer(
            source,
            sink.fileno(),
            expected=core.descriptor(data),
            cipher=core.cipher(),
            source_compression=Compression.NONE,
            what="layer",
        )
        sink.seek(0)
        return sink.read()


def test_key_is_not_left_in_memory():
    """After a job the 32 bytes are nowhere but in the SecretKey itself."""
    done = run_program(
        """
    import os, sys
    from imagers.core import CipherParameters, seal_layer
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import digest_of
    from imagers.model.keys import random_secret
    from imagers.model.media import Compression
    data = bytes(3_000_000)
    with open("/dev/null", "wb", buffering=0) as null, random_secret(32) as key:
        cipher = CipherParameters("AES_256_CTR_HMAC_SHA256", key, os.urandom(16))
        class Source:
            left = len(data)
            def readinto(self, buffer):
                count = min(len(buffer), self.left); self.left -= count
                buffer[:count] = bytes(count)
                return count
            def close(self): pass
        seal_layer(Source(), null.fileno(), expected=Descriptor("x", digest_of(data), len(data)),
            cipher=cipher, source_compression=Compression.NONE, what="layer")
        found = 0
        # Compared in halves turned around, so that the search itself leaves no copy.
        with key.view() as view:
            first, second = bytes(b ^ 0x55 for b in view[:16]), bytes(b ^ 0x55 for b in view[16:])
        table = bytes(b ^ 0x55 for b in range(256))
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as mem:
            for line in maps.read().splitlines():
                span, rights, *rest = line.split()
                if not rights.startswith("rw") or "[v" in line:
                    continue
                start, end = (int(one, 16) for one in span.split("-"))
                mem.seek(start)
                block = bytearray(mem.read(end - start))
                turned = block.translate(table)
                at = turned.find(first + second)
                while at >= 0:
                    found += 1
                    at = turned.find(first + second, at + 1)
                block[:] = bytes(len(block)); turned[:] = bytes(len(turned))
        print(found)
    """
    )
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("compress", [Compression.NONE, Compression.GZIP, Compression.ZSTD])
def test_memory_does_not_grow_with_the_layer(compress):
    done = run_program(
        """
    import os, resource, sys
    from imagers.core import CipherParameters, seal_layer
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.keys import random_secret
    from imagers.model.media import Compression
    size = 300_000_000
    class Source:
        left = size
        def readinto(self, buffer):
            count = min(len(buffer), self.left); self.left -= count
            return count
        def close(self): pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/dev/null", "wb", buffering=0) as null, random_secret(32) as key:
        try:
            expected = Descriptor("x", Digest("sha256", "0"), size)
            seal_layer(Source(), null.fileno(), expected=expected,
                cipher=CipherParameters("AES_256_CTR_HMAC_SHA256", key, bytes(16)), what="layer",
                source_compression=Compression.NONE, compress=Compression(sys.argv[1]))
        except Exception as error:
            assert "digest mismatch" in str(error), error
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000)
    """,
        compress.value,
    )
    assert done.stdout == "True\n", done.stderr
