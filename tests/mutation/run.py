# SPDX-License-Identifier: Apache-2.0
"""Which mutants of the modules that decide about trust the tests do not notice.

    python tests/mutation/run.py [MODULE...]          all of MODULES, or imagers/sign/judge.py

Each mutant is met by the tests that reach what was changed, the quickest first, until one fails.
A process imports the tests once and forks for every mutant: a function gets the code of the
mutant in the child. What is executed at import (limits, tables, defaults) is changed in a process
that has imported nothing of ours yet.

What is found is in build/mutants/MODULE.jsonl. A run that was broken off goes on there; after a
change of sources or tests it begins anew, with the test that noticed the mutant before.

Survivors are listed in survivors.txt, each with the reason why it is none that matters:

    imagers/sign/judge.py | name of the mutant | reason

Fails if a survivor is not listed, a line is about a mutant that is gone or killed, or less than
95 of 100 are killed.
"""

import contextlib
import functools
import gc
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from types import CodeType, FunctionType

import pytest
from modules import MODULES
from mutants import mutants_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "build" / "mutants"
SURVIVORS = HERE / "survivors.txt"
FLOOR = 95  # of 100 mutants

# Of other projects; imported once, ahead of the processes that begin with nothing of ours.
AHEAD = [
    "asn1crypto.cms",
    "cryptography.hazmat.primitives.serialization",
    "cryptography.x509",
    "hypothesis.strategies",
    "jwcrypto.jwe",
    "urllib3",
    "zstandard",
]

CPU_S = 5  # of one test, beside ten times what it took unchanged: a mutant that goes on for ever
WAIT_S = 120  # of one mutant, beside the same: one that waits for ever
MEMORY = 8 << 30  # of address space


# --- processes


def in_child(work, seconds, log=os.devnull):
    """What `work` gives, by way of JSON, from a process of its own; else how that ended."""
    with tempfile.NamedTemporaryFile("r") as answer:
        pid = os.fork()
        if pid == 0:
            _be_child(work, answer.name, log)
        descriptor = os.pidfd_open(pid)
        try:
            is_late = not select.select([descriptor], [], [], seconds)[0]
        finally:
            os.close(descriptor)
            # What tests have started goes with them.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        text = answer.read()
    if text:
        return json.loads(text)
    code = os.waitstatus_to_exitcode(status)
    return {"ended": "late" if is_late or code == -signal.SIGPROF else f"code {code}"}


def _be_child(work, path, log):
    code = 1
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        Path(path).write_text(json.dumps(work()))
        code = 0
    except BaseException:  # noqa: BLE001  # the process ends here, whatever it was
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


class Loop:
    """In the place of pytest's: gives the collected tests to `work`."""

    def __init__(self, work):
        self.work = work
        self.answer = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        self.answer = self.work(session)
        return True


class Failures:
    """Whether a test has failed."""

    def __init__(self):
        self.found = False

    def pytest_runtest_logreport(self, report):
        self.found |= report.failed


def collect(tests, work):
    """What `work` gives for the session with `tests`; None if they cannot be collected."""
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    loop = Loop(work)
    words = ["-q", "-s", "-p", "no:cacheprovider", "--timeout=0"]
    words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis, ahead
    pytest.main([*words, *tests], plugins=[loop])
    return loop.answer


def run(session, items, costs):
    """The test that fails first, or None; what is left open is closed."""
    failures = Failures()
    session.config.pluginmanager.register(failures)
    for item, following in zip(items, [*items[1:], None], strict=True):
        signal.setitimer(signal.ITIMER_PROF, CPU_S + 10 * costs.get(item.nodeid, 1))
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if failures.found:
            session._setupstate.teardown_exact(None)
            return {"by": item.nodeid}
    return {"by": None}


def traced(session, filename):
    """Each test with its time, and the lines of `filename` that it reaches; None if one fails."""
    reached = set()

    def lines(frame, event, _):
        if event == "line":
            reached.add(frame.f_lineno)
        return lines

    def calls(frame, _event, _argument):
        return lines if frame.f_code.co_filename == filename else None

    failures = Failures()
    session.config.pluginmanager.register(failures)
    table = {}
    for item, following in zip(session.items, [*session.items[1:], None], strict=True):
        reached.clear()
        began = time.monotonic()
        threading.settrace(calls)
        sys.settrace(calls)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        sys.settrace(None)
        threading.settrace(None)
        if failures.found:
            return {"failed": item.nodeid}
        table[item.nodeid] = [time.monotonic() - began, sorted(reached)]
    return {"table": table}


