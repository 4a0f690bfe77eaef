# SPDX-License-Identifier: Apache-2.0
"""Every place that may have signatures of one image, from its name and where it was opened.

places = places_of(name, source, lookasides=Lookasides(config, "file:///var/lib/signatures"))
found = Finder(places).find(digest, {"sigstore"})
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.sign.find import Places
from imagers.sign.registries_d import RegistriesD, Scope
from imagers.transport.kinds.transport import TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.image import ImageSource
    from imagers.transport.names import ImageName
    from imagers.transport.open import TransportOptions

__all__ = ["Lookasides", "places_of"]

_MISSING = 404


@dataclass(frozen=True, slots=True)
class Lookasides:
    """Where OpenPGP signatures outside of registries are.

    Attributes:
        config: of registries.d.
        default: URL for repositories that `config` does not mention; None: nowhere.
    """

    config: RegistriesD = field(default_factory=lambda: RegistriesD(Scope(), {}))
    default: str | None = None


def places_of(
    name: ImageName,
    source: ImageSource,
    *,
    lookasides: Lookasides | None = None,
    transport: TransportOptions | None = None,
) -> Places:
    """All places that may have signatures of an image.

    Args:
        name: as the user wrote it; `source` was opened with it.
        lookasides: None: there are none.
        transport: how lookasides over http(s) are reached.
    """
    if TRANSPORTS[name.transport].has_signature_files:
        return Places(directory=name.path)
    if name.transport != "docker" or name.reference is None:
        return Places()
    from imagers.registry.signatures import RegistrySignatures
    from imagers.registry.source import RegistrySource

    if not isinstance(source, RegistrySource):
        raise TypeError(f"expected the source of {name}, got a {type(source).__name__}")

    lookasides = lookasides or Lookasides()
    kept = RegistrySignatures(source)
    return Places(
        reference=name.reference,
        repository=source,
        referrers=kept,
        extension=kept,
        config=lookasides.config,
        default_lookaside=lookasides.default,
        fetch=_fetcher(transport),
    )


def _fetcher(transport: TransportOptions | None) -> Callable[[str], bytes | None]:
    """Reads files of lookasides over http(s); without the login of the registry."""
    from imagers.net.http import HTTPClient, HTTPSettings
    from imagers.registry.answers import check_answer
    from imagers.sign.formats.lookaside import MAX_SIGNATURE_BYTES

    verify = transport is None or transport.tls_verify
    settings = HTTPSettings(
        ca_file=None if transport is None else transport.ca_file,
        insecure_http=not verify,
        insecure_skip_verify=not verify,
        ca_option="--registry-ca FILE",
        plain_option="--tls-verify=false",
    )

    def fetch(url: str) -> bytes | None:
        with HTTPClient(settings) as client:
            answer = client.request(
                "GET", url, max_bytes=MAX_SIGNATURE_BYTES, expected=(200, _MISSING)
            )
        if answer.status == _MISSING:
            return None
        # A login page is no signature that is not good: nobody has looked.
        check_answer(answer, doing="signature", name="lookaside")
        return answer.body

    return fetch
