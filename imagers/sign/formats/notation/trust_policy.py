# SPDX-License-Identifier: Apache-2.0
"""The trust policy of the Notary Project: trustpolicy.json, strictly parsed.

    policy = parse_trust_policy(raw, what="trustpolicy.json")
    statement = policy.select("registry.example.org/team/app")

| level      | integrity | authenticity | authenticTimestamp | expiry  | revocation |
|------------|-----------|--------------|--------------------|---------|------------|
| strict     | enforce   | enforce      | enforce            | enforce | enforce    |
| permissive | enforce   | enforce      | log                | log     | log        |
| audit      | enforce   | log          | log                | log     | log        |
| skip       | nothing is looked at                                                 |

Spec: notaryproject specifications v1.1, trust-store-trust-policy.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

from cryptography import x509
from cryptography.x509.oid import NameOID

from imagers.errors import PolicyDenied
from imagers.model.reference import normal_name
from imagers.sign.requirements import Strict

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Action", "Check", "Statement", "TrustPolicy", "parse_trust_policy"]

_MAX_BYTES = 1024 * 1024
_MAX_STATEMENTS = 256
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_STORE_KINDS = ("ca", "signingAuthority", "tsa")
_SUBJECT = "x509.subject:"
_COMMA = re.compile(r"(?<!\\),\s*")


class Action(Enum):
    """What a check that fails does."""

    ENFORCE = "enforce"
    LOG = "log"
    SKIP = "skip"


class Check(Enum):
    """What is looked at beside integrity, which is always enforced."""

    AUTHENTICITY = "authenticity"
    TIMESTAMP = "authenticTimestamp"
    EXPIRY = "expiry"
    REVOCATION = "revocation"


_E, _L = Action.ENFORCE, Action.LOG
_LEVELS: dict[str, tuple[Action, Action, Action, Action]] = {
    "strict": (_E, _E, _E, _E),
    "permissive": (_E, _L, _L, _L),
    "audit": (_L, _L, _L, _L),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """What one trust policy of the file demands.

    Attributes:
        actions: None where the level is `skip`.
        stores: such as `ca:acme`.
        subjects: attributes that the leaf's subject must have, one set must fit; None: any.
        always_stamped: whether a time stamp counts also while certificates are valid.
    """

    name: str
    actions: Mapping[Check, Action] | None
    stores: tuple[str, ...]
    subjects: tuple[frozenset[tuple[str, str]], ...] | None
    always_stamped: bool


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """The whole file; statements by scope, `*` for all others."""

    statements: Mapping[str, Statement]

    def select(self, repository: str) -> Statement:
        """The statement for a repository, which is registry and name; "" for none.

        Raises:
            PolicyDenied: there is none.
        """
        found = self.statements.get(repository) or self.statements.get("*")
        if found is None:
            raise PolicyDenied(
                f"the trust policy has no scope for '{repository}'",
                hint="scopes are whole repositories, or '*' for all others",
            )
        return found


def parse_trust_policy(raw: bytes, *, what: str) -> TrustPolicy:
    """The trust policy in `raw`.

    Raises:
        FormatError: anything that the specification does not say.
    """
    document = Strict.parse(raw, what=what, max_bytes=_MAX_BYTES)
    document.only("version", "trustPolicies")
    if document.text("version") != "1.0":
        raise document.error("expected '1.0'", "version")
    statements: dict[str, Statement] = {}
    names: set[str] = set()
    for strict in document.objects("trustPolicies", most=_MAX_STATEMENTS, non_empty=True):
        statement, scopes = _parse_statement(strict)
        if statement.name in names:
            raise strict.error(f"the name {statement.name[:80]!r} is there twice", "name")
        names.add(statement.name)
        for scope in map(normal_name, scopes):
            if scope in statements:
                raise strict.error(f"scope {scope[:160]!r} is there twice", "registryScopes")
            statements[scope] = statement
    return TrustPolicy(statements)


def _parse_statement(strict: Strict) -> tuple[Statement, tuple[str, ...]]:
    strict.only(
        "name", "registryScopes", "signatureVerification", "trustStores", "trustedIdentities"
    )
    scopes = strict.words("registryScopes")
    if "*" in scopes and len(scopes) > 1:
        raise strict.error("expected '*' alone", "registryScopes")
    for scope in scopes:
        if scope != "*" and ("/" not in scope or "*" in scope):
            raise strict.error(
                f"expected a registry with a repository, got {scope[:160]!r}", "registryScopes"
            )
    actions, always = _parse_level(strict.object("signatureVerification"))
    stores: tuple[str, ...] = ()
    subjects: tuple[frozenset[tuple[str, str]], ...] | None = None
    if actions is not None:
        stores = strict.words("trustStores")
        for store in stores:
            kind, colon, name = store.partition(":")
            if kind not in _STORE_KINDS or not colon or not _is_name(name):
                raise strict.error(
                    f"expected a store such as 'ca:acme', got {store[:80]!r}", "trustStores"
                )
        subjects = _parse_identities(strict)
    elif "trustStores" in strict or "trustedIdentities" in strict:
        raise strict.error("expected no trustStores and no trustedIdentities with level skip")
    return Statement(strict.text("name"), actions, stores, subjects, always), scopes


def _is_name(name: str) -> bool:
    return bool(_NAME.match(name)) and name not in (".", "..")


def _parse_level(strict: Strict) -> tuple[Mapping[Check, Action] | None, bool]:
    strict.only("level", "override", "verifyTimestamp")
    level = strict.text("level")
    stamped = strict.text("verifyTimestamp") if "verifyTimestamp" in strict else "always"
    if stamped not in ("always", "afterCertExpiry"):
        raise strict.error("expected always or afterCertExpiry", "verifyTimestamp")
    if level == "skip":
        if "override" in strict:
            raise strict.error("expected no override with level skip", "override")
        return None, False
    if level not in _LEVELS:
        raise strict.error(f"expected one of {', '.join(_LEVELS)}, skip", "level")
    actions = dict(zip(Check, _LEVELS[level], strict=True))
    if "override" in strict:
        override = strict.object("override")
        override.only(*(check.value for check in Check))
        for name in override.value:
            check = Check(name)
            word = override.text(name)
            allowed = [Action.ENFORCE.value, Action.LOG.value]
            # The specification lets nothing but revocation be passed over unseen.
            if check is Check.REVOCATION:
                allowed.append(Action.SKIP.value)
            if word not in allowed:
                raise override.error(f"expected one of {', '.join(allowed)}", name)
            actions[check] = Action(word)
    return actions, stamped == "always"


def _parse_identities(
    strict: Strict,
) -> tuple[frozenset[tuple[str, str]], ...] | None:
    texts = strict.words("trustedIdentities")
    if "*" in texts:
        if len(texts) > 1:
            raise strict.error("expected '*' alone", "trustedIdentities")
        return None
    return tuple(_parse_subject(strict, text) for text in texts)


def _parse_subject(strict: Strict, text: str) -> frozenset[tuple[str, str]]:
    if not text.startswith(_SUBJECT):
        raise strict.error(
            f"expected '*' or 'x509.subject: C=..., ST=..., O=...', got {text[:160]!r}",
            "trustedIdentities",
        )
    try:
        name = x509.Name.from_rfc4514_string(_COMMA.sub(",", text[len(_SUBJECT) :].strip()))
    except ValueError:
        raise strict.error(f"cannot be read: {text[:160]!r}", "trustedIdentities") from None
    pairs = [(one.oid.dotted_string, cast("str", one.value)) for one in name]
    oids = [oid for oid, _ in pairs]
    needed = (NameOID.COUNTRY_NAME, NameOID.STATE_OR_PROVINCE_NAME, NameOID.ORGANIZATION_NAME)
    if len(set(oids)) != len(oids) or not all(one.dotted_string in oids for one in needed):
        raise strict.error(
            f"expected C, ST and O, and each at most once, got {text[:160]!r}", "trustedIdentities"
        )
    return frozenset(pairs)
