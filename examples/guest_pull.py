"""A guest agent in its smallest form: pull one image through the library.

    python examples/guest_pull.py REFERENCE BUNDLE POLICY KEY

Verifies the signature against a containers policy.json, opens the layers with a private
key file, and lets an OCI bundle appear. With a broker, `resources=BrokerClient(...)` takes
the place of the key file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from imagers.encrypt.keyfiles import load_private_key
from imagers.encrypt.schemes.jwe import JWEUnwrapper
from imagers.errors import ImagersError
from imagers.model.descriptor import Platform
from imagers.pull.run import PullOptions, identity_of, pull_image
from imagers.pull.signatures import signature_finder
from imagers.registry.signatures import RegistrySignatures
from imagers.registry.source import RegistrySource
from imagers.sign.find import Places
from imagers.sign.keyfiles import load_policy, read_key_file
from imagers.sign.verify import load_trust
from imagers.transport.names import locate, parse_image_name
from imagers.transport.open import TransportOptions, open_source


def main() -> int:
    """Pull; the exit code says what went wrong."""
    name, bundle, policy, key = sys.argv[1:]
    image = locate(parse_image_name(name))
    # The policy is asked about the name that the user wrote.
    requirements = load_trust(load_policy(policy).select(identity_of(image)), read_key_file)
    source = open_source(image, TransportOptions())
    places = Places()  # where signatures may be
    if isinstance(source, RegistrySource):
        beside = RegistrySignatures(source)
        places = Places(reference=image.reference, repository=source, beside=beside)
    try:
        report = pull_image(
            source,
            Path(bundle).absolute(),
            signatures=signature_finder(places, requirements),
            options=PullOptions(
                requirements=requirements,
                platform=Platform("linux", "amd64"),
                require_encrypted=True,
            ),
            unwrappers=[JWEUnwrapper(load_private_key(key))],
        )
    except ImagersError as error:
        print(f"guest: error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        source.close()
    trusted = report.trusted
    signers = ", ".join(one.fingerprint for one in trusted.decision.signers)
    print(f"{trusted.manifest.descriptor.digest} by {signers or trusted.basis.value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
