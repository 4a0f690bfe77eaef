# SPDX-License-Identifier: Apache-2.0
"""The way from login to logout is in test_login.py."""

from click.testing import CliRunner

from imagers.cli.main import root
from imagers.registry.credentials import Credentials
from imagers.registry.logins import find_login, keep_login


def test_logout_of_a_namespace_leaves_the_host(tmp_path):
    auth = tmp_path / "auth.json"
    keep_login(auth, "reg.io", Credentials("host", "1"))
    keep_login(auth, "reg.io/team", Credentials("team", "2"))
    result = CliRunner().invoke(root, ["logout", "--authfile", str(auth), "reg.io/team"])
    assert result.exit_code == 0, result.exception
    assert find_login([auth], "reg.io", "team").username == "host"
