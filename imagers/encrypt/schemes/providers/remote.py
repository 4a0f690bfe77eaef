# SPDX-License-Identifier: Apache-2.0
"""A key provider on gRPC: service `keyprovider.KeyProviderService`, two methods.

Request and reply are messages with one field, `bytes` number 1, that holds the JSON; so
they are written here by hand instead of by generated code:

    0a VARINT(length) JSON

Spec: containers/ocicrypt v1.3.2, utils/keyprovider/keyprovider.proto; protobuf encoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers import waiting
from imagers.encrypt.keyfiles import read_small_file
from imagers.encrypt.schemes.providers.messages import MAX_ANSWER_BYTES
from imagers.errors import FormatError, PluginNotFound, ProviderFailed
from imagers.model.keys import SecretKey

if TYPE_CHECKING:
    import grpc

    from imagers.encrypt.schemes.providers.config import GRPCProvider, TLSFiles

__all__ = ["ask_service", "decode_message", "encode_message"]

_SERVICE = "/keyprovider.KeyProviderService/"
_FIELD = 0x0A  # number 1, length-delimited
_MAX_VARINT_BYTES = 10


def encode_message(data: bytes) -> bytes:
    """The message whose one field is `data`; proto3 leaves an empty one out."""
    if not data:
        return b""
    length = len(data)
    varint = bytearray()
    while length > 0x7F:
        varint.append(0x80 | length & 0x7F)
        length >>= 7
    varint.append(length)
    return bytes((_FIELD,)) + bytes(varint) + data


def decode_message(message: bytes) -> bytes:
    """The field of a message; the last one where there are several; unknown ones are skipped.

    Raises:
        FormatError: it is no such message.
    """
    found = b""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(message, at)
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise FormatError(f"has a field of kind {kind}", what="protobuf message")
        if length > len(message) - at:
            raise FormatError("ends inside a field", what="protobuf message")
        if key == _FIELD:
            found = message[at : at + length]
        at += length
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for number, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:
            return value, at + number + 1
    raise FormatError("ends inside a number", what="protobuf message")


def ask_service(
    provider: GRPCProvider, method: str, question: SecretKey, *, timeout_s: float, what: str
) -> SecretKey:
    """The answer of the service; the caller closes it.

    Args:
        method: `WrapKey` or `UnWrapKey`.

    Raises:
        ProviderFailed: it cannot be reached, fails, or does not answer in time.
        LocalError: a file of its TLS settings cannot be read.
        PluginNotFound: grpcio, of the extra `grpc`, is not installed.
    """
    try:
        import grpc
    except ModuleNotFoundError as error:
        raise PluginNotFound(
            "key providers on gRPC need it, and it is not installed",
            name="grpc",
            hint="in the clone of imagers: pip install '.[grpc]'",
        ) from error

    with _open_channel(provider, what) as channel, question.view() as data:
        # `bytes` for grpc: an immutable copy until this function returns.
        call = channel.unary_unary(_SERVICE + method)
        answer = call.future(encode_message(bytes(data)), timeout=timeout_s)
        try:
            with waiting.waits_for(f"the key provider at {provider.address!r}"):
                reply = _wait_for(answer)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                reason = f"no answer within {timeout_s:g} s"
            else:
                name = "" if code is None else code.name.lower().replace("_", " ")
                reason = f"{name}: {str(error.details())[:400]}"
            raise ProviderFailed(f"{what} (gRPC at {provider.address!r}): {reason}") from error
    try:
        return SecretKey(decode_message(reply))
    except FormatError as error:
        raise ProviderFailed(f"{what} (gRPC at {provider.address!r}): {error}") from error


def _wait_for(answer: grpc.Future) -> bytes:
    """The answer, or the error that `grpc` has in its place."""
    import grpc

    try:
        while True:
            waiting.check()
            try:
                reply: bytes = answer.result(timeout=waiting.TICK_S)
            except grpc.FutureTimeoutError:
                continue
            return reply
    except BaseException:
        answer.cancel()
        raise


def _open_channel(provider: GRPCProvider, what: str) -> grpc.Channel:
    import grpc

    options: list[tuple[str, str | int]] = [
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        # Keys go to the provider, and through no proxy that the environment names.
        ("grpc.enable_http_proxy", 0),
    ]
    if provider.tls is None:
        return grpc.insecure_channel(provider.address, options)
    if provider.tls.server_name:
        options.append(("grpc.ssl_target_name_override", provider.tls.server_name))
    try:
        return grpc.secure_channel(provider.address, _credentials(provider.tls), options)
    except ValueError as error:
        raise ProviderFailed(f"{what}: the certificates of grpc-tls are not usable") from error


def _credentials(tls: TLSFiles) -> grpc.ChannelCredentials:
    import grpc

    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.root_ca),
        private_key=_read(tls.key),
        certificate_chain=_read(tls.certificate),
    )


def _read(path: str) -> bytes | None:
    if not path:
        return None
    with read_small_file(path) as content, content.view() as data:
        return bytes(data)
