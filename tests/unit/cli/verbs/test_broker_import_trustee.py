# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from imagers.testing.broker import EmbeddedBroker


def test_import_lists_what_was_taken_and_what_was_left_and_its_exit_code_says_so(run):
    for name in ("default/key/1", "bad"):
        path = Path("trustee/repository", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"secret")
    with EmbeddedBroker() as broker:
        words = ("--broker", broker.url, "--broker-admin-key", broker.admin_key_file)
        outcome = run("broker", "import-trustee", "trustee", *words)
        assert outcome.code == 12
        took, left = outcome.out.splitlines()
        assert took == "took kbs:///default/key/1"
        assert left.startswith("left kbs:///bad: ")
        assert "1 of 2 could not be taken from trustee" in outcome.err
        Path("trustee/repository/bad").unlink()
        Path("trustee/repository/default/key/1").rename("trustee/repository/default/key/2")
        assert run("broker", "import-trustee", "trustee", *words).code == 0
