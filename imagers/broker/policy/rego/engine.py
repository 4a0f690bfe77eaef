# SPDX-License-Identifier: Apache-2.0
"""Decisions by policies in Rego: the broker's side of the processes that judge.

    engine = RegoEngine()
    await engine.check(text)                       # of an upload
    decision = await engine.decide("default", text, input=claims, data=request)
    await engine.close()

Each tenant has a process of its own (`worker`), started when it is needed; where there are too
many, the one that was idle for longest ends. What has no answer is a denial, and `fault` says why:

    slow, processor, crash   the process was killed, or died; the third time of a policy it is
                             suspended, for this tenant alone and until another text is set
    suspended                it was killed three times
    failed                   the engine gave up, on a recursion for one
    large, unreadable        the answer is none that is taken
    build, calls, refused    the text is none
    input                    the facts are more than a policy is given
    busy, unavailable        too many wait, or no process starts

Of those that wait behind one that was killed, each is asked again. The same policy, with the same
reference values and facts, gets the answer that it got before: one cannot say another.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol, cast

from imagers.broker.policy.inputs import with_request
from imagers.broker.policy.rego.scan import ScannedPolicy, scan_policy
from imagers.broker.policy.rego.worker import HEAD, MAX_ANSWER_BYTES
from imagers.errors import FormatError
from imagers.evidence.appraise import tier_of
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from imagers.model.strict_json import JSON, JSONObject

__all__ = ["NOT_ASKED", "Appraised", "Decision", "PolicyEngine", "RegoEngine"]

NOT_ASKED = frozenset({"busy", "unavailable"})
"""Faults of which the policy knows nothing: it can be asked again."""

_WHAT = "policy"
_MODULE = "imagers.broker.policy.rego.worker"
_WALL_SECONDS = 10.0  # the kernel counts those of the processor; this is for one that waits
_MAX_WORKERS = 16
_MAX_WAITING = 1000  # questions of one tenant
_MAX_KILLS = 3
_MAX_KEPT = 1000  # answers of one tenant
_MAX_KEPT_BYTES = 4096
_MAX_KNOWN = 1000  # to one process; it keeps fewer, and says so
_MAX_TEXTS = 64  # that are remembered, of all tenants; of one, those that were killed
_MAX_INPUT_BYTES = 4 * 1024 * 1024
_MAX_RULE = 64
_MAX_REASON = 512
_MEMBERS = (
    "instance-identity", "configuration", "executables", "file-system", "hardware",
    "runtime-opaque", "storage-opaque", "sourced-data",
)  # fmt: skip
_OF_DECISION = ("allow", "rule", "reason")
_OF_APPRAISAL = ("trust_claims", "extensions")
_UNKNOWN = dict.fromkeys(_MEMBERS, 0) | {
    "configuration": 36,
    "executables": 33,
    "hardware": 97,
}
"""Where there is no answer: nothing is known, and it should be."""
_REASONS = {
    "slow": "the policy was not done in time, and was killed",
    "processor": "the policy took too much of the processor, and was killed",
    "crash": "the policy ended its engine, or took too much memory",
    "suspended": f"the policy was killed {_MAX_KILLS} times, and is suspended until another is set",
    "failed": "the policy failed",
    "large": f"the policy gave an answer above {MAX_ANSWER_BYTES} bytes",
    "unreadable": "the policy gave no answer that can be read",
    "build": "the policy cannot be built",
    "calls": "the policy calls a function that there is not",
    "refused": "the policy is none",
    "input": "the facts are more than a policy is given",
    "busy": "too many requests wait for the policy",
    "unavailable": "no process for policies can be started",
}


_KILLED = ("slow", "processor", "crash", "unreadable")
_SIGNALS = {-signal.SIGXCPU: "processor"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a resource policy says.

    Attributes:
        rule: the name that the policy gives what decided, or "".
        reason: in its words, or in ours where it gave no answer; one line.
        fault: "" where it answered, else why it did not; it allows nothing then.
    """

    allow: bool
    rule: str = ""
    reason: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Appraised:
    """What an attestation policy says that evidence is worth.

    Attributes:
        vector: AR4SI trustworthiness vector, all eight members.
        extensions: as the policy wrote them: `name`, `key`, `value`.
        fault: "" where it answered, else why it did not; the worth is nothing then.
    """

    vector: Mapping[str, int]
    extensions: Sequence[JSONObject] = ()
    fault: str = ""

    @property
    def status(self) -> str:
        """Of the worst member: `none`, `affirming`, `warning` or `contraindicated`."""
        tiers = ("none", "affirming", "warning", "contraindicated")
        return max(map(tier_of, self.vector.values()), key=tiers.index)


