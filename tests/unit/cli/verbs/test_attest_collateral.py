# SPDX-License-Identifier: Apache-2.0
"""The command as people ask it; what it does is tested in tests/unit/evidence."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from imagers.model.strict_json import dump_json
from imagers.testing.evidence import Fault, TPMWorld
from tests.unit.evidence.collateral.test_fetch import KDS_CRL, make_source

__all__ = ["make_source"]

CRL = "snp/Genoa/vcek.crl"
ROOTS = ("--insecure-test-root", "roots.pem")


@pytest.fixture
def words(snp_words):
    """Those that every word takes; the files are in the working directory."""
    assert snp_words
    return (*ROOTS, "--into", "c")


def young(world):
    return world.crl(begin=datetime.now(UTC))


def test_fetch_gets_all_and_show_lists_it(run, words, snp_world, make_source):
    source = make_source(KDS_CRL, young(snp_world))
    chip = snp_world.chip_id.hex()
    source.give(f"/vcek/v1/Genoa/{chip}", snp_world.leaf())
    fetch = ("attest", "collateral", "fetch", "report.bin", "--tee", "snp", *words)
    outcome = run(*fetch, "--source", source.url, "-v")
    assert outcome.code == 0, outcome.err
    first, second = outcome.out.splitlines()[1:]
    assert first.startswith(f"{CRL} ")
    assert first.endswith("new")
    assert ".vcek" in second
    assert chip[:16] not in outcome.out + outcome.err
    shown = run("attest", "collateral", "show", *words).out.splitlines()
    assert [line.split()[0] for line in shown[1:]] == sorted([CRL, second.split()[0]])
    verify = ("attest", "verify", "report.bin", "--collateral", "c", *ROOTS)
    outcome = run(*verify)
    assert outcome.code == 0, outcome.err


def test_fetch_for_evidence_that_needs_nothing_says_so(run):
    Path("evidence.json").write_bytes(dump_json(TPMWorld(b"t" * 32).evidence()))
    outcome = run("attest", "collateral", "fetch", "evidence.json", "--into", "c")
    assert outcome.code == 0, outcome.err
    assert outcome.err == "imagers: this evidence of the TEE tpm needs no document\n"
    assert outcome.out.splitlines()[1:] == []


def test_fetch_where_one_is_missing_ends_with_why(run, words, make_source):
    source = make_source(KDS_CRL, Fault(status=404))
    outcome = run(
        "attest",
        "collateral",
        "fetch",
        "evidence.json",
        "--tee",
        "snp",
        *words,
        "--source",
        source.url,
    )
    assert outcome.code == 10
    assert "404 not found" in outcome.err
    assert "missing" in outcome.out


def test_fetch_where_all_are_expired_could_not_look(run, words, snp_world, make_source):
    source = make_source(KDS_CRL, snp_world.crl(begin=datetime.now(UTC) - timedelta(days=90)))
    options = (*words, "--source", source.url, "--json")
    outcome = run("attest", "collateral", "fetch", "evidence.json", "--tee", "snp", *options)
    assert outcome.code == 22
    assert "got expired ones: snp/Genoa/vcek.crl" in outcome.err
    (document,) = outcome.json()["documents"]
    assert (document["state"], document["expired"]) == ("new", True)
    assert "expired" in run("attest", "collateral", "show", *words).out


def test_plain_http_is_for_this_machine_and_for_azures(run, words):
    fetch = ("attest", "collateral", "fetch", "report.bin", "--tee", "snp", *words)
    outcome = run(*fetch, "--source", "http://kds.example.org")
    assert outcome.code == 2
    assert "everybody on the way would learn which chip" in outcome.err
    assert "--insecure-source-http" in outcome.err
    assert run(*fetch, "--source", "ftp://x").code == 11


def test_import_and_export_carry_what_is_there(run, words, snp_world):
    Path("crl").write_bytes(young(snp_world))
    outcome = run("attest", "collateral", "import", "crl", *words)
    assert outcome.code == 11
    assert "crl: " in outcome.err
    assert "--name" in outcome.err
    assert run("attest", "collateral", "import", "crl", "--name", CRL, *words).code == 0
    assert run("attest", "collateral", "import", "vcek.der", *words).code == 0
    outcome = run("attest", "collateral", "export", "all.tar", "--into", "c")
    assert outcome.code == 0, outcome.err
    assert run("attest", "collateral", "export", "all.tar", "--into", "c").code == 13
    facts = run("attest", "collateral", "import", "all.tar", *ROOTS, "--into", "d", "--json").json()
    assert [one["state"] for one in facts["documents"]] == ["new", "new"]
    assert Path("d", CRL).read_bytes() == Path("crl").read_bytes()


def test_import_of_what_another_signed_is_a_no_and_takes_the_rest(run, words, snp_world):
    Path("d/snp/Genoa").mkdir(parents=True)
    Path("d", CRL).write_bytes(young(snp_world))
    Path("d/snp/Genoa/vlek.crl").write_bytes(snp_world.crl(signer="other"))
    Path("d/notes.txt").write_text("mine")
    outcome = run("attest", "collateral", "import", "d", *words)
    assert outcome.code == 40
    assert "would believe them: snp/Genoa/vlek.crl\n" in outcome.err
    assert Path("c", CRL).is_file()


def test_import_with_a_name_is_for_one_file(run, words):
    outcome = run("attest", "collateral", "import", "a", "b", "--name", CRL, *words)
    assert outcome.code == 2
    assert "--name: expected one file, got 2" in outcome.err


def test_show_says_what_is_none(run, words, snp_world):
    Path("c/snp/Genoa").mkdir(parents=True)
    Path("c", CRL).write_bytes(snp_world.crl(signer="other"))
    outcome = run("attest", "collateral", "show", *words)
    assert outcome.code == 0
    assert "no good document" in outcome.out
    assert "not signed by the ARK" in outcome.err


def test_directory_is_that_of_the_user_where_none_is_named(run, words, home):
    assert words
    assert run("attest", "collateral", "import", "vcek.der", *ROOTS).code == 0
    assert (home / ".local/state/imagers/collateral/snp/Genoa").is_dir()