# --- mutants


def codes(code):
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from codes(one)


def functions_of(filename):
    """Those of a module, whatever they are wrapped in, by qualified name and first line."""
    found = {}
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename == filename:
            key = one.__code__.co_qualname, one.__code__.co_firstlineno
            found.setdefault(key, []).append(one)
    return found


class Mutated(importlib.machinery.SourceFileLoader):
    """Loads a module with something wrong."""

    mutant = None

    def get_code(self, fullname):  # noqa: ARG002  # importlib names it
        source = self.get_data(self.path).decode()
        if self.mutant is None:
            return compile(source, self.path, "exec", dont_inherit=True)
        return self.mutant.compile(source, self.path)


class Finder:
    """Finds one module, for which `Mutated` is asked."""

    def __init__(self, name, mutant):
        self.name = name
        self.mutant = mutant

    def find_spec(self, fullname, path, target=None):
        if fullname != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        loader = Mutated(fullname, spec.origin)
        loader.mutant = self.mutant
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=loader)


class Module:
    """The mutants of one module, and what is known of them."""

    def __init__(self, path, say):
        self.path = path
        self.name = path.removesuffix(".py").replace("/", ".")
        self.tests = MODULES[path]
        self.own = f"/test_{Path(path).stem}.py::"
        self.source = (ROOT / path).read_text()
        self.mutants = mutants_of(self.source)
        self.say = say
        self.store = RESULTS / f"{self.name}.jsonl"
        self.log = RESULTS / f"{self.name}.log"
        self.state = self._state()
        self.done, self.before = self._load(self.state)

    def _state(self):
        """Of the tree: what was found in another one is a hint and no result."""
        digest = hashlib.sha256()
        for name in ("imagers", *self.tests, "tests/mutation"):
            place = ROOT / name
            for one in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
                digest.update(one.read_bytes())
        return {"state": digest.hexdigest()}

    def _load(self, state):
        """What this state of the tree is known to give; what an earlier one gave."""
        lines = []
        if self.store.exists():
            lines = [json.loads(line) for line in self.store.read_text().splitlines()]
        found = {one["name"]: one for one in lines[1:]}
        if lines[:1] == [state]:
            return found, found
        self.store.parent.mkdir(parents=True, exist_ok=True)
        self.store.write_text(json.dumps(state) + "\n")
        return {}, found

    def note(self, mutant, answer):
        answer = {"name": mutant.name, **answer}
        self.done[mutant.name] = answer
        with self.store.open("a") as file:
            file.write(json.dumps(answer) + "\n")
        self.say(f"{self.path}: {len(self.done)} of {len(self.mutants)}", is_short=True)

    def left(self):
        return [one for one in self.mutants if one.name not in self.done]

    def chosen(self, mutant, table):
        """The tests that may notice, the one that did before first, then the quickest."""
        wanted = set(mutant.lines)
        names = [
            name
            for name, (_, lines) in table.items()
            if mutant.function is None or not wanted.isdisjoint(lines)
        ]
        by = self.before.get(mutant.name, {}).get("by")
        return sorted(names, key=lambda one: (one != by, self.own not in one, table[one][0]))

    def run(self):
        """Every mutant that is left."""
        if not self.left():
            return
        # Each of the two ways meets the module without a change first.
        answer = in_child(lambda: collect(self.tests, self._run_functions), 36_000, self.log)
        table = (answer or {}).get("table")
        if table is None:
            sys.exit(f"{self.path}: the tests do not pass unchanged: {answer}")
        self.done, _ = self._load(self.state)  # by the other process
        rest = self.left()
        if rest:
            control = in_child(lambda: self._import(None, table, list(table)), 3_600, self.log)
            if control != {"by": None}:
                sys.exit(f"{self.path}: the tests do not pass unchanged: {control}")
        for mutant in rest:
            self.note(mutant, self._one_by_import(mutant, table))

    def _one(self, table, names, work):
        """What the tests `names` say to a mutant, which `work` gives to them."""
        if not names:
            return {"by": None, "reached": False}
        answer = in_child(work, WAIT_S + 10 * sum(table[name][0] for name in names))
        # Tests that cannot be collected notice too.
        return answer or {"by": "import"}

    def _one_by_import(self, mutant, table):
        """The same for one that needs an import: its own tests first, of one file."""
        answer = {"by": None}
        names = self.chosen(mutant, table)
        own = [name for name in names if self.own in name]
        for some in (own, [name for name in names if self.own not in name]):
            if some and not is_killed(answer):
                work = functools.partial(self._import, mutant, table, some)
                answer = self._one(table, some, work)
        return answer

    def _import(self, mutant, table, names):
        assert not any(name.partition(".")[0] == "imagers" for name in sys.modules)
        # Ahead of pytest, whose hook would load the modules of its plugin, ours, by itself.
        sys.meta_path.insert(0, Finder(self.name, mutant))
        try:
            importlib.import_module(self.name)
        except Exception:  # noqa: BLE001  # whatever a mutant does
            return {"by": "import"}

        def work(session):
            by_name = {item.nodeid: item for item in session.items}
            if not by_name.keys() >= set(names):
                return {"by": "import"}
            return run(session, [by_name[name] for name in names], costs(table))

        return collect(sorted({name.partition("::")[0] for name in names}), work)

    def _run_functions(self, session):
        """The mutants of functions; gives what the tests without a change have told."""
        filename = sys.modules[self.name].__file__
        if Path(filename).read_text() != self.source:
            return {"failed": f"{filename} is another one: make dev"}
        answer = in_child(lambda: traced(session, filename), 3_600)
        if "table" not in answer:
            return answer
        table = answer["table"]
        functions = functions_of(filename)
        by_name = {item.nodeid: item for item in session.items}
        gc.collect()
        gc.freeze()
        for mutant in self.left():
            if mutant.function is None:
                continue
            changed = {
                (one.co_qualname, one.co_firstlineno): one
                for one in codes(mutant.compile(self.source, filename))
            }[mutant.function]
            targets = functions[mutant.function]
            if any(len(one.__code__.co_freevars) != len(changed.co_freevars) for one in targets):
                continue  # what it closes over has changed: by import

            names = self.chosen(mutant, table)

            def work(changed=changed, targets=targets, names=names):
                for one in targets:
                    one.__code__ = changed
                return run(session, [by_name[name] for name in names], costs(table))

            self.note(mutant, self._one(table, names, work))
        return answer


