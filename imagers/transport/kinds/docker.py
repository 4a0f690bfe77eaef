# SPDX-License-Identifier: Apache-2.0
"""`docker://HOST[:PORT]/NAME[:TAG|@DIGEST]`: an image in a registry.

Requests go to the places that registries.conf names; the name stays the user's, for policies
and messages.

Spec: containers-transports(5).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.model.identity import ImageIdentity, docker_identity
from imagers.model.reference import may_hold_login, normal_name, parse_reference
from imagers.transport.kinds.transport import Transport
from imagers.transport.names import ImageName

if TYPE_CHECKING:
    from imagers.model.image import ImageSink, ImageSource
    from imagers.model.reference import Reference
    from imagers.registry.client import RegistryClient
    from imagers.registry.deletion import Deletion
    from imagers.registry.mirrors import Endpoint
    from imagers.transport.open import TransportOptions

__all__ = ["TRANSPORT"]


class _Docker(Transport):
    name = "docker"

    def parse(self, rest: str, text: str) -> ImageName:
        if not rest.startswith("//"):
            if may_hold_login(rest):
                raise FormatError("expected 'docker://' and a name", what="image name")
            raise FormatError(
                f"expected 'docker://' and a name, got {text[:160]!r}",
                what="image name",
                hint=f"for the image docker of Docker Hub: docker://docker.io/library/{text[:80]}",
            )
        return ImageName(self.name, reference=parse_reference(rest.removeprefix("//")))

    def identity(self, name: ImageName) -> ImageIdentity:
        return docker_identity(_reference(name))

    def parse_scope(self, written: str, *, what: str, where: str) -> str:
        if "://" in written:
            raise FormatError(
                "expected a scope without a scheme, such as 'registry.example.org/team'",
                what=what,
                where=where,
            )
        return normal_name(written)

    def open_source(self, name: ImageName, options: TransportOptions) -> ImageSource:
        from imagers.registry.mirrored import MirroredSource
        from imagers.registry.ranges import Ranges
        from imagers.transport.open import open_registry

        reference = _full_reference(name, options)
        clients = [
            open_registry(
                place.reference,
                _at(place, reference, options),
                "pull",
                named_by=_who_named(place, reference),
            )
            for place in options.registries.endpoints(reference)
        ]
        ranges = Ranges(options.ranges)
        if len(clients) == 1:
            from imagers.registry.source import RegistrySource

            return RegistrySource(reference, clients[0], name=str(name), ranges=ranges)
        return MirroredSource(reference, clients, name=str(name), ranges=ranges)

    def open_sink(self, name: ImageName, options: TransportOptions) -> ImageSink:
        from imagers.registry.sink import RegistrySink

        return RegistrySink(
            _full_reference(name, options),
            _open_place(name, options, "pull,push"),
            name=str(name),
            spool_directory=options.spool_directory,
        )

    def list_tags(self, name: ImageName, options: TransportOptions) -> tuple[str, ...]:
        from imagers.registry.listing import list_tags

        # A mirror has a part of them, or those of another day.
        with _open_place(name, options, "pull") as client:
            return list_tags(client)

    def delete_image(self, name: ImageName, options: TransportOptions) -> Deletion:
        from imagers.registry.deletion import delete_image

        # docker's registry wants "delete" for it and quay.io "push", and all take this.
        with _open_place(name, options, "*") as client:
            return delete_image(client, client.reference)


def _reference(name: ImageName) -> Reference:
    assert name.reference is not None  # of every name in a registry
    return name.reference


def _full_reference(name: ImageName, options: TransportOptions) -> Reference:
    """The reference of a name in a registry, which means the same to podman."""
    reference = _reference(name)
    if name.short_name:
        options.registries.check_short_name(name.short_name, reference)
    return reference


def _open_place(name: ImageName, options: TransportOptions, actions: str) -> RegistryClient:
    """A client for the place itself, which is no mirror."""
    from imagers.transport.open import open_registry

    reference = _full_reference(name, options)
    place = options.registries.place(reference)
    return open_registry(
        place.reference,
        _at(place, reference, options),
        actions,
        named_by=_who_named(place, reference),
    )


def _at(place: Endpoint, named: Reference, options: TransportOptions) -> TransportOptions:
    """The options for one place: a login given by hand goes only to the registry it was for."""
    same = place.reference.registry == named.registry
    return replace(
        options,
        credentials=options.credentials if same else None,
        plain_http=options.plain_http or place.insecure,
        tls_verify=options.tls_verify and not place.any_certificate,
    )


def _who_named(place: Endpoint, named: Reference) -> str:
    same = place.reference.registry == named.registry
    return "" if same else f"the configuration of registries, for {named.registry},"


TRANSPORT = _Docker()
