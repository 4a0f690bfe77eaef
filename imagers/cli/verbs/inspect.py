"""usage: imagers inspect [OPTION]... REF

Shows what an image is, without a key: manifest, platforms, layers with sizes,
which are encrypted, with what cipher and for whom (kind of key and key id, as
far as packets say), what cannot be read without a key, and how many signatures
are beside it. Nothing of it is verified: "imagers pull" verifies.

  --referrers                 also what says that it refers to the image, by the
                              registry's list or the tag in its place
  --platform OS/ARCH[/VAR]    which image of an index; default: this machine's
  --creds USER:PASSWORD, --tls-verify BOOL, --registry-ca FILE, --cert-dir DIR,
  --authfile FILE, --daemon-host URL, --image-rs-registries FILE
                              as of "imagers copy"
  --json                      the facts as JSON
  --help                      this text

example:
  imagers inspect docker://registry.example.org/app:v1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, json_option, platform_option
from imagers.cli.images import (
    RegistryOptions,
    name_of,
    opened_source,
    parse_platform,
    registry_options,
)
from imagers.cli.output import human_bytes, print_json, print_line, print_table
from imagers.cli.signatures import places_of
from imagers.errors import Unsupported
from imagers.model.image import load_image, read_entry
from imagers.model.manifest import Index, parse_manifest_or_index
from imagers.model.media import is_encrypted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagers.model.descriptor import Platform
    from imagers.model.digest import Digest
    from imagers.model.image import ImageSource, Layer
    from imagers.model.keys import WrappedKey
    from imagers.sign.found import Found

__all__ = ["command"]

_MAX_TYPE = 128  # characters of an artifact type, which may be anything


@click.command("inspect", cls=VerbCommand, help=__doc__)
@click.argument("ref")
@click.option("--referrers", is_flag=True)
@platform_option
@registry_options
@json_option
def command(
    *,
    ref: str,
    referrers: bool,
    platform: str | None,
    registry: RegistryOptions,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.pull.signatures import signature_finder

    name = name_of(ref)
    with opened_source(name, registry) as source:
        places = places_of(source, name, registry)
        finder = signature_finder(places, None)
        facts = _facts(source, parse_platform(platform), finder)
        if referrers:
            # To the image that was chosen, and to the index that it was chosen from.
            subjects = dict.fromkeys((str(facts["digest"]), str(facts["manifest"])))
            facts["referrers"] = [one for name in subjects for one in _referrers(source, name)]
    if as_json:
        print_json(facts)
    else:
        _print_facts(facts)
        _print_referrers(facts)


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


def _referrers(source: ImageSource, subject: str) -> list[dict[str, object]]:
    from imagers.model.digest import parse_digest
    from imagers.transport.beside import read_referrers_of

    return [
        {
            "digest": str(entry.digest),
            "size": entry.size,
            "media_type": entry.media_type,
            "artifact_type": entry.artifact_type,
            "subject": subject,
            "annotations": dict(entry.annotations),
        }
        for entry in read_referrers_of(source, parse_digest(subject))
    ]


def _facts(
    source: ImageSource, platform: Platform, find: Callable[[Digest], Found]
) -> dict[str, object]:
    answer = source.read_manifest()
    document = parse_manifest_or_index(answer.raw, media_type=answer.media_type)
    facts: dict[str, object] = {"name": source.name, "digest": str(document.descriptor.digest)}
    if isinstance(document, Index):
        facts["platforms"] = [str(platform) for platform in document.platforms()]
        entry = document.require_platform(platform, what=source.name)
        document = read_entry(source, entry)
        if isinstance(document, Index):
            raise Unsupported(
                f"{source.name}: the entry for '{platform}' is an index: expected an image"
            )
    image = load_image(document, source)
    found = find(document.descriptor.digest)
    facts |= {
        "manifest": str(document.descriptor.digest),
        "media_type": document.descriptor.media_type,
        "platform": str(image.config.platform),
        "config": {"digest": str(document.config.digest), "size": document.config.size},
        "layers": [_layer_facts(layer) for layer in image.layers()],
        "signatures": _signatures(found),
        "signature_forms": {one.form.value: one.count for one in found.looked},
    }
    return facts


def _signatures(found: Found) -> int | str:
    """How many there are, or why nobody could look."""
    return str(found.failures[0].error) if found.failures else len(found.signatures)


def _layer_facts(layer: Layer) -> dict[str, object]:
    from imagers.encrypt.annotations import read_annotations
    from imagers.encrypt.describe import describe_wrapped_key

    descriptor = layer.descriptor
    facts: dict[str, object] = {
        "index": layer.index,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "media_type": descriptor.media_type,
        "diff_id": str(layer.diff_id),
        "encrypted": is_encrypted(descriptor.media_type),
    }
    if is_encrypted(descriptor.media_type):
        info = read_annotations(descriptor, what=layer.what)
        facts["cipher"] = info.public.cipher
        facts["recipients"] = [describe_wrapped_key(wrapped) for wrapped in info.wrapped]
        facts["packets"] = _packet_facts(info.wrapped)
    return facts


def _packet_facts(packets: Sequence[WrappedKey]) -> list[dict[str, object]]:
    """Each packet by the name that --remove-recipient takes, and who can open it."""
    from imagers.encrypt.describe import describe_recipients

    counts: dict[str, int] = {}
    facts: list[dict[str, object]] = []
    for wrapped in packets:
        number = counts[wrapped.scheme] = counts.get(wrapped.scheme, 0) + 1
        facts.append(
            {
                "name": f"{wrapped.scheme}#{number}",
                "scheme": wrapped.scheme,
                "size": len(wrapped.packet),
                "recipients": describe_recipients(wrapped),
            }
        )
    return facts


def _print_facts(facts: dict[str, object]) -> None:
    for name in ("name", "digest", "platforms", "manifest", "media_type", "platform"):
        value = facts.get(name)
        if value is not None and (name != "manifest" or value != facts["digest"]):
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            print_line(f"{name.replace('_', ' ') + ':':12} {shown}")
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


def _short_type(media_type: str) -> str:
    for prefix in (
        "application/vnd.oci.image.layer.v1.",
        "application/vnd.docker.image.rootfs.diff.",
    ):
        media_type = media_type.removeprefix(prefix)
    return media_type
