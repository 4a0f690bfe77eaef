# SPDX-License-Identifier: Apache-2.0
import ssl

import pytest

from imagers.errors import EvidenceRejected, FormatError, LocalError, RemoteError, UsageError
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.proxies import Proxies, parse_proxy
from imagers.net.tls import new_checked_context, new_tls_context


def test_new_tls_context_by_default_verifies_with_the_systems_roots():
    context = new_tls_context(None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_new_tls_context_pinned_file_is_all_that_is_trusted(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    context = new_tls_context(path)
    assert len(context.get_ca_certs()) == 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_new_tls_context_takes_certificates_from_memory(authority):
    pem = authority.cert_pem.bytes().decode()
    pinned = new_tls_context(None, ca_pem=pem)
    assert len(pinned.get_ca_certs()) == 1
    assert pinned.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    beside = new_tls_context(None, more_cas=[pem])
    assert len(beside.get_ca_certs()) == len(new_tls_context(None).get_ca_certs()) + 1
    for wrong in ("", "none", "\u00e9"):
        for given in ({"ca_pem": wrong}, {"more_cas": [wrong]}):
            with pytest.raises(FormatError, match="'in the configuration': expected certificates"):
                new_tls_context(None, **given)


def test_new_tls_context_unverified_only_by_its_ugly_name():
    context = new_tls_context(None, insecure_skip_verify=True)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_new_tls_context_missing_file_is_a_local_error(tmp_path):
    path = tmp_path / "none.pem"
    with pytest.raises(LocalError, match="no such file") as caught:
        new_tls_context(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("text", ["", "hello"])
def test_new_tls_context_file_without_certificates_is_a_format_error(tmp_path, text):
    path = tmp_path / "ca.pem"
    path.write_text(text)
    with pytest.raises(FormatError, match="PEM"):
        new_tls_context(path)


def test_client_with_a_bad_ca_file_says_so_at_the_first_use(tmp_path):
    with (
        HTTPClient(HTTPSettings(ca_file=tmp_path / "none.pem")) as client,
        pytest.raises(LocalError),
    ):
        client.request("GET", "https://127.0.0.1:1/")


def no(_certificate):
    raise EvidenceRejected("step 5, ours: no")


def test_peer_check_decides_alone_on_the_certificate(tls_peer, say):
    """Neither a CA nor a name is needed, and each new connection is checked."""
    seen = []
    tls_peer.answers = [(say(body=b"one"), "close"), say(body=b"two")]
    with HTTPClient(HTTPSettings(peer_check=seen.append)) as client:
        bodies = [client.request("GET", f"{tls_peer.url}/").body for _ in range(3)]
    assert bodies == [b"one", b"two", b"two"]
    assert len(seen) == tls_peer.connections == 2
    assert seen[0] == seen[1]
    assert seen[0][:1] == b"0"  # DER


def test_not_a_byte_is_sent_to_a_peer_that_the_check_refuses(tls_peer, say):
    tls_peer.answers = [say()]
    with (
        HTTPClient(HTTPSettings(peer_check=no)) as client,
        pytest.raises(EvidenceRejected, match="step 5, ours"),
    ):
        client.request("POST", f"{tls_peer.url}/", body=b"secret")
    for thread in tls_peer._threads[1:]:
        thread.join()  # it has seen the end of the connection
    assert (tls_peer.connections, tls_peer.seen) == (1, [])


def test_peer_check_speaks_no_plain_http_not_even_to_this_machine(peer):
    with (
        HTTPClient(HTTPSettings(peer_check=no, insecure_http=True)) as client,
        pytest.raises(UsageError, match="needs https"),
    ):
        client.request("GET", f"{peer.url}/")
    assert peer.connections == 0


def test_peer_check_follows_a_redirect_only_to_https(tls_peer, peer, say):
    tls_peer.answers = [say("302 Found", headers=[f"Location: {peer.url}/"])]
    with (
        HTTPClient(HTTPSettings(peer_check=lambda _: None)) as client,
        pytest.raises(RemoteError, match="redirects from https to plain http"),
    ):
        client.request("GET", f"{tls_peer.url}/")
    assert peer.connections == 0


def test_peer_check_goes_through_no_proxy():
    proxies = Proxies(https=parse_proxy("http://127.0.0.1:1", what="https_proxy"))
    with pytest.raises(UsageError, match="without a proxy"):
        HTTPClient(HTTPSettings(peer_check=no, proxies=proxies))


def test_context_for_a_check_wants_the_newest_tls():
    assert new_checked_context().minimum_version is ssl.TLSVersion.TLSv1_3
