# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.broker.refusals import STATUS, Refusal, error_body, refusal_of
from imagers.errors import (
    EvidenceRejected,
    FormatError,
    LocalError,
    TagMismatch,
    Unsupported,
)


def test_error_body_has_both_members_that_the_rust_clients_want():
    body = json.loads(error_body(Refusal("PolicyDeny", "rule 'x'")))
    assert body == {
        "type": "https://github.com/confidential-containers/kbs/errors/PolicyDeny",
        "detail": "rule 'x'",
    }


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("SessionNotFound", 401),
        ("PolicyDeny", 403),
        ("ResourceNotFound", 404),
        ("ResourceExists", 409),
    ],
)
def test_refusal_status_is_of_the_table(name, status):
    assert Refusal(name, "").status == STATUS[name] == status


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (FormatError("x"), "SerdeError"),
        (Unsupported("x"), "SerdeError"),
        (EvidenceRejected("x"), "AttestationError"),
    ],
)
def test_refusal_of_a_peers_fault(error, name):
    refusal = refusal_of(error)
    assert refusal is not None
    assert refusal.name == name


@pytest.mark.parametrize("error", [LocalError("x", path="/secret/place"), TagMismatch()])
def test_refusal_of_our_own_fault_is_none(error):
    assert refusal_of(error) is None
