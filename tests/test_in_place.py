# SPDX-License-Identifier: Apache-2.0
"""Tests meet this tree as it is: compiled where it changed, and refused where it is another."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DESCRIBED = {".dependencies": ".ci/requirements.txt", ".installed": "pyproject.toml"}
NINJA = '#!/bin/sh\necho ninja: "$@"\nexit 7\n'


@pytest.fixture
def tree(tmp_path):
    """A tree that was set up, whose ninja says what it is asked for and fails."""
    for name in (".ci", ".venv/bin", "build/in-place", "imagers/core"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "compile", tmp_path / ".ci")
    for stamp, name in DESCRIBED.items():
        (tmp_path / name).write_text("as it was\n")
        sums = subprocess.check_output(["sha256sum", name], cwd=tmp_path)
        (tmp_path / ".venv" / stamp).write_bytes(sums)
    (tmp_path / "build" / "in-place" / "build.ninja").touch()
    ninja = tmp_path / ".venv" / "bin" / "ninja"
    ninja.write_text(NINJA)
    ninja.chmod(0o755)
    return tmp_path


def compiled(tree):
    words = [tree / ".ci" / "compile"]
    return subprocess.run(words, cwd="/", capture_output=True, text=True, check=False, timeout=60)


def test_compile_runs_ninja_and_ends_as_it_does(tree):
    done = compiled(tree)
    assert done.returncode == 7
    assert done.stdout == "ninja: --quiet -C build/in-place\n"
    extension = tree / "imagers" / "core" / "_core.abi3.so"
    assert extension.resolve() == tree / "build" / "in-place" / "imagers" / "core" / extension.name


@pytest.mark.parametrize("name", DESCRIBED.values())
def test_compile_is_refused_where_something_else_was_installed(tree, name):
    (tree / name).write_text("as it is now\n")
    done = compiled(tree)
    assert done.returncode == 1
    assert "make dev" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("folder", [".venv", "build"])
def test_compile_is_refused_without_a_set_up(tree, folder):
    shutil.rmtree(tree / folder)
    done = compiled(tree)
    assert done.returncode == 1
    assert "make dev" in done.stderr


def test_tests_of_a_copy_are_refused(tmp_path):
    (tmp_path / "imagers").mkdir()
    (tmp_path / "imagers" / "__init__.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", ROOT / "tests" / "test_c_lint.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"imagers is imported from {tmp_path}" in done.stderr
    assert "make dev" in done.stderr
