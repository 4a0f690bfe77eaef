# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from imagers.cli.brokers import BrokerOptions, Given
from imagers.errors import FormatError, KeyRefused, LocalError, NoTEE, PluginNotFound, UsageError

URI = "kbs:///a/b/c"


def options(url=None, by="--broker", ca_file=None, admin_key=None, **more):
    return BrokerOptions(
        None if url is None else Given(url, by),
        ca_file,
        **{"insecure_http": False, **more},
        admin_key=None if admin_key is None else Given(admin_key, "--broker-admin-key"),
    )


def test_require_url_without_one_refused():
    with pytest.raises(UsageError, match="no broker is named") as caught:
        options().require_url()
    assert "--broker" in caught.value.hint
    assert "IMAGERS_BROKER" in caught.value.hint


def test_guest_without_a_tee_is_refused_when_a_key_is_asked_for():
    with options("http://127.0.0.1:1").guest(None) as guest:
        with pytest.raises(NoTEE, match=r"no TEE .*sgx: /dev/attestation") as caught:
            guest.get(URI, manifest_digest=None)
        assert "--tee sample" in caught.value.hint


def test_guest_of_an_unknown_tee_is_refused_at_once():
    with pytest.raises(PluginNotFound, match="nosuch"):
        options("http://127.0.0.1:1").guest("nosuch")


def test_guest_of_nobody_is_none_and_has_no_tee():
    assert options().guest(None) is None
    with pytest.raises(UsageError, match="--tee is for a broker"):
        options().guest("sample")


def test_guest_of_a_variable_that_is_no_url_is_refused_when_a_key_is_asked_for():
    with pytest.raises(UsageError, match="--broker: expected a URL"):
        options("h.example").guest(None)
    with (
        options("h.example", by="IMAGERS_BROKER").guest(None) as guest,
        pytest.raises(UsageError, match="IMAGERS_BROKER: expected a URL") as caught,
    ):
        guest.get(URI, manifest_digest=None)
    assert caught.value.hint == "write IMAGERS_BROKER=https://h.example"


@pytest.mark.parametrize("by", ["--broker", "IMAGERS_BROKER"])
@pytest.mark.parametrize(
    ("url", "kind", "told"),
    [
        ("localhost:8447", UsageError, "expected a URL with http:// or https://, got 'localhost"),
        ("ftp://h.example", FormatError, "expected http or https"),
        ("http://h.example", UsageError, "plain http to the broker at h.example:80"),
    ],
)
def test_require_url_names_what_the_url_was_given_by(by, url, kind, told):
    with pytest.raises(kind, match=f"^{by}: ") as caught:
        options(url, by=by).require_url()
    assert told in str(caught.value)


def test_ca_that_is_none_is_told_with_what_it_was_given_by(tmp_path):
    (tmp_path / "ca").write_text("none")
    for path, kind in ((tmp_path / "ca", FormatError), (tmp_path / "nowhere", LocalError)):
        for by in ("--broker-ca", "IMAGERS_BROKER_CA"):
            one = options("https://127.0.0.1:1", ca_file=Given(str(path), by))
            with (
                one.guest("sample") as guest,
                pytest.raises(kind, match=f"^{by}: "),
            ):
                guest.get(URI, manifest_digest=None)


@pytest.fixture
def broker_key(imagers_broker, monkeypatch):
    """The variables of a broker that has one secret."""
    imagers_broker.put(URI, b"secret")
    monkeypatch.setenv("IMAGERS_BROKER", imagers_broker.url)
    monkeypatch.setenv("IMAGERS_BROKER_ADMIN_KEY", str(imagers_broker.admin_key_file))
    return str(imagers_broker.admin_key_file)


def test_variables_name_the_broker_and_its_key(run, broker_key):
    assert run("broker", "list").out == f"{URI}\n"
    del os.environ["IMAGERS_BROKER_ADMIN_KEY"]
    assert run("broker", "list").code == 13
    assert run("broker", "list", "--broker-admin-key", broker_key).out == f"{URI}\n"


def test_option_wins_over_its_variable(run, broker_key, monkeypatch):
    assert broker_key
    outcome = run("broker", "list", "--broker", "http://127.0.0.1:1")
    assert (outcome.code, outcome.out) == (10, "")
    assert "127.0.0.1:1: connection refused" in outcome.err
    monkeypatch.setenv("IMAGERS_BROKER", "http://127.0.0.1:1")
    assert run("broker", "list").code == 10


@pytest.mark.parametrize("variable", ["IMAGERS_BROKER", "IMAGERS_BROKER_ADMIN_KEY"])
def test_error_about_a_variable_names_it(run, broker_key, monkeypatch, variable):
    assert broker_key
    monkeypatch.setenv(variable, "nowhere")
    outcome = run("broker", "list")
    assert outcome.code in (2, 13)
    assert outcome.err.startswith(f"imagers: error: {variable}: ")


@pytest.mark.usefixtures("broker_key")
def test_empty_variable_is_none(run, plain, accept, monkeypatch):
    monkeypatch.setenv("IMAGERS_BROKER", "")
    words = ("--encryption-key", f"broker:{URI}", "--policy", accept)
    outcome = run("encrypt", plain, "oci:b", *words)
    assert outcome.code == 2
    assert "no broker is named" in outcome.err


def test_variable_does_not_disturb_what_needs_no_broker(run, plain, sealed, keys, accept):
    for value in ("http://127.0.0.1:1", "no URL at all"):
        os.environ["IMAGERS_BROKER"] = value
        try:
            here = f"bundle{len(value)}"
            assert run("pull", plain, here, "--policy", accept).code == 0
            words = ("--decryption-key", f"{keys}/r2048.key", "--policy", accept)
            assert run("pull", sealed, f"{here}s", *words).code == 0
            words = ("--encryption-key", f"jwe:{keys}/r2048.pub", "--policy", accept)
            assert run("encrypt", plain, f"oci:{here}e", *words).code == 0
        finally:
            del os.environ["IMAGERS_BROKER"]


@pytest.mark.usefixtures("home")
def test_admin_takes_the_key_of_this_users_broker():
    with pytest.raises(LocalError, match=r"/home/\.local/state/imagers/broker/admin\.key"):
        options("http://127.0.0.1:1").admin()


def test_admin_and_client_reach_a_broker(imagers_broker):
    key = str(imagers_broker.admin_key_file)
    imagers_broker.put("kbs:///a/b/c", b"secret")
    with options(imagers_broker.url, admin_key=key).admin() as admin:
        assert admin.list_resources() == ("kbs:///a/b/c",)
    with (
        options(imagers_broker.url).guest("sample") as guest,
        pytest.raises(KeyRefused),  # it is bound to no image
    ):
        guest.get(URI, manifest_digest=None)


def test_http_to_another_machine_needs_its_flag():
    with (
        pytest.raises(UsageError, match="http"),
        options("http://192.0.2.1", by="IMAGERS_BROKER").guest("sample") as one,
    ):
        one.get("kbs:///a/b/c", manifest_digest=None)


@pytest.mark.parametrize("url", ["http://192.0.2.1:8080", "http://broker.example.org"])
def test_require_url_plain_http_to_another_machine_is_refused(url):
    with pytest.raises(UsageError, match="plain http") as caught:
        options(url).require_url()
    assert "--insecure-broker-http" in caught.value.hint
    assert options(url, insecure_http=True).require_url() == url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost:1", "https://a.example"]
)
def test_require_url_loopback_and_https_are_taken(url):
    assert options(url).require_url() == url
