# SPDX-License-Identifier: Apache-2.0
"""What makes a signer's certificate believable, offline.

`signer` puts together what `imagers.pki` says of chains and time stamps, `rekor` checks entries
of a transparency log, `subject` whom the certificate is for. Roots and keys are handed in; nothing
is fetched, and the time is a value. Nothing is imported here, so that a start without
certificates costs nothing.
"""
