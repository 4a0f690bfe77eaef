# SPDX-License-Identifier: Apache-2.0
"""What is tested is this tree, its C compiled anew where it changed; depth of the property tests.

The depth is HYPOTHESIS_PROFILE, else `ci` where CI is set, else `default`.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

ROOT = Path(__file__).resolve().parent.parent


def bring_up_to_date():
    """Leave with a message where `imagers` is not this tree, or the tree does not compile."""
    found = importlib.util.find_spec("imagers")
    origin = Path(found.origin) if found and found.origin else None
    if origin and origin.is_relative_to(ROOT / "build"):
        return  # .ci/sanitize has just built that one
    if origin != ROOT / "imagers" / "__init__.py":
        sys.stderr.write(f"imagers is imported from {origin}, and not from this tree: make dev\n")
        raise SystemExit(pytest.ExitCode.USAGE_ERROR)
    if subprocess.run([ROOT / ".ci" / "compile"], check=False).returncode != 0:
        raise SystemExit(pytest.ExitCode.USAGE_ERROR)  # it has said why


# Ahead of every other module of tests; where there are several workers, only before they start.
if "PYTEST_XDIST_WORKER" not in os.environ:
    bring_up_to_date()

# Examples are not timed one by one: machines of CI stall. The whole test has pytest's limit.
settings.register_profile("default", max_examples=50, deadline=None)
settings.register_profile(
    "ci",
    max_examples=100,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "expensive",
    max_examples=20_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# For mutants: the same examples each time, and a failure is enough, the smallest is not wanted.
settings.register_profile(
    "mutants",
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default")
)
