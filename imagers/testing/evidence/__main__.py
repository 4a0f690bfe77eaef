# SPDX-License-Identifier: Apache-2.0
"""`python -m imagers.testing.evidence`: see `make`."""

import sys

from imagers.testing.evidence.make import main

if __name__ == "__main__":
    sys.exit(main())
