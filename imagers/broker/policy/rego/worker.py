# SPDX-License-Identifier: Apache-2.0
"""The engine, in a process that may die: `python -m imagers.broker.policy.rego.worker`.

Its standard input is a socket, over which frames go both ways: four bytes of length, big-endian,
and JSON.

    {"policy": HASH, "input": {...}}                            asks
    {"policy": HASH, "input": {...}, "text": TEXT,              the same, of a policy that is new
     "calls": {"count": 8}, "names": ["allow", "rule"],
     "references": {"snp_launch_measurement": ["c4a6..."]}}
    {"found": {"allow": true}}                                  rules that are defined
    {"unknown": true}                                           ask again with the text
    {"fault": "build", "detail": "line 3: this is unclosed"}    or "failed", "calls", "large"

A policy is built once and kept, with its reference values, by a hash of both that the broker gives;
the 32 used last stay. Nothing of what the engine prints is believed: it writes strings as they are,
quotation marks included, so a claim could end its own string and begin another binding. Values are
read node by node. Strings go in as JSON escapes them, which is how the engine keeps its own: as
they are, one would end at a zero byte. A member that is null is left out: this engine takes null
for larger than any number.

The limits of memory and of seconds of the processor are the kernel's, and end the process.
"""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regopy import Bundle, Interpreter, Node

    from imagers.model.strict_json import JSON, JSONObject

__all__ = ["HEAD", "MAX_ANSWER_BYTES", "Judge", "main"]

HEAD = 4
"""Bytes of a length."""
MAX_ANSWER_BYTES = 256 * 1024
_MEMORY = 512 * 1024 * 1024  # of a question, and of all that is kept
_CPU_SECONDS = 2  # of one question, the build of its policy included; one more at most
_MAX_POLICIES = 32
_REFERENCES = "imagers_references"
_HELPER = f"package policy\nquery_reference_value(id) := data.{_REFERENCES}[id]\n"
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_MESSAGE = re.compile(
    r"\(error \d+:policy\.rego\|(\d+)\|.*?\(errormsg \d+:([^)]{1,200})\)", re.DOTALL
)
_MAX_INTEGER = 2**63 - 1
_MAX_DEPTH = 64


class _Fault(Exception):
    """No answer, and why."""

    def __init__(self, fault: str, detail: str = "") -> None:
        super().__init__(fault)
        self.answer: JSONObject = {"fault": fault, "detail": detail}


class Judge:
    """The policies that were built, and their answers."""

    def __init__(self) -> None:
        self._built: OrderedDict[str, _Built] = OrderedDict()

    def answer(self, asked: Mapping[str, Any]) -> JSONObject:
        """The answer to one frame."""
        try:
            built = self._built.get(asked["policy"])
            if built is None:
                if "text" not in asked:
                    return {"unknown": True}
                built = self._built[asked["policy"]] = _Built(asked)
                if len(self._built) > _MAX_POLICIES:
                    self._built.popitem(last=False)
            self._built.move_to_end(asked["policy"])
            return {"found": built.judge(asked["input"])}
        except _Fault as fault:
            return fault.answer


