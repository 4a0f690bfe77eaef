# SPDX-License-Identifier: Apache-2.0
"""One or two faults around one pull, or two at once: for tests/faults/pulls.py, which has the list.

A fault says what it is in a few words, and which exit codes fit it.
"""

import contextlib
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from imagers.testing import EmbeddedBroker
from imagers.testing.fault_proxy import FaultProxy
from tests.faults.pull_images import IS_ROOT

PRIVATE = ("plain", "overlay", "erofs")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# As in test_stores; without ioctl, which comes before Python knows of signals. strace counts those
# of each thread.
OPERATIONS = (
    "write,pwrite64,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,link,linkat,"
    "symlink,symlinkat,mknodat,fsync,fdatasync,syncfs,ftruncate,fallocate,utimensat,fchmod,"
    "fchmodat,fchown,fchownat,lsetxattr,fsetxattr,move_mount,mount,umount2"
)
MOST_OPERATIONS = (60, 200)  # the latter where unpacked layers are kept
# Two programs that start a pull; one broker; and libfaketime, under which no process can wait.
EXCLUSIVE = (
    ("operation", "signal"),
    ("operation", "clock"),
    ("operation", "limit"),
    ("broker", "gone"),
    ("registry", "clock"),
    ("broker", "clock"),
    ("gone", "clock"),
)
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
DAYS = (-400, -2, -0.01, 0.01, 2, 400)

# Exit codes: docs/errors.md.
REMOTE, FORMAT, UNSUPPORTED, LOCAL, INTEGRITY, DENIED, COULD_NOT = 10, 11, 12, 13, 20, 21, 22
NO_KEY, REFUSED, ATTESTATION, INTERRUPTED, TERMINATED, KILLED = 30, 31, 40, 130, 143, -9
OF_SIGNAL = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED, signal.SIGKILL: KILLED}
OF_BYTES = {FORMAT, UNSUPPORTED, INTEGRITY, DENIED}  # that are others than they were
OF_BROKERS_BYTES = {FORMAT, UNSUPPORTED, INTEGRITY, NO_KEY, REFUSED, ATTESTATION}


class Broker:
    """A broker that can be stopped and started again; it keeps its state."""

    def __init__(self, state):
        self._state = state
        self._stack = contextlib.ExitStack()
        self.running = None
        self.start()

    def start(self):
        if self.running is None:
            started = EmbeddedBroker(state_directory=self._state)
            self.running = self._stack.enter_context(started)

    def stop(self):
        self._stack.close()
        self.running = None

    @property
    def address(self):
        return self.running.url.removeprefix("http://")


class DyingBroker(FaultProxy):
    """A proxy whose broker stops at the nth question for secrets."""

    def __init__(self, broker, at):
        super().__init__(broker.address, seed=0, rate=0)
        self._broker = broker
        self._left = at

    def choose(self, line):
        if "/resource/" in line or "/release" in line:
            self._left -= 1
            if self._left == 0:
                self._broker.stop()
        return super().choose(line)


def draw_kinds(random, *, has_broker, in_memory, is_alone):
    """The names of one or two faults.

    Args:
        in_memory: directories are file systems of their own, which can be full.
        is_alone: it is the only round of its run.
    """
    kinds = ["registry"] * 4 + ["signal"] * 4 + ["operation"] * 4 + ["twins"] * 3
    kinds += ["limit", "clock", "clock"]
    if has_broker:
        kinds += ["broker"] * 3 + ["gone"] * 2
    if in_memory:
        kinds += ["full"] * 6
    elif IS_ROOT and is_alone:
        kinds += ["power"] * 4
    chosen = set(random.sample(kinds, random.choice((1, 1, 2))))
    if "power" in chosen:
        return ["power"]  # which has its own disk, and its own death
    for one, other in EXCLUSIVE:
        if {one, other} <= chosen:
            chosen.remove(other)
    return sorted(chosen)


