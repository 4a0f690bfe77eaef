# SPDX-License-Identifier: Apache-2.0
"""A guest in its smallest form: python examples/guest_pull.py REFERENCE BUNDLE POLICY KEY."""

import sys
from pathlib import Path

from imagers import encrypt, pull, settings
from imagers.errors import ImagersError

name, bundle, policy, key = sys.argv[1:]
user = settings.read_settings()  # logins, certificates, mirrors and proxies of this user
try:
    with (
        encrypt.opened_unwrappers([encrypt.parse_decryption_key(key)]) as keys,
        pull.open_image(name, user.transport_options(), user.lookasides()) as image,
    ):
        options = pull.PullOptions(user.policy_for(image.identity, policy), require_encrypted=True)
        trusted = pull.pull_image(image, Path(bundle), options, unwrappers=keys).trusted
except ImagersError as error:
    print(f"guest: error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
signers = ", ".join(one.fingerprint for one in trusted.decision.signers)
print(f"{trusted.manifest.descriptor.digest} by {signers or trusted.basis.value}")
