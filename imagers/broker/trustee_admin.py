# SPDX-License-Identifier: Apache-2.0
"""What Trustee's admin client asks for, in its words: policies and reference values.

    POST resource-policy        {"policy": base64url of the text}
    GET  resource-policy        the ids of the policies
    POST attestation-policy     {"type": "rego", "policy_id": "default_cpu", "policy": base64url}
    POST reference-value        {"version": "0.1.0", "type": "sample", "payload": base64}
    GET  reference-value/NAME   the values of one

A resource policy may be the table of this broker (JSON) in place of Rego. The caller has checked
the admin.

Spec: Trustee at 78962cd, kbs/src/api_server.rs and tools/kbs-client; its reference value provider
service, message 0.1.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.broker.refusals import Refusal
from imagers.errors import CouldNotVerify, FormatError, NoSignature
from imagers.evidence.reference import import_references
from imagers.model.references import references_to_json
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from imagers.broker.references import References
    from imagers.broker.resources import Resources

__all__ = ["MAX_MESSAGE_BYTES", "TrusteeAdmin"]

MAX_MESSAGE_BYTES = 2 * 1024 * 1024  # as Trustee takes
_RESOURCE_POLICY = "resource-policy"
_VERSION = "0.1.0"
_SOURCE = "a message of Trustee's"


class TrusteeAdmin:
    """The admin verbs of Trustee's client.

    Threads: safe.
    """

    def __init__(self, resources: Resources, references: References) -> None:
        self._resources = resources
        self._references = references

    async def resource_policies(self) -> bytes:
        """The JSON list of the ids of resource policies: there is always one."""
        return dump_json([_RESOURCE_POLICY])

    async def set_resource_policy(self, body: bytes) -> None:
        """Put a resource policy in force.

        Raises:
            FormatError: the message or its policy is none.
            Refusal: it is Rego.
        """
        message = View.parse(body, what="resource policy", max_bytes=MAX_MESSAGE_BYTES)
        text = message.bytes64url("policy")
        if text.lstrip()[:1] != b"{":
            raise _no_rego()
        await self._resources.set_policy(text)

    async def set_attestation_policy(self, body: bytes) -> None:
        """Put an attestation policy in force.

        Raises:
            FormatError: the message is none.
            Refusal: it is Rego.
        """
        message = View.parse(body, what="attestation policy", max_bytes=MAX_MESSAGE_BYTES)
        message.optional_text("type")
        message.text("policy_id")
        message.bytes64url("policy")
        raise _no_rego()

    async def register(self, body: bytes) -> None:
        """Set the reference values of a message, in place of those of the same names.

        Raises:
            FormatError, Unsupported: it is none.
            Refusal: it has none that a verifier here knows, or they are signed.
        """
        message = View.parse(body, what="reference values", max_bytes=MAX_MESSAGE_BYTES)
        version = message.text("version")
        if version != _VERSION:
            raise message.error(f"expected '{_VERSION}', got {version[:40]!r}", "version")
        message.text("payload")
        try:
            found = import_references(body, source=_SOURCE)
        except (CouldNotVerify, NoSignature) as error:
            raise Refusal(
                "SerdeError", f"{error}; 'imagers attest reference import' takes the key"
            ) from None
        if not found.references:
            raise FormatError("expected values of claims, got keys alone", what="reference values")
        await self._references.set(dump_json(references_to_json(found.references)), add=False)

    async def values(self, name: str) -> bytes:
        """The JSON list of the values of a name that count now.

        Raises:
            Refusal: `ResourceNotFound`.
        """
        return dump_json(list(await self._references.values(name)))


def _no_rego() -> Refusal:
    return Refusal(
        "PolicyEngineError",
        "this broker takes no policy in Rego; 'imagers broker policy set' sets its table",
    )