def costs(table):
    return {name: cost for name, (cost, _) in table.items()}


# --- report


def is_killed(answer):
    """By a test, or by its time; a process that ended in another way is for somebody to look at."""
    return answer.get("by") is not None or answer.get("ended") == "late"


def listed():
    """The lines of survivors.txt: module and name, reason."""
    found = {}
    for line in SURVIVORS.read_text().splitlines():
        if line and not line.startswith("#"):
            path, name, reason = line.split(" | ", 2)
            found[path, name] = reason
    return found


def main(paths):
    """The exit code."""
    screen = os.fdopen(os.dup(2), "w", buffering=1)

    def say(text, *, is_short=False):
        if not is_short:
            screen.write(f"{text}\n")
        elif screen.isatty():
            screen.write(f"\r{text} ")

    sys.dont_write_bytecode = False  # or each process that imports compiles all tests anew
    for name in AHEAD:
        importlib.import_module(name)
    unknown = [path for path in paths if path not in MODULES]
    if unknown:
        sys.exit(f"expected some of {', '.join(MODULES)}, got {', '.join(unknown)}")
    known = listed()
    is_good = True
    for path in paths or MODULES:
        began = time.monotonic()
        module = Module(path, say)
        module.run()
        alive = [one for one in module.mutants if not is_killed(module.done[one.name])]
        total = len(module.mutants)
        killed = total - len(alive)
        late = sum(module.done[one.name].get("ended") == "late" for one in module.mutants)
        say(
            f"{path}: {killed} of {total} mutants killed ({100 * killed / total:.1f} %), {late} of "
            f"them by time; {len(alive)} survive; {time.monotonic() - began:.0f} s"
        )
        names = {one.name for one in alive}
        new = [one for one in alive if (path, one.name) not in known]
        for one in new:
            answer = module.done[one.name]
            said = "" if answer.get("reached", True) else "no test reaches it"
            said = answer.get("ended", said)
            say(f"  line {one.lines.start}: {path} | {one.name} | {said}")
        stale = [name for place, name in known if place == path and name not in names]
        for name in stale:
            say(f"  survives no more: {name}")
        is_good &= not new and not stale and 100 * killed >= FLOOR * total
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
