# SPDX-License-Identifier: Apache-2.0
"""Gramine's files, by a directory that has them."""

import threading
from base64 import b64decode

import pytest

from imagers.errors import LocalError, NoTEE
from imagers.evidence.sgx.collect import SGXAttester
from imagers.model.evidence import ReportData


@pytest.fixture
def gramine(tmp_path):
    (tmp_path / "attestation_type").write_text("dcap")
    (tmp_path / "user_report_data").write_bytes(b"")
    (tmp_path / "quote").write_bytes(b"quote")
    return tmp_path


def test_quote_is_read_after_the_report_data_is_written(gramine):
    """As Gramine does: the quote is made when it is read."""
    import os

    (gramine / "quote").unlink()
    os.mkfifo(gramine / "quote")

    def make():
        with open(gramine / "quote", "wb") as file:
            file.write(b"quote of " + (gramine / "user_report_data").read_bytes())

    thread = threading.Thread(target=make)
    thread.start()
    evidence = SGXAttester(gramine).collect(ReportData(b"d" * 48))
    thread.join()
    assert b64decode(evidence.body["quote"]) == b"quote of " + b"d" * 48 + bytes(16)
    assert evidence.tee == "sgx"


def test_enclave_without_dcap_and_machine_without_gramine_say_so(gramine):
    (gramine / "attestation_type").write_text("none\n")
    with pytest.raises(NoTEE, match="attestation_type: expected 'dcap', got 'none'"):
        SGXAttester(gramine).collect(ReportData(b""))
    assert "no such file" in SGXAttester(gramine / "none").missing()


def test_quote_that_cannot_be_had_is_a_local_error(gramine):
    (gramine / "quote").unlink()
    assert SGXAttester(gramine).missing() == ""
    with pytest.raises(LocalError, match="no quote: no such file"):
        SGXAttester(gramine).collect(ReportData(b""))
