# SPDX-License-Identifier: Apache-2.0
"""Brokers of one store that are killed while guests and admins use them: what must hold after.

    python tests/faults/brokers.py [--store sqlite|postgresql] [--first SEED] RUNS

A run starts one broker over SQLite, or two or three over a PostgreSQL, each a process. Guests begin
a handshake at one broker and end it at another, ask for secrets, send a message twice, and two
messages for one nonce at once; an admin puts, replaces and deletes secrets and changes the policy.
At two moments that the seed gives, a broker or PostgreSQL is killed (SIGKILL) and started again.
Whoever gets no answer goes on. Then, with all up again,

1. what an admin was told is done, is done, or undone by what he did after it;
2. each secret that a guest got has its row, and no row is there twice;
3. each release, in the order of the rows, is by the policy that was put in force last before it;
4. no guest got a secret that had been replaced or deleted before he asked;
5. a nonce was taken for one message, however many brokers were asked at once, and after a fall;
6. the chain of each broker's rows is whole.
"""

import argparse
import contextlib
import http.client
import json
import re
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.tables import AUDIT_TEXTS
from imagers.broker.keeping.transaction import chain_hash
from imagers.evidence.plugins import load_attester
from imagers.kbs.admin import load_admin_key
from imagers.kbs.jwe import open_answer
from imagers.kbs.messages import Attestation, Request, hash_report_data, parse_challenge
from imagers.kbs.tee_key import ECKey
from imagers.pki.jose import sign_token
from tests.postgresql import Server

PREFIX = "/kbs/v0"
WAIT_S = 60
GUESTS = 3
PATHS = tuple(f"default/fault/{number}" for number in range(4))
FAULTS = 2
BEFORE, BETWEEN, AFTER = (10, 60), (10, 60), 30  # answers of brokers
_SESSION_DIGITS = 12


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
        self.stopping = threading.Event()
        self.answers = 0
        self._counted = threading.Condition()
        self.kills = []

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

    def ask_as_admin(self, random, method, path, body=None):
        now = int(time.time())
        token = sign_token({"iat": now, "exp": now + 60, "role": "admin"}, key=self._admin_key)
        return self.ask(random, method, path, body, Authorization=f"Bearer {token}")

    def wait_for_answers(self, more):
        with self._counted:
            wanted = self.answers + more
            done = self._counted.wait_for(lambda: self.answers >= wanted, WAIT_S)
        assert done, f"no {more} answers within {WAIT_S} s after {self.kills}"

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


class Admin:
    """Changes secrets and the policy, one after the other.

    Attributes:
        done: by what was changed, each step: its value (None: deleted), when it began and ended,
            and whether it is known to be done.
    """

    def __init__(self, world, seed):
        self._world, self._random = world, Random(seed)
        self.done = {name: [] for name in (*PATHS, "policy")}

    def run(self):
        while not self._world.stopping.is_set():
            self.step()

    def step(self):
        if self._random.random() < 0.3:
            self.set_policy("allow" if self._random.random() < 0.7 else "deny")
            return
        path = self._random.choice(PATHS)
        if self._random.random() < 0.2:
            self._change(path, None, "DELETE", f"{PREFIX}/resource/{path}")
        else:
            value = f"{path}#{len(self.done[path])}"
            self._change(path, value, "PUT", f"{PREFIX}/resource/{path}", value.encode())

    def set_policy(self, effect):
        name = f"{effect}-{len(self.done['policy'])}"
        rule = {"name": name, "effect": effect, "resource": "*/*/*", "image": "any"}
        text = json.dumps({"rules": [rule]})
        return self._change("policy", name, "POST", f"{PREFIX}/imagers/policy", text)

    def _change(self, name, value, *request):
        began = time.monotonic()
        answer = self._world.ask_as_admin(self._random, *request)
        if answer is not None and answer[0] not in (200, 404):
            raise AssertionError(f"{request[:2]}: {answer}")
        known = answer is not None
        self.done[name].append((value, began, time.monotonic(), known))
        return known

    def may_be(self, name, since=None, until=None):
        """The values that something may have had at a time."""
        steps = self.done[name]
        last = -1
        for number, (_, _, ended, known) in enumerate(steps):
            if known and (since is None or ended <= since):
                last = number
        values = [None] if last < 0 else []
        return values + [
            value for value, began, _, _ in steps[max(last, 0) :] if until is None or began <= until
        ]