class PolicyEngine(Protocol):
    """Decides by policies that others wrote."""

    async def check(self, text: str, *, what: str = _WHAT) -> None:
        """Raise unless a policy can be put in force.

        Args:
            what: whose text it is, for messages.

        Raises:
            FormatError: it cannot; says where and why.
        """

    async def decide(
        self,
        tenant: str,
        text: str,
        *,
        input: JSONObject,  # noqa: A002 - Rego's word for it
        data: JSONObject,
    ) -> Decision:
        """What a resource policy says; it raises nothing for whatever the policy does."""

    async def appraise(
        self,
        tenant: str,
        text: str,
        *,
        input: JSONObject,  # noqa: A002 - Rego's word for it
        references: Mapping[str, JSON],
    ) -> Appraised:
        """What an attestation policy says; it raises nothing for whatever the policy does."""

    async def close(self) -> None:
        """End all that runs."""


class _NoAnswer(Exception):
    def __init__(self, fault: str, detail: str = "") -> None:
        super().__init__(fault)
        self.fault = fault
        self.detail = detail


class _Lost(Exception):
    """The process ended over the question of another."""


class _Policy:
    """A text that was scanned, asked for some of its rules."""

    def __init__(self, scanned: ScannedPolicy, text: str, names: Sequence[str]) -> None:
        self.scanned = scanned
        self.text_digest = sha256(text.encode()).hexdigest()
        self.names: list[JSON] = [name for name in names if name in scanned.rules]
        self._built_without_references = self._built({})

    def question(self, seen: JSONObject, references: Mapping[str, JSON]) -> _Question:
        """What a worker is asked.

        Args:
            seen: the input, of which the text may name a part.
            references: all that are in force; a policy gets those that the text names, or a
                member of what it sees.

        Raises:
            _NoAnswer: it is no JSON, or too much.
        """
        seen = self.scanned.seen_of(seen)
        named: JSONObject = {}
        if references:
            names = self.scanned.strings | set(_names_in(seen))
            named = {name: references[name] for name in sorted(names & references.keys())}
        try:
            return _Question(
                policy=self,
                built=self._built(named) if named else self._built_without_references,
                seen=seen,
                references=named,
            )
        except ValueError:
            raise _NoAnswer("input") from None

    def _built(self, references: JSONObject) -> str:
        """The name of what a worker builds and keeps."""
        return sha256(dump_json([self.text_digest, self.names, references])).hexdigest()


def _names_in(value: JSON) -> Iterator[str]:
    """Of all members: claims are compared with the reference values of their names."""
    if isinstance(value, dict):
        yield from value
        for one in value.values():
            yield from _names_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from _names_in(one)


@dataclass(frozen=True, slots=True)
class _Question:
    """One question.

    Attributes:
        built: name of the policy with its reference values.
    """

    policy: _Policy
    built: str
    seen: JSONObject = field(repr=False)
    references: JSONObject = field(repr=False)

    def short(self) -> bytes:
        """The frame, for a worker that has built the policy."""
        return _frame({"policy": self.built, "input": self.seen})

    def long(self) -> bytes:
        """The frame with all that is built."""
        scanned = self.policy.scanned
        return _frame(
            {
                "policy": self.built,
                "input": self.seen,
                "text": scanned.source,
                "calls": dict(scanned.calls),
                "names": self.policy.names,
                "references": self.references,
            }
        )


def _frame(value: JSONObject) -> bytes:
    try:
        data = dump_json(value)
    except ValueError:  # no text, or no number of JSON
        raise _NoAnswer("input") from None
    if len(data) > _MAX_INPUT_BYTES:
        raise _NoAnswer("input")
    return len(data).to_bytes(HEAD, "big") + data


