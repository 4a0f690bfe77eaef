# SPDX-License-Identifier: Apache-2.0
"""The words and marks of a text in Rego, as `scan` reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.model.strict_json import JSON

__all__ = ["CLOSES", "GOES_ON", "KEYWORDS", "OPENS", "Token", "is_body"]

GOES_ON = frozenset(
    {"as", "default", "else", "every", "if", "import", "in", "not", "package", "some", "with"}
)
"""Keywords after which a statement is not at its end."""
KEYWORDS = GOES_ON | {"contains", "false", "null", "true"}
OPENS = {"(": ")", "[": "]", "{": "}"}
CLOSES = frozenset(OPENS.values())


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a mark.

    Attributes:
        kind: `name` (keywords too), `string`, `raw`, `number` or `mark`.
        at: its first character in the text.
        first: whether it is the first of its line.
        depth: how many brackets are around it.
    """

    kind: str
    text: str
    at: int
    line: int
    first: bool
    depth: int

    def content(self) -> str:
        """What a name or a string stands for."""
        if self.kind == "name":
            return self.text
        if self.kind == "raw":
            return self.text[1:-1]
        value: JSON = json.loads(self.text)
        assert isinstance(value, str)  # of this kind
        return value


def is_body(tokens: Sequence[Token], at: int) -> bool:
    """Whether a `{` begins statements, of a rule or of an `every`, and is no value."""
    if tokens[at].text != "{" or not at:
        return False
    before = tokens[at - 1]
    if before.kind == "mark":
        return before.text in CLOSES
    is_member = at > 1 and tokens[at - 2].text == "."
    return before.kind != "name" or is_member or before.text not in GOES_ON - {"else", "if"}
