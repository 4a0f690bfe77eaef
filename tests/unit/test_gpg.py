# SPDX-License-Identifier: Apache-2.0
"""Homes of gpg and the end of its runs, with the real gpg and with ones that do not end."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from imagers import gpg as module
from imagers.errors import Cancelled, LocalError, TimedOut
from imagers.gpg import OWN, Limits, PrivateHome, user_gpg
from imagers.waiting import Cancellation

KEYS = Path(__file__).resolve().parents[1] / "vectors" / "ocicrypt" / "keys"
PATIENCE_S = 30

pytestmark = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")


@pytest.fixture
def places(monkeypatch):
    """The only place for homes, with nobody else's in it; its path has room for sockets."""
    place = Path("/tmp") / f"g{os.getpid()}-{time.monotonic_ns() % 10**8}"
    place.mkdir(mode=0o700)
    monkeypatch.setattr(module, "_places", lambda: iter([str(place)]))
    yield place
    shutil.rmtree(place)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(fact):
    deadline = time.monotonic() + PATIENCE_S
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.02)
    return fact()


def agents_of(home):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"gpg-agent" and os.fsencode(str(home)) in words:
            found.append(int(entry.name))
    return [pid for pid in found if is_running(pid)]


# ---- runs that do not end --------------------------------------------------------------------


@pytest.fixture
def endless(tmp_path, monkeypatch):
    """A function: a gpg that answers who it is and then does `what`; its pids are in a file."""
    real = shutil.which("gpg")

    def make(what):
        program = tmp_path / "bin" / "gpg"
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            "#!/bin/sh\n"
            f'case " $* " in *" --list-config "*) exec {real} "$@";; esac\n'
            f"echo $$ >> {tmp_path}/pids\n{what}\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
        return lambda: [int(one) for one in (tmp_path / "pids").read_text().split()]

    return make


SLEEPS = "sleep 1000 & echo $! >> {}/pids; wait"
BUSY = "while :; do :; done"


def test_run_beyond_its_deadline_ends_with_all_that_it_started(places, endless, tmp_path):
    pids = endless(SLEEPS.format(tmp_path))
    with PrivateHome(agent=False) as home:
        home.gpg.limits = Limits(wall_s=1, cpu_s=100)
        result = home.gpg.decrypt(b"\xa3")
        assert home.gpg.was_ended
        assert home.gpg.seconds < PATIENCE_S
        assert not result.ok
        assert len(pids()) == 2
        assert wait_until(lambda: not any(map(is_running, pids())))
    assert list(places.iterdir()) == []


@pytest.mark.usefixtures("places")
def test_run_that_computes_without_end_is_ended_by_its_time_of_the_processor(endless):
    pids = endless(BUSY)
    with PrivateHome(agent=False) as home:
        home.gpg.limits = Limits(wall_s=1000, cpu_s=1)
        home.gpg.decrypt(b"\xa3")
        assert home.gpg.was_ended
        assert wait_until(lambda: not any(map(is_running, pids())))


def test_run_is_ended_by_an_interrupt(places, endless, tmp_path):
    pids = endless(SLEEPS.format(tmp_path))

    def interrupt(number, frame):
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with PrivateHome(agent=False) as home:
            signal.setitimer(signal.ITIMER_REAL, 1)
            with pytest.raises(KeyboardInterrupt):
                home.gpg.decrypt(b"\xa3")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert wait_until(lambda: not any(map(is_running, pids())))
    assert list(places.iterdir()) == []


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize("seconds", [0.5, None])
def test_run_is_ended_by_what_is_in_force(places, endless, tmp_path, seconds):
    pids = endless(SLEEPS.format(tmp_path))
    stop = Cancellation(seconds=seconds, phase="trust")
    timer = threading.Timer(0.5, stop.cancel)
    if seconds is None:
        timer.start()
    start = time.monotonic()
    with PrivateHome(agent=False) as home:
        with pytest.raises(Cancelled) as caught, stop.in_force():
            home.gpg.decrypt(b"\xa3")
        assert isinstance(caught.value, TimedOut) is (seconds is not None)
    assert time.monotonic() - start < PATIENCE_S
    assert wait_until(lambda: not any(map(is_running, pids())))
    assert list(places.iterdir()) == []
    timer.cancel()


def test_run_that_ends_by_itself_was_not_ended():
    with PrivateHome(agent=False) as home:
        assert home.gpg.limits == OWN
        home.gpg.decrypt(b"\xa3")
        assert not home.gpg.was_ended


# ---- homes -------------------------------------------------------------------------------------

