# SPDX-License-Identifier: Apache-2.0
import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagers.cli.verbs.broker_serve import _Log, _parse_listen, _say_json, command
from imagers.errors import UsageError
from imagers.settings import read_settings

DOCS = Path(__file__).resolve().parents[4] / "docs"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_parse_listen(text, expected):
    assert _parse_listen(text) == expected


@pytest.mark.parametrize("text", ["8080", ":8080", "host:", "host:x", "host:65536", "host:-1"])
def test_parse_listen_refused(text):
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        _parse_listen(text)


def test_serve_beyond_loopback_needs_a_certificate(run):
    outcome = run("broker", "serve", "--listen", "0.0.0.0:0", "--state", "state")
    assert outcome.code == 2
    assert "certificate" in outcome.err


def test_serve_makes_the_directory_into_which_collateral_is_fetched_later(run):
    words = ("broker", "serve", "--state", "state", "--appraisal-policy", "none.json")
    assert run(*words).code == 13
    assert not read_settings().collateral.exists()
    assert run(*words, "--tee", "snp").code == 13
    assert read_settings().collateral.is_dir()


def test_serve_with_half_a_certificate_refused(run):
    outcome = run("broker", "serve", "--certificate", "file", "--state", "state")
    assert outcome.code == 2


def test_tees_of_a_broker_are_named_one_by_one(run):
    outcome = run("broker", "serve", "--tee", "snp,nvidia", "--state", "state")
    assert outcome.code == 2
    assert outcome.err == (
        "imagers: error: --tee: expected one name, got 'snp,nvidia'\n"
        "imagers: hint: write --tee snp --tee nvidia\n"
    )
    assert not Path("state").exists()


def test_issuer_of_a_broker_that_can_be_none_refused(run):
    outcome = run("broker", "serve", "--issuer", "http://broker.example", "--state", "state")
    assert outcome.code == 2
    assert "issuer: expected an https URL" in outcome.err
    assert "--issuer https://broker.example" in outcome.err


def test_passport_issuers_that_cannot_be_read_refused(run, tmp_path):
    words = ("broker", "serve", "--state", "state", "--passport-issuers")
    outcome = run(*words, str(tmp_path / "none.json"))
    assert outcome.code == 13
    assert "the passport issuers cannot be read" in outcome.err
    table = tmp_path / "table.json"
    table.write_text('{"issuers": [{"issuer": "a", "tees": ["snp"]}]}')
    outcome = run(*words, str(table))
    assert outcome.code == 11
    assert "$.issuers[0]: expected 'keys' or 'roots'" in outcome.err
    table.write_text('{"issuers": [{"issuer": "a", "keys": ["k"], "tees": ["sample"]}]}')
    assert run(*words, str(table)).code == 13


def test_option_on_the_command_line_wins(run):
    Path("broker.toml").write_text('listen = "8080"\n')
    outcome = run("broker", "serve", "--config", "broker.toml", "--listen", "0.0.0.0:0")
    assert "expected a certificate to listen on '0.0.0.0'" in outcome.err


def test_every_key_is_on_the_page():
    keys = {one.opts[0] for one in command.params if one.expose_value and not one.hidden}
    page = (DOCS / "broker.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (?:text|list|boolean) ", page, re.MULTILINE)
    assert {f"--{row}" for row in rows} == keys


def test_lines_as_json_are_one_document_each_and_have_no_traceback(capsys):
    log = logging.Logger("x")  # noqa: LOG001 - of this test alone
    log.addHandler(_Log(_say_json))
    try:
        int("secret")
    except ValueError:
        log.exception("a fault\nof %s", "two lines")
    log.info("nothing")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    told = json.loads(lines[0])
    assert (told["level"], told["message"]) == ("error", "a fault\nof two lines")
    assert told["time"].endswith("+00:00")


def test_serve_with_json_logs_says_nothing_else(tmp_path):
    words = ["broker", "serve", "--allow-sample-tee", "--listen", "127.0.0.1:0"]
    words += ["--state", "state", "--log-format", "json", "--url-file", "/dev/stdout"]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "imagers", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
    ) as process:
        try:
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert {line["level"] for line in lines} == {"info", "warning"}
    assert any("the broker listens on" in line["message"] for line in lines)
