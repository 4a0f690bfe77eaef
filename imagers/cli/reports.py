# SPDX-License-Identifier: Apache-2.0
"""What `encrypt` and `decrypt` did to the layers, as rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.cli.output import human_bytes, print_json, print_line, print_table, say
from imagers.encrypt.rewrite import LayerAction
from imagers.model.media import is_encrypted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from imagers.build.change import Changed
    from imagers.encrypt.index import LeftOutEntry
    from imagers.encrypt.rewrite import LayerReport

__all__ = ["Report", "say_annotations_left_out", "say_entries_left_out"]

_MAX_LINES = 20


@dataclass(frozen=True, slots=True)
class Report:
    """What was done to an image, or to all of an index, for people or for machines.

    Attributes:
        reference: the name of what was written.
        word: for what was done: "encrypted", "decrypted".
        actions: that count as that.
        facts: more for `--json`, before the layers.
        lines: more for people, between the count and the digest.
        keys_only: no byte of a layer changed, only its key was wrapped anew.
    """

    reference: str
    done: Changed
    word: str
    actions: tuple[LayerAction, ...]
    seconds: float
    is_index: bool
    facts: Mapping[str, object] = field(default_factory=dict)
    lines: Sequence[str] = ()
    keys_only: bool = False

    def print(self, *, as_json: bool) -> None:
        """The result on standard output."""
        if as_json:
            print_json(self._facts())
        else:
            self._print_text()

    def _facts(self) -> dict[str, object]:
        done = self.done
        facts: dict[str, object] = {
            "reference": self.reference,
            "digest": str(done.digest),
            self.word: done.count(*self.actions),
            **self.facts,
            "seconds": round(self.seconds, 3),
        }
        if not self.is_index:
            return facts | {"layers": _layer_facts(done.images[0][1].layers)}
        return facts | {
            "left_out": [
                {
                    "digest": str(one.descriptor.digest),
                    "media_type": one.descriptor.media_type,
                    "size": one.descriptor.size,
                    "artifact_type": one.artifact_type or None,
                    "subject": None if one.subject is None else str(one.subject),
                    "platform": one.platform or None,
                }
                for one in done.left_out
            ],
            "images": [
                {
                    "platform": platform,
                    "digest": str(image.descriptor.digest),
                    self.word: image.count(*self.actions),
                    "layers": _layer_facts(image.layers),
                }
                for platform, image in done.images
            ],
        }

    def _print_text(self) -> None:
        for platform, image in self.done.images:
            if self.is_index:
                print_line(f"{platform} {image.descriptor.digest}")
            _print_layers(image.layers)
        layers = [layer for _, image in self.done.images for layer in image.layers]
        size = human_bytes(sum(layer.size for layer in layers))
        what = f"{len(layers)} layers, {size}"
        if self.keys_only:
            what = f"{self.done.count(LayerAction.REWRAPPED, LayerAction.KEPT)} layer keys"
        count = self.done.count(*self.actions)
        print_line(f"{self.word} {count} of {what} in {self.seconds:.2f} s")
        for line in self.lines:
            print_line(line)
        print_line(f"{'index' if self.is_index else 'manifest'} {self.done.digest}")


def _layer_facts(layers: Sequence[LayerReport]) -> list[dict[str, object]]:
    """The rows for `--json`."""
    return [
        {
            "index": layer.index,
            "action": layer.action.value,
            "digest": str(layer.digest),
            "media_type": layer.media_type,
            "encrypted": is_encrypted(layer.media_type),
            "cipher": layer.cipher or None,
            "keys": list(layer.keys),
            "source_size": layer.source_size,
            "size": layer.size,
            "seconds": round(layer.seconds, 3),
            "moved": layer.moved,
            "left_out": list(layer.left_out),
        }
        for layer in layers
    ]


def _print_layers(layers: Sequence[LayerReport]) -> None:
    """The rows as a table."""
    print_table(
        ["layer", "done", "size", "MB/s", "cipher", "keys"],
        [
            [
                str(layer.index),
                layer.action.value,
                human_bytes(layer.size),
                _rate(layer),
                layer.cipher or "-",
                ", ".join(layer.keys) or "-",
            ]
            for layer in layers
        ],
    )


def _rate(layer: LayerReport) -> str:
    """MB/s, of a layer whose bytes passed here."""
    if not layer.moved or layer.seconds <= 0:
        return "-"
    return f"{layer.source_size / layer.seconds / 1e6:.0f}"


def say_entries_left_out(entries: Sequence[LeftOutEntry]) -> None:
    """What was in the index and no image, and is not in the new one."""
    for one in entries[:_MAX_LINES]:
        about = " ".join(filter(None, (one.platform, str(one.subject or ""))))
        kind = one.artifact_type or one.descriptor.media_type
        say("", f"left out: {kind} {one.descriptor.digest}" + (f", about {about}" if about else ""))
    if len(entries) > _MAX_LINES:
        say("", f"left out: {len(entries) - _MAX_LINES} entries more; --json has all of them")
    if entries:
        say("", "these were no images: what they say is about digests that the new index has not")


def say_annotations_left_out(images: Iterable[Sequence[LayerReport]]) -> None:
    """One line on the annotations that did not survive encryption, if there were any."""
    layers: dict[str, dict[str, None]] = {}
    for image in images:
        for layer in image:
            for name in layer.left_out:
                layers.setdefault(name, {})[f"{layer.index + 1} of {len(image)}"] = None
    if layers:
        each = [f"{name!r} of layer {', '.join(which)}" for name, which in layers.items()]
        say(
            "",
            f"annotations that speak of a layer in the clear were left out: {'; '.join(each)}",
        )
