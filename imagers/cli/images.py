"""Image names of the command line, turned into open sources and sinks."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.cli.command import Verb, option_group
from imagers.errors import FormatError, LocalError, Unsupported, UsageError
from imagers.files import read_bounded
from imagers.model.descriptor import Platform
from imagers.model.image import load_image, read_entry
from imagers.model.manifest import Index, check_platform, parse_manifest_or_index
from imagers.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagers.model.image import Image, ImageSink, ImageSource
    from imagers.model.manifest import RawManifest
    from imagers.net.proxies import Proxies
    from imagers.registry.mirrors import RegistriesConf
    from imagers.settings import Settings
    from imagers.transport.names import ImageName
    from imagers.transport.open import TransportOptions

__all__ = [
    "RegistryOptions",
    "TwoRegistries",
    "check_holds_encrypted",
    "name_of",
    "opened_sink",
    "opened_source",
    "parse_platform",
    "read_proxies",
    "read_registries",
    "reading_options",
    "registry_options",
    "resolve_image",
    "two_registries_options",
]

_MAX_CONFIG_BYTES = 1024 * 1024  # of one file
_MAX_RANGES = 4  # connections for one blob: more are rude to a registry


def parse_platform(text: str | None) -> Platform:
    """`OS/ARCH[/VARIANT]`; without it, the platform of this machine.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        from imagers.transport.copy import this_platform

        return this_platform()
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):  # os, architecture, variant
        raise UsageError(f"--platform: expected OS/ARCH or OS/ARCH/VARIANT, got {text!r}")
    return Platform(parts[0], parts[1], parts[2] if len(parts) > 2 else "")


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How to speak to one registry."""

    creds: str | None = None
    tls_verify: bool = True
    ca_file: str | None = None
    cert_dir: str | None = None
    authfile: str | None = None
    daemon_host: str | None = None
    image_rs_registries: str | None = None
    ranges: int = 1

    def transport(self, *, is_remote: bool = True) -> TransportOptions:
        """The same for `imagers.transport`.

        Args:
            is_remote: for a registry; else nothing is read that only registries need.

        Raises:
            UsageError: the credentials are not USER:PASSWORD.
        """
        from imagers.net.proxies import Proxies
        from imagers.registry.auth import Credentials
        from imagers.registry.mirrors import RegistriesConf
        from imagers.transport.open import TransportOptions

        settings = read_settings()
        if is_remote:
            proxies = read_proxies(settings)
            registries = read_registries(settings, self.image_rs_registries)
        else:
            # A file that is wrong there must not keep anybody from a directory of his own.
            proxies, registries = Proxies(), RegistriesConf()
        credentials = None if self.creds is None else Credentials.parse(self.creds)
        if self.authfile is not None and not Path(self.authfile).exists():
            # A login was expected there: to go on without would be a surprise.
            raise LocalError("no such file", path=self.authfile, hint="--authfile names it")
        return TransportOptions(
            credentials=credentials,
            tls_verify=self.tls_verify,
            ca_file=self.ca_file,
            spool_directory=settings.spool,
            auth_files=settings.auth_files if self.authfile is None else (Path(self.authfile),),
            cert_dir=None if self.cert_dir is None else Path(self.cert_dir),
            cert_roots=settings.cert_roots,
            proxies=proxies,
            registries=registries,
            daemon_host=self.daemon_host or settings.daemon_host,
            ranges=self.ranges,
        )


@dataclass(frozen=True, slots=True)
class TwoRegistries:
    """Options for a source and a destination; what is said of one side wins."""

    source: RegistryOptions
    sink: RegistryOptions


_OF_ALL: dict[str, Callable[[Verb], Verb]] = {
    "registry_ca": click.option("--registry-ca", "registry_ca", metavar="FILE"),
    "cert_dir": click.option("--cert-dir", "cert_dir", metavar="DIR"),
    "authfile": click.option("--authfile", "authfile", metavar="FILE"),
    "daemon_host": click.option("--daemon-host", "daemon_host", metavar="URL"),
    "image_rs_registries": click.option(
        "--image-rs-registries", "image_rs_registries", metavar="FILE"
    ),
}
_OF_BLOBS: dict[str, Callable[[Verb], Verb]] = {
    "ranges": click.option("--ranges", type=click.IntRange(1, _MAX_RANGES), default=1),
}


def _creds(side: str = "") -> Callable[[Verb], Verb]:
    return click.option(f"--{side}creds", f"{side}creds".replace("-", "_"), metavar="USER:PASSWORD")


def _tls_verify(side: str = "") -> Callable[[Verb], Verb]:
    return click.option(
        f"--{side}tls-verify", f"{side}tls_verify".replace("-", "_"), type=bool, default=None
    )


def read_proxies(settings: Settings) -> Proxies:
    """The proxies that the environment names.

    Raises:
        FormatError: one of them is none.
    """
    from imagers.net.proxies import Proxies, parse_exempt, parse_proxy

    http, https = settings.http_proxy, settings.https_proxy
    return Proxies(
        http=None if http is None else parse_proxy(http, what="http_proxy"),
        https=None if https is None else parse_proxy(https, what="https_proxy"),
        exempt=parse_exempt(settings.no_proxy),
    )


def read_registries(settings: Settings, image_rs: str | None = None) -> RegistriesConf:
    """Mirrors and other places that registries.conf names.

    Args:
        image_rs: a registry configuration of image-rs, in place of it.

    Raises:
        LocalError, FormatError: a file cannot be read, or is malformed.
    """
    from imagers.registry.registries_conf import (
        parse_image_rs_registries,
        parse_registries_conf,
    )

    if image_rs is not None:
        return parse_image_rs_registries(_read_text(Path(image_rs)), what=image_rs)
    return parse_registries_conf(
        [(str(path), _read_text(path)) for path in settings.registries_conf]
    )


def _read_text(path: Path) -> str:
    data = read_bounded(path, max_bytes=_MAX_CONFIG_BYTES)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise LocalError("could not be read as text: no UTF-8", path=str(path)) from error


def _one(
    *,
    creds: str | None,
    tls_verify: bool | None,
    registry_ca: str | None,
    cert_dir: str | None = None,
    authfile: str | None = None,
    daemon_host: str | None = None,
    image_rs_registries: str | None = None,
    ranges: int = 1,
) -> RegistryOptions:
    return RegistryOptions(
        creds=creds,
        tls_verify=tls_verify is not False,
        ca_file=registry_ca,
        cert_dir=cert_dir,
        authfile=authfile,
        daemon_host=daemon_host,
        image_rs_registries=image_rs_registries,
        ranges=ranges,
    )


def _two(  # two sides of three options
    *,
    creds: str | None,
    src_creds: str | None,
    dest_creds: str | None,
    tls_verify: bool | None,
    src_tls_verify: bool | None,
    dest_tls_verify: bool | None,
    registry_ca: str | None,
    cert_dir: str | None = None,
    authfile: str | None = None,
    daemon_host: str | None = None,
    image_rs_registries: str | None = None,
    ranges: int = 1,
) -> TwoRegistries:
    def side(own_creds: str | None, own_verify: bool | None) -> RegistryOptions:  # noqa: FBT001
        verify = tls_verify if own_verify is None else own_verify
        return _one(
            creds=own_creds or creds,
            tls_verify=verify,
            registry_ca=registry_ca,
            cert_dir=cert_dir,
            authfile=authfile,
            daemon_host=daemon_host,
            image_rs_registries=image_rs_registries,
            ranges=ranges,
        )

    return TwoRegistries(side(src_creds, src_tls_verify), side(dest_creds, dest_tls_verify))


registry_options = option_group(
    "registry",
    _one,
    {"creds": _creds(), "tls_verify": _tls_verify(), **_OF_ALL},
)
"""Options of a verb with one image; it gets them as `registry`."""

reading_options = option_group(
    "registry",
    _one,
    {"creds": _creds(), "tls_verify": _tls_verify(), **_OF_ALL, **_OF_BLOBS},
)
"""The same, of a verb that reads its layers."""

two_registries_options = option_group(
    "registries",
    _two,
    {
        "creds": _creds(),
        "src_creds": _creds("src-"),
        "dest_creds": _creds("dest-"),
        "tls_verify": _tls_verify(),
        "src_tls_verify": _tls_verify("src-"),
        "dest_tls_verify": _tls_verify("dest-"),
        **_OF_ALL,
        **_OF_BLOBS,
    },
)
"""Options of a verb with a source and a destination; it gets them as `registries`."""


def name_of(text: str) -> ImageName:
    """The name of an image to read, as a word of the command line: its path is looked up here.

    Raises:
        FormatError, Unsupported: it is no name.
    """
    from imagers.transport.names import locate, parse_image_name

    try:
        return locate(parse_image_name(text))
    except FormatError as error:
        if os.path.exists(text):
            kinds = ("oci", "dir") if os.path.isdir(text) else ("oci-archive", "docker-archive")
            error.hint = f"a path needs its kind before it: {kinds[0]}:{text} or {kinds[1]}:{text}"
        raise


@contextmanager
def opened_source(name: ImageName, options: RegistryOptions) -> Iterator[ImageSource]:
    """The source that a name means, from `name_of`."""
    from imagers.transport.open import open_source

    source = open_source(name, options.transport(is_remote=name.transport == "docker"))
    try:
        yield source
    finally:
        source.close()


@contextmanager
def opened_sink(text: str, options: RegistryOptions) -> Iterator[ImageSink]:
    """The sink that a name of the command line means."""
    from imagers.transport.names import parse_image_name
    from imagers.transport.open import open_sink

    name = parse_image_name(text)
    rest, at, _ = text.partition("@")
    if name.transport == "docker" and at and rest.rfind(":") > rest.rfind("/"):
        raise UsageError(
            f"{text[:160]!r}: has a tag and a digest: expected one of them to write to",
            hint="the digest would decide, and the tag would not be written",
        )
    sink = open_sink(name, options.transport(is_remote=name.transport == "docker"))
    try:
        yield sink
    finally:
        sink.close()


def check_holds_encrypted(text: str) -> None:
    """Nothing, if an encrypted image can be at the place of this name; before any key is made.

    Raises:
        Unsupported: no engine opens it there.
    """
    from imagers.transport.names import parse_image_name

    name = parse_image_name(text)
    if not name.holds_encrypted:
        raise Unsupported(
            f"{name}: archives and engines of Docker cannot hold an encrypted image",
            hint="write to docker://, oci:, oci-archive: or dir:",
        )


def resolve_image(source: ImageSource, top: RawManifest, platform: str | None) -> Image:
    """The image of a source for a platform; config and manifest agree, no origin is verified.

    Args:
        top: what the source's name means.
        platform: `OS/ARCH[/VARIANT]` as the user asked for it; None: of an index, the one of
            this machine, and an image that is in no index whatever it is for.

    Raises:
        NotFound: an index without that platform.
        VerificationError: the config is for another platform.
    """
    wanted = parse_platform(platform)
    document = parse_manifest_or_index(top.raw, media_type=top.media_type)
    entry = None
    if isinstance(document, Index):
        entry = document.require_platform(wanted, what=source.name)
        document = read_entry(source, entry)
        if isinstance(document, Index):
            raise Unsupported(
                f"{source.name}: the entry for '{wanted}' is an index: expected an image"
            )
    image = load_image(document, source)
    if entry is not None or platform is not None:
        check_platform(image.config, wanted, entry=None if entry is None else entry.platform)
    return image
