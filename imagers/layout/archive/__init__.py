# SPDX-License-Identifier: Apache-2.0
"""Images in one tar: OCI layouts as archives, and what `docker save` writes."""
