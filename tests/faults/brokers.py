# SPDX-License-Identifier: Apache-2.0
"""Brokers of one store that are killed while guests and admins use them: what must hold after.

    python tests/faults/brokers.py [--store sqlite|postgresql] [--first SEED] RUNS

A run starts one broker over SQLite, or two or three over a PostgreSQL, each a process. Guests begin
a handshake at one broker and end it at another, ask for secrets, one or two at once, send a message
twice, and two messages for one nonce at once. One admin puts, replaces, deletes and revives
secrets, some of which are released a few times only, and changes the policy. Another one binds
secrets to images, approves, supersedes and revokes images, and moves the floor. At two moments that
the seed gives, a broker or PostgreSQL is killed (SIGKILL) and started again. Whoever gets no answer
goes on. Then, with all up again,

1. what an admin was told is done, has its row, and no row is there that nobody asked for;
2. each secret that a guest got has its row, and no row is there twice;
3. each release, in the order of the rows, was right by the rows before it: `broker_history`;
4. no guest got a secret that had been replaced or deleted before he asked, or for an image that had
   been revoked or was older than the floor, or once more than it may be released;
5. a nonce was taken for one message, however many brokers were asked at once, and after a fall;
6. the chain of each broker's rows is whole;
7. what the store has is what the rows say, and what a guest gets then.
"""

import argparse
import contextlib
import http.client
import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.tables import AUDIT_TEXTS
from imagers.broker.keeping.transaction import chain_hash
from imagers.kbs.admin import load_admin_key
from imagers.model.base64 import encode_base64
from imagers.pki.jose import sign_token
from tests.faults.broker_history import APPROVED, History
from tests.faults.broker_users import (
    COUNTED,
    IMAGED,
    ONCE,
    OURS,
    PATHS,
    Admin,
    Guest,
    ImageAdmin,
)
from tests.postgresql import Server

WAIT_S = 60
GUESTS = 3
FAULTS = 2
BEFORE, BETWEEN, AFTER = (30, 200), (30, 200), 60  # answers of brokers


class Broker:
    """A process that listens, and can be killed."""

    def __init__(self, folder, name, database, keys):
        self.name = name
        self._state = folder / name
        self._url = folder / f"{name}.url"
        self._log = folder / f"{name}.log"
        self._config = folder / f"{name}.toml"
        lines = {"state": str(self._state), "listen": "127.0.0.1:0", "url-file": str(self._url)}
        if database is not None:
            lines |= {"database": database, "name": name}
            if keys is not None:
                self._state.mkdir(mode=0o700)
                shutil.copy(keys / "master.key", self._state / "master.key")
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
        self._config.write_text(text + "allow-sample-tee = true\n")
        self.state = self._state
        self.address = None
        self._process = None

    def start(self):
        self._url.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "imagers", "broker", "serve", "--config", self._config],
                stdout=log,
                stderr=log,
            )

    def wait(self):
        """Until it listens."""
        end = time.monotonic() + WAIT_S
        while not self._url.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{self.name} does not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.02)
        self.address = urlsplit(self._url.read_text().strip()).netloc

    def kill(self):
        self._process.kill()
        self._process.wait(WAIT_S)

    def stop(self):
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise


