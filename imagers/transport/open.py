"""Sources and sinks from names.

with closing(open_source(parse_image_name("oci:build/app:v1"))) as source:
    raw = source.read_manifest()
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import LocalError, UsageError
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.image import ImageSink, ImageSource
from imagers.net.proxies import Proxies
from imagers.registry.credentials import Login
from imagers.registry.mirrors import RegistriesConf
from imagers.transport.names import ImageName

if TYPE_CHECKING:
    from imagers.model.reference import Reference
    from imagers.registry.client import RegistryClient
    from imagers.registry.mirrors import Endpoint

__all__ = ["TransportOptions", "open_registry", "open_sink", "open_source"]


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How to reach images.

    Attributes:
        credentials: for the registry; None: what `auth_files` have for its name.
        auth_files: where logins are looked for, in this order; none there: anonymous.
        cert_dir: certificates for the registry; None: those below `cert_roots`.
        cert_roots: directories with one directory a registry, in this order.
        proxies: which requests go through one.
        registries: mirrors and other places of names.
        plain_http: to any machine; certificates count where https is spoken.
        tls_verify: the word of skopeo: False accepts any certificate, and plain http to any
            machine. Plain http to this machine needs no permission.
        ca_file: PEM; only its certificates are trusted, and none of the system's.
        spool_directory: for blobs that wait for their upload; None: /var/tmp.
        daemon_host: of the engine that `docker-daemon:` means; None: Docker's own socket.
        connect_timeout_s: bound on one connection attempt.
        read_timeout_s: bound on the silence of a registry.
        ranges: connections for one big blob, at most; 1: none comes in parts.
    """

    credentials: Login | None = field(default=None, repr=False)
    auth_files: tuple[Path, ...] = ()
    cert_dir: Path | None = None
    cert_roots: tuple[Path, ...] = ()
    proxies: Proxies = field(default_factory=Proxies)
    registries: RegistriesConf = field(default_factory=RegistriesConf)
    plain_http: bool = False
    tls_verify: bool = True
    ca_file: str | os.PathLike[str] | None = None
    spool_directory: str | os.PathLike[str] | None = None
    daemon_host: str | None = None
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    ranges: int = 1


def open_source(name: ImageName, options: TransportOptions | None = None) -> ImageSource:
    """The place that `name` means, to read from; the caller closes it.

    Nothing is read or asked yet: what is missing shows at the first use.

    Raises:
        UsageError: a name without a registry, which registries.conf gives another meaning.
        PolicyDenied: registries.conf blocks it.
    """
    if name.transport == "oci":
        return OCILayoutSource(name.path, name.ref, name=str(name), position=name.position)
    options = options or TransportOptions()
    if name.transport != "docker":
        return _open_local_source(name, options)
    from imagers.registry.mirrored import MirroredSource
    from imagers.registry.ranges import Ranges

    # Requests go to the places; the name stays the user's, for policies and messages.
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


def _full_reference(name: ImageName, options: TransportOptions) -> Reference:
    """The reference of a name in a registry, which means the same to podman."""
    reference = _reference(name)
    if name.short_name:
        options.registries.check_short_name(name.short_name, reference)
    return reference


def _at(place: Endpoint, named: Reference, options: TransportOptions) -> TransportOptions:
    """The options for one place: a login given by hand goes only to the registry it was for."""
    same = place.reference.registry == named.registry
    return replace(
        options,
        credentials=options.credentials if same else None,
        plain_http=options.plain_http or place.insecure,
        tls_verify=options.tls_verify and not place.any_certificate,
    )


def open_sink(name: ImageName, options: TransportOptions | None = None) -> ImageSink:
    """The place that `name` means, to write to; the caller closes it.

    Nothing is written or asked yet.

    Raises:
        UsageError: the name cannot be written to, or has no registry and another meaning in
            registries.conf.
        PolicyDenied: registries.conf blocks it.
    """
    options = options or TransportOptions()
    if name.position is not None:
        raise UsageError(
            f"expected a name to write to, got the position {name.position} of {name.path!r}",
            hint=f"{name.transport}:PATH:REF",
        )
    if name.transport == "oci":
        return OCILayoutSink(name.path, name.ref, name=str(name))
    if name.transport != "docker":
        return _open_local_sink(name, options)
    from imagers.registry.sink import RegistrySink

    reference = _full_reference(name, options)
    place = options.registries.place(reference)
    return RegistrySink(
        reference,
        open_registry(
            place.reference,
            _at(place, reference, options),
            "pull,push",
            named_by=_who_named(place, reference),
        ),
        name=str(name),
        spool_directory=options.spool_directory,
    )


