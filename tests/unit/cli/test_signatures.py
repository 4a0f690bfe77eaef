# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from imagers.cli import signatures
from imagers.cli.images import RegistryOptions, open_named
from imagers.cli.signatures import permitted
from imagers.errors import PolicyDenied


def permit(text, policy=None):
    with open_named(text, RegistryOptions()) as image:
        return permitted(image, policy, None)


@pytest.mark.usefixtures("home")
def test_permitted_without_any_policy_goes_on_and_says_so(plain, tmp_path, monkeypatch, capsys):
    found = signatures.read_settings()
    monkeypatch.setattr(
        signatures, "read_settings", lambda: replace(found, policy_paths=(tmp_path / "none",))
    )
    assert permit(plain).raw
    said = capsys.readouterr().err
    assert said.startswith("imagers: warning: there is no policy.json")
    (tmp_path / "reject.json").write_text('{"default":[{"type":"reject"}]}')
    with pytest.raises(PolicyDenied):
        permit(plain, str(tmp_path / "reject.json"))
    assert capsys.readouterr().err == ""
