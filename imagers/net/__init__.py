# SPDX-License-Identifier: Apache-2.0
"""The one HTTP client: time limits, bounded reads, retries, redaction. All HTTP goes through it.

`imagers.net.http` holds the client, `imagers.net.urls` what may be spoken to and shown.
"""