class RegoEngine:
    """Policies in Rego, each tenant's in a process of its own.

    Args:
        max_workers: processes at the same time; one more checks uploads.
        wall_s: how long one question may take.

    Threads: of one event loop.
    """

    def __init__(self, *, max_workers: int = _MAX_WORKERS, wall_s: float = _WALL_SECONDS) -> None:
        self._max_workers = max_workers
        self._wall_s = wall_s
        self._tenants: dict[str, _Tenant] = {}
        self._policies: OrderedDict[tuple[str, tuple[str, ...]], _Policy] = OrderedDict()
        self._checking = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._idle = asyncio.Event()
        self._closed = False

    async def check(self, text: str, *, what: str = _WHAT) -> None:
        """As in `PolicyEngine`; in a process that ends with it."""
        names = _OF_DECISION + _OF_APPRAISAL
        policy = _Policy(await asyncio.to_thread(scan_policy, text, what=what), text, names)
        async with self._checking:
            worker = _Worker(self._wall_s, self._idle)
            try:
                await worker.start()
                _check_types(_found(await worker.ask(policy.question({}, {}).long())))
            except _NoAnswer as error:
                line, _, said = error.detail.partition(": ")
                is_placed = line.startswith("line ")
                raise FormatError(
                    (said if is_placed else error.detail) or _REASONS[error.fault],
                    what=what,
                    where=line if is_placed else "",
                ) from None
            finally:
                worker.end()

    async def decide(
        self,
        tenant: str,
        text: str,
        *,
        input: JSONObject,  # noqa: A002 - Rego's word for it
        data: JSONObject,
    ) -> Decision:
        """As in `PolicyEngine`.

        Args:
            input: claims of the guest's token, with what only we know below `imagers`.
            data: of the request: `plugin`, `resource-path`, `query`.
        """
        try:
            policy = await self._scan(text, _OF_DECISION)
            question = policy.question(with_request(input, data), {})
            found = _found(await self._ask(tenant, question))
        except FormatError as error:
            return Decision(allow=False, reason=str(error), fault="refused")
        except _NoAnswer as error:
            return Decision(allow=False, reason=_REASONS[error.fault], fault=error.fault)
        return Decision(
            allow=found.get("allow") is True,
            rule=_line(found.get("rule"), _MAX_RULE),
            reason=_line(found.get("reason"), _MAX_REASON),
        )

    async def appraise(
        self,
        tenant: str,
        text: str,
        *,
        input: JSONObject,  # noqa: A002 - Rego's word for it
        references: Mapping[str, JSON],
    ) -> Appraised:
        """As in `PolicyEngine`.

        Args:
            input: claims of one piece of evidence.
            references: by name, those in force: what is missing, or over, is undefined.
        """
        try:
            policy = await self._scan(text, _OF_APPRAISAL)
            question = policy.question(input, references)
            found = _found(await self._ask(tenant, question))
            return Appraised(_vector(found.get("trust_claims", {})), _extensions(found))
        except FormatError:
            return Appraised(_UNKNOWN, fault="refused")
        except _NoAnswer as error:
            return Appraised(_UNKNOWN, fault=error.fault)

    async def close(self) -> None:
        """End all processes. Safe to call twice."""
        self._closed = True
        for tenant in self._tenants.values():
            if tenant.worker is not None:
                tenant.worker.end()

    @property
    def processes(self) -> tuple[int, ...]:
        """Numbers of the processes that judge now."""
        return tuple(worker.number for worker in self._running())

    def _running(self) -> Iterator[_Worker]:
        """The one that was used last is the last."""
        for tenant in self._tenants.values():
            if tenant.worker is not None and tenant.worker.is_running:
                yield tenant.worker

    async def _scan(self, text: str, names: tuple[str, ...]) -> _Policy:
        policy = self._policies.get((text, names))
        if policy is None:
            # A long text takes a while.
            scanned = await asyncio.to_thread(scan_policy, text)
            policy = self._policies[text, names] = _Policy(scanned, text, names)
            if len(self._policies) > _MAX_TEXTS:
                self._policies.popitem(last=False)
        self._policies.move_to_end((text, names))
        return policy

    async def _ask(self, name: str, question: _Question) -> JSONObject:
        """The answer of a tenant's process.

        Raises:
            _NoAnswer: there is none.
        """
        while True:
            if self._closed:
                raise _NoAnswer("unavailable")
            tenant = self._tenants.pop(name, None) or _Tenant()
            self._tenants[name] = tenant  # last: the one that was used last
            if tenant.kills.get(question.policy.text_digest, 0) >= _MAX_KILLS:
                raise _NoAnswer("suspended")
            short = question.short()
            if (known := tenant.answer_to(short)) is not None:
                return known
            worker = await self._worker(tenant)
            try:
                answer = await worker.ask(worker.frame_of(question))
                if answer.get("unknown") is True:
                    answer = await worker.ask(question.long())
                tenant.keep_answer(short, answer)
                return answer
            except _Lost:
                continue
            except _NoAnswer as error:
                if error.fault in _KILLED:
                    tenant.count_kill(question.policy.text_digest)
                raise

    async def _worker(self, tenant: _Tenant) -> _Worker:
        """The process of a tenant, started if there is none."""
        if tenant.worker is not None and tenant.worker.is_running:
            return tenant.worker
        async with self._starting:
            while tenant.worker is None or not tenant.worker.is_running:
                if self._closed:
                    raise _NoAnswer("unavailable")
                if self._has_room():
                    tenant.worker = _Worker(self._wall_s, self._idle)
                    await tenant.worker.start()
                else:
                    self._idle.clear()
                    await self._idle.wait()
            return tenant.worker

    def _has_room(self) -> bool:
        """Whether one more process may start; one that is idle may have to end for it."""
        running = list(self._running())
        if len(running) < self._max_workers:
            return True
        for worker in running:
            if worker.is_idle:
                worker.end()
                return True
        return False


