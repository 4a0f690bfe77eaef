# SPDX-License-Identifier: Apache-2.0
"""What registries answer: error documents, media types, limits.

Spec: OCI distribution-spec v1.1, "Error Codes".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import FormatError, RemoteError
from imagers.model.strict_json import View
from imagers.net.http import content_encoding, status_error, status_text
from imagers.net.urls import parse_origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.net.http import Response

__all__ = [
    "DONE",
    "MAX_ERROR_BYTES",
    "NO_API",
    "OTHER_FORM",
    "PAGE",
    "check_answer",
    "check_json",
    "media_type_of",
    "page_type",
    "parse_error_body",
    "refusal",
    "words_of",
]

# What a status means, by the request. The specification has one status for each; registries and
# the proxies before them have others, and what counts then is looked at: digests, and what is
# read back.
#
# | request                   | done      | not there | try the other form          | refused  |
# |---------------------------|-----------|-----------|-----------------------------|----------|
# | HEAD of a blob            | 200       | all but 401: it is sent, which then says why not   |
# | POST of a mount           | 201       | all others: it is sent                             |
# | POST, PATCH of an upload  | 2xx       |           | PATCH: OTHER_FORM, then PUT | the rest |
# | PUT of an upload          | 2xx       |           | OTHER_FORM, then PATCH; 413 | the rest |
# | PUT of a manifest         | 2xx       |           |                             | the rest |
# | GET of a manifest, a blob | 200       | 404       |                             | the rest |
# | GET of a tag that will be |           |           |                             |          |
# | written                   | 200       | 403, 404  |                             | the rest |
# | GET of referrers          | 200       | 404       | NO_API, then the tag        | the rest |
DONE = range(200, 300)
OTHER_FORM = frozenset({404, 405, 411, 415, 501})
# distribution says 404; others, as go-containerregistry lists them, 400 and 406; proxies 405, 501.
NO_API = frozenset({400, 404, 405, 406, 501})

PAGE = "PAGE"  # a code of ours, where a page for people has none
MAX_ERROR_BYTES = 1024 * 1024  # as containers/image
_BEGINNING = 512  # bytes that tell what it is
_MAX_CODE = 80
_NO_REGISTRY = (
    "is this the address of a registry? another server, a proxy or a login page may answer in its "
    "place"
)
_MAX_MESSAGE = 300
_WORDS = ("error_description", "details", "message", "error")
_HINTS = {
    401: "log in, or give other credentials",
    403: "log in, or give credentials that may do this",
    404: "check the name and the tag",
    405: "the registry does not take this kind of request: it may be a read-only mirror",
    413: "the registry, or a proxy before it, has a limit on sizes",
    429: "wait, and try again",
}


def media_type_of(headers: Mapping[str, str]) -> str:
    """The media type of a `Content-Type` header, without parameters; "" if there is none."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def parse_error_body(body: bytes) -> tuple[str, str]:
    """Code and message of the first error of an error document; empty where there is none.

    It never raises: it is read while another error is told.
    """
    try:
        errors = View.parse(body, what="error", max_bytes=MAX_ERROR_BYTES).objects("errors")
        if not errors:
            return "", ""
        code = errors[0].optional_text("code") or ""
        message = errors[0].optional_text("message") or ""
    except FormatError:
        return "", ""
    return _one_line(code, _MAX_CODE), _one_line(message, _MAX_MESSAGE)


def words_of(body: bytes) -> str:
    """What an answer says of an error, whatever its form; "" where it says nothing.

    Docker Hub's token server has `details`, OAuth2 `error_description`, ECR and Harbor `message`.
    """
    code, message = parse_error_body(body)
    if code or message:
        return ": ".join(part for part in (code, message) if part)
    try:
        document = View.parse(body, what="error", max_bytes=MAX_ERROR_BYTES).value
    except FormatError:
        return ""
    for name in _WORDS:
        value = document.get(name)
        if isinstance(value, str) and value:
            return _one_line(value, _MAX_MESSAGE)
    return ""


def check_answer(answer: Response, *, doing: str, name: str) -> None:
    """Raise unless the answer may be one of a registry, and is no page for people.

    A login page or a captive portal answers everything with 200, also what was sent.

    Args:
        doing, name: as for `refusal`.

    Raises:
        RemoteError: it is a page.
    """
    where = parse_origin(answer.url)
    if page := page_type(answer.headers, answer.body):
        raise RemoteError(
            f"{name}: {doing}: expected the answer of a registry, got a page of type "
            f"{page!r} from {where}",
            status=answer.status,
            hint="a login page, a captive portal or a proxy answers in place of the registry: "
            "open the address in a browser",
        )


def check_json(answer: Response, *, doing: str, name: str) -> None:
    """Raise unless the answer begins like a document, and is not one that says what went wrong.

    From something else in place of a list nobody may conclude that the list is empty.

    Args:
        doing, name: as for `refusal`.

    Raises:
        RemoteError: it is none, or an error in spite of its status.
    """
    code, message = parse_error_body(answer.body)
    if code or message:
        raise refusal(answer.status, answer.body, doing=doing, name=name)
    if answer.body.lstrip(b" \t\r\n").startswith((b"{", b"[")):
        return
    kind = _one_line(media_type_of(answer.headers), _MAX_CODE) or "unknown"
    encoding = content_encoding(answer.headers)
    raise RemoteError(
        f"{name}: {doing}: expected JSON, got {len(answer.body)} bytes of type {kind!r}"
        + (f" with content encoding {encoding!r}" if encoding else "")
        + f" from {parse_origin(answer.url)}",
        status=answer.status,
        hint="a proxy before the registry packs what it answers: have it leave that as it is"
        if encoding
        else "is this a registry? a login page or a proxy may answer in its place",
    )


def page_type(headers: Mapping[str, str], body: bytes) -> str:
    """The media type of an answer that is a page for people, or other markup; "" for none.

    The bytes tell: some registries say `text/html` of an empty answer.
    """
    if not body[:_BEGINNING].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return ""
    return _one_line(media_type_of(headers), _MAX_CODE) or "unknown"


def _one_line(text: str, limit: int) -> str:
    # Control characters of a registry must not reach a terminal.
    return "".join(c if c.isprintable() else " " for c in text[:limit]).strip()


def refusal(status: int, body: bytes, *, doing: str, name: str, page: str = "") -> RemoteError:
    """The error for an answer that was not the wished one.

    Args:
        doing: what was asked, such as `manifest` or `upload of layer 3 of 7`.
        name: of the image, as messages show it.
        page: where it is from and of what type, if it is a page for people; the error has the
            code `PAGE` then.
    """
    code, _ = parse_error_body(body)
    said = status_text(status)
    hint = _HINTS.get(status)
    if words := words_of(body):
        said += f" ({words})"
    if page:
        said += f", with {page}"
        code = PAGE
        # Perhaps it was no registry that answered. All others but 404 tell what to do.
        hint = _NO_REGISTRY if hint is None or status == 404 else hint
    return status_error(
        status, f"{name}: {doing}: the registry answered {said}", code=code, hint=hint
    )
