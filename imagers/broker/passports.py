# SPDX-License-Identifier: Apache-2.0
"""Passports: tokens of other verifiers, which guests carry to a broker in place of evidence.

    {"issuers": [
      {"issuer": "CoCo-Attestation-Service", "roots": "trustee-ca.pem", "tees": ["snp", "tdx"],
       "affirming": "reappraised"},
      {"issuer": "https://broker.example", "keys": ["broker.jwks.json"], "tees": ["cca"],
       "audience": "https://ours.example", "affirming": "trusted", "tenant": "default",
       "key_pointers": ["/customized/tee-pubkey"]}
    ]}

Nobody's are taken but those of issuers that a table lists. A passport counts if

1. its issuer is listed for the tenant (`null`: one without a name);
2. it is a good attestation result (`imagers.evidence.ear`): signed with a key of the issuer's, or
   one whose certificate leads to his roots, in time, for the audience that is listed;
3. it says when it ends, and that is at most a day after it was made;
4. nothing of it was made under roots for tests;
5. no verifier says that it could not read the evidence, or that its signature is not good;
6. each part is of a TEE or device that the issuer may speak for;
7. what it says of each part is enough, see below;
8. it binds a public key, to which answers are sealed.

What a foreign verifier found is his word. `affirming` says what it is worth to a rule with
`"trust": "affirming"`:

    absent         nothing: such a rule never applies
    "trusted"      his own appraisal counts, where each part is affirming, and he looked at the
                   guest's executables and hardware
    "reappraised"  his claims are appraised by the reference values of this broker

Without `reappraised` a part that he calls contraindicated, or says nothing of, makes the whole
passport one of nobody. With it his status is not looked at: it may be that nobody told him what
machines are ours.

No IO and no clock here: files are read by who is handed in.

Spec: draft-ietf-rats-ear; Trustee at 78962cd, kbs/src/token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.refusals import Refusal
from imagers.broker.tokens import AttestedGuest, Vouched
from imagers.errors import EvidenceRejected, ImagersError, UsageError
from imagers.evidence.appraise import AFFIRMING, Appraisal, Comparison, tier_of
from imagers.evidence.claims import claims_from_json
from imagers.evidence.ear import TRUSTEE_PROFILE, EARTrust, parse_keys, read_ear
from imagers.evidence.plugins import DEVICES
from imagers.evidence.steps import mismatch, step, steps_of
from imagers.evidence.trustee import claims_from_trustee
from imagers.kbs.jwe import check_public_key
from imagers.kbs.messages import parse_public_key
from imagers.model.strict_json import View
from imagers.pki.chain import parse_certificates
from imagers.pki.jose import parse_token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from imagers.evidence.ear import EAR, Submod
    from imagers.kbs.messages import TEEPublicKey
    from imagers.model.evidence import Claims
    from imagers.model.strict_json import JSON

__all__ = ["MAX_ISSUERS_BYTES", "Issuer", "Passports", "parse_issuers"]

MAX_ISSUERS_BYTES = 256 * 1024
_WHAT, _TABLE = "passport", "passport issuers"
_MAX_ISSUERS, _MAX_POINTERS, _MAX_TEES, _MAX_KEY_FILES = 1000, 16, 32, 16
_LONGEST = timedelta(days=1)  # of a token that nobody can call back
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
_TEE = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+\Z")
_PART = re.compile(r"([a-z]+(?:-[a-z]+)*)(0|[1-9][0-9]{0,2})\Z")
_GUEST, _CPU = "cpu0", "cpu"
_EVIDENCE, _CLAIMS = "ear.veraison.annotated-evidence", "imagers.claims"
_TEST_ROOT = "imagers.test-root"
# In Trustee's order; what is configured goes before them.
_POINTERS = (
    "/tdx/attester_runtime_data/tee-pubkey",
    "/tdx/attester_user_data/tee-pubkey",
    "/customized_claims/runtime_data/tee-pubkey",
    "/submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims/tee-pubkey",
    "/tee-pubkey",
)
# Beside the claims of the TEE, which stand below its name.
_BESIDE = frozenset({"report_data", "init_data", "runtime_data_claims", "init_data_claims"})
# Verifier malfunction, unexpected evidence, failed cryptography. Spec: AR4SI section 2.3.
_UNREAD = frozenset({-1, 1, 99})
_ENOUGH = frozenset({AFFIRMING, "warning"})
_REAPPRAISE = (
    "where nobody told its issuer which machines are yours, his row may say "
    '"affirming": "reappraised"'
)
_KNOWN, _UNKNOWN = 2, 33  # of AR4SI's executables
# Parts of Veraison's results are called by schemes; these two together are one CCA guest.
_VERAISON_CCA = frozenset({"CCA_REALM", "CCA_SSD_PLATFORM"})


Affirming = Literal["", "trusted", "reappraised"]
_AFFIRMING: Mapping[str, Affirming] = {
    "": "",
    "trusted": "trusted",
    "reappraised": "reappraised",
}


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens one tenant takes, and what they are worth to it.

    Attributes:
        name: `iss` of the tokens; "" of those that have none.
        trust: keys, roots and audience.
        tees: TEEs and devices that he may speak for.
        affirming: see the module; "" is nothing.
        pointers: where a token has the guest's key, the first that is there counts.
    """

    name: str
    tenant: str
    trust: EARTrust
    tees: frozenset[str]
    affirming: Affirming
    pointers: tuple[str, ...]