@dataclass(slots=True)
class _Tenant:
    """What is known of one tenant."""

    worker: _Worker | None = None
    kills: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _answers: OrderedDict[bytes, JSONObject] = field(default_factory=OrderedDict)

    def answer_to(self, frame: bytes) -> JSONObject | None:
        """What a policy said of the same facts: it sees no clock and no dice, and says it again."""
        key = sha256(frame).digest()
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def keep_answer(self, frame: bytes, answer: JSONObject) -> None:
        """For `answer_to`; of those that are none, and of long ones, nothing is kept."""
        if "found" in answer and len(dump_json(answer)) <= _MAX_KEPT_BYTES:
            self._answers[sha256(frame).digest()] = answer
            if len(self._answers) > _MAX_KEPT:
                self._answers.popitem(last=False)

    def count_kill(self, text: str) -> None:
        """Of a policy by its hash."""
        self.kills[text] = self.kills.pop(text, 0) + 1
        if len(self.kills) > _MAX_TEXTS:
            self.kills.popitem(last=False)


class _Worker(asyncio.Protocol):
    """One process, and the questions that wait for it, in order.

    Args:
        idle: is set when nothing waits, or it has ended.
    """

    def __init__(self, wall_s: float, idle: asyncio.Event) -> None:
        self._wall_s = wall_s
        self._all_idle = idle
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._questions: deque[asyncio.Future[JSONObject]] = deque()
        self._unsent: list[bytes] = []
        self._known: set[str] = set()
        self._buffer = bytearray()
        self._since = 0.0  # the first that waits became the first
        self._fault = ""  # why it was ended by us

    async def start(self) -> None:
        """Start it.

        Raises:
            _NoAnswer: it does not.
        """
        loop = asyncio.get_running_loop()
        ours, its = socket.socketpair()
        try:
            with its:
                self._process = _start_process(its)
            ready = loop.create_future()
            self._questions.append(ready)
            await loop.create_unix_connection(lambda: self, sock=ours)
            self._restart_timer()
            await ready
        except OSError:
            ours.close()
            self.end()
            raise _NoAnswer("unavailable") from None
        except (_NoAnswer, _Lost):
            raise _NoAnswer("unavailable") from None

    @property
    def number(self) -> int:
        """Of the process."""
        assert self._process is not None  # of a worker that was started
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it takes questions."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for it."""
        return not self._questions

    def frame_of(self, question: _Question) -> bytes:
        """The frame of a question: with the text, the first time."""
        if question.built in self._known:
            return question.short()
        frame = question.long()
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known.add(question.built)
        return frame

    async def ask(self, frame: bytes) -> JSONObject:
        """The answer to one frame.

        Raises:
            _NoAnswer: the process ended over it.
            _Lost: it ended over another.
        """
        if len(self._questions) >= _MAX_WAITING:
            raise _NoAnswer("busy")
        if not self.is_running:
            raise _Lost
        answer: asyncio.Future[JSONObject] = asyncio.get_running_loop().create_future()
        if not self._questions:
            self._restart_timer()
        self._questions.append(answer)
        if not self._unsent:  # those that come in this turn of the loop go in one write
            asyncio.get_running_loop().call_soon(self._send)
        self._unsent.append(frame)
        return await answer

    def end(self, fault: str = "") -> None:
        """End the process. Safe to call twice, and without a loop."""
        self._fault = self._fault or fault
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._transport is not None:
            self._transport.abort()

    # Of the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As of `asyncio.Protocol`."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """As of `asyncio.Protocol`."""
        self._buffer += data
        while len(self._buffer) >= HEAD:
            end = HEAD + int.from_bytes(self._buffer[:HEAD], "big")
            if end > HEAD + MAX_ANSWER_BYTES:
                self.end("unreadable")
                return
            if len(self._buffer) < end:
                return
            try:
                answer = json.loads(self._buffer[HEAD:end])
            except (ValueError, RecursionError):
                answer = None
            del self._buffer[:end]
            if not isinstance(answer, dict) or not self._questions:
                self.end("unreadable")
                return
            self._restart_timer()
            question = self._questions.popleft()
            if not question.done():  # who asked may have gone
                question.set_result(answer)
            if not self._questions:
                self._all_idle.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - of asyncio
        """As of `asyncio.Protocol`: the first that waits ended it, and not the others."""
        self._stop_timer()
        self.end()
        assert self._process is not None  # it had a connection
        ended_by = _SIGNALS.get(self._process.returncode, "crash")
        error: Exception = _NoAnswer(self._fault or ended_by)
        while self._questions:
            question = self._questions.popleft()
            if not question.done():
                question.set_exception(error)
            error = _Lost()
        self._all_idle.set()

    def _send(self) -> None:
        frames, self._unsent = self._unsent, []
        if self._transport is not None:
            self._transport.write(b"".join(frames))

    def _restart_timer(self) -> None:
        """Give the first that waits its time, from now on."""
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        if self._timer is None:  # one for all: it looks what time is left
            self._timer = loop.call_later(self._wall_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        left = self._since + self._wall_s - loop.time()
        if not self._questions:
            return
        if left <= 0:
            self.end("slow")
        else:
            self._timer = loop.call_later(left, self._look, loop)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _start_process(its: socket.socket) -> subprocess.Popen[bytes]:
    """A worker at the other end; it inherits nothing else, no environment and no directory."""
    return subprocess.Popen(
        [sys.executable, "-I", "-m", _MODULE],
        stdin=its.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
    )


def _found(answer: JSONObject) -> JSONObject:
    """The rules in an answer."""
    fault, found = answer.get("fault"), answer.get("found")
    if isinstance(fault, str):
        raise _NoAnswer(fault if fault in _REASONS else "failed", str(answer.get("detail", "")))
    if not isinstance(found, dict):
        raise _NoAnswer("unreadable")
    return found


def _check_types(found: JSONObject) -> None:
    """Raise if what a policy says of nothing is already none that is taken."""
    if not isinstance(found.get("allow", False), bool):
        raise _NoAnswer("unreadable", "rule 'allow': expected true or false")
    _vector(found.get("trust_claims", {}))
    _extensions(found)


def _vector(claims: JSON) -> dict[str, int]:
    """A trust vector; members that are not there are 0: nothing is said of them."""
    if not isinstance(claims, dict) or not claims.keys() <= set(_MEMBERS):
        raise _NoAnswer("unreadable", f"rule 'trust_claims': expected any of {', '.join(_MEMBERS)}")
    vector = dict.fromkeys(_MEMBERS, 0)
    for name, value in claims.items():
        if not isinstance(value, int) or isinstance(value, bool) or not -128 <= value <= 127:
            raise _NoAnswer("unreadable", f"rule 'trust_claims', {name}: expected -128 to 127")
        vector[name] = value
    return vector


def _extensions(found: JSONObject) -> tuple[JSONObject, ...]:
    extensions = found.get("extensions", [])
    if not isinstance(extensions, list):
        raise _NoAnswer("unreadable")
    taken = []
    for one in extensions:
        if (
            not isinstance(one, dict)
            or one.keys() != {"name", "key", "value"}
            or not isinstance(one["name"], str)
            or type(one["key"]) is not int
        ):
            raise _NoAnswer("unreadable")
        taken.append(one)
    return tuple(taken)


def _line(value: JSON, most: int) -> str:
    """A string of a policy for a log; a claim in it may be a guest's."""
    if not isinstance(value, str):
        return ""
    return "".join(one if one.isprintable() else "?" for one in value[:most])