class Faults:
    """The faults of one round.

    Args:
        run: of `pulls`.
        number: of the round.

    Attributes:
        said: what each of them is.
        targets: a bundle for each pull.
        how: of the first pull, as `Run.start` takes it.
    """

    def __init__(self, run, number, kinds):
        self._run = run
        self._random = run.random
        self._seed = 100_000 * number + run.seed
        self.said = dict.fromkeys(kinds, "")
        self.targets = [run.bundle]
        self.how = {}
        self._registry_rate = 0
        self._at_bytes = {}  # what is done when so much was served: (byte, kind)
        self._signal = None
        self._processes = []
        self._disks = []
        self._registry_proxy = self._broker_proxy = None

    def run(self):
        """The pulls, and how each ended."""
        run = self._run
        with contextlib.ExitStack() as until_ended:
            for kind in self.said:
                self.said[kind] = getattr(self, f"add_{kind}")(until_ended)
            addresses = self._open_proxies(until_ended)
            began = time.monotonic()
            try:
                for number, bundle in enumerate(self.targets):
                    how = {} if number else self.how
                    self._processes.append(run.start(bundle, *addresses, **how))
                results = [run.end(process, began) for process in self._processes]
            finally:
                for process in self._processes:
                    if process.poll() is None:
                        process.send_signal(signal.SIGKILL)
                        process.communicate()
        for _, kind in self._at_bytes:
            self.said[kind] += " (not reached)"
        for disk in self._disks:
            disk.make_room()
        if run.power is not None:
            run.power.cut()
        if "broker" in self.said.get("clock", ""):
            run.broker.stop()  # as it has seen a time that is not yet, it says what to do
        if run.broker is not None:
            run.broker.start()
        return results

    def codes(self, number):
        """Exit codes that fit, of one of the pulls."""
        codes = {0}
        for proxy, of_bytes in (
            (self._registry_proxy, OF_BYTES),
            (self._broker_proxy, OF_BROKERS_BYTES),
        ):
            spoilt = {fault for fault, _ in proxy.faults} if proxy is not None else set()
            if spoilt:
                codes |= {REMOTE, COULD_NOT}
            if "wrong length" in spoilt:
                codes |= {INTEGRITY, FORMAT}
            if "wrong bytes" in spoilt:
                codes |= of_bytes
        if "gone" in self.said:
            codes.add(REMOTE)
        if {"full", "limit"} & set(self.said):
            codes.add(LOCAL)
        if "broker" in self.said.get("clock", ""):
            codes |= {REMOTE, REFUSED, ATTESTATION}
        if self._signal is not None and not number:
            codes.add(OF_SIGNAL[self._signal])
        if self._run.keeping == "erofs" and {"full", "limit", "operation"} & set(self.said):
            codes |= {LOCAL, UNSUPPORTED}  # of mkfs.erofs, which does not say why it failed
        if len(set(self.targets)) < len(self.targets):
            codes.add(LOCAL)
        return codes

    def _open_proxies(self, until_ended):
        """Addresses of registry and broker, or of what is before them."""
        registry, broker = self._run.registry, self._run.broker
        if self._registry_rate or self._at_bytes:
            registry = self._registry_proxy = until_ended.enter_context(
                FaultProxy(
                    registry.address,
                    seed=self._seed,
                    rate=self._registry_rate,
                    on_sent=self._on_sent,
                )
            )
        if self._broker_proxy is not None:
            broker = until_ended.enter_context(self._broker_proxy)
        return registry.address, None if broker is None else broker.address

    def _on_sent(self, sent):
        for due in [due for due in self._at_bytes if sent >= due[0]]:
            act = self._at_bytes.pop(due, None)  # another thread may be here, too
            if act is not None:
                act()

    def _draw_byte(self):
        """One that the registry sends, more often an early one."""
        return int(self._run.stored_size * self._random.random() ** 1.5) + 500

    # Each kind: says what it will be

    def add_registry(self, _):
        self._registry_rate = self._random.choice((0.1, 0.2, 0.4))
        return f"{self._registry_rate:.0%}"

    def add_broker(self, _):
        rate = self._random.choice((0.1, 0.3, 0.6))
        self._broker_proxy = FaultProxy(self._run.broker.address, seed=self._seed, rate=rate)
        return f"{rate:.0%}"

    def add_gone(self, _):
        questions = self._run.questions
        at = self._random.randrange(1, questions + 1)
        self._broker_proxy = DyingBroker(self._run.broker, at)
        return f"at question {at} of {questions}"

    def add_full(self, _):
        parts = (0, 0.1, 0.5, 1, 2, 4)
        room = int(self._run.image.size * self._random.choice(parts) * self._random.random())
        files = self._random.choice((100_000, 100_000, self._random.randrange(60)))
        names = self._random.choice(
            (["bundles"], ["data"], ["data"], ["bundles", "data"], ["run"], ["tmp"])
        )
        self._disks = [self._run.disks[name] for name in names]
        for disk in self._disks:
            disk.leave(room, files)
        return f"{room} bytes and {files} files in {'+'.join(names)}"

    def add_limit(self, _):
        limit = max(1, int(self._run.image.size * self._random.random() ** 2))
        self.how["limit"] = limit
        return f"{limit} bytes"

    def add_signal(self, _):
        self._signal, at = self._random.choice(SIGNALS), self._draw_byte()
        self._at_bytes[at, "signal"] = lambda: self._processes[0].send_signal(self._signal)
        return f"{self._signal.name} at byte {at}"

    def add_operation(self, _):
        return self._end_at_operation(self._random.choice(SIGNALS))

    def add_power(self, _):
        self._run.move_to_disk()
        self.targets = [self._run.bundle]
        return self._end_at_operation(signal.SIGKILL)

    def _end_at_operation(self, number):
        most = MOST_OPERATIONS[self._run.keeping in PRIVATE]
        at = int(most ** self._random.random())
        self._signal = number
        self.how["before"] = [
            *("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={OPERATIONS}"),
            *("-e", f"inject={OPERATIONS}:signal={number.name[3:]}:when={at}"),
        ]
        return f"{number.name} at {at}"

    def add_twins(self, _):
        bundle = self._run.bundle
        is_same = self._random.randrange(2)
        self.targets = [bundle, bundle if is_same else bundle.with_name("other")]
        return f"into {'one' if is_same else 'two'}"

    def add_clock(self, until_ended):
        """The clock of the guest or of the broker jumps, or did between two pulls."""
        run, days = self._run, self._random.choice(DAYS)
        kinds = ["what is kept"] if run.broker is None else ["what is kept", "the broker"]
        if FAKETIME is not None and run.keeping != "erofs":  # whose times it would change
            kinds += ["the guest"] * 3
        kind = self._random.choice(kinds)
        said = f"of {kind} by {days} days"
        if kind == "the broker":
            until_ended.enter_context(run.broker.running.clock_moved(timedelta(days=days)))
        elif kind == "what is kept":
            at = time.time() + days * 86400
            for one in run.store.glob("*"):
                os.utime(one, (at, at))
        else:
            clock = run.folder / "clock"
            clock.write_text("+0")
            self.how["environment"] = {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }
            at = self._random.choice((0, self._draw_byte()))
            self._at_bytes[at, "clock"] = lambda: clock.write_text(f"{days:+}d")
            said += f" at byte {at}"
        return said
