# SPDX-License-Identifier: Apache-2.0
"""What helpers answer is tested in test_logins.py, with programs."""

import pytest

from imagers.errors import PluginBroken
from imagers.registry.auth_files import HelperName
from imagers.registry.helpers import ask_helper


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("yes a | head -c 400000", "too long"),
        ("""echo '{"Username":"a:b"}'""", "expected a login"),
    ],
)
def test_helper_answers_nonsense(tmp_path, monkeypatch, script, message):
    program = tmp_path / "docker-credential-x"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(PluginBroken, match=message):
        ask_helper(HelperName("x", "reg.io"))


def test_helper_that_is_no_program(tmp_path, monkeypatch):
    (tmp_path / "docker-credential-x").write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PluginBroken, match="does not start"):
        ask_helper(HelperName("x", "reg.io"))
