"""Signatures and the policy in force, as the command line finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.command import blamed_on
from imagers.cli.output import say
from imagers.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.cli.images import RegistryOptions
    from imagers.model.descriptor import Platform
    from imagers.model.image import ImageSource
    from imagers.model.manifest import RawManifest
    from imagers.sign.find import Places
    from imagers.transport.names import ImageName

__all__ = ["permitted", "places_of", "policy_option", "registries_d_option"]

_MISSING = 404

registries_d_option = click.option("--registries.d", "registries_d", metavar="DIR")
"""`--registries.d`: where lookasides are configured, as skopeo writes it."""

policy_option = click.option("--policy", metavar="FILE")
"""`--policy`: the one in force, in place of the user's and the system's."""


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
    from imagers.registry.signatures import RegistrySignatures
    from imagers.registry.source import RegistrySource
    from imagers.sign.find import Places
    from imagers.sign.keyfiles import find_registries_d, load_registries_d
    from imagers.sign.registries_d import RegistriesD, Scope

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
    from imagers.net.http import HTTPClient, HTTPSettings
    from imagers.registry.answers import check_answer
    from imagers.sign.formats.lookaside import MAX_SIGNATURE_BYTES

    def fetch(url: str) -> bytes | None:
        settings = HTTPSettings(
            ca_file=options.ca_file,
            insecure_http=not options.tls_verify,
            insecure_skip_verify=not options.tls_verify,
            ca_option="--registry-ca FILE",
            plain_option="--tls-verify=false",
        )
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


def permitted(
    source: ImageSource,
    name: ImageName,
    options: RegistryOptions,
    *,
    policy: str | None,
    registries_d: str | None,
    platform: Platform | None,
) -> RawManifest:
    """What the name of `source` means, let through by the policy in force.

    For what copies or changes an image: where there is no policy, it goes on and says so.

    Args:
        name: that `source` was opened with.
        platform: which image of an index will be used; None: all.

    Raises:
        VerificationError: the policy says no, or could not look.
    """
    from imagers.pull.permit import permit_image
    from imagers.pull.run import identity_of
    from imagers.pull.signatures import signature_finder
    from imagers.sign.keyfiles import find_policy, load_policy, read_key_file
    from imagers.sign.verify import load_trust

    path = find_policy(
        explicit=policy, candidates=[str(one) for one in read_settings().policy_paths]
    )
    top = source.read_manifest()
    if path is None:
        say("warning", "there is no policy.json: nobody says whether this image may be used")
        return top
    with blamed_on(policy and "--policy"):
        document = load_policy(path)
    trust = load_trust(document.select(identity_of(name)), read_key_file)
    places = places_of(source, name, options, registries_d=registries_d)
    permit_image(source, top, trust, signatures=signature_finder(places, trust), platform=platform)
    return top
