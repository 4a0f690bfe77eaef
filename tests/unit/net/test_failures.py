# SPDX-License-Identifier: Apache-2.0
import errno
import http.client
import socket
import ssl

import pytest
import urllib3.exceptions as u3

from imagers.net.failures import NOT_TLS, remote_error
from imagers.net.urls import Origin

ORIGIN = Origin("https", "registry.example.org", 443)


def caused(error, cause):
    error.__cause__ = cause
    return error


def tls(kind, reason):
    error = kind(1, f"[SSL: {reason}] text")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "text", "temporary", "code"),
    [
        (
            caused(u3.ProtocolError("x"), socket.gaierror(socket.EAI_NONAME, "unknown")),
            "the host name was not found",
            False,
            "",
        ),
        (socket.gaierror(socket.EAI_AGAIN, "later"), "the host name was not found", True, ""),
        (
            u3.ProtocolError("aborted", ConnectionRefusedError(errno.ECONNREFUSED, "no")),
            "connection refused",
            True,
            "",
        ),
        (
            u3.ProtocolError("aborted", ConnectionResetError(errno.ECONNRESET, "no")),
            "the server closed the connection before the answer was complete",
            True,
            "",
        ),
        (OSError(errno.EHOSTUNREACH, "no"), "no route to host", True, ""),
        (u3.ProtocolError("aborted", TimeoutError("slow")), "no answer within 7 s", True, ""),
        (u3.ReadTimeoutError(None, None, "x"), "no answer within 7 s", True, ""),
        (
            u3.ProtocolError("aborted", http.client.RemoteDisconnected("x")),
            "the connection broke before the answer was complete",
            True,
            "",
        ),
        (
            u3.ProtocolError("x", http.client.BadStatusLine("y")),
            "the answer is not HTTP",
            False,
            "",
        ),
        (
            u3.SSLError(tls(ssl.SSLError, "WRONG_VERSION_NUMBER")),
            "does not speak TLS",
            False,
            NOT_TLS,
        ),
        (u3.SSLError(tls(ssl.SSLEOFError, "UNEXPECTED_EOF")), "does not speak TLS", False, NOT_TLS),
        (
            u3.SSLError(tls(ssl.SSLError, "TLSV1_ALERT_PROTOCOL_VERSION")),
            "TLS failed: tlsv1 alert protocol version",
            False,
            "",
        ),
    ],
)
def test_remote_error_says_who_and_what(error, text, temporary, code):
    found = remote_error(error, ORIGIN, timeout_s=7)
    assert str(found).startswith("registry.example.org:443: ")
    assert text in str(found)
    assert (found.temporary, found.code) == (temporary, code)
    assert found.hint
    assert "\n" not in str(found)


def test_hint_of_a_certificate_names_the_option_of_the_caller():
    error = ssl.SSLCertVerificationError(1, "no")
    error.verify_message = "unable to get local issuer certificate"
    plain = remote_error(error, "host:1", timeout_s=1)
    assert plain.hint == "name the CA of the server, or check that the host name is right"
    named = remote_error(error, "host:1", timeout_s=1, ca_option="--broker-ca FILE")
    assert "name the CA of the server with --broker-ca FILE, or" in named.hint


def test_hint_of_plain_http_names_the_option_of_the_caller():
    error = ssl.SSLEOFError(8, "eof")
    named = remote_error(error, "host:1", timeout_s=1, plain_option="--tls-verify=false")
    assert named.hint.endswith("that must be allowed by name: --tls-verify=false")
