# SPDX-License-Identifier: Apache-2.0
"""A broker that the host may have named is not asked, and none before settings are measured."""

import pytest

from imagers.cli.brokers import BrokerOptions, Given
from imagers.cli.measuring import BrokerGuard
from imagers.errors import LocalError, PolicyDenied, UsageError
from imagers.model.digest import digest_of
from imagers.model.origin import Origin


def options(url="https://h.example/", by="--broker", origin=Origin.CALLER, **more):
    return BrokerOptions(
        Given(url, by, origin), **{"ca_file": None, "insecure_http": False, **more}
    )


KERNEL = options(by="agent.aa_kbc_params", origin=Origin.KERNEL)


def guard(broker, *, unmeasured=False, waits=False):
    return BrokerGuard(broker, unmeasured=unmeasured, waits=waits)


def test_broker_of_the_caller_is_asked():
    guard(options())()


def test_broker_of_the_kernels_command_line_is_not_asked():
    with pytest.raises(PolicyDenied, match=r"address comes from the kernel's command line"):
        guard(KERNEL)()


def test_broker_that_init_data_vouches_for_is_asked():
    one = guard(KERNEL, waits=True)
    one.settled(is_vouched_for=True)
    one()


def test_measuring_alone_does_not_vouch_for_a_broker():
    """The host's broker would look at no measurement."""
    one = guard(KERNEL, waits=True)
    one.settled(is_vouched_for=False)
    with pytest.raises(PolicyDenied):
        one()


def test_broker_of_anybody_is_asked_where_the_user_says_so_and_told_each_time(capsys):
    for _ in range(2):
        guard(KERNEL, unmeasured=True)()
        assert "imagers: warning: the broker's address comes from" in capsys.readouterr().err


def test_broker_is_not_asked_before_settings_are_measured():
    one = guard(options(), waits=True)
    with pytest.raises(UsageError, match="cannot be measured before it is asked"):
        one()
    one.settled(is_vouched_for=False)
    one()


def test_guard_is_called_before_a_broker_is_asked():
    resources = options("http://127.0.0.1:1").guest("sample", before=guard(KERNEL))
    with resources, pytest.raises(PolicyDenied):
        resources.get("kbs:///a/b/c", manifest_digest=None)


def test_what_is_measured_of_a_broker_is_its_address_and_how_it_is_known(tmp_path):
    (tmp_path / "ca.pem").write_bytes(b"certificates")
    (tmp_path / "reference").write_bytes(b"values")
    by = {name: Given(str(tmp_path / name), "--broker-ca") for name in ("ca.pem", "reference")}
    found = options(ca_file=by["ca.pem"], reference=by["reference"]).measured()
    assert found.to_json() == {
        "url": "https://h.example",
        "ca": str(digest_of(b"certificates")),
        "reference": str(digest_of(b"values")),
    }
    assert [origin for origin, _, _ in found.origins] == [Origin.CALLER, Origin.FILE, Origin.FILE]
    with pytest.raises(LocalError, match="--broker-ca"):
        options(ca_file=Given(str(tmp_path / "none"), "--broker-ca")).measured()
    assert options("h.example", by="IMAGERS_BROKER").measured() is None
    assert options("https://me:secret@h.example").measured() is None


@pytest.mark.parametrize("origin", [Origin.KERNEL, Origin.SHARED_FILE])
def test_file_that_the_host_named_is_the_hosts_wherever_it_is(tmp_path, origin):
    (tmp_path / "ca.pem").write_bytes(b"certificates")
    given = Given(str(tmp_path / "ca.pem"), "word", origin)
    _, (found, _, _) = options(ca_file=given).measured().origins
    assert found is origin
