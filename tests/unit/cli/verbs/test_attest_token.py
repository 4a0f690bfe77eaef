# SPDX-License-Identifier: Apache-2.0
"""Results of other verifiers, as the command says what they are worth."""

import json

import pytest

from tests.unit.evidence.test_corim import pem
from tests.unit.evidence.test_ear import KEY, NOW, OTHER, part, token

AT = ("--at", NOW.isoformat())


@pytest.fixture
def ask(run, home):
    (home / "key.pem").write_bytes(pem(KEY))
    (home / "other.pem").write_bytes(pem(OTHER))

    def ask(text, *options):
        (home / "result.jwt").write_text(text + "\n")
        placed = [home / one if one.endswith((".pem", ".jwt")) else one for one in options]
        return run("attest", "token", home / "result.jwt", *AT, *placed)

    return ask


def test_result_of_a_known_verifier_is_told(ask):
    outcome = ask(token(), "--key", "other.pem", "--key", "key.pem", "--nonce", "6e" * 32)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == [
        "genuine, by https://example.org 1, valid to 2026-11-29T12:05:00Z",
        "cpu0: affirming: executables 3, hardware 2, file-system 0",
    ]
    told = json.loads(ask(token(), "--key", "key.pem", "--json").out)
    assert told["status"] == "affirming"
    assert [(one["name"], one["policy"]) for one in told["submods"]] == [("cpu0", "default")]


def test_result_that_is_not_affirming_is_a_no(ask):
    outcome = ask(token(KEY, submods={"cpu0": part("warning", hardware=32)}), "--key", "key.pem")
    assert outcome.code == 40
    assert "cpu0: warning: hardware 32" in outcome.out
    assert "the result is genuine, and not affirming: warning" in outcome.err


@pytest.mark.parametrize(
    ("text", "options", "code", "piece"),
    [
        (token(), (), 2, "expected --key or --ca"),
        (token(), ("--key", "other.pem"), 40, "step 3, signature"),
        (token(), ("--key", "key.pem", "--issuer", "x"), 40, "step 5, for us: issuer"),
        (token(), ("--key", "key.pem", "--audience", "x"), 40, "step 5, for us: audience"),
        (token(), ("--key", "key.pem", "--nonce", "00"), 40, "step 6, nonce"),
        ("none", ("--key", "key.pem"), 11, "attestation result: expected a JWT"),
        ("\u00e4", ("--key", "key.pem"), 11, "expected a JWT"),
        (
            token(),
            ("--key", "result.jwt"),
            11,
            "result.jwt: expected a public key in PEM",
        ),
        (token(), ("--ca", "key.pem"), 11, "CERTIFICATE"),
    ],
    ids=range(9),
)
def test_what_is_wrong_is_told(ask, text, options, code, piece):
    outcome = ask(text, *options)
    assert outcome.code == code
    assert piece in outcome.err
