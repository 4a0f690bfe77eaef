# SPDX-License-Identifier: Apache-2.0
"""Sources and sinks from names.

with closing(open_source(parse_image_name("oci:build/app:v1"))) as source:
    raw = source.read_manifest()
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import LocalError, UsageError
from imagers.model.image import ImageSink, ImageSource
from imagers.net.proxies import Proxies
from imagers.registry.auth_files import AuthFile
from imagers.registry.credentials import Login
from imagers.registry.mirrors import RegistriesConf
from imagers.transport.kinds.transport import find_transport
from imagers.transport.names import ImageName, check_one_meaning

if TYPE_CHECKING:
    from imagers.model.reference import Reference
    from imagers.registry.client import RegistryClient

__all__ = ["TransportOptions", "open_registry", "open_sink", "open_source"]


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How to reach images.

    Attributes:
        credentials: for the registry; None: what `auth_files` have for its name.
        auth_files: where logins are looked for, in this order, or what was read of such a file;
            none there: anonymous.
        cert_dir: certificates for the registry; None: those below `cert_roots`.
        cert_roots: directories with one directory a registry, in this order.
        proxies: which requests go through one.
        registries: mirrors and other places of names.
        plain_http: to any machine; certificates count where https is spoken.
        tls_verify: the word of skopeo: False accepts any certificate, and plain http to any
            machine. Plain http to this machine needs no permission.
        ca_file: PEM; only its certificates are trusted, and none of the system's.
        more_cas: certificates in PEM that are trusted beside these.
        spool_directory: for blobs that wait for their upload; None: /var/tmp.
        daemon_host: of the engine that `docker-daemon:` means; None: Docker's own socket.
        connect_timeout_s: bound on one connection attempt.
        read_timeout_s: bound on the silence of a registry.
        ranges: connections for one big blob, at most; 1: none comes in parts.
    """

    credentials: Login | None = field(default=None, repr=False)
    auth_files: tuple[Path | AuthFile, ...] = ()
    cert_dir: Path | None = None
    cert_roots: tuple[Path, ...] = ()
    proxies: Proxies = field(default_factory=Proxies)
    registries: RegistriesConf = field(default_factory=RegistriesConf)
    plain_http: bool = False
    tls_verify: bool = True
    ca_file: str | os.PathLike[str] | None = None
    more_cas: tuple[str, ...] = ()
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
    return find_transport(name.transport).open_source(name, options or TransportOptions())


def open_sink(name: ImageName, options: TransportOptions | None = None) -> ImageSink:
    """The place that `name` means, to write to; the caller closes it.

    Nothing is written or asked yet.

    Raises:
        UsageError: the name cannot be written to, has a tag and a digest, or has no registry and
            another meaning in registries.conf.
        PolicyDenied: registries.conf blocks it.
    """
    if name.position is not None:
        raise UsageError(
            f"expected a name to write to, got the position {name.position} of {name.path!r}",
            hint=f"{name.transport}:PATH:REF",
        )
    check_one_meaning(name)
    return find_transport(name.transport).open_sink(name, options or TransportOptions())


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
    import logging

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
        more_cas=options.more_cas,
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
    credentials = options.credentials
    if credentials is not None:
        logging.getLogger(__name__).debug("%s: the login that was given", reference.registry)
    else:
        credentials = find_login(
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
