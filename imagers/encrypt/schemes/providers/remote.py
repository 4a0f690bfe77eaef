# SPDX-License-Identifier: Apache-2.0
"""A key provider on gRPC: service `keyprovider.KeyProviderService`, two methods.

Request and reply are messages with one field, `bytes` number 1, that holds the JSON.

Spec: containers/ocicrypt v1.3.2, utils/keyprovider/keyprovider.proto; protobuf encoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers import waiting
from imagers.encrypt.keyfiles import read_small_file
from imagers.encrypt.schemes.providers.messages import MAX_ANSWER_BYTES
from imagers.errors import FormatError, PluginNotFound, ProviderFailed
from imagers.model.keys import SecretKey
from imagers.model.protobuf import bytes_field, parse_fields

if TYPE_CHECKING:
    import grpc

    from imagers.encrypt.schemes.providers.config import GRPCProvider, TLSFiles

__all__ = ["ask_service", "decode_message", "encode_message"]

_SERVICE = "/keyprovider.KeyProviderService/"
_FIELD = 1


def encode_message(data: bytes) -> bytes:
    """The message whose one field is `data`."""
    return bytes_field(_FIELD, data)


def decode_message(message: bytes) -> bytes:
    """The field of a message; the last one where there are several; unknown ones are skipped.

    Raises:
        FormatError: it is no such message.
    """
    found = b""
    for number, value in parse_fields(message):
        if number == _FIELD and isinstance(value, bytes):
            found = value
    return found


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
