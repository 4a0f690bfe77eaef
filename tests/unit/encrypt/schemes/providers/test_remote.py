# SPDX-License-Identifier: Apache-2.0
import contextlib
import subprocess
import sys
import threading
import time

import grpc
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from imagers.encrypt.schemes.providers.config import GRPCProvider, TLSFiles
from imagers.encrypt.schemes.providers.messages import build_unwrap_question
from imagers.encrypt.schemes.providers.remote import ask_service, decode_message, encode_message
from imagers.errors import Cancelled, FormatError, LocalError, ProviderFailed, TimedOut
from imagers.waiting import Cancellation


@given(st.binary(max_size=70_000))
def test_message_decodes_to_what_was_encoded(data):
    assert decode_message(encode_message(data)) == data


def test_message_is_the_encoding_of_protobuf():
    assert encode_message(b"") == b""
    assert encode_message(b"abc") == b"\x0a\x03abc"
    assert encode_message(bytes(300))[:3] == b"\x0a\xac\x02"


def test_decode_skips_unknown_fields_and_takes_the_last():
    more = b"\x10\x96\x01" + b"\x19" + bytes(8) + b"\x1d" + bytes(4) + b"\x22\x01x"
    assert decode_message(encode_message(b"old") + more + encode_message(b"new")) == b"new"


@pytest.mark.parametrize(
    "message", [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\xff" * 11, b"\x19\x00", b"\x0a\xff"]
)
def test_decode_of_other_bytes_raises(message):
    with pytest.raises(FormatError, match="protobuf message"):
        decode_message(message)


@given(st.binary(max_size=40))
def test_decode_of_any_bytes_gives_bytes_or_a_format_error(data):
    with contextlib.suppress(FormatError):
        assert len(decode_message(data)) <= len(data)


def ask(address, tls=None, timeout_s=20.0):
    question = build_unwrap_question("agent", "x", b"packet")
    return ask_service(
        GRPCProvider(address, tls), "UnWrapKey", question, timeout_s=timeout_s, what="provider"
    )


def test_ask_gives_the_answer_of_the_service(serve):
    service, address = serve()
    with ask(address) as answer, answer.view() as data:
        assert bytes(data).startswith(b'{"keyunwrapresults"')
    assert service.questions[0]["keyunwrapparams"]["dc"] == {"Parameters": {"agent": ["eA=="]}}


def test_ask_of_a_service_that_fails_raises_what_it_said(serve):
    service, address = serve()
    service.failure = (grpc.StatusCode.PERMISSION_DENIED, "not for you")
    with pytest.raises(ProviderFailed, match="permission denied: not for you"):
        ask(address)


def test_ask_of_a_service_that_hangs_ends_at_the_time_limit(serve):
    service, address = serve()
    service.release = threading.Event()
    try:
        with pytest.raises(ProviderFailed, match=r"no answer within 0\.3 s"):
            ask(address, timeout_s=0.3)
    finally:
        service.release.set()


@pytest.mark.parametrize("seconds", [0.3, None])
def test_ask_of_a_service_that_hangs_ends_with_what_is_in_force(serve, seconds):
    service, address = serve()
    service.release = threading.Event()
    stop = Cancellation(seconds=seconds, phase="keys")
    timer = threading.Timer(0.3, stop.cancel)
    if seconds is None:
        timer.start()
    start = time.monotonic()
    try:
        with pytest.raises(Cancelled) as caught, stop.in_force():
            ask(address, timeout_s=50)
    finally:
        service.release.set()
        timer.cancel()
    assert time.monotonic() - start < 25
    assert isinstance(caught.value, TimedOut) is (seconds is not None)


WITHOUT_GRPC = """
import sys
sys.modules["grpc"] = None  # importing it fails
from imagers.encrypt.schemes.providers.config import GRPCProvider
from imagers.encrypt.schemes.providers.messages import build_unwrap_question
from imagers.encrypt.schemes.providers.remote import ask_service
from imagers.errors import PluginNotFound
question = build_unwrap_question("agent", "x", b"packet")
try:
    ask_service(GRPCProvider("127.0.0.1:1", None), "UnWrapKey", question, timeout_s=5, what="p")
except PluginNotFound as error:
    print(error.name, error, error.hint, sep="\\n")
"""


def test_ask_without_grpc_names_the_extra_that_has_it():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GRPC],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    name, message, hint = done.stdout.splitlines()
    assert name == "grpc"
    assert message == "plugin 'grpc': key providers on gRPC need it, and it is not installed"
    assert hint == "in the clone of imagers: pip install '.[grpc]'"


def test_ask_of_no_service_raises():
    with pytest.raises(ProviderFailed, match=r"gRPC at '127\.0\.0\.1:1'"):
        ask("127.0.0.1:1", timeout_s=5)


@pytest.fixture
def authority(tmp_path):
    """Certificates: of the service, of a client, and the files that name them."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca"))
    client = ca.issue_cert("client@example.org")
    client.private_key_pem.write_to_path(str(tmp_path / "key"))
    with open(tmp_path / "cert", "wb") as file:
        file.writelines(blob.bytes() for blob in client.cert_chain_pems)
    server = ca.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in server.cert_chain_pems)
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), chain)], ca.cert_pem.bytes(), require_client_auth=True
    )
    return credentials, {name: str(tmp_path / name) for name in ("ca", "cert", "key")}


def test_ask_over_tls_with_certificates_of_both_sides(serve, authority):
    credentials, files = authority
    _, address = serve(credentials)
    tls = TLSFiles(files["ca"], files["cert"], files["key"])
    with ask(address, tls) as answer:
        assert len(answer)
    with ask(address, TLSFiles(files["ca"], files["cert"], files["key"], "localhost")) as answer:
        assert len(answer)


@pytest.mark.parametrize(
    "fault", ["another authority", "no certificate of ours", "another name", "plain text"]
)
def test_ask_over_tls_of_somebody_else_raises(serve, authority, fault, tmp_path):
    credentials, files = authority
    _, address = serve(credentials)
    tls = TLSFiles(files["ca"], files["cert"], files["key"])
    if fault == "another authority":
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "other"))
        tls = TLSFiles(str(tmp_path / "other"), files["cert"], files["key"])
    elif fault == "no certificate of ours":
        tls = TLSFiles(files["ca"])
    elif fault == "another name":
        tls = TLSFiles(files["ca"], files["cert"], files["key"], "example.org")
    else:
        tls = None
    with pytest.raises(ProviderFailed, match="gRPC at"):
        ask(address, tls, timeout_s=5)


def test_ask_with_a_certificate_file_that_is_missing_raises(tmp_path):
    with pytest.raises(LocalError, match="none: cannot be read"):
        ask("127.0.0.1:1", TLSFiles(str(tmp_path / "none")))
