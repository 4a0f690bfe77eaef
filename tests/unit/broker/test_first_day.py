# SPDX-License-Identifier: Apache-2.0
import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from imagers.broker.first_day import make_first_day
from imagers.broker.server import BrokerConfig, running
from imagers.errors import LocalError, UsageError
from imagers.kbs.admin import BrokerAdmin
from imagers.net.http import HTTPSettings

NOW = datetime.now(UTC)


def pem(path):
    (found,) = x509.load_pem_x509_certificates(path.read_bytes())
    return found


def test_certificate_is_of_the_ca_by_the_rules_of_browsers_and_for_each_name(tmp_path):
    made = make_first_day(tmp_path / "broker", ["broker.example.org", "10.1.2.3"], now=NOW)
    builder = PolicyBuilder().store(Store([pem(made.ca)])).time(NOW + timedelta(days=364))
    for name in (x509.DNSName("broker.example.org"), x509.DNSName("localhost")):
        builder.build_server_verifier(name).verify(pem(made.certificate), [])
    wrong = builder.build_server_verifier(x509.DNSName("other.example.org"))
    with pytest.raises(x509.verification.VerificationError):
        wrong.verify(pem(made.certificate), [])
    names = pem(made.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    addresses = names.value.get_values_for_type(x509.IPAddress)
    assert [str(one) for one in addresses] == ["10.1.2.3", "127.0.0.1", "::1"]


def test_a_broker_runs_with_it_and_an_admin_trusts_it(tmp_path):
    made = make_first_day(tmp_path / "broker", [], now=NOW)
    config = BrokerConfig(
        state_directory=tmp_path / "state",
        port=0,
        certificate_file=made.certificate,
        certificate_key_file=made.key,
    )
    with running(config) as broker:
        http = HTTPSettings(ca_file=made.ca)
        with BrokerAdmin(broker.url, key_file=broker.admin_key_file, http=http) as admin:
            assert admin.list_resources() == ()


def test_keys_are_for_their_owner_and_the_key_of_the_ca_is_nowhere(tmp_path):
    made = make_first_day(tmp_path / "broker", [], now=NOW)
    directory = tmp_path / "broker"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    written = sorted(one.name for one in directory.iterdir())
    assert written == ["broker.toml", "ca.pem", "server.key", "server.pem"]
    with pytest.raises(ssl.SSLError):  # of the certificate it is not
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.ca, made.key)


def test_two_first_days_have_nothing_in_common(tmp_path):
    one = make_first_day(tmp_path / "one", [], now=NOW)
    two = make_first_day(tmp_path / "two", [], now=NOW)
    store = PolicyBuilder().store(Store([pem(one.ca)])).time(NOW)
    with pytest.raises(x509.verification.VerificationError):
        store.build_server_verifier(x509.DNSName("localhost")).verify(pem(two.certificate), [])


@pytest.mark.parametrize("kind", ["a file in it", "a file", "a link"])
def test_a_place_that_has_something_is_left_as_it_is(tmp_path, kind):
    place = tmp_path / "broker"
    if kind == "a file in it":
        place.mkdir()
        (place / "ca.pem").write_text("old")
    elif kind == "a file":
        place.write_text("old")
    else:
        place.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LocalError) as caught:
        make_first_day(place, [], now=NOW)
    assert caught.value.path == str(place)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / "broker").mkdir()
    assert make_first_day(tmp_path / "broker", [], now=NOW).config.is_file()


@pytest.mark.parametrize(
    "name", ["", "*.example.org", "https://broker", "broker:8443", "a..b", "-a", "x" * 64]
)
def test_a_name_that_is_none_makes_nothing(tmp_path, name):
    with pytest.raises(UsageError, match="--name: expected a host"):
        make_first_day(tmp_path / "broker", [name], now=NOW)
    assert list(tmp_path.iterdir()) == []
