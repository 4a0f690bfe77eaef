# SPDX-License-Identifier: Apache-2.0
"""How many cores there are to use."""

import os

import pytest

from imagers.core import cores


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("100000 0\n", None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_quota_cores_reads_cpu_max(text, expected):
    assert cores.quota_cores(text) == expected


@pytest.fixture
def fresh():
    cores.usable_cores.cache_clear()
    yield
    cores.usable_cores.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_usable_cores_is_bounded_by_affinity(monkeypatch):
    monkeypatch.setattr(cores, "_quotas", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 3, 5})
    assert cores.usable_cores() == 3


@pytest.mark.usefixtures("fresh")
def test_usable_cores_is_bounded_by_the_tightest_quota_around(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))
    monkeypatch.setattr(cores, "_CGROUP", tmp_path / "fs")
    monkeypatch.setattr(cores, "_OWN", tmp_path / "own")
    (tmp_path / "own").write_text("0::/outer/inner\n")
    (tmp_path / "fs/outer/inner").mkdir(parents=True)
    (tmp_path / "fs/outer/inner/cpu.max").write_text("max 100000\n")
    (tmp_path / "fs/outer/cpu.max").write_text("300000 100000\n")
    assert cores.usable_cores() == 3


@pytest.mark.usefixtures("fresh")
def test_usable_cores_without_cgroups_is_the_affinity(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    monkeypatch.setattr(cores, "_OWN", tmp_path / "missing")
    assert cores.usable_cores() == 1
