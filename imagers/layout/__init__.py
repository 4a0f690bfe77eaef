# SPDX-License-Identifier: Apache-2.0
"""Images on disk: OCI layouts as source and sink, atomic and content-addressed."""
