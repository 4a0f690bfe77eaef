# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

from imagers.lazy import door


def test_door_imports_a_module_when_a_name_of_it_is_asked_for():
    code = (
        "import sys, imagers.pull\n"
        "assert 'imagers.pull.run' not in sys.modules\n"
        "from imagers.pull import pull_image\n"
        "assert pull_image is sys.modules['imagers.pull.run'].pull_image\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_door_of_a_name_that_it_has_not_is_an_attribute_error():
    get = door("imagers.pull", {"named": ("open_image",)})
    assert get("open_image").__module__ == "imagers.pull.named"
    with pytest.raises(AttributeError, match=r"'imagers\.pull' has no attribute 'trust'"):
        get("trust")