class Guest:
    """Attests and asks, over and over.

    Attributes:
        got: of each secret that it got: path, the image that it named, session, value, when it
            asked and when it had it.
        taken: by nonce, the messages that a token was given for.
    """

    def __init__(self, world, seed):
        self._world, self._random = world, Random(seed)
        self.got = []
        self.taken = {}

    def run(self):
        with ThreadPoolExecutor(2) as both:
            while not self._world.stopping.is_set():
                self._handshake(both)

    def _ask(self, method, path, body=None, random=None, **headers):
        return self._world.ask(random or self._random, method, path, body, **headers)

    def _handshake(self, both):
        body = Request.offering_hashes("sample").to_bytes()
        answer = self._ask("POST", f"{PREFIX}/auth", body)
        if answer is None:
            return
        assert answer[0] == 200, answer
        cookie = answer[1]["Set-Cookie"].partition(";")[0]
        nonce = parse_challenge(answer[2]).nonce
        keys = [ECKey(), ECKey()]
        messages = [_message(nonce, key) for key in keys]
        count = 2 if self._random.random() < 0.3 else 1  # at once, at any two brokers

        def attest(number, seed):
            return self._attest(cookie, nonce, messages[number], random=Random(seed))

        seeds = [self._random.random() for _ in range(count)]
        list(both.map(attest, range(count), seeds))
        if not self.taken.get(nonce):
            return
        (first, *_) = self.taken[nonce]
        key = keys[messages.index(first)]
        for _ in range(self._random.randrange(1, 6)):
            if self._random.random() < 0.2:  # with the same message, or another one
                self._attest(cookie, nonce, self._random.choice(messages))
            else:
                self._get(cookie, key)

    def _attest(self, cookie, nonce, message, random=None):
        answer = self._ask("POST", f"{PREFIX}/attest", message, random=random, Cookie=cookie)
        if answer is not None:
            assert answer[0] in (200, 401), answer
            if answer[0] == 200:
                self.taken.setdefault(nonce, set()).add(message)

    def _get(self, cookie, key):
        path = self._random.choice(PATHS)
        image = f"sha256:{self._random.randbytes(32).hex()}"
        asked = time.monotonic()
        answer = self._ask("GET", f"{PREFIX}/resource/{path}?image-digest={image}", Cookie=cookie)
        if answer is None:
            return
        assert answer[0] in (200, 401, 403, 404), answer
        if answer[0] == 200:
            with open_answer(answer[2], key) as secret, secret.view() as data:
                value = bytes(data).decode()
            self.got.append((path, image, value, asked, time.monotonic()))


def _message(nonce, key):
    report_data = hash_report_data(nonce=nonce, tee_pubkey=key.public)
    evidence = load_attester("sample").collect(report_data)
    return Attestation(
        nonce=nonce, tee_pubkey=key.public, primary_evidence=evidence.body
    ).to_bytes()


def run(seed, server=None):
    """One run; raises AssertionError where something does not hold, else says what happened."""
    folder = Path(tempfile.mkdtemp(prefix="imagers-faults-"))
    world = None
    try:
        world = World(seed, folder, server)
        admin = Admin(world, world.random.random())
        guests = [Guest(world, world.random.random()) for _ in range(GUESTS)]
        assert admin.set_policy("allow")
        _use(world, [admin, *guests])
        return _check(world, admin, guests)
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
            world.stopping.set()

    threads = [threading.Thread(target=drive, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    try:
        for number in range(FAULTS):
            world.wait_for_answers(world.random.randrange(*(BETWEEN if number else BEFORE)))
            world.fault()
        world.wait_for_answers(AFTER)
    finally:
        world.stopping.set()
        for thread in threads:
            thread.join(2 * WAIT_S)
        if failures:
            raise failures[0]


def _check(world, admin, guests):
    rows = world.rows()
    _check_chains(rows)
    _check_order(rows)
    ok = Counter(
        row["image"] for row in rows if (row["event"], row["outcome"]) == ("release", "ok")
    )
    assert set(ok.values()) <= {1}, "a release has two rows"
    got = [one for guest in guests for one in guest.got]
    for path, image, value, asked, had in got:
        assert ok[image] == 1, f"{path} was released without a row"
        may_be = admin.may_be(path, asked, had)
        assert value in may_be, f"got {value}, expected one of {may_be}"
    for guest in guests:
        for messages in guest.taken.values():
            assert len(messages) == 1, "a nonce was taken for two messages"
    attested = Counter(
        row["session"] for row in rows if (row["event"], row["outcome"]) == ("attest", "ok")
    )
    assert set(attested.values()) <= {1}, "a session was attested twice"
    _check_kept(world, admin)
    return f"{'+'.join(world.kills)}: {world.answers} answers, {len(got)} secrets, {len(rows)} rows"


def _check_chains(rows):
    links = {}
    for row in rows:
        number, before = links.get(row["broker"], (0, bytes(32)))
        assert row["number"] == number + 1, f"{row['broker']}: row {number + 1} is missing"
        assert chain_hash(before, row) == bytes(row["hash"]), f"{row['broker']}: row {number + 1}"
        links[row["broker"]] = row["number"], bytes(row["hash"])


def _check_order(rows):
    """Releases by the policy in force: rows of changes are written beside no others."""
    policy = ""
    for row in rows:
        if (row["event"], row["outcome"]) == ("policy", "ok"):
            policy = re.fullmatch(r"rules: (\S+)", row["detail"])[1]
        elif (row["event"], row["outcome"]) == ("release", "ok"):
            assert row["rule"] == policy, f"released by {row['rule']} while {policy} was in force"
            assert policy.startswith("allow"), row


def _check_kept(world, admin):
    random = Random(0)
    policy = json.loads(_answer(world, random, "GET", f"{PREFIX}/imagers/policy")[2])
    name = policy["rules"][0]["name"]
    assert name in admin.may_be("policy"), f"{name} is in force"
    assert admin.set_policy("allow")
    guest = Guest(world, 0)
    world.stopping.clear()
    values = dict.fromkeys(PATHS)
    with ThreadPoolExecutor(2) as both:
        for _ in range(200):
            guest._handshake(both)
            values |= {path: value for path, _, value, _, _ in guest.got}
            listed = json.loads(_answer(world, random, "GET", f"{PREFIX}/resource")[2])
            if all(values[path] is not None for path in listed):
                break
    for path in PATHS:
        value = values[path] if path in listed else None
        may_be = admin.may_be(path)
        assert value in may_be, f"{path}: has {value}, expected one of {may_be}"


def _answer(world, random, *request):
    for _ in range(100):
        answer = world.ask_as_admin(random, *request)
        if answer is not None:
            assert answer[0] == 200, answer
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
