# SPDX-License-Identifier: Apache-2.0
"""imagers: container images to confidential guests, unread and unchanged on the way.

The packages, from the bottom up (a package imports only from rows below it):

====  ====================  ======================================================
row   package               what it holds
====  ====================  ======================================================
0     `imagers.errors`      every exception of the API, with exit code and hint
1     `imagers.model`       the nouns: frozen values and Protocols, no IO
1     `imagers.files`       files written whole or not at all, read with a bound
1     `imagers.lazy`        names of a package, imported when first asked for
1     `imagers.waiting`     what ends work that waits: cancellation, time limits
2     `imagers.core`        bytes at speed: one layer through the C extension
2     `imagers.net`         the one HTTP client
2     `imagers.programs`    programs of others, with an end to time and answer
3     `imagers.gpg`         gpg with limits, in homes that go with the process
3     `imagers.pki`         certificate chains, COSE, JOSE, time stamps, DER
4     `imagers.registry`    registries over `net`
4     `imagers.layout`      images on disk: OCI layouts, archives, directories
5     `imagers.transport`   "docker://...", "oci:...": parse, open, copy
5     `imagers.store`       what a guest keeps of images: whole or not there, sealed
6     `imagers.encrypt`     image in, encrypted image out, and back
6     `imagers.sign`        signatures and the containers policy
6     `imagers.evidence`    attesters and verifiers of TEEs
6     `imagers.kbs`         the wire of a key broker, and its clients
7     `imagers.pull`        the workflow of a guest, and the whole trust decision
7     `imagers.build`       what a pipeline does: encrypt, sign, inspect
7     `imagers.broker`      the key broker server
7     `imagers.settings`    what the user's machine says, as values
8     `imagers.testing`     a registry, a broker and images for tests
9     `imagers.cli`         the `imagers` command
====  ====================  ======================================================

This module imports nothing, so that `import imagers` costs nothing.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
