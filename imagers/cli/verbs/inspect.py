# SPDX-License-Identifier: Apache-2.0
"""usage: imagers inspect [OPTION]... REF

Shows what an image is, without a key: manifest, platforms, layers with sizes,
which are encrypted, with what cipher and for whom (kind of key and key id, as
far as packets say), what cannot be read without a key, and how many signatures
are beside it. Nothing of it is verified: "imagers pull" verifies.

  --raw                       the manifest or the index, byte for byte, and
                              nothing else; with --platform the manifest of that
                              image of an index
  --config                    the config of the image, as JSON; with --raw byte
                              for byte
  --referrers                 also what says that it refers to the image, by the
                              registry's list or the tag in its place
  --platform OS/ARCH[/VAR]    which image of an index; default: this machine's
  --creds USER:PASSWORD, --tls-verify BOOL, --registry-ca FILE, --cert-dir DIR,
  --authfile FILE, --daemon-host URL, --image-rs-registries FILE
                              as for "imagers copy"
  --json                      the facts as JSON; also labels, environment, user,
                              entrypoint and such of the config
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers inspect docker://registry.example.org/app:v1
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, json_option, platform_option
from imagers.cli.images import (
    RegistryOptions,
    open_named,
    open_source_of,
    parse_platform,
    registry_options,
)
from imagers.cli.output import human_bytes, print_bytes, print_json, print_line, print_table
from imagers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.descriptor import Platform

__all__ = ["command"]

_MAX_TEXT = 400  # characters of a line that the image fills
_MAX_TYPE = 128  # characters of an artifact type, which may be anything


@click.command("inspect", cls=VerbCommand, help=__doc__)
@click.argument("ref")
@click.option("--raw", is_flag=True)
@click.option("--config", is_flag=True)
@click.option("--referrers", is_flag=True)
@platform_option
@registry_options
@json_option
def command(
    *,
    ref: str,
    raw: bool,
    config: bool,
    referrers: bool,
    platform: str | None,
    registry: RegistryOptions,
    as_json: bool,
) -> None:
    """See the module."""
    if raw and as_json:
        raise UsageError("--raw and --json exclude each other")
    if (raw or config) and referrers:
        raise UsageError("--raw and --config show one document, and no --referrers")
    wanted = parse_platform(platform)
    if raw or config:
        _print_document(ref, registry, wanted, raw=raw, config=config)
        return
    from imagers.build.inspect import inspect_image

    with open_named(ref, registry) as image:
        facts = inspect_image(image.source, image.find, wanted, referrers=referrers)
    if as_json:
        print_json(facts)
    else:
        _print_facts(facts)
        _print_referrers(facts)


def _print_document(
    ref: str, registry: RegistryOptions, platform: Platform | None, *, raw: bool, config: bool
) -> None:
    from imagers.transport.resolve import resolve_image

    with open_source_of(ref, registry) as source:
        top = source.read_manifest()
        if not config and platform is None:
            print_bytes(top.raw)
            return
        image = resolve_image(source, top, platform)
    if not config:
        print_bytes(image.manifest.raw)
    elif raw:
        print_bytes(image.config.raw)
    else:
        print_json(image.config.document)


def _print_referrers(facts: dict[str, object]) -> None:
    referrers = facts.get("referrers")
    if not isinstance(referrers, list):
        return
    if not referrers:
        print_line("nothing refers to it")
        return
    names = {facts["manifest"]: facts["platform"]}
    if facts["digest"] != facts["manifest"]:
        names[facts["digest"]] = "the index"
    rows = [
        [
            (one["artifact_type"] or one["media_type"])[:_MAX_TYPE],
            str(names[one["subject"]]),
            human_bytes(one["size"]),
            one["digest"],
        ]
        for one in referrers
    ]
    print_table(["referrer", "of", "size", "digest"], rows)


def _print_facts(facts: dict[str, object]) -> None:
    for name in ("reference", "digest", "platforms", "manifest", "media_type", "platform"):
        value = facts.get(name)
        if value is not None and (name != "manifest" or value != facts["digest"]):
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            if name == "platforms" and facts["attestations"]:
                shown += f"; and {facts['attestations']} attestations"
            print_line(f"{name.replace('_', ' ') + ':':12} {shown}")
    config = facts["config"]
    assert isinstance(config, dict)
    for name, shown in (("created", config["created"]), ("command", _command_of(config))):
        if shown:
            print_line(f"{name + ':':12} {str(shown)[:_MAX_TEXT]}")
    signatures = facts["signatures"]
    print_line(f"{'signatures:':12} {signatures}")
    layers = facts["layers"]
    assert isinstance(layers, list)
    rows = []
    for layer in layers:
        for number, recipient in enumerate(layer.get("recipients") or ["-"]):
            first = number == 0
            rows.append(
                [
                    str(layer["index"]) if first else "",
                    human_bytes(layer["size"]) if first else "",
                    _short_type(layer["media_type"]) if first else "",
                    layer.get("cipher", "not encrypted") if first else "",
                    recipient,
                ]
            )
    print_table(["layer", "size", "type", "cipher", "for"], rows)
    encrypted = [layer for layer in layers if layer["encrypted"]]
    if encrypted:
        size = human_bytes(sum(layer["size"] for layer in encrypted))
        print_line(
            f"{len(encrypted)} of {len(layers)} layers ({size}) cannot be read without a key; "
            "config, labels, history, diff_ids and sizes can"
        )


def _command_of(config: Mapping[str, object]) -> str:
    """What a container of the image runs, as words of a shell."""
    parts = [config["entrypoint"], config["cmd"]]
    return shlex.join(str(word) for part in parts if isinstance(part, list) for word in part)


def _short_type(media_type: str) -> str:
    for prefix in (
        "application/vnd.oci.image.layer.v1.",
        "application/vnd.docker.image.rootfs.diff.",
    ):
        media_type = media_type.removeprefix(prefix)
    return media_type
