# SPDX-License-Identifier: Apache-2.0
"""What the set-up installs: one release of each package, by its hashes, whoever the index is."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LOCKED = (ROOT / ".ci" / "requirements.txt").read_text()
PROJECTS = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
HASH = re.compile(r" +--hash=sha256:[0-9a-f]{64}")


def entries():
    """(requirement, hashes) of each entry of the file."""
    lines = LOCKED.replace("\\\n", "\n").splitlines()
    found = []
    for line in lines:
        if HASH.fullmatch(line.rstrip()):
            found[-1][1].append(line.strip())
        elif not line.startswith("#"):
            found.append((Requirement(line.strip()), []))
    return found


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_each_package_is_of_one_release_with_its_hashes():
    for requirement, hashes in entries():
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        assert hashes, requirement


def test_no_index_is_named():
    assert "://" not in LOCKED
    assert "index" not in LOCKED
    assert "find-links" not in LOCKED


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_releases_are_those_that_the_project_allows(path):
    document = tomllib.loads(path.read_text())
    project = document["project"]
    wanted = [
        *document["build-system"]["requires"],
        *project["dependencies"],
        *(one for extra in project.get("optional-dependencies", {}).values() for one in extra),
    ]
    locked = {normal(entry.name): str(entry.specifier)[2:] for entry, _ in entries()}
    for one in map(Requirement, wanted):
        if one.name != "imagers":
            assert one.specifier.contains(locked[normal(one.name)]), one


@pytest.mark.parametrize("path", PROJECTS[1:], ids=lambda path: path.parent.name)
def test_plugins_carry_the_license_of_the_project(path):
    assert (path.parent / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert tomllib.loads(path.read_text())["project"]["license-files"] == ["LICENSE"]