class Passports:
    """The issuers of all tenants.

    Threads: safe.
    """

    def __init__(self, issuers: Sequence[Issuer] = ()) -> None:
        self._issuers = {(one.tenant, one.name): one for one in issuers}

    def __bool__(self) -> bool:
        return bool(self._issuers)

    @property
    def issuers(self) -> tuple[str, ...]:
        """Their names, with what they may speak for."""
        return tuple(
            f"{one.name or 'any without a name'} ({', '.join(sorted(one.tees))})"
            for one in self._issuers.values()
        )

    @property
    def tees(self) -> frozenset[str]:
        """All that somebody may speak for."""
        return frozenset().union(*(one.tees for one in self._issuers.values()))

    def check(self, token: str, *, tenant: str, now: datetime) -> AttestedGuest:
        """The guest of a passport, if every step of the module holds.

        Raises:
            Refusal: one does not.
        """
        try:
            with step("1, issuer"):
                issuer = self._issuer_of(token, tenant)
            return _guest_of(token, issuer, now)
        except ImagersError as error:
            # What was expected is for the owner, as with evidence.
            where = f": step {error.step}" if isinstance(error, EvidenceRejected) else ""
            detail = f"the token is no passport that is taken here{where}"
            told = f"{error}; {error.hint}" if error.hint else str(error)
            raise Refusal("TokenVerifierError", detail, told=f"passport: {told}") from None

    def _issuer_of(self, token: str, tenant: str) -> Issuer:
        """Step 1. What is read here is believed only after the signature was looked at."""
        message = parse_token(token, what=_WHAT)
        claims = View.parse(message.payload, what=_WHAT, max_bytes=len(token))
        name = claims.optional_text("iss") or ""
        found = self._issuers.get((tenant, name))
        if found is None:
            raise mismatch("issuer", f"one that is listed for {tenant!r}", repr(name[:200]))
        return found


@dataclass(frozen=True, slots=True)
class _Part:
    """A TEE or device, and the submodules of a result that speak of it."""

    tee: str
    submods: tuple[str, ...]


def _guest_of(token: str, issuer: Issuer, now: datetime) -> AttestedGuest:
    with steps_of(2, lambda _: None):
        result = read_ear(token, trust=issuer.trust, nonce=None, now=now)
    with step("3, end"):
        _check_end(result)
    with step("4, tests"):
        if result.claims.value.get(_TEST_ROOT, False) is not False:
            raise EvidenceRejected("it was made under roots for tests")
    with step("5, read"):
        _check_read(result)
    with step("6, parts"):
        parts = _parts_of(result, issuer)
    with step("7, worth"):
        accepted = tuple(
            _vouched(result, part, issuer, is_guest=part is parts[0]) for part in parts
        )
    with step("8, key"):
        key = _key_of(result.claims, issuer.pointers)
    return AttestedGuest(
        key, accepted, result.claims.value, issuer=issuer.name or "an issuer without a name"
    )


def _check_end(result: EAR) -> None:
    if "exp" not in result.claims:
        raise EvidenceRejected("it does not say when it ends")
    if result.expires - result.issued_at > _LONGEST:
        raise mismatch("time from issue to end", f"at most {_LONGEST}", "more")


