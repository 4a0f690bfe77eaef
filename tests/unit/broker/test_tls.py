# SPDX-License-Identifier: Apache-2.0
import contextlib
import ssl

import pytest
import trustme

from imagers.broker.tls import ServerCertificate
from imagers.errors import LocalError


@pytest.fixture
def issue(tmp_path):
    """Writes certificate and key of a host, or one of them."""
    authority = trustme.CA()

    def write(host, *, certificate=True, key=True):
        issued = authority.issue_cert(host)
        if certificate:
            issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        if key:
            issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        return issued

    return write


@pytest.fixture
def shown(tmp_path, issue):
    issue("one.example")
    return ServerCertificate(tmp_path / "cert.pem", tmp_path / "key.pem")


def host_of(context):
    """Who the certificate of the next connection is for."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for one in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            one.do_handshake()
    return client.getpeercert(binary_form=True)


def test_renew_without_a_change_keeps_the_context(shown):
    before = shown.context
    assert not shown.renew()
    assert shown.context is before


def test_renew_after_a_change_shows_the_new_one(shown, issue):
    before, old = shown.context, host_of(shown.context)
    issue("two.example")
    assert shown.renew()
    assert host_of(shown.context) != old
    assert host_of(before) == old


def test_renew_when_asked_reads_what_looks_as_it_did(shown):
    before = shown.context
    assert shown.renew(always=True)
    assert shown.context is not before


def test_certificate_that_comes_before_its_key_is_shown_with_it(shown, issue, tmp_path):
    """And until then the old one, of which the same fault is told once."""
    before = shown.context
    issued = issue("two.example", key=False)
    with pytest.raises(LocalError, match="the key is not that of the certificate"):
        shown.renew()
    assert not shown.renew()
    assert shown.context is before
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    assert shown.renew()
    assert shown.context is not before


def test_file_that_is_gone_leaves_the_old_one(shown, tmp_path):
    before = shown.context
    (tmp_path / "key.pem").unlink()
    with pytest.raises(LocalError):
        shown.renew()
    assert shown.context is before


def test_certificate_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(LocalError, match="cannot be used") as caught:
        ServerCertificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert caught.value.path == str(tmp_path / "cert.pem")
