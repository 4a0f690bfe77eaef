# SPDX-License-Identifier: Apache-2.0
"""A fuzzer that reads the published description finds no server error and no other answer."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from imagers.kbs.admin import load_admin_key
from imagers.pki.jose import sign_token
from imagers.testing.broker import EmbeddedBroker

PEERS = Path(__file__).resolve().parents[2] / "build" / "peers"
PROGRAM = Path(os.environ.get("IMAGERS_SCHEMATHESIS", PEERS / "schemathesis/bin/schemathesis"))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(), reason="not installed: schemathesis (make peers)"
)


def shown(broker, who):
    """The header of an admin, of a guest, or of nobody."""
    if who == "admin":
        now = int(time.time())
        claims = {"iat": now, "exp": now + 300, "role": "admin"}
        return f"Bearer {sign_token(claims, key=load_admin_key(broker.admin_key_file))}"
    if who == "guest":
        with broker.client() as client:
            session, _ = client._current(stale=None)
        return session.headers["Authorization"]
    return None


@pytest.mark.parametrize("who", ["admin", "guest", "stranger"])
def test_schemathesis_finds_no_server_error_and_no_answer_that_is_not_described(who, tmp_path):
    with EmbeddedBroker() as broker:
        broker.put("kbs:///default/key/1", b"k" * 32)
        header = shown(broker, who)
        done = subprocess.run(
            [
                PROGRAM,
                *("run", f"{broker.url}/openapi.json", "--url", broker.url),
                *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing,stateful"),
                *("--max-examples", "8", "--seed", "7", "--no-color"),
                *("--suppress-health-check", "all", "--generation-database", "none"),
                *(("--header", f"Authorization: {header}") if header else ()),
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        with broker.client() as client:  # it still works
            client._current(stale=None)
