# SPDX-License-Identifier: Apache-2.0
"""How layers become a root file system: by overlayfs, plain directories or EROFS images.

`snapshotter.py` says what each of them does, `table.py` has them by name.
"""