def _check_read(result: EAR) -> None:
    for name, part in result.submods.items():
        for member, value in part.vector.items():
            if value in _UNREAD:
                raise EvidenceRejected(
                    f"{name}: {member} is {value}: its verifier could not read the evidence"
                )


def _parts_of(result: EAR, issuer: Issuer) -> tuple[_Part, ...]:
    """Step 6: what each TEE and device is told by; the guest's own TEE first."""
    if result.profile == TRUSTEE_PROFILE:
        if _GUEST not in result.submods:
            raise mismatch("parts", f"'{_GUEST}'", ", ".join(sorted(result.submods))[:200])
        names = (_GUEST, *(name for name in result.submods if name != _GUEST))
        parts = tuple(_Part(_tee_of(name, result.submods[name]), (name,)) for name in names)
    else:
        if result.submods.keys() != _VERAISON_CCA:
            raise mismatch("parts", "those of a CCA guest", ", ".join(sorted(result.submods))[:200])
        parts = (_Part("cca", tuple(result.submods)),)
    if others := {part.tee for part in parts} - issuer.tees:
        raise mismatch("TEE", f"one of {', '.join(sorted(issuer.tees))}", repr(min(others)))
    return parts


def _tee_of(name: str, part: Submod) -> str:
    """The one TEE whose claims stand in the evidence of a part."""
    matched = _PART.match(name)
    if matched is None:
        raise EvidenceRejected(f"expected a part as '{_GUEST}', got {name[:80]!r}")
    found = sorted(part.evidence.keys() - _BESIDE)
    if len(found) != 1:
        raise mismatch(f"TEE of {name}", "one", ", ".join(found)[:200] or "none")
    # A device in the place of a machine would be believed alone.
    is_device = found[0] in DEVICES or found[0] == "sampledevice"
    if (name == _GUEST) is is_device or (matched[1] == _CPU and name != _GUEST):
        raise EvidenceRejected(f"{name} is of {found[0][:40]!r}, which has another place")
    return found[0]


def _vouched(result: EAR, part: _Part, issuer: Issuer, *, is_guest: bool) -> Vouched:
    """Step 7: what is said of one TEE or device."""
    if issuer.affirming == "reappraised":
        return Vouched(part.tee, part.submods, claims=_claims_of(result, part))
    submods = [result.submods[name] for name in part.submods]
    for name, submod in zip(part.submods, submods, strict=True):
        if submod.status not in _ENOUGH:
            raise mismatch(
                f"status of {name}", " or ".join(sorted(_ENOUGH)), submod.status, hint=_REAPPRAISE
            )
    why = ""
    if not issuer.affirming:
        why = "its issuer is not asked which machines are yours"
    elif any(one.status != AFFIRMING for one in submods):
        why = "its issuer says warning"
    # A status over the rest alone says neither what the machine is nor what it runs.
    elif is_guest and not all(_is_affirmed(one, "executables") for one in submods):
        why = "its issuer says nothing of its executables"
    elif is_guest and not any(_is_affirmed(one, "hardware") for one in submods):
        why = "its issuer says nothing of its hardware"
    said = Comparison("executables", "passport", issuer.name, (AFFIRMING,), "", why)
    number = _UNKNOWN if why else _KNOWN
    appraisal = Appraisal({"executables": number}, (said,), has_references=True)
    return Vouched(part.tee, part.submods, appraisal=appraisal)


def _is_affirmed(submod: Submod, member: str) -> bool:
    """Whether somebody looked at a member of the trust vector and found it good."""
    return tier_of(submod.vector.get(member, 0)) == AFFIRMING


def _claims_of(result: EAR, part: _Part) -> Claims:
    """What can be appraised here: claims in our schema, of a broker of ours, or Trustee's."""
    if result.profile != TRUSTEE_PROFILE:
        raise EvidenceRejected("what this verifier says of a machine cannot be appraised here")
    (name,) = part.submods
    submod = result.claims.object("submods").object(name)
    if _CLAIMS not in submod:
        return claims_from_trustee(
            part.tee, submod.object(_EVIDENCE), established_at=result.issued_at
        )
    claims = claims_from_json(submod.object(_CLAIMS))
    if claims.tee != part.tee:
        raise mismatch(f"TEE of the claims of {name}", repr(part.tee), repr(claims.tee[:40]))
    if claims.test_root:
        raise EvidenceRejected(f"the evidence of {name} was accepted under roots for tests")
    return claims


