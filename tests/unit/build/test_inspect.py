# SPDX-License-Identifier: Apache-2.0
"""What an image is, as facts."""

import pytest

from imagers.build.inspect import inspect_image
from imagers.errors import NotFound, VerificationError
from imagers.model.descriptor import Platform
from imagers.sign.find import Finder, Places

FIND = Finder(Places()).find
ARM64 = Platform("linux", "arm64")


def test_inspect_of_an_index_is_about_the_image_of_the_platform(opened_plain):
    with opened_plain("multi") as source:
        facts = inspect_image(source, FIND, ARM64)
        assert facts["platform"] == "linux/arm64"
        assert facts["platforms"] == ["linux/amd64", "linux/arm64"]
        assert facts["digest"] != facts["manifest"]
        assert (facts["signatures"], "referrers" in facts) == (0, False)
        with pytest.raises(NotFound, match="linux/s390x"):
            inspect_image(source, FIND, Platform("linux", "s390x"))


def test_inspect_of_an_image_for_another_platform_than_was_asked_for_is_refused(opened_plain):
    with opened_plain("mixed") as source:
        facts = inspect_image(source, FIND)
        assert [layer["encrypted"] for layer in facts["layers"]] == [False] * 3
        with pytest.raises(VerificationError, match="linux/arm64"):
            inspect_image(source, FIND, ARM64)