HOLD = """
import sys
from imagers import gpg
gpg._places = lambda: iter([sys.argv[1]])
home = gpg.PrivateHome(agent=True)
with open(sys.argv[2], "rb") as file:
    home.gpg.import_keys(file.read())
print(home.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(places):
    """Another process with a home that has secret keys."""
    words = [sys.executable, "-c", HOLD, str(places), str(KEYS / "alice.sec.gpg")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.home = Path(process.stdout.readline().decode().strip())
        yield process
        process.kill()


def test_home_of_a_process_that_was_killed_is_removed_by_the_next(places, holder):
    (agent,) = agents_of(holder.home)
    with PrivateHome(agent=False):
        assert holder.home.exists()  # its process lives
    holder.kill()
    holder.wait()
    assert list(holder.home.glob("private-keys-v1.d/*"))
    with PrivateHome(agent=False) as home:
        assert [str(one) for one in places.iterdir()] == [home.path]
    assert wait_until(lambda: not is_running(agent))


def test_agent_of_a_process_that_was_killed_ends_without_anybodys_help(holder):
    (agent,) = agents_of(holder.home)
    holder.kill()
    holder.wait()
    assert wait_until(lambda: not is_running(agent))


def test_what_only_looks_like_an_abandoned_home_stays(places, tmp_path):
    other = places / f"{module._PREFIX}readable"
    other.mkdir(mode=0o755)
    link = places / f"{module._PREFIX}link"
    (tmp_path / "target").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "target")
    file = places / f"{module._PREFIX}file"
    file.write_text("")
    with PrivateHome(agent=False):
        pass
    assert sorted(places.iterdir()) == sorted([other, link, file])
    assert (tmp_path / "target").is_dir()


@pytest.mark.usefixtures("places")
def test_home_is_private_and_its_agent_is_gone_with_it():
    with PrivateHome(agent=True) as home:
        assert stat.S_IMODE(os.stat(home.path).st_mode) == 0o700
        (agent,) = agents_of(home.path)
    assert not os.path.exists(home.path)
    assert wait_until(lambda: not is_running(agent))
    home.close()


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(("mode", "umask"), [(0o2700, 0o022), (0o700, 0o377), (0o700, 0o777)])
def test_home_is_made_whatever_the_parent_and_the_umask_do_to_its_mode(places, mode, umask):
    places.chmod(mode)
    before = os.umask(umask)
    try:
        with PrivateHome(agent=False) as home:
            assert stat.S_IMODE(os.stat(home.path).st_mode) == 0o700
    finally:
        os.umask(before)
    assert list(places.iterdir()) == []


def test_place_where_nothing_can_be_locked_is_left_empty(places, monkeypatch):
    monkeypatch.setattr(module, "_locked", lambda _: None)
    with pytest.raises(LocalError, match="expected room"):
        PrivateHome(agent=False)
    assert list(places.iterdir()) == []


@pytest.mark.parametrize("end", [os.kill, lambda pid, how: os.killpg(os.getpgid(pid), how)])
def test_agent_that_died_is_started_again(end):
    """With what keeps it alive, or alone."""
    data = (KEYS / "alice.sec.gpg").read_bytes()
    with PrivateHome(agent=True) as home:
        (agent,) = agents_of(home.path)
        end(agent, signal.SIGKILL)
        assert wait_until(lambda: not is_running(agent))
        assert home.gpg.import_keys(data).sec_imported


def test_agent_that_outlives_the_thread_of_its_start_is_ended_and_another_is_started(places):
    made = []

    def make():
        made.append(PrivateHome(agent=True))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with made[0] as home:
        (first,) = agents_of(home.path)
        # What keeps the agent ends with the thread, where there is setpriv; here in any case.
        os.kill(home._agent.pid, signal.SIGKILL)
        os.waitid(os.P_PID, home._agent.pid, os.WEXITED | os.WNOWAIT)
        home.gpg.list_keys()
        assert wait_until(lambda: not is_running(first))
        assert home._agent.poll() is None
        (second,) = agents_of(home.path)
    assert wait_until(lambda: not is_running(second))
    assert list(places.iterdir()) == []


@pytest.mark.usefixtures("places")
def test_agent_keeps_no_passphrase():
    with PrivateHome(agent=True, options=["--pinentry-mode", "loopback"]) as home:
        made = home.gpg.gen_key_input(
            name_real="Alice", passphrase="secret", key_type="RSA", key_length=2048
        )
        # It asks for the passphrase again, for a revocation certificate, if that takes a second:
        # then it does not say the key that it made.
        home.gpg.gen_key(made)
        (key,) = (one["fingerprint"] for one in home.gpg.list_keys(secret=True))
        assert home.gpg.sign(b"x", keyid=key, passphrase="secret").fingerprint == key
        assert not home.gpg.sign(b"x", keyid=key, passphrase="").fingerprint


def test_no_room_for_a_socket_is_a_local_error(monkeypatch):
    monkeypatch.setattr(module, "_MAX_SOCKET", 10)
    with pytest.raises(LocalError, match="expected room for a private directory"):
        PrivateHome(agent=False)


def test_user_gpg_without_gpg_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalError, match="gpg does not start") as caught:
        user_gpg()
    assert "gnupg" in caught.value.hint
