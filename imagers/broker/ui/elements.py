# SPDX-License-Identifier: Apache-2.0
"""HTML as trees: text is escaped when the tree is written, so none of it can become markup."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterable
    from xml.etree.ElementTree import Element

__all__ = ["element", "table", "to_html"]


def element(tag: str, *children: Element | str | None, **attributes: str | None) -> Element:
    """An element.

    Args:
        children: elements and texts in their order; None is left out.
        attributes: `class_` is `class`, and `_` is `-`; those that are None are left out.
    """
    made = ET.Element(
        tag,
        {
            name.removesuffix("_").replace("_", "-"): value
            for name, value in attributes.items()
            if value is not None
        },
    )
    for child in children:
        if child is None:
            continue
        if not isinstance(child, str):
            made.append(child)
        elif len(made) > 0:
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def table(head: Iterable[str], rows: Iterable[Iterable[Element | str]], *, empty: str) -> Element:
    """A table, or the text `empty` where there are no rows."""
    body = [
        element("tr", *(element("td", "\N{EN DASH}" if cell == "" else cell) for cell in row))
        for row in rows
    ]
    if not body:
        return element("p", empty, class_="empty")
    names = (element("th", name, scope="col") for name in head)
    made = element("table", element("thead", element("tr", *names)), element("tbody", *body))
    return element("div", made, class_="wide", tabindex="0")


def to_html(root: Element) -> bytes:
    """The document, in UTF-8."""
    document: bytes = ET.tostring(root, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + document
