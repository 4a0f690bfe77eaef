# SPDX-License-Identifier: Apache-2.0
"""What a key broker does in a second, and in a second of its processor's time.

    python benchmarks/broker.py [--clients 1,4,16,64] [--seconds 4] [--policy FILE]
    python benchmarks/broker.py --against http://127.0.0.1:8081,4711     # a peer, in the same run
    python benchmarks/broker.py --long                                   # 100,000 handshakes
    python benchmarks/broker.py --database postgresql://user@127.0.0.1/empty     # two brokers, too

A handshake is a new connection, a fresh key on P-256, `auth`, `attest` with evidence of the sample
TEE, and one resource, whose JWE is opened and compared. A read is the resource again, by cookie,
over a new connection or a kept one. Each client is a process of its own, the same for all servers;
the servers take turns, so that all see the same machine. A server's time is user and system time
of its process and all its children, a core is a second of that.

A broker of this tree is started in a temporary directory, on the disk that TMPDIR names, with a
policy that lets the sample TEE read. A peer has to run, take the sample TEE, release
`default/bench/key` to it, and have 32 bytes "k" there; its id is for its time and memory.

Two brokers over one database are asked by one address first and then by both in turn: what one
handshake takes may hardly grow. Then two processes write rows of the audit log alone, as releases
do: that is what the database and the chains allow, whatever judging a release takes. Time of the
database's own processes is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from broker_load import PATIENCE_S, RESOURCE, SECRET, WORK, client
from measure import IMAGERS, out

from imagers.broker.audit import AuditEvent, append
from imagers.broker.keeping.postgresql import PostgreSQLDatabase
from imagers.broker.keeping.store import Store
from imagers.kbs.tee_key import ECKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

FORK = multiprocessing.get_context("fork")  # 64 clients that import nothing anew
POLICY = {"rules": [{"name": "bench", "effect": "allow", "resource": "*/*/*", "image": "any"}]}
LONG = 100_000
LONG_CLIENTS = 16
WARM = 0.1  # of a long run; what is held is compared after it
GROWTH = 1.1  # of what is held, at most, from then on
AGREEMENTS = 2000
ROWS_S = 5
ROWS_GUESTS = 64  # of each process that writes rows
ROWS = 1000

# What is asked of it, a second and core; milliseconds for the slowest of a hundred, at 64 clients.
RATES = {"handshake": 300, "read": 1200}
P99_MS = {"handshake": 250, "read": 80}


@dataclass
class Server:
    """One that listens.

    Attributes:
        addresses: clients take them in turn.
        pids: of all its processes; empty where they are not known.
    """

    name: str
    addresses: Sequence[tuple[str, int]]
    pids: Sequence[int] = ()

    def _tree(self) -> list[list[str]]:
        """The fields of /proc/PID/stat behind the name, of the process and what it started."""
        fields: dict[int, list[str]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields[int(path.parent.name)] = path.read_text("utf-8").rpartition(") ")[2].split()
        found = [pid for pid in self.pids if pid in fields]
        for pid in found:  # which grows
            found += [one for one, its in fields.items() if int(its[1]) == pid]
        return [fields[pid] for pid in found]

    def cpu(self) -> float:
        """Seconds of user and system time so far; children that ended are in their parent's."""
        ticks = sum(sum(map(int, its[11:15])) for its in self._tree())
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """MiB."""
        return sum(int(its[21]) for its in self._tree()) * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Row:
    """What a number of clients got from one server."""

    server: str
    work: str
    clients: int
    rate: float
    rate_a_core: float | None
    p50_ms: float
    p99_ms: float
    errors: int
    resident_mib: list[float]

    def __str__(self) -> str:
        core = "" if self.rate_a_core is None else f", {self.rate_a_core:6.0f} a core"
        return (
            f"{self.server:<10} {self.work:<10} {self.clients:3d} clients {self.rate:7.0f}/s{core}"
            f"  p50 {self.p50_ms:7.1f} p99 {self.p99_ms:7.1f} ms  {self.errors} errors"
            f"  {self.resident_mib[0]:.0f} to {self.resident_mib[-1]:.0f} MiB"
        )


