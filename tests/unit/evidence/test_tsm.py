# SPDX-License-Identifier: Apache-2.0
"""The kernel's interface, by a double of the kernel that counts writes and makes reports."""

import errno
import os
from pathlib import Path

import pytest

from imagers.errors import LocalError, NoTEE
from imagers.evidence.tsm import Kernel, missing_tsm, read_tsm

ROOT = Path("/sys/kernel/config/tsm/report")


class FakeKernel:
    """configfs-tsm: an instance has its files from `mkdir` on, and loses them at `rmdir`."""

    def __init__(self, provider, make, *, has_privlevel=True, aux=b""):
        self.provider, self.make, self.aux = provider, make, aux
        self.has_privlevel = has_privlevel
        self.made, self.removed, self.written = [], [], []
        self.races = 0  # how often somebody else writes in between
        self.blocks = 0  # how often a read says EWOULDBLOCK
        self._generation = 0
        self._inblob = b""

    def mkdir(self, path):
        if self.provider is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        self.made.append(path)

    def rmdir(self, path):
        self.removed.append(path)

    def write(self, path, data):
        assert path.parent == self.made[-1]
        if path.name == "privlevel" and not self.has_privlevel:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        if path.name == "inblob":
            self._inblob = data
        self.written.append((path.name, data))
        self._generation += 1

    def read(self, path):
        assert path.parent == self.made[-1]
        if path.name == "outblob":
            if self.blocks:
                self.blocks -= 1
                raise BlockingIOError(errno.EWOULDBLOCK, "Resource temporarily unavailable")
            if self.races:
                self.races -= 1
                self._generation += 1
            return self.make(self._inblob)
        if path.name == "auxblob" and self.aux is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return {
            "provider": f"{self.provider}\n".encode(),
            "generation": f"{self._generation}\n".encode(),
            "auxblob": self.aux,
        }[path.name]


def test_report_binds_what_was_written_at_once_with_zeros_behind_it():
    kernel = FakeKernel("sev_guest", lambda inblob: b"report of " + inblob, aux=b"table")
    report = read_tsm(ROOT, b"n" * 48, provider="sev_guest", kernel=kernel)
    assert report.outblob == b"report of " + b"n" * 48 + bytes(16)
    assert report.auxblob == b"table"
    assert kernel.written == [("privlevel", b"0"), ("inblob", b"n" * 48 + bytes(16))]
    assert kernel.made == kernel.removed
    assert kernel.made[0].parent == ROOT


def test_providers_without_levels_and_without_certificates_do():
    kernel = FakeKernel("tdx_guest", bytes, has_privlevel=False, aux=None)
    report = read_tsm(ROOT, b"n", provider="tdx_guest", kernel=kernel)
    assert (len(report.outblob), report.auxblob) == (64, b"")


@pytest.mark.parametrize("race", ["races", "blocks"])
def test_report_that_somebody_else_wrote_into_is_asked_for_again(race):
    kernel = FakeKernel("sev_guest", bytes)
    setattr(kernel, race, 3)
    assert read_tsm(ROOT, b"n", provider="sev_guest", kernel=kernel).outblob[:1] == b"n"
    assert [name for name, _ in kernel.written].count("inblob") == 4
    setattr(kernel, race, 99)
    with pytest.raises(LocalError, match="somebody else wrote into it each time"):
        read_tsm(ROOT, b"n", provider="sev_guest", kernel=kernel)
    assert kernel.made == kernel.removed


def test_instance_is_removed_after_an_error_too():
    def refuse(_):
        raise OSError(errno.EIO, "Input/output error")

    kernel = FakeKernel("sev_guest", refuse)
    with pytest.raises(LocalError, match="no report: input/output error"):
        read_tsm(ROOT, b"n", provider="sev_guest", kernel=kernel)
    assert kernel.made == kernel.removed


def test_another_provider_is_no_tee_of_this_kind():
    kernel = FakeKernel("tdx_guest", bytes)
    with pytest.raises(NoTEE, match="is of 'tdx_guest', and not of sev_guest"):
        read_tsm(ROOT, b"n", provider="sev_guest", kernel=kernel)
    assert "not of sev_guest" in missing_tsm(ROOT, "sev_guest", kernel)
    assert missing_tsm(ROOT, "tdx_guest", kernel) == ""
    assert kernel.made == kernel.removed


def test_machine_without_the_interface_says_where_it_was_looked_for(tmp_path):
    path = tmp_path / "tsm" / "report"
    with pytest.raises(NoTEE, match="tsm/report: no such file or directory"):
        read_tsm(path, b"n", provider="sev_guest")
    assert "tsm/report: no such file" in missing_tsm(path, "sev_guest")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_user_who_may_not_is_told_that_root_may(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(LocalError, match="may not be written") as caught:
        read_tsm(tmp_path, b"n", provider="sev_guest")
    assert "root" in caught.value.hint


def test_files_of_the_kernel_are_read_whole_and_written_at_once(tmp_path):
    kernel = Kernel()
    kernel.mkdir(tmp_path / "r")
    kernel.write(tmp_path / "r" / "inblob", b"x" * 64)
    assert kernel.read(tmp_path / "r" / "inblob") == b"x" * 64
    os.truncate(tmp_path / "r" / "inblob", 1024 * 1024 + 1)
    with pytest.raises(OSError, match="too large"):
        kernel.read(tmp_path / "r" / "inblob")
    (tmp_path / "r" / "inblob").unlink()
    kernel.rmdir(tmp_path / "r")
    assert not (tmp_path / "r").exists()