def _open_local_source(name: ImageName, options: TransportOptions) -> ImageSource:
    if name.transport == "oci-archive":
        from imagers.layout.archive.oci import OCIArchiveSource

        return OCIArchiveSource(name.path, name.ref, name=str(name), position=name.position)
    if name.transport == "docker-archive":
        from imagers.layout.archive.docker import DockerArchiveSource

        return DockerArchiveSource(
            name.path, name.reference, name=str(name), position=name.position
        )
    if name.transport == "dir":
        from imagers.layout.directory import DirectorySource

        return DirectorySource(name.path, name=str(name))
    from imagers.transport.daemon import DEFAULT_HOST, DaemonSource

    return DaemonSource(
        name.image_id or _reference(name),
        host=options.daemon_host or DEFAULT_HOST,
        name=str(name),
        spool_directory=options.spool_directory,
    )


def _open_local_sink(name: ImageName, options: TransportOptions) -> ImageSink:
    if name.transport == "oci-archive":
        from imagers.layout.archive.oci import OCIArchiveSink

        return OCIArchiveSink(name.path, name.ref, name=str(name))
    if name.transport == "docker-archive":
        from imagers.layout.archive.docker import DockerArchiveSink

        return DockerArchiveSink(name.path, name.reference, name=str(name))
    if name.transport == "dir":
        from imagers.layout.directory import DirectorySink

        return DirectorySink(name.path, name=str(name))
    if name.reference is None or name.reference.tag is None:
        raise UsageError(
            f"expected a name to write to, got the id {name.image_id or name.reference}",
            hint="docker-daemon:NAME:TAG",
        )
    from imagers.transport.daemon import DEFAULT_HOST, DaemonSink

    return DaemonSink(
        name.reference,
        host=options.daemon_host or DEFAULT_HOST,
        name=str(name),
        spool_directory=options.spool_directory,
    )


def _reference(name: ImageName) -> Reference:
    assert name.reference is not None  # of every name in a registry
    return name.reference


def _who_named(place: Endpoint, named: Reference) -> str:
    same = place.reference.registry == named.registry
    return "" if same else f"the configuration of registries, for {named.registry},"


def open_registry(
    reference: Reference, options: TransportOptions, actions: str, *, named_by: str = ""
) -> RegistryClient:
    """A client for the repository of `reference`, logged in as the options say.

    Args:
        actions: `pull`, `pull,push`, or "" for a mere login.
        named_by: who gave the registry's name, if not the user, for messages.

    Raises:
        LocalError, FormatError, PluginError: a login or certificate is there and unusable.
    """
    from imagers.net.http import HTTPClient, HTTPSettings
    from imagers.registry.client import RegistryClient
    from imagers.registry.logins import find_login
    from imagers.transport.certificates import (
        certificate_directories,
        find_certificates,
    )

    directories = [options.cert_dir] if options.cert_dir is not None else []
    if options.cert_dir is None:
        directories = certificate_directories(options.cert_roots, reference.registry)
    elif not options.cert_dir.is_dir():
        raise LocalError(
            "expected a directory", path=str(options.cert_dir), hint="--cert-dir names one"
        )
    found = find_certificates(directories)
    settings = HTTPSettings(
        ca_file=options.ca_file,
        more_ca_files=found.ca_files,
        client_certificates=found.client_pairs,
        proxies=options.proxies,
        insecure_http=options.plain_http or not options.tls_verify,
        insecure_skip_verify=not options.tls_verify,
        connect_timeout_s=options.connect_timeout_s,
        read_timeout_s=options.read_timeout_s,
        ca_option="--registry-ca FILE, or put it as ca.crt into ~/.config/containers/certs.d/"
        + reference.registry,
        plain_option="--tls-verify=false",
    )
    credentials = options.credentials or find_login(
        options.auth_files,
        reference.registry,
        reference.repository,
        helpers=options.registries.credential_helpers,
    )
    return RegistryClient(
        reference,
        http=HTTPClient(settings),
        credentials=credentials,
        actions=actions,
        named_by=named_by,
    )
