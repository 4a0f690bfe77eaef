# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.cli.brokers import BrokerOptions
from imagers.errors import LocalError, NoTEE, PluginNotFound, UsageError


def options(url=None, **more):
    return BrokerOptions(url=url, ca_file=None, insecure_http=False, **more)


def test_require_url_without_one_refused():
    with pytest.raises(UsageError, match="no broker is named") as caught:
        options().require_url()
    assert "--broker" in caught.value.hint


def test_client_without_a_tee_refused():
    with pytest.raises(NoTEE, match="no TEE") as caught:
        options("http://127.0.0.1:1").client(None)
    assert "--tee sample" in caught.value.hint


def test_client_of_an_unknown_tee_refused():
    with pytest.raises(PluginNotFound, match="nosuch"):
        options("http://127.0.0.1:1").client("nosuch")


@pytest.mark.usefixtures("home")
def test_admin_takes_the_key_of_this_users_broker():
    with pytest.raises(LocalError, match=r"/home/\.local/state/imagers/broker/admin\.key"):
        options("http://127.0.0.1:1").admin()


def test_admin_and_client_reach_a_broker(imagers_broker):
    key = str(imagers_broker.admin_key_file)
    imagers_broker.put("kbs:///a/b/c", b"secret")
    with options(imagers_broker.url, admin_key=key).admin() as admin:
        assert admin.list_resources() == ("kbs:///a/b/c",)
    with options(imagers_broker.url).client("sample") as client:
        assert client is not None


def test_http_to_another_machine_needs_its_flag():
    with (
        pytest.raises(UsageError, match="http"),
        options("http://192.0.2.1").client("sample") as one,
    ):
        one.get("kbs:///a/b/c", manifest_digest=None)


@pytest.mark.parametrize("url", ["http://192.0.2.1:8080", "http://broker.example.org"])
def test_require_url_plain_http_to_another_machine_is_refused(url):
    with pytest.raises(UsageError, match="plain http") as caught:
        BrokerOptions(url, None, insecure_http=False).require_url()
    assert "--insecure-broker-http" in caught.value.hint
    assert BrokerOptions(url, None, insecure_http=True).require_url() == url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost:1", "https://a.example"]
)
def test_require_url_loopback_and_https_are_taken(url):
    assert BrokerOptions(url, None, insecure_http=False).require_url() == url
