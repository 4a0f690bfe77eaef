# SPDX-License-Identifier: Apache-2.0
"""A broker that the host may have named is not asked, and none before settings are measured."""

import pytest

from imagers.cli.brokers import BrokerOptions, Given
from imagers.cli.measuring import Measuring, OwnInitData, settle
from imagers.errors import LocalError, PolicyDenied
from imagers.evidence.init_data import make_init_data, parse_init_data
from imagers.model.digest import digest_of
from imagers.model.origin import Origin
from imagers.pull.measured_settings import INIT_DATA_KEY, MeasuredSettings


def options(url="https://h.example/", by="--broker", origin=Origin.CALLER, **more):
    return BrokerOptions(
        Given(url, by, origin), **{"ca_file": None, "insecure_http": False, **more}
    )


KERNEL = options(by="agent.aa_kbc_params", origin=Origin.KERNEL)


MEASURING = Measuring(None, None, unmeasured=False, only_print=False)


def test_broker_of_the_caller_is_asked():
    MEASURING.check_broker(options(), is_vouched_for=False)


def test_broker_of_the_kernels_command_line_is_not_asked():
    with pytest.raises(PolicyDenied, match=r"address comes from the kernel's command line"):
        MEASURING.check_broker(KERNEL, is_vouched_for=False)


def test_broker_that_init_data_vouches_for_is_asked():
    MEASURING.check_broker(KERNEL, is_vouched_for=True)


def test_measuring_does_not_vouch_for_a_broker():
    """The host's broker would look at no measurement."""
    measuring = Measuring("tpm:14", None, unmeasured=False, only_print=False)
    with pytest.raises(PolicyDenied):
        measuring.check_broker(KERNEL, is_vouched_for=False)


def test_broker_of_anybody_is_asked_where_the_user_says_so_and_told_each_time(capsys):
    measuring = Measuring(None, None, unmeasured=True, only_print=False)
    for _ in range(2):
        measuring.check_broker(KERNEL, is_vouched_for=False)
        assert "imagers: warning: the broker's address comes from" in capsys.readouterr().err


def test_it_is_looked_at_before_a_broker_is_asked():
    def check():
        MEASURING.check_broker(KERNEL, is_vouched_for=False)

    resources = options("http://127.0.0.1:1").guest("sample", before=check)
    with resources, pytest.raises(PolicyDenied):
        resources.get("kbs:///a/b/c", manifest_digest=None)


class Noted:
    """A `Measure` that notes."""

    def __init__(self):
        self.events = []

    def record(self, operation, content):
        self.events.append((operation, content))


SETTINGS = MeasuredSettings(None, "kbs:///default/policy/1")


def init_data(**texts):
    text = make_init_data(texts)
    return OwnInitData(text.decode(), parse_init_data(text))


def test_settings_are_measured_after_they_were_compared():
    noted = Noted()
    settle(SETTINGS, init_data(**{INIT_DATA_KEY: SETTINGS.to_bytes().decode()}), noted)
    assert noted.events == [("Settings", {"digest": str(SETTINGS.digest)})]
    other = MeasuredSettings(None, "kbs:///default/policy/2").to_bytes().decode()
    for refused in (init_data(**{INIT_DATA_KEY: other}), init_data(other="text")):
        with pytest.raises(PolicyDenied, match="the init data of this machine has"):
            settle(SETTINGS, refused, noted)
    assert len(noted.events) == 1


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
    told = [(one.origin, one.is_read_again) for one in found.sources]
    assert told == [(Origin.CALLER, False), (Origin.FILE, True), (Origin.FILE, True)]
    with pytest.raises(LocalError, match="--broker-ca"):
        options(ca_file=Given(str(tmp_path / "none"), "--broker-ca")).measured()
    assert options("h.example", by="IMAGERS_BROKER").measured() is None
    assert options("https://me:secret@h.example").measured() is None


@pytest.mark.parametrize("origin", [Origin.KERNEL, Origin.SHARED_FILE])
def test_file_that_the_host_named_is_the_hosts_wherever_it_is(tmp_path, origin):
    (tmp_path / "ca.pem").write_bytes(b"certificates")
    given = Given(str(tmp_path / "ca.pem"), "word", origin)
    _, found = options(ca_file=given).measured().sources
    assert found.origin is origin


def test_certificates_of_a_configuration_are_those_that_are_used():
    given = Given("PEM", "kbs_cert of cdh.toml", Origin.SHARED_FILE)
    found = options(ca_pem=given).measured()
    assert found.ca == digest_of(b"PEM")
    assert found.sources[1] == (Origin.SHARED_FILE, "the CA of the broker", given.by, False)
