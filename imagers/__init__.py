"""imagers: container images to confidential guests, unread and unchanged on the way.

The packages, from the bottom up (a package imports only from rows below it):

====  ==========================  =====================================================
row   package                     what it holds
====  ==========================  =====================================================
0     `imagers.errors`            every exception of the API, with exit code and hint
0     `imagers.model`             the nouns: frozen values and Protocols, no IO
1     `imagers.core`              bytes at speed: one layer through the C extension
1     `imagers.net`               the one HTTP client
1     `imagers.programs`          programs of others, with an end to time and answer
2     `imagers.gpg`               gpg with limits, in homes that go with the process
2     `imagers.layout`             OCI layouts on disk
2     `imagers.registry`          registries over `net`
3     `imagers.transport`         "docker://...", "oci:...": parse, open, copy
4     `imagers.encrypt`           image in, encrypted image out, and back
4     `imagers.sign`              signatures and the containers policy
4     `imagers.kbs`               the wire of a key broker, and its clients
4     `imagers.evidence`          attesters and verifiers of TEEs
5     `imagers.pull`              the workflow of a guest, and the whole trust decision
5     `imagers.broker`            the key broker server
6     `imagers.testing`           a registry and a broker for tests, as pytest fixtures
7     `imagers.cli`               the `imagers` command
====  ==========================  =====================================================

This module imports nothing, so that `import imagers` costs nothing.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
