"""What `encrypt` and `decrypt` did to the layers, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.cli.output import human_bytes, print_table, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imagers.encrypt.image import LayerReport

__all__ = ["layer_facts", "print_layers", "say_left_out"]


def layer_facts(layers: Sequence[LayerReport]) -> list[dict[str, object]]:
    """The rows for `--json`."""
    return [
        {
            "index": layer.index,
            "action": layer.action.value,
            "media_type": layer.media_type,
            "cipher": layer.cipher or None,
            "keys": list(layer.keys),
            "source_size": layer.source_size,
            "size": layer.size,
            "seconds": round(layer.seconds, 3),
            "left_out": list(layer.left_out),
        }
        for layer in layers
    ]


def print_layers(layers: Sequence[LayerReport]) -> None:
    """The rows as a table."""
    print_table(
        ["layer", "done", "size", "MB/s", "cipher", "keys"],
        [
            [
                str(layer.index),
                layer.action.value,
                human_bytes(layer.size),
                f"{layer.source_size / layer.seconds / 1e6:.0f}" if layer.seconds > 0 else "-",
                layer.cipher or "-",
                ", ".join(layer.keys) or "-",
            ]
            for layer in layers
        ],
    )


def say_left_out(images: Iterable[Sequence[LayerReport]]) -> None:
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