class World:
    """All of one run.

    Attributes:
        answers: how many answers there were; faults come after some number of them.
    """

    def __init__(self, seed, folder, server):
        self.random = Random(seed)
        self._server = server
        self._database = None
        if server is not None:
            self._database = server.new_database(f"f{secrets.token_hex(8)}")
        names = ["broker"] if server is None else ["a", "b", "c"][: self.random.choice((2, 2, 3))]
        first = Broker(folder, names[0], self._database, None)
        first.start()
        first.wait()
        others = [Broker(folder, name, self._database, first.state) for name in names[1:]]
        for broker in others:
            broker.start()
        for broker in others:
            broker.wait()
        self.brokers = [first, *others]
        self._admin_key = load_admin_key(first.state / "admin.key")
        self.other_admin_key = Ed25519PrivateKey.generate()
        self.stopping = threading.Event()
        self.answers = 0
        self._counted = threading.Condition()
        self.kills = []
        public = encode_base64(self.other_admin_key.public_key().public_bytes_raw())
        body = json.dumps({"name": "other", "roles": ["writer"], "public_key": public})
        assert self.ask_as_admin(self.random, "POST", f"{OURS}/admin-key", body)[0] == 200

    # Requests

    def ask(self, random, method, path, body=None, **headers):
        """(status, headers, body) of any broker; None: nobody knows what became of it."""
        address = random.choice(self.brokers).address
        connection = http.client.HTTPConnection(address, timeout=WAIT_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = answer.status, answer.headers, answer.read()
        except TimeoutError:
            raise AssertionError(f"no end of {method} {path}") from None
        except (OSError, http.client.HTTPException):
            self.stopping.wait(0.01)
            return None
        finally:
            connection.close()
        assert found[0] != 500, (method, path, found[2])
        if found[0] == 503:
            self.stopping.wait(0.01)
            return None
        with self._counted:
            self.answers += 1
            self._counted.notify_all()
        return found

    def ask_as_admin(self, random, method, path, body=None, key=None):
        now = int(time.time())
        token = sign_token(
            {"iat": now, "exp": now + 60, "role": "admin"}, key=key or self._admin_key
        )
        return self.ask(random, method, path, body, Authorization=f"Bearer {token}")

    def wait_for_answers(self, more):
        with self._counted:
            wanted = self.answers + more
            done = self._counted.wait_for(
                lambda: self.answers >= wanted or self.stopping.is_set(), WAIT_S
            )
        assert done, f"no {more} answers within {WAIT_S} s after {self.kills}"

    def end_use(self):
        with self._counted:
            self.stopping.set()
            self._counted.notify_all()

    # Faults

    def fault(self):
        """Kill one, and start it again."""
        victims = [*self.brokers, *([self._server] if self._server is not None else [])]
        victim = self.random.choice(victims)
        self.kills.append(getattr(victim, "name", "PostgreSQL"))
        if victim is self._server:
            victim.fall()
            victim.start()
        else:
            victim.kill()
            victim.start()
            victim.wait()

    def rows(self):
        """All audit rows, with their hashes, in their order."""
        names = ", ".join(("broker", "number", *AUDIT_TEXTS))
        statement = f"SELECT {names}, hash FROM audit ORDER BY place"  # noqa: S608 - of ours
        if self._server is None:
            path = self.brokers[0].state / "broker.sqlite"
            connection = SQLiteDatabase(path).connect(writes=False)
        else:
            from imagers.broker.keeping.postgresql import PostgreSQLDatabase

            connection = PostgreSQLDatabase(self._database, "reader").connect(writes=False)
        with contextlib.closing(connection):
            found = connection.execute(statement).fetchall()
        return [dict(zip([*names.split(", "), "hash"], row, strict=True)) for row in found]

    def stop(self):
        for broker in self.brokers:
            broker.stop()


def run(seed, server=None):
    """One run; raises AssertionError where something does not hold, else says what happened."""
    folder = Path(tempfile.mkdtemp(prefix="imagers-faults-"))
    world = None
    try:
        world = World(seed, folder, server)
        admin = Admin(world, world.random.random())
        of_images = ImageAdmin(world, world.random.random())
        groups, images = (PATHS, COUNTED, IMAGED), of_images.images
        guests = [
            Guest(world, world.random.random(), groups=groups, images=images) for _ in range(GUESTS)
        ]
        admin.begin()
        of_images.begin()
        _use(world, [admin, of_images, *guests])
        return _check(world, admin, of_images, guests)
    finally:
        if world is not None:
            world.stop()
        shutil.rmtree(folder)


def _use(world, users):
    failures = []

    def drive(user):
        try:
            user.run()
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)
            world.end_use()

    threads = [threading.Thread(target=drive, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    try:
        for number in range(FAULTS):
            world.wait_for_answers(world.random.randrange(*(BETWEEN if number else BEFORE)))
            world.fault()
        world.wait_for_answers(AFTER)
    finally:
        world.end_use()
        for thread in threads:
            thread.join(2 * WAIT_S)
        if failures:
            raise failures[0]


def _check(world, admin, of_images, guests):
    rows = world.rows()
    _check_chains(rows)
    _check_changes(rows, (admin, of_images))
    history = History(rows)
    got = [one for guest in guests for one in guest.got]
    _check_got(rows, got, sum((guest.unknown for guest in guests), Counter()))
    numbers = {image: known.number for image, known in history.images.get(APPROVED, {}).items()}
    for path, image, value, asked, had in got:
        _check_one(admin, of_images, numbers, (path, image, value, asked, had))
    for value, count in Counter(value for _, _, value, _, _ in got).items():
        most = admin.most.get(value, count)
        assert count <= most, f"{value} was released {count} times, and may be {most} times"
    for guest in guests:
        for messages in guest.taken.values():
            assert len(messages) == 1, "a nonce was taken for two messages"
    attested = Counter(
        row["session"] for row in rows if (row["event"], row["outcome"]) == ("attest", "ok")
    )
    assert set(attested.values()) <= {1}, "a session was attested twice"
    _check_kept(world, admin, history)
    return f"{'+'.join(world.kills)}: {world.answers} answers, {len(got)} secrets, {len(rows)} rows"


def _check_changes(rows, admins):
    """Rows of changes: as many as were told to be done, or some more of those nobody knows of."""
    done = sum((admin.done for admin in admins), Counter())
    unknown = sum((admin.unknown for admin in admins), Counter())
    found = Counter(
        ("put" if row["event"] == "replace" else row["event"], row["path"], row["image"])
        for row in rows
        if row["outcome"] == "ok"
    )
    events = {event for event, _, _ in done}
    for what in {*done, *unknown, *(one for one in found if one[0] in events)}:
        least = min(done[what], 1) if what[0] in ONCE else done[what]
        most = done[what] + unknown[what]
        assert least <= found[what] <= most, f"{what}: {found[what]} rows, not {least} to {most}"


def _check_got(rows, got, unknown):
    """Rows of releases: one for each secret that was got, and for some whose answer was lost."""
    found = Counter(
        (row["path"], row["image"])
        for row in rows
        if (row["event"], row["outcome"]) == ("release", "ok")
    )
    had = Counter((path, image) for path, image, _, _, _ in got)
    for what in {*found, *had}:
        most = had[what] + unknown[what]
        assert had[what] <= found[what] <= most, f"{what}: {found[what]} rows, got {had[what]}"


def _check_one(admin, of_images, numbers, one):
    """A secret that a guest got: by what was known when it asked, and when it had it."""
    path, image, value, asked, had = one
    if path in IMAGED:
        may_be = of_images.may_be(path, asked, had)
        assert None in of_images.may_be(f"revoke {image}", asked, had), f"{one}: was revoked"
        floors = of_images.may_be("floor", asked, had)
        number = numbers.get(image, 0)
        assert any(numbers.get(floor, 0) <= number for floor in floors), f"{one}: floor {floors}"
    elif path in COUNTED:
        may_be = admin.most  # what was had again, `History` knows
    else:
        may_be = admin.may_be(path, asked, had)
    assert value in may_be, f"{path}: got {value}, expected one of {may_be}"


def _check_chains(rows):
    links = {}
    for row in rows:
        number, before = links.get(row["broker"], (0, bytes(32)))
        assert row["number"] == number + 1, f"{row['broker']}: row {number + 1} is missing"
        assert chain_hash(before, row) == bytes(row["hash"]), f"{row['broker']}: row {number + 1}"
        links[row["broker"]] = row["number"], bytes(row["hash"])


def _check_kept(world, admin, history):
    random = Random(0)
    policy = json.loads(_answer(world, random, "GET", f"{OURS}/policy")[2])
    name = policy["rules"][-1]["name"]
    assert name in admin.may_be("policy"), f"{name} is in force"
    assert name == history.policy, f"{name} is in force, by the rows {history.policy}"
    for path in (*PATHS, *COUNTED, *IMAGED):
        status, _, body = _answer(world, random, "GET", f"{OURS}/metadata/{path}")
        history.check_secret(path, json.loads(body) if status == 200 else None)
    told = json.loads(_answer(world, random, "GET", f"{OURS}/image/{APPROVED}")[2])
    history.check_images(APPROVED, told)
    assert admin.set_policy("allow")
    guest = Guest(world, 0, groups=(PATHS,))
    world.stopping.clear()
    values = dict.fromkeys(PATHS)
    listed = set(history.secrets) & set(PATHS)
    with ThreadPoolExecutor(2) as both:
        for _ in range(200):
            guest.handshake(both)
            values |= {path: value for path, _, value, _, _ in guest.got}
            if all(values[path] is not None for path in listed):
                break
    for path in PATHS:
        may_be = admin.may_be(path)
        assert values[path] in may_be, f"{path}: has {values[path]}, expected one of {may_be}"


def _answer(world, random, *request):
    for _ in range(100):
        answer = world.ask_as_admin(random, *request)
        if answer is not None:
            assert answer[0] in (200, 404), answer
            return answer
    raise AssertionError(f"no answer to {request}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="postgresql")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("runs", type=int)
    told = parser.parse_args()
    server = Server() if told.store == "postgresql" else None
    failed = 0
    try:
        for seed in range(told.first, told.first + told.runs):
            began = time.monotonic()
            try:
                said = run(seed, server)
            except AssertionError as error:
                failed += 1
                said = f"FAILED: {error}"
            print(f"{told.store} {seed}: {said}; {time.monotonic() - began:.1f} s", flush=True)
    finally:
        if server is not None:
            server.stop()
    print(f"{told.runs} runs, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
