# SPDX-License-Identifier: Apache-2.0
import ssl

import pytest

from imagers.errors import FormatError, LocalError
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.tls import new_tls_context


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
