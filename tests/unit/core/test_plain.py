# SPDX-License-Identifier: Apache-2.0
"""The fallback: taken where the extension is missing, and said once."""

import subprocess
import sys
import textwrap
from pathlib import Path

from imagers.core import native

HIDDEN = textwrap.dedent(
    """
    import sys, warnings
    sys.modules["imagers.core._core"] = None
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        import imagers.core as core
        import imagers.core.layer
    print(core.BACKEND, [one.category.__name__ for one in seen])
    print("several times slower" in str(seen[0].message))
    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import digest_of
    from imagers.model.media import Compression
    class Source:
        data = b"abc"
        def readinto(self, buffer):
            count = min(len(buffer), len(self.data))
            buffer[:count], self.data = self.data[:count], self.data[count:]
            return count
        def close(self): pass
    expected = Descriptor("x", digest_of(b"abc"), 3)
    print(core.open_layer(Source(), None, expected=expected, cipher=None, hmac=None,
        compression=Compression.NONE, diff_id=digest_of(b"abc"), what="layer").size)
    """
)


def run(source):
    return subprocess.run(
        [sys.executable, "-c", source],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(native.__file__).parents[2],
    )


def test_plain_is_taken_where_the_extension_is_missing_and_warns_once():
    done = run(HIDDEN)
    assert done.stdout == "plain ['RuntimeWarning']\nTrue\n3\n", done.stderr


def test_extension_is_taken_without_loading_the_plain_one():
    """What is not needed to start is not imported: cryptography takes its time."""
    done = run("import sys, imagers.core as c; print(c.BACKEND, 'cryptography' in sys.modules)")
    assert done.stdout == "c False\n", done.stderr
