# SPDX-License-Identifier: Apache-2.0
"""Lists that a registry answers page by page, and the list of a repository's tags.

    for body in read_pages(client, "tags/list", doing="tags", max_pages=9, max_bytes=9999):
        ...
    tags = list_tags(client)

The registry says how a list goes on, and gets no more of us for it than for its first page: each
page is at the registry itself, and pages and bytes are bounded.

Spec: OCI distribution-spec v1.1, "Listing Tags", "Listing Referrers"; RFC 8288 section 3.3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagers.errors import FormatError, NotFound
from imagers.model.digest import parse_digest
from imagers.model.reference import is_tag
from imagers.model.strict_json import View
from imagers.net.urls import join_url, parse_origin
from imagers.registry.answers import check_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.registry.client import RegistryClient

__all__ = ["list_tags", "read_pages"]

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_RELATION = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\"\s;,]+))", re.IGNORECASE)
_FOUND = (200,)
_MAX_TAG_BYTES = 64 * 1024 * 1024  # all pages together; half a million long tags
_MAX_TAG_PAGES = 10_000  # some registries have 50 tags on a page, whatever is asked for


def read_pages(
    client: RegistryClient,
    target: str,
    *,
    doing: str,
    max_pages: int,
    max_bytes: int,
    max_page_bytes: int,
    accept: str = "application/json",
    name: str | None = None,
) -> Iterator[bytes]:
    """The documents of a list, one a page, each of them JSON or the beginning of it.

    Args:
        target: of the first page, as for `RegistryClient.request`.
        doing: names the list in messages.
        max_bytes: of all pages together.
        name: what messages are about; None: the client's reference.

    Raises:
        FormatError: beyond a bound, or the next page is on another server.
        RemoteError: a page could not be had.
    """
    first_url = ""
    size = 0
    for _ in range(max_pages):
        answer = client.request(
            "GET",
            target,
            doing=doing,
            headers={"Accept": accept},
            max_bytes=max_page_bytes,
            expected=_FOUND,
            name=name,
        )
        check_json(answer, doing=doing, name=str(client.reference) if name is None else name)
        size += len(answer.body)
        if size > max_bytes:
            raise FormatError(f"expected at most {max_bytes} bytes, got more", what=doing)
        yield answer.body
        following = _next_page(answer.headers.get("Link", ""))
        if following is None:
            return
        first_url = first_url or answer.url
        target = join_url(answer.url, following)
        if parse_origin(target) != parse_origin(first_url):
            raise FormatError("the next page is on another server", what=doing)
    raise FormatError(f"expected at most {max_pages} pages, got more", what=doing)


def _next_page(header: str) -> str | None:
    """The URL of the next page in a `Link` header, which may have other links too."""
    for url, parameters in _LINK.findall(header):
        for quoted, plain in _RELATION.findall(parameters):
            # RFC 8288 section 3.3: one relation, or several between quotes.
            if "next" in (plain.lower(), *quoted.lower().split()):
                return str(url)
    return None


def list_tags(client: RegistryClient) -> tuple[str, ...]:
    """All tags of the client's repository, each once, as the registry orders them.

    Raises:
        NotFound: there is no such repository.
        FormatError: the answer is no list of tags, or beyond a bound.
        RemoteError: it could not be asked.
    """
    found: dict[str, None] = {}
    pages = read_pages(
        client,
        "tags/list",
        doing="tags",
        max_pages=_MAX_TAG_PAGES,
        max_bytes=_MAX_TAG_BYTES,
        max_page_bytes=_MAX_TAG_BYTES,
        # Its tag is of no account here, and nobody wrote the one that it has by default.
        name=f"{client.reference.registry}/{client.reference.repository}",
    )
    for body in _found(pages):
        view = View.parse(body, what="tags", max_bytes=_MAX_TAG_BYTES)
        # Nexus 3.58 has null among them, and for an empty repository others have null in place
        # of the list.
        listed = view.value.get("tags")
        if isinstance(listed, list):
            view.value["tags"] = [one for one in listed if one is not None]
        # Artifactory lists digests too.
        tags = [one for one in view.texts("tags", null_is_empty=True) if not _is_digest(one)]
        for tag in tags:
            if not is_tag(tag):
                raise view.error(f"expected a tag, got {tag[:80]!r}", "tags")
        if tags and found.keys() >= set(tags):
            raise FormatError("the pages lead back to one that was read", what="tags")
        found |= dict.fromkeys(tags)
    return tuple(found)


def _found(pages: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pages
    except NotFound as error:
        error.hint = "check the name of the repository"
        raise


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except FormatError:
        return False
    return True
