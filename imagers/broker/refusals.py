# SPDX-License-Identifier: Apache-2.0
"""Every "no" of the broker: its name on the wire and its HTTP status, in one table.

The Rust clients read any error body with `type` and `detail`; they take 401 as "shake hands
again", 404 as "there is none", and every other status as final.

Spec: Trustee key broker protocol 0.4.0, errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import (
    AttestationError,
    CouldNotVerify,
    EvidenceRejected,
    FormatError,
    ImagersError,
    Unsupported,
)
from imagers.kbs.wire import ERROR_TYPE_PREFIX
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STATUS", "Refusal", "error_body", "refusal_of"]

STATUS: Mapping[str, int] = {
    "SerdeError": 400,  # a message, policy or digest that is not well-formed
    "AttestationError": 401,  # evidence, version or TEE not accepted
    "CouldNotVerify": 424,  # no answer about evidence: collateral is missing or out of date
    "SessionNotFound": 401,  # cookie unknown or expired
    "TokenNotFound": 401,  # neither cookie nor bearer token
    "TokenVerifierError": 401,  # bearer token not ours or expired
    "AdminAuthAccess": 401,
    "AdminCertificate": 401,  # the token is an admin's, the connection shows no certificate
    "RoleDenied": 403,  # the admin's key has no role for it
    "RepositoryDenied": 403,  # it is not the admin's tenant's
    "PolicyDeny": 403,
    "NoReferenceValue": 403,  # nobody said what a guest of this TEE has to be
    "ImageRevoked": 403,
    "ImageTooOld": 403,  # than the oldest that its repository serves
    "ResourceExpired": 403,
    "ResourceUsedUp": 403,
    "InvalidRequestPath": 404,
    "PluginNotFound": 404,
    "ResourceNotFound": 404,
    "MethodNotAllowed": 405,
    "RequestTimeout": 408,
    "ResourceExists": 409,
    "Conflict": 409,  # a tenant or admin key is there already, or still needed
    "PayloadTooLarge": 413,
    "TooManySessions": 429,
    "HeadTooLarge": 431,
    "InternalError": 500,
    "StoreUnavailable": 503,
    "PolicyUnavailable": 503,  # nobody has judged: too many wait, or no process starts
    "TooManyConnections": 503,
}


class Refusal(Exception):  # the broker's own signal; it ends in `app`
    """An answer that is an error.

    Attributes:
        name: of the table above.
        detail: for the peer; nothing secret.
        rule: of the policy, that denies it; else empty.
        told: for the owner of the broker, in its audit log.
    """

    def __init__(self, name: str, detail: str, *, rule: str = "", told: str = "") -> None:
        super().__init__(f"{name}: {detail}")
        self.rule = rule
        self.told = told or detail
        self.name = name
        self.detail = detail

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.name]


def refusal_of(error: ImagersError) -> Refusal | None:
    """The refusal that an error of the libraries means to a peer; None if it is our own fault."""
    # What was expected is for the owner: who is refused could feel his way by it.
    told = f"{error}; {error.hint}" if error.hint else str(error)
    if isinstance(error, CouldNotVerify):
        at = f": step {error.step}" if error.step else ""
        detail = f"this broker cannot look at the evidence{at}"
        return Refusal("CouldNotVerify", detail, told=told)
    if isinstance(error, EvidenceRejected) and error.step:
        detail = f"the evidence is rejected: step {error.step}"
        return Refusal("AttestationError", detail, told=told)
    if isinstance(error, AttestationError):
        return Refusal("AttestationError", str(error))
    if isinstance(error, (FormatError, Unsupported)):
        return Refusal("SerdeError", str(error))
    return None


def error_body(refusal: Refusal) -> bytes:
    """The JSON of an error answer."""
    return dump_json({"type": ERROR_TYPE_PREFIX + refusal.name, "detail": refusal.detail})
