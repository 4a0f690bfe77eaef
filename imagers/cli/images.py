# SPDX-License-Identifier: Apache-2.0
"""Image names of the command line, turned into open sources and sinks."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagers.cli.command import Verb, option_group
from imagers.cli.output import say
from imagers.errors import FormatError, Unsupported, UsageError
from imagers.model.descriptor import Platform
from imagers.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imagers.model.image import ImageSink, ImageSource
    from imagers.model.keys import ResourceStore
    from imagers.pull.named import NamedImage
    from imagers.settings import Settings
    from imagers.transport.names import ImageName
    from imagers.transport.open import TransportOptions

__all__ = [
    "RegistryOptions",
    "TwoRegistries",
    "check_holds_encrypted",
    "name_of",
    "open_destination",
    "open_named",
    "open_source_of",
    "parse_platform",
    "reading_options",
    "registry_options",
    "two_registries_options",
]

_MAX_RANGES = 4  # connections for one blob: more are rude to a registry


def parse_platform(text: str | None) -> Platform | None:
    """`OS/ARCH[/VARIANT]`; None where the option is not given.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):  # os, architecture, variant
        raise UsageError(f"--platform: expected OS/ARCH or OS/ARCH/VARIANT, got {text!r}")
    return Platform(parts[0], parts[1], parts[2] if len(parts) > 2 else "")


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How to speak to one registry."""

    creds: str | None = None
    tls_verify: bool = True
    registry_ca: str | None = None
    cert_dir: str | None = None
    authfile: str | None = None
    daemon_host: str | None = None
    image_rs_registries: str | None = None
    ranges: int = 1

    def transport(
        self,
        user: Settings | None = None,
        *,
        is_remote: bool = True,
        resources: ResourceStore | None = None,
    ) -> TransportOptions:
        """The same for `imagers.transport`, with what the user's machine says.

        Args:
            user: None: what it says outside of guests.
            is_remote: for a registry; else nothing is read that only registries need.
            resources: the broker whose documents are used.

        Raises:
            UsageError: the credentials are not USER:PASSWORD.
        """
        credentials = None
        if self.creds is not None:
            from imagers.registry.credentials import Credentials

            credentials = Credentials.parse(self.creds)
        options = (user or read_settings()).transport_options(
            is_remote=is_remote,
            image_rs_registries=self.image_rs_registries,
            logins=self.authfile,
            resources=resources,
        )
        return replace(
            options,
            credentials=credentials,
            tls_verify=self.tls_verify,
            ca_file=self.registry_ca,
            cert_dir=None if self.cert_dir is None else Path(self.cert_dir),
            daemon_host=self.daemon_host or options.daemon_host,
            ranges=self.ranges,
        )


@dataclass(frozen=True, slots=True)
class TwoRegistries:
    """Options for a source and a destination; what is said of one side wins."""

    source: RegistryOptions
    sink: RegistryOptions


# An option is one line here: its name, which is that of an attribute of `RegistryOptions`, and what
# click is told of it. Those of a place have forms for one side too, as skopeo's: --src-, --dest-.
_OF_A_PLACE: dict[str, Mapping[str, Any]] = {
    "creds": {"metavar": "USER:PASSWORD"},
    "tls_verify": {"type": bool},
    "registry_ca": {"metavar": "FILE"},
    "cert_dir": {"metavar": "DIR"},
    "authfile": {"metavar": "FILE"},
    "daemon_host": {"metavar": "URL"},
}
_OF_NAMES: dict[str, Mapping[str, Any]] = {"image_rs_registries": {"metavar": "FILE"}}
_OF_BLOBS: dict[str, Mapping[str, Any]] = {"ranges": {"type": click.IntRange(1, _MAX_RANGES)}}


def _options(
    table: Mapping[str, Mapping[str, Any]], side: str = ""
) -> dict[str, Callable[[Verb], Verb]]:
    names = {f"{side}{name}": how for name, how in table.items()}
    return {
        name: click.option(f"--{name.replace('_', '-')}", name, **how)
        for name, how in names.items()
    }


def _one(**given: Any) -> RegistryOptions:
    return RegistryOptions(**{name: value for name, value in given.items() if value is not None})


def _two(**given: Any) -> TwoRegistries:
    sides = {
        side: {name: given.pop(f"{side}_{name}") for name in _OF_A_PLACE}
        for side in ("src", "dest")
    }

    def options(side: str) -> RegistryOptions:
        own = {name: value for name, value in sides[side].items() if value is not None}
        return _one(**{**given, **own})

    return TwoRegistries(options("src"), options("dest"))


registry_options = option_group("registry", _one, _options(_OF_A_PLACE | _OF_NAMES))
"""Options of a verb with one image; it gets them as `registry`."""

reading_options = option_group("registry", _one, _options(_OF_A_PLACE | _OF_NAMES | _OF_BLOBS))
"""The same, of a verb that reads its layers."""

two_registries_options = option_group(
    "registries",
    _two,
    {
        **_options(_OF_A_PLACE | _OF_NAMES | _OF_BLOBS),
        **_options(_OF_A_PLACE, "src_"),
        **_options(_OF_A_PLACE, "dest_"),
    },
)
"""Options of a verb with a source and a destination; it gets them as `registries`."""


def name_of(text: str) -> ImageName:
    """The name of an image to read, as a word of the command line: its path is looked up here.

    Raises:
        FormatError, Unsupported: it is no name.
    """
    from imagers.transport.names import locate, parse_image_name

    kinds = ("oci", "dir") if os.path.isdir(text) else ("oci-archive", "docker-archive")
    told = f"a path needs its kind before it: {kinds[0]}:{text} or {kinds[1]}:{text}"
    try:
        name = locate(parse_image_name(text))
    except FormatError as error:
        if os.path.exists(text):
            error.hint = told
        raise
    if name.short_name and os.path.exists(text):
        say("", f"{text} is read as an image of a registry; {told}")
    return name


def open_named(
    text: str,
    options: RegistryOptions,
    registries_d: str | None = None,
    *,
    asks: bool = True,
    user: Settings | None = None,
    resources: ResourceStore | None = None,
) -> NamedImage:
    """The image that a name of the command line means; the caller closes it.

    Args:
        registries_d: place; None: the user's, else the system's.
        asks: whether signatures are looked for. Else no file is read that only these need.
        user: None: what this machine says outside of guests.
        resources: the broker whose documents and keys are used.
    """
    from imagers.pull.named import open_image
    from imagers.settings.documents import key_reader

    name = name_of(text)
    user = user or read_settings()
    transport = options.transport(user, is_remote=name.is_remote, resources=resources)
    lookasides = user.lookasides(registries_d, resources) if asks and name.is_remote else None
    return open_image(name, transport, lookasides, read_key=key_reader(resources))


def open_source_of(text: str, options: RegistryOptions) -> ImageSource:
    """The source that a name of the command line means; the caller closes it.

    For what asks no policy and looks for no signature: nothing is read that only these need.
    """
    from imagers.transport.open import open_source

    name = name_of(text)
    return open_source(name, options.transport(is_remote=name.is_remote))


def open_destination(text: str, options: RegistryOptions) -> ImageSink:
    """The sink that a name of the command line means; the caller closes it."""
    from imagers.transport.names import parse_image_name
    from imagers.transport.open import open_sink

    name = parse_image_name(text)
    return open_sink(name, options.transport(is_remote=name.is_remote))


def check_holds_encrypted(text: str) -> None:
    """Raise unless an encrypted image can be at the place of this name; before any key is made.

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
