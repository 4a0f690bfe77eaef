"""Where the command line looks for signatures: registry, lookaside, registries.d."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.cli.images import RegistryOptions
    from imagers.model.digest import Digest
    from imagers.model.image import ImageSource
    from imagers.sign.find import Places
    from imagers.sign.found import Found
    from imagers.sign.materials import Trust
    from imagers.transport.names import ImageName

__all__ = ["places_of", "registries_d_option", "signature_finder"]

_MISSING = 404

registries_d_option = click.option("--registries.d", "registries_d", metavar="DIR")
"""`--registries.d`: where lookasides are configured, as skopeo writes it."""


def places_of(
    source: ImageSource,
    name: ImageName,
    options: RegistryOptions,
    *,
    registries_d: str | None = None,
) -> Places:
    """All places that may have signatures of an image.

    Args:
        name: as the user named the image.
        registries_d: directory; None: the user's, else the system's.
    """
    from imagers.registry.signatures import RegistrySignatures  # noqa: PLC0415
    from imagers.registry.source import RegistrySource  # noqa: PLC0415
    from imagers.sign.find import Places  # noqa: PLC0415
    from imagers.sign.keyfiles import find_registries_d, load_registries_d  # noqa: PLC0415
    from imagers.sign.registries_d import RegistriesD, Scope  # noqa: PLC0415

    if name.transport == "dir":
        return Places(directory=name.path)
    if name.reference is None or not isinstance(source, RegistrySource):
        return Places()
    settings = read_settings()
    directory = registries_d or find_registries_d([str(p) for p in settings.registries_d_paths])
    return Places(
        reference=name.reference,
        repository=source,
        beside=RegistrySignatures(source),
        config=RegistriesD(Scope(), {}) if directory is None else load_registries_d(directory),
        default_lookaside=settings.default_lookaside,
        fetch=_fetcher(options),
    )


def _fetcher(options: RegistryOptions) -> Callable[[str], bytes | None]:
    """Reads files of lookasides over http(s); without the login of the registry."""
    from imagers.net.http import HTTPClient, HTTPSettings  # noqa: PLC0415
    from imagers.sign.lookaside import MAX_SIGNATURE_BYTES  # noqa: PLC0415

    def fetch(url: str) -> bytes | None:
        settings = HTTPSettings(
            ca_file=options.ca_file,
            insecure_http=not options.tls_verify,
            insecure_skip_verify=not options.tls_verify,
        )
        with HTTPClient(settings) as client:
            answer = client.request(
                "GET", url, max_bytes=MAX_SIGNATURE_BYTES, expected=(200, _MISSING)
            )
        return None if answer.status == _MISSING else answer.body

    return fetch


def signature_finder(
    places: Places, trust: Trust | None, *, everything: bool = False
) -> Callable[[Digest], Found]:
    """What finds the signatures of a manifest or an index, with what gpg says about them.

    Args:
        trust: of which the forms that it demands are looked for.
        everything: look for all forms, for an explanation.
    """
    from imagers.sign.find import Finder  # noqa: PLC0415
    from imagers.sign.found import Form  # noqa: PLC0415
    from imagers.sign.gpg import read_simple_signatures  # noqa: PLC0415

    finder = Finder(places)
    forms = frozenset(Form)
    if trust is not None and not everything:
        forms = trust.forms() | trust.forms(on_index=True)

    def find(digest: Digest) -> Found:
        found = finder.find(digest, forms)
        return found if trust is None else read_simple_signatures(trust, found)

    return find
