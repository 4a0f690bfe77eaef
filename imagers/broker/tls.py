# SPDX-License-Identifier: Apache-2.0
"""The certificate that a broker shows, read again when its files change.

    shown = ServerCertificate(Path("tls.crt"), Path("tls.key"))
    shown.context                      # for the next connection; those that are open keep theirs
    shown.renew()                      # looks at the files

Files that cannot be used leave the certificate that is shown as it is: one that is written before
its key is taken when the key has come.
"""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from pathlib import Path

from imagers.errors import LocalError
from imagers.files import reason_of

__all__ = ["ServerCertificate"]


class ServerCertificate:
    """A certificate and its key, in PEM, the key without a passphrase.

    Args:
        client_ca_file: certificates of CAs, in PEM. A client may show a certificate, and one that
            is not of these gets no connection.

    Attributes:
        context: for connections to come.

    Raises:
        LocalError: they cannot be used.
    """

    def __init__(
        self, certificate_file: Path, key_file: Path, client_ca_file: Path | None = None
    ) -> None:
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._client_ca_file = client_ca_file
        self._seen = self._look()
        self.context = self._load()

    def renew(self, *, always: bool = False) -> bool:
        """Whether another one is shown from now on, because the files have changed.

        Args:
            always: read them also if they look as they did.

        Raises:
            LocalError: what is there now cannot be used; said once for each change.
        """
        seen = self._look()
        if seen == self._seen and not always:
            return False
        self._seen = seen
        self.context = self._load()
        return True

    def _look(self) -> tuple[object, ...]:
        """What changes when a file is written or replaced, by a link to another directory too."""
        found: list[object] = []
        for path in filter(None, (self._certificate_file, self._key_file, self._client_ca_file)):
            with suppress(OSError):
                told = os.stat(path)
                found.append((told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns))
        return tuple(found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a password OpenSSL asks on the terminal, in C code that hears no signal.
            context.load_cert_chain(self._certificate_file, self._key_file, password=lambda: " ")
        except (OSError, ssl.SSLError) as error:
            raise LocalError(
                f"certificate and key cannot be used: {_why_unusable(error)}",
                path=str(self._certificate_file),
            ) from None
        if self._client_ca_file is not None:
            try:
                context.load_verify_locations(self._client_ca_file)
            except (OSError, ssl.SSLError) as error:
                reason = "expected certificates of CAs in PEM"
                if not isinstance(error, ssl.SSLError):
                    reason = reason_of(error)
                raise LocalError(reason, path=str(self._client_ca_file)) from None
            context.verify_mode = ssl.CERT_OPTIONAL  # guests have none
        return context


def _why_unusable(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key is not that of the certificate"
        # OpenSSL says no more than "PEM lib", or the name of a routine.
        return (
            "expected PEM, a certificate in one file and its private key, without a passphrase, "
            "in the other"
        )
    return reason_of(error)
