# SPDX-License-Identifier: Apache-2.0
"""The decision about one signature of the Notary Project. No IO, no clock.

    outcome = check_signature(raw, media_type, statement, stores, raw_manifest, now=now)
    outcome.signer                      # None: let through without knowing by whom

Steps, in the order of the specification:

1. *Integrity*: the envelope parses, the leaf's key made the signature, and the payload names
   media type, digest and size of exactly this manifest. Always enforced.
2. *Authenticity*: the certificates lead to one of a named trust store, and the leaf's subject
   is one of the trusted identities.
3. *Authentic timestamp*: the certificates were valid when it was signed: by a time stamp where
   there is one and a tsa store, by the authority's word in its scheme, else now.
4. *Expiry*: the signer's own limit is not over.
5. *Revocation* cannot be looked up without the network. Certificates that name no place to ask
   cannot be revoked; for others an enforced check is "could not look".

A failure in 2 to 5 is final or noted, as the trust policy says.

Spec: notaryproject specifications v1.1, trust-store-trust-policy.md, "Signature verification".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID

from imagers.errors import (
    CouldNotVerify,
    FormatError,
    SignatureInvalid,
    Unsupported,
    UntrustedSigner,
    VerificationError,
)
from imagers.model.digest import digest_of
from imagers.model.manifest import parse_manifest_or_index
from imagers.model.strict_json import View
from imagers.pki.chain import (
    Purpose,
    check_chain,
    check_leaf,
    check_validity,
)
from imagers.pki.timestamp import check_timestamp
from imagers.sign.formats.notation.envelope import SCHEME_X509, Envelope, parse_envelope
from imagers.sign.formats.notation.trust_policy import Action, Check, Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

__all__ = ["Outcome", "check_signature", "check_target", "thumbprints"]

_MAX_PAYLOAD_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """The signature is good enough for the trust policy.

    Attributes:
        fingerprint: SHA-256 of the leaf's key, "" where nobody trusted made it.
        subject: of the leaf, "" likewise.
        notes: what was found wrong and is not enforced.
    """

    fingerprint: str
    subject: str
    notes: tuple[str, ...]

    @property
    def is_authentic(self) -> bool:
        """Whether somebody whom the trust policy names made it."""
        return bool(self.fingerprint)


def check_signature(
    raw: bytes,
    media_type: str,
    statement: Statement,
    stores: Mapping[str, Sequence[x509.Certificate]],
    raw_manifest: bytes,
    *,
    now: datetime,
    what: str,
    note: Callable[[str], None],
) -> Outcome:
    """Whether one signature satisfies `statement` for exactly `raw_manifest`.

    Args:
        statement: of another level than skip.
        stores: certificates by name, such as `ca:acme`.
        note: gets a line for each check that holds.

    Raises:
        SignatureInvalid, UntrustedSigner: an enforced check says no.
        CouldNotVerify: an enforced check cannot be made offline.
    """
    assert statement.actions is not None
    try:
        envelope = parse_envelope(raw, media_type)  # step 1
        envelope.check_integrity()
    except (FormatError, Unsupported, SignatureInvalid) as error:
        raise SignatureInvalid(f"{what}: {error}") from error
    check_target(envelope.payload, raw_manifest, what=what)
    note(f"is intact, and for {digest_of(raw_manifest)}")
    failures: list[str] = []
    authentic = False
    path: tuple[x509.Certificate, ...] = envelope.chain

    def run(check: Check, holds: str, attempt: Callable[[], None]) -> bool:
        action = statement.actions[check] if statement.actions is not None else Action.ENFORCE
        if action is Action.SKIP:
            return False
        try:
            attempt()
        except VerificationError as error:
            if action is Action.ENFORCE:
                raise
            failures.append(f"not enforced: {error}")
            return False
        note(holds)
        return True

    def authenticity() -> None:  # step 2
        nonlocal path
        kind = "ca" if envelope.scheme == SCHEME_X509 else "signingAuthority"
        roots = [
            one for name in statement.stores if name.startswith(kind + ":") for one in stores[name]
        ]
        path = _check_path(envelope, roots, what)
        _check_identity(envelope.chain[0], statement, what)

    authentic = run(Check.AUTHENTICITY, "leads to a certificate of the trust store", authenticity)
    run(
        Check.TIMESTAMP,
        "its certificates were valid when it was signed",
        lambda: _check_time(envelope, path, statement, stores=stores, now=now, what=what),
    )
    run(Check.EXPIRY, "is not expired", lambda: _check_expiry(envelope, now, what))
    run(
        Check.REVOCATION,
        "its certificates name no place to ask for revocation",
        lambda: _check_revocation(path, what),
    )
    leaf = envelope.chain[0]
    return Outcome(
        fingerprint=_fingerprint(leaf) if authentic else "",
        subject=leaf.subject.rfc4514_string() if authentic else "",
        notes=tuple(failures),
    )


def _fingerprint(leaf: x509.Certificate) -> str:
    from imagers.sign.public_key import public_key_of  # after the check

    return public_key_of(leaf.public_key(), what="certificate").fingerprint


def check_target(payload: bytes, raw_manifest: bytes, *, what: str) -> None:
    """Nothing, if the payload names exactly these bytes.

    Raises:
        SignatureInvalid: another manifest, or no such payload.
    """
    try:
        document = View.parse(payload, what="notation payload", max_bytes=_MAX_PAYLOAD_BYTES)
        document.exactly("targetArtifact")
        target = document.object("targetArtifact")
        got = (target.text("mediaType"), target.text("digest"), target.integer("size"))
    except FormatError as error:
        raise SignatureInvalid(f"{what}: {error}") from error
    algorithm = got[1].partition(":")[0]
    digest = digest_of(raw_manifest, algorithm if algorithm in ("sha384", "sha512") else "sha256")
    wanted = (
        parse_manifest_or_index(raw_manifest).descriptor.media_type,
        str(digest),
        len(raw_manifest),
    )
    if got != wanted:
        raise SignatureInvalid(
            f"{what} is for another manifest: expected '{wanted[1]}' of {wanted[2]} bytes and "
            f"type '{wanted[0]}', got '{got[1][:140]}' of {got[2]} bytes and type '{got[0][:80]}'",
            hint="the image changed after it was signed, or the signature was moved from another",
        )


def _check_path(
    envelope: Envelope, roots: Sequence[x509.Certificate], what: str
) -> tuple[x509.Certificate, ...]:
    leaf = envelope.chain[0]
    what = f"{what}: certificate"
    # A signing certificate that is its own root may itself be in the store.
    if leaf.issuer == leaf.subject and leaf in roots:
        check_leaf(leaf, at=None, purpose=Purpose.CODE_SIGNING, purpose_is_optional=True, what=what)
        return (leaf,)
    return check_chain(
        leaf,
        envelope.chain[1:],
        roots,
        at=None,
        purpose=Purpose.CODE_SIGNING,
        purpose_is_optional=True,
        what=what,
    )


def _check_identity(leaf: x509.Certificate, statement: Statement, what: str) -> None:
    if statement.subjects is None:
        return
    found = {(one.oid.dotted_string, str(one.value)) for one in leaf.subject}
    if not any(wanted <= found for wanted in statement.subjects):
        raise UntrustedSigner(
            f"{what}: the certificate's subject is none of the trusted identities: got "
            f"'{leaf.subject.rfc4514_string()[:200]}'"
        )


def _check_time(
    envelope: Envelope,
    path: Sequence[x509.Certificate],
    statement: Statement,
    *,
    stores: Mapping[str, Sequence[x509.Certificate]],
    now: datetime,
    what: str,
) -> None:
    """Step 3."""
    tsa = [one for name in statement.stores if name.startswith("tsa:") for one in stores[name]]
    what = f"{what}: certificate"
    if envelope.scheme != SCHEME_X509:
        assert envelope.authentic_time is not None  # the parser has seen to it
        check_validity(path, envelope.authentic_time, what=what)
        return
    if tsa and not statement.always_stamped:
        try:
            check_validity(path, now, what=what)
        except SignatureInvalid:
            pass
        else:
            return
    if not tsa:
        check_validity(path, now, what=what)
        return
    if envelope.stamp is None:
        raise SignatureInvalid(f"{what}: has no time stamp, and the trust policy demands one")
    when = check_timestamp(envelope.stamp, envelope.signature, tsa, what=what)
    check_validity(path, when, what=what)


def _check_expiry(envelope: Envelope, now: datetime, what: str) -> None:
    if envelope.expiry is not None and now > envelope.expiry:
        raise SignatureInvalid(
            f"{what} is expired: expected a time before "
            f"{envelope.expiry:%Y-%m-%dT%H:%M:%SZ}, it is {now:%Y-%m-%dT%H:%M:%SZ}"
        )


def _check_revocation(path: Sequence[x509.Certificate], what: str) -> None:
    for certificate in path[:-1]:  # nobody revokes a root but who takes it out of the store
        if _names_a_place(certificate):
            raise CouldNotVerify(
                f"{what}: whether the certificate of "
                f"'{certificate.subject.rfc4514_string()[:160]}' is revoked cannot be looked up "
                "offline",
                hint='write "override": {"revocation": "log"} into the trust policy to accept that',
            )


def _names_a_place(certificate: x509.Certificate) -> bool:
    try:
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension):
        return True
    for one in extensions:
        if isinstance(one.value, x509.CRLDistributionPoints):
            return True
        if isinstance(one.value, x509.AuthorityInformationAccess) and any(
            access.access_method == AuthorityInformationAccessOID.OCSP for access in one.value
        ):
            return True
    return False


def thumbprints(chain: Sequence[x509.Certificate]) -> list[str]:
    """SHA-256 of each certificate, as the annotation of the manifest lists them."""
    return [one.fingerprint(hashes.SHA256()).hex() for one in chain]
