# SPDX-License-Identifier: Apache-2.0
"""Rules for the C core that a compiler does not know."""

import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "imagers" / "core" / "src").glob("*.[ch]"))
LONGEST_FILE = 550  # lines; beyond that there are two ideas in it
FLAGS = re.DOTALL | re.MULTILINE
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# No length of a destination, or a length that is not what it seems.
BANNED = re.compile(
    r"\b(strcpy|strcat|sprintf|vsprintf|gets|strncpy|strncat|alloca|strtok|atoi|system|popen"
    r"|mktemp|tmpnam|getenv|rand)\s*\("
)


def code(path):
    """A file without its comments, which keep their line breaks."""
    return COMMENT.sub(lambda match: "\n" * match[0].count("\n"), path.read_text())


def functions(path):
    """(name, body) of each function of a file."""
    for match in re.finditer(
        r"^[A-Za-z][^;{}#]*?\b(\w+)\([^;{}]*\)\s*\{\n(.*?)^\}", code(path), FLAGS
    ):
        yield match[1], match[2]


BINDING = [path for path in SOURCES if path.name.startswith("py_")]
PLAIN = [path for path in SOURCES if not path.name.startswith("py_")]


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.name)
def test_plain_half_has_never_heard_of_python(path):
    assert not re.search(r"Python\.h|\bPy[A-Z_]\w*", code(path))


@pytest.mark.parametrize("path", BINDING, ids=lambda path: path.name)
def test_binding_has_no_algorithm(path):
    assert not re.search(r"#include\s*[<\"](openssl|zstd|zlib|isa-l|impl\.h)", code(path))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_function_that_is_easily_misused(path):
    assert BANNED.findall(code(path)) == []


@pytest.mark.parametrize("path", BINDING, ids=lambda path: path.name)
def test_argument_parsing_is_compared_with_zero(path):
    """It gives 0 for failure: `< 0` would never be true."""
    assert not re.search(r"PyArg_\w+\([^;]*?\)\s*<\s*0", code(path))


@pytest.mark.parametrize("path", BINDING, ids=lambda path: path.name)
def test_nothing_leaves_between_dropping_and_taking_the_lock(path):
    for block in re.findall(
        r"Py_BEGIN_ALLOW_THREADS(.*?)Py_END_ALLOW_THREADS", code(path), re.DOTALL
    ):
        assert not re.search(r"\b(return|goto|break|continue)\b", block)
        assert not re.search(r"\bPy[A-Z]\w*\(", block)


@pytest.mark.parametrize("path", BINDING, ids=lambda path: path.name)
def test_nothing_leaves_between_taking_and_releasing_a_buffer(path):
    for name, body in functions(path):
        if "Py_buffer" not in body:
            continue
        taken = body.index("PyArg_Parse")
        inside = body[body.index("}", taken) : body.index("done:")]
        assert "return" not in inside, name
        assert body.count("PyBuffer_Release") == len(re.findall(r"\bPy_buffer \w+", body)), name


def test_functions_are_found_by_these_rules():
    found = {name for path in SOURCES for name, _ in functions(path)}
    assert {"layer_job_open", "layer_job_run", "imc_untar_begin", "run", "main"} <= found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_files_begin_with_what_they_are_and_stay_short(path):
    text = path.read_text()
    assert text.startswith("/*")
    assert len(text.splitlines()) <= LONGEST_FILE


def test_secrets_are_compared_in_constant_time():
    """Wherever a tag meets the expected one."""
    (job,) = [path for path in SOURCES if path.name == "job_checks.c"]
    assert "CRYPTO_memcmp(sums.hmac" in code(job)
    for path in PLAIN:
        if not path.name.startswith("test_"):
            assert not re.search(r"(?<!CRYPTO_)memcmp\([^)]*(hmac|key|tag)", code(path)), path.name


def defined(path):
    """What other files may use of one: functions and tables that are not static."""
    pattern = r"^(?!static\b)[A-Za-z][^;{}#=]*?\b(\w+)(?:\([^;{}]*\)|\s*=)\s*\{"
    return set(re.findall(pattern, code(path), re.MULTILINE))


def uses():
    """{file: the files that it uses something of}; of the two for gzip one is built."""
    files = {}
    for path in SOURCES:
        if path.suffix == ".c":
            files.setdefault(re.sub(r"^inflate_\w+", "inflate", path.stem), []).append(path)
    owner = {name: file for file, paths in files.items() for one in paths for name in defined(one)}
    return {
        file: {
            owner[word] for one in paths for word in re.findall(r"\w+", code(one)) if word in owner
        }
        - {file}
        for file, paths in files.items()
    }


def test_no_file_uses_another_that_uses_it():
    """In no number of steps: each file can be read, and tested, with those below it alone."""
    graph = uses()
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("a circle: " + " is used by ".join(error.args[1]))


def test_uses_of_files_are_found_by_this_rule():
    graph = uses()
    assert {"line", "frames", "job_steps", "job_checks"} <= graph["job"]
    assert "job" in graph["py_job"]
    assert "layer_shani" in graph["layer"] | graph["layer_stitched"]
    assert graph["error"] == set()
