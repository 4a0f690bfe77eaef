# SPDX-License-Identifier: Apache-2.0
"""What Trustee's admin client asks for, in its words: policies and reference values.

    POST resource-policy        {"policy": base64url of the text}
    GET  resource-policy        the ids of the policies
    POST attestation-policy     {"type": "rego", "policy_id": "default_cpu", "policy": base64url}
    POST reference-value        {"version": "0.1.0", "type": "sample", "payload": base64}
    GET  reference-value/NAME   the value of one, or the list of them, as it was registered

A resource policy may be the table of this broker (JSON) in place of Rego. The caller has checked
the admin, and his role for it.

Spec: Trustee at 78962cd, kbs/src/api_server.rs and tools/kbs-client; its reference value provider
service, message 0.1.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.broker.refusals import Refusal
from imagers.broker.rules import CLASSES
from imagers.errors import CouldNotVerify, FormatError, NoSignature
from imagers.evidence.reference import import_references
from imagers.model.references import references_to_json
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from imagers.broker.keeping.rows import Admin
    from imagers.broker.references import References
    from imagers.broker.resources import Resources

__all__ = ["MAX_MESSAGE_BYTES", "TrusteeAdmin"]

MAX_MESSAGE_BYTES = 2 * 1024 * 1024  # as Trustee takes
_RESOURCE_POLICY = "resource-policy"
_DEFAULT = "default_"  # begins the ids of the policies that Trustee judges by
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

    async def set_resource_policy(self, by: Admin, body: bytes) -> None:
        """Put a resource policy in force.

        Raises:
            FormatError: the message or its policy is none.
        """
        message = View.parse(body, what="resource policy", max_bytes=MAX_MESSAGE_BYTES)
        await self._resources.set_policy(by, message.bytes64url("policy"))

    async def set_attestation_policy(self, by: Admin, body: bytes) -> None:
        """Put an attestation policy in force.

        Raises:
            FormatError: the message or its policy is none, or the policy is of no class of
                evidence that there is.
        """
        message = View.parse(body, what="attestation policy", max_bytes=MAX_MESSAGE_BYTES)
        message.optional_text("type")
        name = message.text("policy_id").removeprefix(_DEFAULT)
        if name not in CLASSES:
            wanted = " or ".join(f"'{_DEFAULT}{one}'" for one in CLASSES)
            raise message.error(f"expected {wanted}", "policy_id")
        await self._resources.set_attestation_policy(by, name, message.bytes64url("policy"))

    async def register(self, by: Admin, body: bytes) -> None:
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
        await self._references.set(by, dump_json(references_to_json(found.references)), add=False)

    async def value(self, by: Admin, name: str) -> bytes:
        """The JSON of what counts now of a name, as it was registered.

        Raises:
            Refusal: `ResourceNotFound`.
        """
        return dump_json(await self._references.value(by, name))
