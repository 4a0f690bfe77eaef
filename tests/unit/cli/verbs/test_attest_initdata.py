# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest


@pytest.fixture
def document(run):
    Path("aa").write_text("a = 1\n")
    assert run("attest", "initdata", "make", "aa.toml=aa", "--output", "init.toml").code == 0
    return Path("init.toml").read_bytes()


def test_document_is_printed_where_no_file_is_named(run, document):
    assert run("attest", "initdata", "make", "aa.toml=aa").out.encode() == document


def test_digest_is_told_for_each_tee_and_for_one(run, document):
    assert document
    lines = run("attest", "initdata", "digest", "init.toml").out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["snp", "HOSTDATA"],
        ["tdx", "MRCONFIGID"],
        ["sgx", "CONFIGID"],
        ["cca", "RPV"],
        ["tpm", "PCR8"],
        ["az-snp-vtpm", "PCR8"],
        ["az-tdx-vtpm", "PCR8"],
    ]
    one = run("attest", "initdata", "digest", "init.toml", "--tee", "snp").out.strip()
    assert one == lines[1].split()[2]
    assert len(one) == 64


@pytest.mark.parametrize("form", ["{0}: {1}", '    {0}: "{1}"', "{1}"])
def test_annotation_is_read_back_as_it_stands_in_a_pod(run, document, form):
    line = run("attest", "initdata", "show", "init.toml", "--annotation").out.strip()
    Path("annotation").write_text(form.format(*line.split(": ")) + "\n")
    assert run("attest", "initdata", "show", "annotation", "--raw").out.encode() == document
    facts = run("attest", "initdata", "show", "annotation", "--json").json()
    assert facts["data"] == {"aa.toml": "a = 1\n"}


@pytest.mark.parametrize(
    ("words", "code", "piece"),
    [
        (("make", "aa"), 2, "expected NAME=FILE, got 'aa'"),
        (("make", "a=aa", "a=aa"), 2, "expected 'a' once"),
        (("make", "a=none"), 13, "none: no such file"),
        (("make", "a=binary"), 11, "binary: expected text"),
        (("show", "aa"), 11, "init data"),
        (("show", "init.toml", "--raw", "--annotation"), 2, "expected one of"),
        (("show", "half"), 11, "half: annotation: expected gzip"),
    ],
)
def test_what_is_none_is_refused(run, document, words, code, piece):
    assert document
    Path("binary").write_bytes(b"\xff")
    Path("half").write_text("H4sI%")
    outcome = run("attest", "initdata", *words)
    assert outcome.code == code
    assert piece in outcome.err
