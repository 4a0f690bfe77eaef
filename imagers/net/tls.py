# SPDX-License-Identifier: Apache-2.0
"""TLS for clients: the system's roots, or exactly the certificates of a file."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import urllib3
import urllib3.exceptions as u3

from imagers.errors import FormatError, LocalError
from imagers.files import reason_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

__all__ = ["PeerCheck", "new_checked_context", "new_tls_context"]

_log = logging.getLogger(__name__)
_CONFIGURATION = "in the configuration"

PeerCheck = Callable[[bytes], None]
"""Is handed the certificate of a peer, in DER, and raises unless it is the right one.

The peer has shown by then that it has the certificate's key, and nothing was sent to it.
"""


def new_tls_context(
    ca_file: str | os.PathLike[str] | None,
    *,
    ca_pem: str | None = None,
    insecure_skip_verify: bool = False,
    more_ca_files: Sequence[str | os.PathLike[str]] = (),
    more_cas: Sequence[str] = (),
    client_certificates: Sequence[tuple[str | os.PathLike[str], str | os.PathLike[str]]] = (),
) -> ssl.SSLContext:
    """A context for clients that verifies certificates and host names.

    Args:
        ca_file: PEM; only its certificates are trusted, and none of the system's. It may be
            the certificate of the server itself.
        ca_pem: the same in PEM, in place of it.
        insecure_skip_verify: accept any certificate.
        more_ca_files: PEM; trusted beside `ca_file` or the system's.
        more_cas: the same, in PEM.
        client_certificates: pairs of certificate and key in PEM, shown to servers that ask.

    Raises:
        LocalError: a file could not be read.
        FormatError: it has no certificates, or certificate and key do not fit.
    """
    if ca_pem is not None:
        _log.debug("trusts the CAs that the configuration has, only")
    else:
        _log.debug("trusts the CAs of %s", "the system" if ca_file is None else f"{ca_file} only")
    with _told(ca_file or _CONFIGURATION, "CA file"):
        cas = None if ca_pem is None else _checked(ca_pem)
        if insecure_skip_verify and ca_file is None and cas is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading roots takes 20 ms
        else:
            context = ssl.create_default_context(cafile=ca_file, cadata=cas)
    for path in more_ca_files:
        _log.debug("trusts the CAs of %s too", path)
        with _told(path, "CA file"):
            context.load_verify_locations(cafile=path)
    for pem in more_cas:
        with _told(_CONFIGURATION, "CA file"):
            context.load_verify_locations(cadata=_checked(pem))
    for certificate, key in client_certificates:
        _log.debug("shows the certificate %s to servers that ask", certificate)
        with _told(certificate, "client certificate"):
            # An empty password: a key that has one must not ask on the terminal.
            context.load_cert_chain(certificate, key, password="")
    # Python leaves the minimum to the system's configuration, which may have none.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None or ca_pem is not None or more_ca_files or more_cas:
        # A server's own certificate may be pinned, too, and not only that of its CA.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if insecure_skip_verify:
        _log.debug("takes any certificate")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # Whoever asked for it has said so; a warning for each request helps nobody.
        urllib3.disable_warnings(u3.InsecureRequestWarning)
    return context


def new_checked_context() -> ssl.SSLContext:
    """A context for clients that look at the peer's certificate themselves: a `PeerCheck`."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # nothing older says which key was shown
    return context


def _checked(pem: str) -> str:
    """A text that Python reads certificates from: for an empty one it would take the system's."""
    if not pem or not pem.isascii():
        raise ValueError("no PEM")
    return pem


@contextmanager
def _told(path: str | os.PathLike[str] | None, kind: str) -> Iterator[None]:
    """Errors of the block as errors about a file."""
    try:
        yield
    except (ssl.SSLError, ValueError) as error:
        raise FormatError(
            "expected certificates in PEM"
            if kind == "CA file"
            else "expected a certificate and its key in PEM, without a password",
            what=f"{kind} {str(path)!r}",
        ) from error
    except OSError as error:
        raise LocalError(
            f"could not be read: {reason_of(error)}",
            path=str(path),
            hint=f"it should be a {kind}",
        ) from error
