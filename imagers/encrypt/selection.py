# SPDX-License-Identifier: Apache-2.0
"""Which layers of an image: numbers as skopeo counts them, ranges, all but the base.

>>> sorted(select_layers(5, [parse_layer_selection("-2..")]))
[3, 4]

N      one layer: 0 is the base, -1 the last
A..B   from A to B, both included, in either way to count; A.. and ..B to the ends
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LayerRange", "LayerSelection", "parse_layer_selection", "select_layers"]

_NUMBER = re.compile(r"-?[0-9]{1,6}\Z")


@dataclass(frozen=True, slots=True)
class LayerRange:
    """From `first` to `last`, both included; each may count from the end."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"


LayerSelection = int | LayerRange
"""One layer or several."""


def parse_layer_selection(text: str) -> LayerSelection:
    """The selection that `text` means.

    Raises:
        UsageError: it is none.
    """
    first, dots, last = text.partition("..")
    if not dots:
        return _parse(first, text, None)
    if not first and not last:
        raise _not_a_selection(text)
    return LayerRange(_parse(first, text, 0), _parse(last, text, -1))


def _parse(number: str, text: str, default: int | None) -> int:
    if not number and default is not None:
        return default
    if not (_NUMBER.match(number) and number.isascii()):
        raise _not_a_selection(text)
    return int(number)


def _not_a_selection(text: str) -> UsageError:
    return UsageError(
        f"--encrypt-layer: expected a number such as 0 or -1, or a range such as 1..-1, "
        f"got {text[:80]!r}"
    )


def select_layers(
    count: int, layers: Sequence[LayerSelection] | None, *, skip_base: int = 0
) -> frozenset[int]:
    """The indexes that a selection names: 0 is the base, -1 the last; None names all.

    Args:
        skip_base: so many of the lowest layers are not meant; not with `layers`.

    Raises:
        UsageError: a layer that the image has not, a range that holds none, or both ways
            to choose.
    """
    if skip_base:
        if layers is not None:
            raise UsageError("expected a choice of layers or --skip-base, got both")
        if not 0 < skip_base < count:
            raise UsageError(
                f"--skip-base {skip_base} leaves nothing to encrypt: the image has {count} layers"
            )
        return frozenset(range(skip_base, count))
    if layers is None:
        return frozenset(range(count))
    chosen: set[int] = set()
    for one in layers:
        if isinstance(one, LayerRange):
            first, last = _index(one.first, count), _index(one.last, count)
            if first > last:
                raise UsageError(f"the range {one} holds no layer: the image has {count}")
            chosen.update(range(first, last + 1))
        else:
            chosen.add(_index(one, count))
    return frozenset(chosen)


def _index(number: int, count: int) -> int:
    if not -count <= number < count:
        raise UsageError(
            f"the image has no layer {number}: expected a number from {-count} to {count - 1}"
            if count
            else f"the image has no layer {number}: it has none at all"
        )
    return number % count