def _key_of(claims: View, pointers: Sequence[str]) -> TEEPublicKey:
    """Step 8."""
    for pointer in pointers:
        is_there, found = _at(claims.value, pointer)
        if is_there:
            key = parse_public_key(View(found, what=_WHAT, where=pointer))
            check_public_key(key)
            return key
    raise EvidenceRejected("it binds no public key that answers could be sealed to")


def _at(value: JSON, pointer: str) -> tuple[bool, JSON]:
    """Whether there is something at a JSON pointer, and what. Spec: RFC 6901."""
    for part in pointer.split("/")[1:]:
        member = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(value, dict) or member not in value:
            return False, None
        value = value[member]
    return True, value


def parse_issuers(
    data: bytes, *, what: str, read: Callable[[str], bytes], allow_sample: bool
) -> Passports:
    """The table of a file.

    Args:
        read: gives the bytes of a file that the table names.
        allow_sample: whether issuers may speak for what anybody can make evidence of.

    Raises:
        FormatError, Unsupported: it is none, or one of its files is none.
        UsageError: it takes the sample TEE, without being allowed.
    """
    table = View.parse(data, what=what, max_bytes=MAX_ISSUERS_BYTES)
    table.exactly("issuers")
    issuers: dict[tuple[str, str], Issuer] = {}
    for item in table.objects("issuers", most=_MAX_ISSUERS, non_empty=True):
        one = _parse_issuer(item, read)
        if (one.tenant, one.name) in issuers:
            raise item.error(f"lists {one.name!r} twice for the tenant {one.tenant!r}", "issuer")
        if not allow_sample and (samples := one.tees & {"sample", "sampledevice"}):
            raise UsageError(
                f"{what}: the TEE '{min(samples)}' proves nothing and is not taken",
                hint="for a demonstration, say --allow-sample-tee",
            )
        issuers[one.tenant, one.name] = one
    return Passports(tuple(issuers.values()))


def _parse_issuer(item: View, read: Callable[[str], bytes]) -> Issuer:
    item.only("issuer", "tenant", "audience", "keys", "roots", "tees", "affirming", "key_pointers")
    if "issuer" not in item:  # null is a choice, and not a slip
        raise item.error("is missing, expected a name, or null for tokens without one", "issuer")
    name = item.optional_text("issuer")
    if name == "":
        raise item.error("expected a name, or null for tokens without one", "issuer")
    tenant = item.optional_text("tenant") or DEFAULT_TENANT
    if not _TENANT.match(tenant):
        raise item.error("expected lower-case letters, digits and '-'", "tenant")
    affirming = item.optional_text("affirming") or ""
    if affirming not in ("", "trusted", "reappraised"):
        raise item.error(
            f"expected 'trusted' or 'reappraised', got {affirming[:40]!r}", "affirming"
        )
    tees = item.texts("tees", most=_MAX_TEES, non_empty=True)
    for tee in tees:
        if not _TEE.match(tee):
            raise item.error(f"expected the name of a TEE, got {tee[:80]!r}", "tees")
    pointers = item.texts("key_pointers", most=_MAX_POINTERS, null_is_empty=True)
    for pointer in pointers:
        if not _POINTER.match(pointer):
            raise item.error(f"expected a JSON pointer, got {pointer[:80]!r}", "key_pointers")
    return Issuer(
        name=name or "",
        tenant=tenant,
        trust=_parse_trust(item, read, name),
        tees=frozenset(tees),
        affirming=_AFFIRMING[affirming],
        pointers=(*pointers, *_POINTERS),
    )


def _parse_trust(item: View, read: Callable[[str], bytes], name: str | None) -> EARTrust:
    keys = item.texts("keys", most=_MAX_KEY_FILES, null_is_empty=True)
    roots = item.optional_text("roots")
    if not keys and roots is None:
        raise item.error("expected 'keys' or 'roots': what its tokens are checked with")
    return EARTrust(
        keys=tuple(key for file in keys for key in parse_keys(read(file), what=file)),
        roots=() if roots is None else parse_certificates(read(roots), what=roots),
        issuer=name,
        audience=item.optional_text("audience"),
    )
