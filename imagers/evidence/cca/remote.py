# SPDX-License-Identifier: Apache-2.0
"""A token of Arm CCA whose platform a service of Veraison vouches for.

    "cca": {"veraison": {"url": "https://veraison.example.org"}}

The service has the keys of platforms, from their makers. Its word stands in place of steps 1 and 2
of `verify`; the other steps, and the comparison with reference values, are those of `verify`.

1. *Service.* Its result is genuine, by the steps of `imagers.evidence.ear` (1.1 and on), by a key
   that the operator gave or, without any, by that of its discovery document, and names the
   realm's challenge as its nonce.
2. *Platform.* The result is of this evidence: all that it read in it is what is read here. The
   platform is affirming, and the identity of both.

What the service found of the realm's measurements counts for nothing: those are for the
operator's reference values to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.appraise import AFFIRMING
from imagers.evidence.cca.verify import (
    CCAVerifier,
    check_realm,
    claims_of,
    platform_values,
    realm_values,
)
from imagers.evidence.ear import EARTrust, parse_keys, read_ear
from imagers.evidence.steps import mismatch, step, steps_of
from imagers.evidence.veraison import DISCOVERY, RESULT, Veraison
from imagers.model.base64 import encode_base64
from imagers.model.strict_json import View, dump_json
from imagers.net.tls import new_tls_context
from imagers.net.urls import parse_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Self

    from imagers.evidence.cca.token import Token
    from imagers.evidence.ear import EAR, Submod
    from imagers.model.evidence import Bound, Claims, RemoteVerifier
    from imagers.model.strict_json import JSON

__all__ = ["RemoteCCAVerifier"]

_PLATFORM, _REALM = "CCA_SSD_PLATFORM", "CCA_REALM"
_IDENTITY = "instance-identity"
_AFFIRMING = range(2, 32)
_CHALLENGE = 64
_OPTIONAL = "cca-platform-service-indicator"


@dataclass(frozen=True, slots=True)
class RemoteCCAVerifier:
    """Judges tokens of Arm CCA by what a service says of their platform: a `RemoteVerifier`.

    Attributes:
        keys: of the service's results; empty: it is asked for them.
        debug: whether a platform under debugging is let pass.
    """

    service: Veraison
    keys: tuple[object, ...] = field(default=(), repr=False)
    debug: bool = False
    tee: ClassVar[str] = CCAVerifier.tee
    references: ClassVar[tuple[tuple[str, ...], ...]] = CCAVerifier.references

    @classmethod
    def make(cls, settings: View, *, debug: bool) -> Self:
        """A verifier with these settings.

            {"url": "https://veraison.example.org", "ca_file": "/etc/veraison.pem", "keys": [JWK]}

        Raises:
            FormatError: something else stands there.
            LocalError: the file cannot be read.
        """
        settings.only("url", "ca_file", "keys")
        url = settings.text("url")
        try:
            origin = parse_origin(url)
        except FormatError as error:
            raise settings.error(str(error), "url") from None
        parts = urlsplit(url)
        if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
            raise settings.error("expected the URL of a service, without a path", "url")
        if origin.scheme != "https" and not origin.is_loopback:
            raise settings.error("expected https: anybody on the way could answer", "url")
        keys: tuple[object, ...] = ()
        if "keys" in settings:
            told = settings.value["keys"]
            told = {"keys": told} if isinstance(told, list) else told
            keys = parse_keys(dump_json(told), what=settings.what)
        ca_file = settings.optional_text("ca_file")
        if ca_file is not None:
            new_tls_context(ca_file)  # a faulty file is told at the start
        return cls(Veraison(url, ca_file, has_keys=bool(keys)), keys, debug)

    def parse(self, body: JSON) -> Token:
        """See `Verifier`."""
        return CCAVerifier().parse(body)

    def wanted(self, evidence: Token) -> tuple[str, ...]:  # noqa: ARG002  # of the Protocol
        """See `Verifier`: nothing that is kept."""
        return ()

    def ask(self, evidence: Token, bound: Bound) -> Mapping[str, bytes]:
        """See `RemoteVerifier`."""
        return self.service.ask(
            evidence.raw, profile=evidence.platform.profile, nonce=_nonce(evidence, bound)
        )

    def verify(
        self,
        evidence: Token,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """See `Verifier`.

        Raises:
            EvidenceRejected: a step says no.
            CouldNotVerify: there is no result of the service.
            FormatError: what the service gave is none.
        """
        with step("1, service"):
            result = self._result(evidence, bound, collateral, now, note)
        note(f"step 1, service: {result.verifier}")
        with step("2, platform"):
            _check_result(result, evidence)
        note("step 2, platform: affirming, and the result is of this evidence")
        is_debug = check_realm(evidence, bound, note, debug=self.debug)
        maker = f"Arm CCA, a platform that {result.verifier} vouches for"
        return claims_of(evidence, maker=maker, is_debug=is_debug, now=now)

    def _result(
        self,
        evidence: Token,
        bound: Bound,
        collateral: Mapping[str, bytes],
        now: datetime,
        note: Callable[[str], None],
    ) -> EAR:
        """Step 1."""
        token = collateral.get(RESULT)
        if token is None:
            raise CouldNotVerify("there is no result of the service")
        keys = self.keys
        if not keys:
            document = collateral.get(DISCOVERY)
            if document is None:
                raise CouldNotVerify("there is no key of the service")
            keys = parse_keys(document, what="discovery document of Veraison")
        try:
            text = token.decode("ascii")
        except UnicodeDecodeError:
            raise FormatError("is no token", what="result of Veraison") from None
        with steps_of(1, note):
            return read_ear(text, trust=EARTrust(keys=keys), nonce=_nonce(evidence, bound), now=now)


def _nonce(evidence: Token, bound: Bound) -> bytes:
    """The challenge of the realm; where it has to be a certain one, that one."""
    if bound.report_data is None:
        return evidence.realm.challenge
    return bound.report_data[:_CHALLENGE].ljust(_CHALLENGE, b"\0")


def _check_result(result: EAR, evidence: Token) -> None:
    """Step 2."""
    platform, realm = result.submods.get(_PLATFORM), result.submods.get(_REALM)
    if platform is None or realm is None:
        found = ", ".join(f"{name}: {one.status}" for name, one in result.submods.items())
        raise mismatch("parts of the result", f"{_PLATFORM} and {_REALM}", found[:200])
    if platform.status != AFFIRMING:
        raise mismatch(f"status of {_PLATFORM}", AFFIRMING, platform.status)
    for name, part in ((_PLATFORM, platform), (_REALM, realm)):
        identity = part.vector.get(_IDENTITY, 0)
        if identity not in _AFFIRMING:
            raise mismatch(f"{_IDENTITY} of {name}", "2 to 31", identity)
    instance = encode_base64(evidence.platform.instance_id)
    expected = {**platform_values(evidence.platform), "cca-platform-instance-id": instance}
    _check_same(platform, _PLATFORM, expected)
    _check_same(realm, _REALM, realm_values(evidence.realm))


def _check_same(part: Submod, name: str, expected: Mapping[str, JSON]) -> None:
    """Raise unless the service read in the evidence what is read here."""
    for claim, value in expected.items():
        if claim == _OPTIONAL and value is None:
            continue
        if part.evidence.get(claim) != value:
            raise EvidenceRejected(f"the result is of other evidence: {claim} of {name} differs")


if TYPE_CHECKING:

    def _is_remote(verifier: RemoteCCAVerifier) -> RemoteVerifier[Token]:
        return verifier
