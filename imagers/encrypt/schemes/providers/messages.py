# SPDX-License-Identifier: Apache-2.0
"""The JSON of key providers: one question, one answer, the same for programs and gRPC.

    {"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"NAME":["<base64>"]},
     "DecryptConfig":{"Parameters":{}}},"optsdata":"<base64>"},
     "keyunwrapparams":{"dc":null,"annotation":null}}
    {"keywrapresults":{"annotation":"<base64>"}}

    {"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},
     "keyunwrapparams":{"dc":{"Parameters":{"NAME":["<base64>"]}},"annotation":"<base64>"}}
    {"keyunwrapresults":{"optsdata":"<base64>"}}

Questions are as Go writes them, which all providers read. Bytes in answers are base64, or
a list of integers, which is how Rust writes them. ocicrypt gives each provider the
parameters of all, with every key file and password among them; this gives it its own.

Spec: containers/ocicrypt v1.3.2, docs/keyprovider.md; guest-components, ocicrypt-rs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from imagers.errors import FormatError, ProviderFailed
from imagers.model.base64 import encode_base64
from imagers.model.keys import SecretKey
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MAX_ANSWER_BYTES",
    "build_unwrap_question",
    "build_wrap_question",
    "parse_unwrap_answer",
    "parse_wrap_answer",
]

MAX_ANSWER_BYTES = 2 * 1024 * 1024
_MAX_PACKET_BYTES = 256 * 1024
_MAX_OPTIONS_BYTES = 16 * 1024
_NO_PARAMETERS = "Enabled"  # what ocicrypt says for a provider without parameters


def _parameters(name: str, parameters: Sequence[str]) -> str:
    """`{"NAME":["<base64>",...]}`; the name was checked, so it needs no escapes."""
    texts = [
        f'"{encode_base64((one or _NO_PARAMETERS).encode("utf-8", "surrogateescape"))}"'
        for one in parameters
    ]
    return f'{{"{name}":[{",".join(texts)}]}}'


def build_wrap_question(
    name: str, parameters: Sequence[str], private_options: SecretKey
) -> SecretKey:
    """The question that wraps `private_options`; the caller closes it.

    Args:
        name: of the provider, checked.
        parameters: one a recipient; "" for one that has none.
    """
    with private_options.view() as data:
        # The base64 text of the key is an immutable copy until this function returns.
        text = (
            '{"op":"keywrap","keywrapparams":{"ec":{"Parameters":'
            f'{_parameters(name, parameters)},"DecryptConfig":{{"Parameters":{{}}}}}},'
            f'"optsdata":"{encode_base64(data)}"}},'
            '"keyunwrapparams":{"dc":null,"annotation":null}}'
        )
    return SecretKey(text.encode("ascii"))


def build_unwrap_question(name: str, parameters: str, packet: bytes) -> SecretKey:
    """The question that unwraps `packet`; the caller closes it: parameters may be secret."""
    text = (
        '{"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},'
        f'"keyunwrapparams":{{"dc":{{"Parameters":{_parameters(name, [parameters])}}},'
        f'"annotation":"{encode_base64(packet)}"}}}}'
    )
    return SecretKey(text.encode("ascii"))


def parse_wrap_answer(answer: SecretKey, *, what: str) -> bytes:
    """The packet in an answer.

    Raises:
        ProviderFailed: no answer, or no packet in it.
    """
    return _parse(answer, "keywrapresults", "annotation", _MAX_PACKET_BYTES, what)


def parse_unwrap_answer(answer: SecretKey, *, what: str) -> SecretKey:
    """The private options in an answer; the caller closes them. Errors as for a packet."""
    # `bytes` of JSON: an immutable copy until this function returns.
    return SecretKey(_parse(answer, "keyunwrapresults", "optsdata", _MAX_OPTIONS_BYTES, what))


def _parse(answer: SecretKey, outer: str, inner: str, max_bytes: int, what: str) -> bytes:
    try:
        with answer.view() as view:
            document = View.parse(bytes(view), what="answer", max_bytes=MAX_ANSWER_BYTES)
        data = _get_bytes(document.object(outer, null_is_empty=True), inner)
    except FormatError as error:
        raise ProviderFailed(f"{what}: {error}") from error
    if not 0 < len(data) <= max_bytes:
        raise ProviderFailed(
            f"{what}: expected 1 to {max_bytes} bytes at $.{outer}.{inner}, got {len(data)}"
        )
    return data


def _get_bytes(results: View, name: str) -> bytes:
    value = results.value.get(name)
    if value is None:
        return b""
    if isinstance(value, str):
        return results.bytes64(name)
    if isinstance(value, list) and all(
        isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 256 for one in value
    ):
        return bytes(cast("list[int]", value))
    raise results.error("expected base64 or a list of bytes", name)