class _Built:
    """One policy with its reference values."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        from regopy import Interpreter, LogLevel, RegoError

        engine = Interpreter()
        engine.log_level = LogLevel.NONE
        for name, line in asked["calls"].items():
            if not engine.is_builtin(name):
                raise _Fault("calls", f"line {line}: there is no function '{name}'")
        text = asked["text"]
        names = asked["names"]
        try:
            engine.add_module("policy.rego", text)
            engine.add_module("references.rego", _HELPER)
            engine.add_data_json(json.dumps({_REFERENCES: asked["references"]}, ensure_ascii=False))
            # A list each: what is undefined is an empty one, and takes nothing from the others.
            query = "; ".join(f"{name}_ := [one | one := data.policy.{name}]" for name in names)
            self._bundle: Bundle = engine.build(query)
        except RegoError as error:
            raise _Fault("build", _told(str(error), text)) from None
        if not self._bundle.ok():
            raise _Fault("build", "it cannot be compiled")
        self._engine: Interpreter = engine
        self._names: list[str] = names

    def judge(self, value: JSON) -> JSONObject:
        """The rules that are defined for an input, of those that were asked for."""
        from regopy import Input, RegoError

        try:
            self._engine.set_input(Input(_for_engine(value)))
            output = self._engine.query_bundle(self._bundle)
            if not output.ok() or len(output) != 1:
                raise _Fault("failed")
            found: JSONObject = {}
            for name in self._names:
                values = _value(output.binding(f"{name}_"))
                assert isinstance(values, list)  # of the query
                if values:
                    found[name] = values[0]
        except (RegoError, ValueError) as error:
            # The engine's binding reads its printed errors as JSON.
            detail = re.search(r"errormsg \d+:([^)]{1,200})\)", getattr(error, "doc", ""))
            raise _Fault("failed", detail[1] if detail else "") from None
        return found


def _for_engine(value: JSON, depth: int = 0) -> Any:
    """A value as the engine takes it."""
    if depth > _MAX_DEPTH:
        raise _Fault("failed", f"expected an input at most {_MAX_DEPTH} deep")
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)[1:-1] if _ESCAPED.search(value) else value
    if isinstance(value, dict):
        return {
            _for_engine(name): _for_engine(one, depth + 1)
            for name, one in value.items()
            if one is not None
        }
    if isinstance(value, list):
        return [_for_engine(one, depth + 1) for one in value]
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise _Fault("failed", f"expected numbers of at most {_MAX_INTEGER}")  # it would wrap
    return value


def _value(node: Node, depth: int = 0) -> JSON:
    """What a node of the engine's is."""
    from regopy import NodeKind

    if depth > 3 * _MAX_DEPTH:  # a value is up to three nodes
        raise _Fault("failed", f"expected an answer at most {_MAX_DEPTH} deep")
    kind = node.kind
    if kind in (NodeKind.Term, NodeKind.Scalar):
        return _value(node.at(0), depth + 1)
    if kind == NodeKind.Array:
        return [_value(node.at(index), depth + 1) for index in range(len(node))]
    if kind == NodeKind.Set:
        return [_value(node.at(key), depth + 1) for key in node]
    if kind == NodeKind.Object:
        return {_text(key): _value(node.at(key), depth + 1) for key in node}
    if kind == NodeKind.String:
        return _text(f'"{node.value}"')
    if kind in (NodeKind.Int, NodeKind.Float, NodeKind.Boolean, NodeKind.Null):
        value: JSON = node.value
        return value
    raise _Fault("failed", "expected JSON as its answer")


def _text(json_text: str) -> str:
    """A string from how the engine keeps it; the name of a member that is none, as it is."""
    if not json_text.startswith('"'):
        return json_text
    text = json.loads(json_text)  # a ValueError: made by a function that decodes
    assert isinstance(text, str)
    return text


def _told(error: str, text: str) -> str:
    """Line and words of the first fault in a tree of them."""
    match = _MESSAGE.search(error)
    if match is None:
        return "it cannot be read"
    line = text.encode()[: int(match[1])].count(b"\n") + 1
    return f"line {line}: {match[2]}"


def _frame(answer: JSONObject) -> bytes:
    data = json.dumps(answer, separators=(",", ":")).encode()
    if len(data) > MAX_ANSWER_BYTES:
        large: JSONObject = {"fault": "large", "detail": ""}
        data = json.dumps(large).encode()
    return len(data).to_bytes(HEAD, "big") + data


def _limit_processor() -> None:
    """Let the kernel end the process where the next question takes too long."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + _CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def _limit_memory() -> None:
    """Let nothing be had above what there is; the engine has reserved 256 GiB when it is loaded."""
    with open("/proc/self/statm", "rb") as file:
        has = int(file.read().split()[0]) * resource.getpagesize()
    for kind, most in (
        (resource.RLIMIT_AS, has + _MEMORY),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def main() -> None:
    """Answer what comes, until nothing does."""
    broker = socket.socket(fileno=os.dup(0))
    # The engine writes what is wrong with a policy to its standard output.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    import regopy  # noqa: F401 - of the limits

    _limit_memory()
    judge = Judge()
    broker.sendall(_frame({"ready": True}))
    buffer = bytearray()
    while piece := broker.recv(1 << 16):
        buffer += piece
        while len(buffer) >= HEAD and len(buffer) >= (
            end := HEAD + int.from_bytes(buffer[:HEAD], "big")
        ):
            asked = json.loads(buffer[HEAD:end])
            del buffer[:end]
            _limit_processor()
            broker.sendall(_frame(judge.answer(asked)))


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, ConnectionResetError):  # the broker is gone
        sys.exit(1)
