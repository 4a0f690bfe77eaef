# SPDX-License-Identifier: Apache-2.0
"""Where settings come from: what the host can write is refused."""

import pytest

from imagers.errors import PolicyDenied
from imagers.model.origin import Origin, check_origin


@pytest.mark.parametrize(
    ("origin", "is_measured"),
    [
        (Origin.CALLER, True),
        (Origin.FILE, True),
        (Origin.SHARED_FILE, False),
        (Origin.KERNEL, False),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_the_host_can_write_is_not_measured(origin, is_measured):
    assert origin.is_measured is is_measured


@pytest.mark.parametrize("origin", list(Origin), ids=lambda one: one.name)
def test_an_unmeasured_setting_is_refused_and_named(origin):
    if origin.is_measured:
        check_origin(origin, "the broker's address", "agent.aa_kbc_params")
        return
    with pytest.raises(PolicyDenied) as caught:
        check_origin(origin, "the broker's address", "agent.aa_kbc_params")
    assert str(caught.value).startswith(f"the broker's address comes from {origin.value}")
    assert "agent.aa_kbc_params" in str(caught.value)
    assert "--insecure-unmeasured-settings" in caught.value.hint


def test_a_file_is_the_guests_or_on_a_file_system_that_the_host_shares():
    assert Origin.of_file(is_shared=False) is Origin.FILE
    assert Origin.of_file(is_shared=True) is Origin.SHARED_FILE