def drive(
    server: Server,
    work: str,
    clients: int,
    *,
    seconds: float = float("inf"),
    count: int = sys.maxsize,
) -> Row:
    """Let so many clients work for some seconds, or until each has done `count`."""
    start = FORK.Barrier(clients + 1)
    pipes, processes = [], []
    for number in range(clients):
        receive, send = FORK.Pipe(duplex=False)
        address = server.addresses[number % len(server.addresses)]
        words = (address, work, seconds, count, start, send)
        process = FORK.Process(target=client, args=words, daemon=True)
        process.start()
        send.close()
        pipes.append(receive)
        processes.append(process)
    resident = [server.resident()]
    try:
        start.wait(PATIENCE_S)
    except Exception:  # noqa: BLE001 - of a barrier: a client says why below
        told = {text for pipe in pipes if pipe.poll(1) for text in pipe.recv()[1]}
        raise SystemExit(f"no client can work at {server.name}: {max(told, key=len)}") from None
    cpu, begin = server.cpu(), time.perf_counter()
    while not pipes[-1].poll(1):
        resident.append(server.resident())
    outcomes = [pipe.recv() for pipe in pipes]
    elapsed, cpu = time.perf_counter() - begin, server.cpu() - cpu
    resident.append(server.resident())
    for process in processes:
        process.join()
    times = sorted(one for seconds, _ in outcomes for one in seconds)
    errors = [text for _, told in outcomes for text in told]
    for text in dict.fromkeys(errors[:3]):
        print(f"error: {text}", file=sys.stderr)
    done = len(times) - len(errors)
    return Row(
        server=server.name,
        work=work,
        clients=clients,
        rate=done / elapsed,
        rate_a_core=done / cpu if server.pids and cpu else None,
        p50_ms=times[len(times) // 2] * 1000,
        p99_ms=times[int(len(times) * 0.99)] * 1000,
        errors=len(errors),
        resident_mib=resident,
    )


@contextmanager
def broker(work: Path, *options: str) -> Iterator[tuple[str, int]]:
    """URL and process id of a broker of this tree, whose state is below a directory."""
    url_file, log = work / "url", work / "log"
    words = [*IMAGERS, "broker", "serve", "--allow-sample-tee", "--listen", "127.0.0.1:0"]
    words += ["--state", str(work / "state"), "--url-file", str(url_file), *options]
    with log.open("wb") as errors, subprocess.Popen(words, stderr=errors) as process:
        try:
            while not (url_file.exists() and url_file.read_text().endswith("\n")):
                if process.poll() is not None:
                    raise SystemExit(f"the broker did not start:\n{log.read_text()}")
                time.sleep(0.05)
            yield url_file.read_text().strip(), process.pid
        finally:
            process.terminate()


def fill(url: str, work: Path, policy: Path | None) -> None:
    """Give a broker the resource, and a policy that gives it out."""
    if policy is None:
        policy = work / "policy.json"
        policy.write_text(json.dumps(POLICY))
    (work / "secret").write_bytes(SECRET)
    admin = ["--broker", url, "--broker-admin-key", work / "state" / "admin.key"]
    out(*IMAGERS, "broker", "policy", "set", policy, *admin)
    out(*IMAGERS, "broker", "put", f"kbs:///{RESOURCE}", work / "secret", *admin)


@contextmanager
def own_broker(policy: Path | None) -> Iterator[Server]:
    """The broker of this tree, with its store in a file."""
    with tempfile.TemporaryDirectory(prefix="bench-broker-") as name:
        work = Path(name)
        with broker(work) as (url, pid):
            fill(url, work, policy)
            yield Server("imagers", [parse_address(url)], [pid])


@contextmanager
def two_brokers(database: str, policy: Path | None) -> Iterator[Sequence[Server]]:
    """Two that share a database: asked by the address of one, and by both."""
    with tempfile.TemporaryDirectory(prefix="bench-broker-") as name:
        one, other = Path(name, "one"), Path(name, "other")
        (other / "state").mkdir(mode=0o700, parents=True)
        one.mkdir()
        shared = ("--database", database, "--name")
        with broker(one, *shared, "one") as (url, pid):
            shutil.copy(one / "state" / "master.key", other / "state")
            with broker(other, *shared, "other") as (other_url, other_pid):
                fill(url, one, policy)
                addresses, pids = [parse_address(url), parse_address(other_url)], [pid, other_pid]
                yield Server("shared, 1", addresses[:1], pids), Server("shared, 2", addresses, pids)


def write_rows(database: str, name: str, start: Barrier, tell: Connection) -> None:
    """Write rows of the audit log for some seconds, as one broker whose guests all wait."""

    async def write(store: Store) -> int:
        start.wait(PATIENCE_S)
        end, count = time.perf_counter() + ROWS_S, 0
        event = AuditEvent(event="release", outcome="ok", path=RESOURCE)

        async def guest() -> None:
            nonlocal count
            while time.perf_counter() < end:
                await store.write(partial(append, event=event, now=datetime.now(UTC)))
                count += 1

        await asyncio.gather(*(guest() for _ in range(ROWS_GUESTS)))
        return count

    with Store(PostgreSQLDatabase(database, name), name) as store:
        tell.send(asyncio.run(write(store)))


def rows_rate(database: str) -> float:
    """Rows of the audit log a second that are on disk, from two processes."""
    start = FORK.Barrier(2)
    pipes = []
    for name in ("row-writer-1", "row-writer-2"):
        receive, send = FORK.Pipe(duplex=False)
        FORK.Process(target=write_rows, args=(database, name, start, send), daemon=True).start()
        pipes.append(receive)
    return sum(pipe.recv() for pipe in pipes) / ROWS_S


def core_speed() -> float:
    """Key agreements on P-256 in a second of a core: figures of two runs differ as these do."""
    key = ECKey()
    begin = time.process_time()
    for _ in range(AGREEMENTS):
        key.agree(key.public, what="a key")
    return AGREEMENTS / (time.process_time() - begin)


def parse_address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


def parse_peer(text: str) -> Server:
    url, _, pid = text.partition(",")
    return Server("peer", [parse_address(url)], [int(pid)] if pid else [])


def verdict(what: str, value: float, target: float, *, most: bool = False) -> int:
    """Say whether a target is reached; 1 if it is not."""
    reached = value <= target if most else value >= target
    bound, word = "at most" if most else "at least", "yes" if reached else "NO"
    print(f"{what}: {value:.0f}, {bound} {target:.0f}: {word}")
    return int(not reached)


def judge(rows: list[Row]) -> int:
    """How many targets of ours were missed."""
    ours = {(row.work, row.clients): row for row in rows if row.server == "imagers"}
    missed = 0
    for work, target in RATES.items():
        mine = [row for (of, _), row in sorted(ours.items()) if of == work]
        least = min(row.rate_a_core or 0 for row in mine)
        missed += verdict(f"{work}s a core, at the worst number of clients", least, target)
        missed += verdict(f"{work}s/s of the most clients", mine[-1].rate, mine[0].rate)
        if mine[-1].clients == 64:
            missed += verdict(f"{work}: p99 ms of 64", mine[-1].p99_ms, P99_MS[work], most=True)
    named = {(row.server, row.work, row.clients): row for row in rows}
    for (server, work, clients), row in named.items():
        one = named.get(("shared, 1", work, clients))
        if server == "shared, 2" and one is not None and row.rate_a_core and one.rate_a_core:
            what = f"time of a {work} with two brokers, {clients} clients, in hundredths of one's"
            missed += verdict(what, 100 * one.rate_a_core / row.rate_a_core, 120, most=True)
    for row in rows:
        beside = ours[row.work, row.clients]
        if row.server == "peer" and row.rate_a_core and beside.rate_a_core:
            ratio = beside.rate_a_core / row.rate_a_core
            print(f"{row.work}, {row.clients} clients: {ratio:.2f} times the peer's rate a core")
    return missed + verdict("errors", sum(row.errors for row in ours.values()), 0, most=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", default="1,4,16,64", help="how many at once, in turn")
    parser.add_argument("--seconds", type=float, default=4, help="of each figure")
    parser.add_argument("--policy", type=Path, help="for our broker: imagers broker policy set")
    parser.add_argument("--against", type=parse_peer, metavar="URL[,PID]", action="append")
    parser.add_argument("--database", metavar="URL", help="for two brokers; it has to be empty")
    parser.add_argument("--long", action="store_true", help=f"{LONG} handshakes, memory flat")
    options = parser.parse_args()
    rows: list[Row] = []
    with ExitStack() as stack:
        servers = [stack.enter_context(own_broker(options.policy)), *(options.against or ())]
        if options.database:
            servers += stack.enter_context(two_brokers(options.database, options.policy))
        print(f"load {os.getloadavg()[0]}, {core_speed():.0f} key agreements a second and core")
        if options.long:
            rows.append(drive(servers[0], "handshake", LONG_CLIENTS, count=LONG // LONG_CLIENTS))
            print(rows[-1])
            held = rows[-1].resident_mib[int(len(rows[-1].resident_mib) * WARM) :]
            missed = verdict(
                "MiB after a tenth, then at most", max(held), held[0] * GROWTH, most=True
            )
            missed += verdict("errors", rows[-1].errors, 0, most=True)
        else:
            for clients in map(int, options.clients.split(",")):
                for work in WORK:
                    for server in servers:
                        rows.append(drive(server, work, clients, seconds=options.seconds))
                        print(rows[-1], flush=True)
            missed = judge(rows)
            if options.database:
                told = "audited releases/s that two writers could write"
                missed += verdict(told, rows_rate(options.database), ROWS)
        print(f"load {os.getloadavg()[0]}, {core_speed():.0f} key agreements a second and core")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
