"""TLS for clients: the system's roots, or exactly the certificates of a file."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import urllib3
import urllib3.exceptions as u3

from imagers.errors import FormatError, LocalError

if TYPE_CHECKING:
    import os

__all__ = ["new_tls_context"]


def new_tls_context(
    ca_file: str | os.PathLike[str] | None, *, insecure_skip_verify: bool = False
) -> ssl.SSLContext:
    """A context for clients that verifies certificates and host names.

    Args:
        ca_file: PEM; only its certificates are trusted, and none of the system's. It may be
            the certificate of the server itself.
        insecure_skip_verify: accept any certificate.

    Raises:
        LocalError: the file could not be read.
        FormatError: it has no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise FormatError(
            "expected certificates in PEM", what=f"CA file {str(ca_file)!r}"
        ) from error
    except OSError as error:
        raise LocalError(
            f"could not be read: {(error.strerror or str(error)).lower()}",
            path=str(ca_file),
            hint="it should be a CA file",
        ) from error
    # Python leaves the minimum to the system's configuration, which may have none.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        # A server's own certificate may be pinned, too, and not only that of its CA.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # Whoever asked for it has said so; a warning for each request helps nobody.
        urllib3.disable_warnings(u3.InsecureRequestWarning)
    return context
