# SPDX-License-Identifier: Apache-2.0
"""Whether a document of AWS Nitro is genuine, for this handshake, of a closed enclave. No IO.

    verifier = NitroVerifier()
    evidence = verifier.parse(body)
    claims = verifier.verify(evidence, bound=bound, collateral={}, now=now, note=print)

1. *Chain.* The certificates that come along are a path from AWS's root G1, which comes along here
   too, to that of the key that signed, in their order: each is issued by the one before, which is
   an authority within its path length. All are valid now: a machine's certificate is for a day, an
   enclave's for three hours.
2. *Signature.* The document is signed with that key: ES384, on P-384.
3. *Time.* The document is not from the future.
4. *Enclave.* No debugging, unless allowed: of an enclave under debugging PCR 0, 1 and 2 are zeros.
5. *Bound.* The user data are the report data, 64 bytes with zeros behind. There is no field for
   init data.

What was measured is in the claims; that it is *somebody's own* enclave is for reference values to
say: a genuine machine is anybody's who rents one.

Not looked at: lists of revoked certificates, which AWS says not to use with documents; nonce and
public key of the document, which are claims.

Which paths are good is cached by the bytes of their certificates; dates are looked at each time.

Spec: aws-nitro-enclaves-nsm-api, docs/attestation_process.md, section 3.2; RFC 5280, section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from imagers.errors import EvidenceRejected, SignatureInvalid
from imagers.evidence.nitro.document import MAX_DOCUMENT, Document, parse_document
from imagers.evidence.roots import read_root
from imagers.evidence.steps import check_bound, mismatch, step
from imagers.model.evidence import Claims
from imagers.model.strict_json import View, parse_json
from imagers.pki.chain import check_chain, load_certificate, parse_root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from cryptography import x509

    from imagers.model.evidence import Bound, Verifier
    from imagers.model.strict_json import JSON

__all__ = ["NitroVerifier", "parse", "parse_file"]

_WHAT = "Nitro evidence"
_MAX_JSON = 32 * 1024
_CACHED = 256
_AHEAD = timedelta(minutes=5)  # that clocks of a machine and ours may differ
_USER_DATA = 64
_MEASURED = ("nitro_pcr0", "nitro_pcr1", "nitro_pcr2")
_CONFIGURED = (3, 4, 8)  # registers


def parse(body: JSON) -> Document:
    """The evidence in JSON: `{"document": "base64"}`.

    Raises:
        FormatError: it is none.
    """
    return parse_document(View(body, what=_WHAT).bytes64("document", max_size=MAX_DOCUMENT))


def parse_file(data: bytes) -> Document:
    """The evidence in a file: a document as the module gives it, or the JSON.

    Raises:
        FormatError: it is neither.
    """
    if data.lstrip()[:1] == b"{":
        return parse(parse_json(data, what=_WHAT, max_bytes=_MAX_JSON))
    return parse_document(data)


@dataclass(frozen=True, slots=True)
class NitroVerifier:
    """Judges documents of AWS Nitro Enclaves, by the steps of the module.

    Attributes:
        debug: whether an enclave under debugging is let pass.
        roots: one certificate in PEM, in place of AWS's root: for tests only.
    """

    debug: bool = False
    roots: bytes | None = None
    tee: ClassVar[str] = "nitro"
    references: ClassVar[tuple[tuple[str, ...], ...]] = (_MEASURED,)

    @classmethod
    def make(cls, settings: View, roots: bytes | None) -> Self:
        """A verifier with the settings of an appraisal: `{"debug": true}`.

        Raises:
            FormatError: something else stands there, or `roots` is no certificate.
        """
        settings.only("debug")
        _root_of(roots)  # a faulty file is told at the start
        return cls(settings.flag("debug"), roots)

    def parse(self, body: JSON) -> Document:
        """See `Verifier`."""
        return parse(body)

    def wanted(self, evidence: Document) -> tuple[str, ...]:  # noqa: ARG002  # of the Protocol
        """See `Verifier`: nothing."""
        return ()

    def verify(
        self,
        evidence: Document,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],  # noqa: ARG002  # of the Protocol
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """See `Verifier`.

        Raises:
            EvidenceRejected: a step says no.
        """
        with step("1, chain"):
            leaf = _check_chain(evidence, _root_of(self.roots), now)
        note(f"step 1, chain: to the root, valid to {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
        with step("2, signature"):
            _check_signature(evidence, leaf)
        note("step 2, signature: good")
        with step("3, time"):
            made_at = _check_time(evidence.timestamp, now)
        note(f"step 3, time: made at {made_at:%Y-%m-%dT%H:%M:%SZ}")
        with step("4, enclave"):
            is_debug = _check_enclave(evidence.pcrs, is_allowed=self.debug)
        note(f"step 4, enclave: {'under debugging' if is_debug else 'closed'}")
        with step("5, bound"):
            told = _check_bound(bound, evidence.user_data)
        note(f"step 5, bound: {told}")
        pcrs = {number: value.hex() for number, value in evidence.pcrs.items()}
        # A register that is not there equals no value that one has to have.
        configured = {f"nitro_pcr{number}": pcrs.get(number, "") for number in _CONFIGURED}
        return Claims(
            tee=self.tee,
            tee_class="cpu",
            maker="AWS, a Nitro security module",
            measured=({name: pcrs[number] for number, name in enumerate(_MEASURED)},),
            configured=configured,
            debug=is_debug,
            report_data=evidence.user_data.hex(),
            values={
                "digest": "SHA384",
                "timestamp": evidence.timestamp,
                "pcrs": {str(number): value for number, value in pcrs.items()},
                "report_data": evidence.user_data.hex(),
                "nonce": evidence.nonce.hex(),
                "public_key": evidence.public_key.hex(),
            },
            established_at=now,
            instance=_instance_of(evidence.module_id),
            test_root=self.roots is not None,
        )


def _root_of(roots: bytes | None) -> x509.Certificate:
    return _built_in() if roots is None else parse_root(roots, what="test root")


@cache
def _built_in() -> x509.Certificate:
    return parse_root(read_root("nitro", "g1.pem"), what="g1.pem")


def _check_chain(document: Document, root: x509.Certificate, now: datetime) -> x509.Certificate:
    """Step 1: the certificate of the key that signed."""
    path = _path(document.certificate, document.authorities, root.public_bytes(Encoding.DER))
    for number, one in enumerate(path):
        if not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            raise mismatch(
                f"certificate {len(path) - number} of {len(path)} from the root on",
                f"one that is valid at {now:%Y-%m-%dT%H:%M:%SZ}",
                f"one from {one.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ} "
                f"to {one.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
            )
    return path[0]


@lru_cache(_CACHED)
def _path(leaf: bytes, authorities: tuple[bytes, ...], root: bytes) -> tuple[x509.Certificate, ...]:
    """The path from the leaf to the root; what raises is not cached."""
    first, *others = authorities
    if first != root:
        raise EvidenceRejected("the bundle does not begin with the root that is trusted")
    between = [load_certificate(one, what="certificate") for one in others]
    last, top = (load_certificate(one, what="certificate") for one in (leaf, root))
    try:
        path = check_chain(last, between, [top], at=None, purpose=None)
    except SignatureInvalid:
        path = ()
    if path != (last, *reversed(between), top):
        # Why not would name the machine, as its certificates do.
        raise EvidenceRejected(
            "the bundle and the certificate are no path from the root: each has to be issued by "
            "the one before, an authority that may sign so many below it"
        ) from None
    return path


def _check_signature(document: Document, leaf: x509.Certificate) -> None:
    """Step 2."""
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EvidenceRejected("the certificate's key: expected one on P-384")
    try:
        document.message.check_signature(key)
    except SignatureInvalid as error:
        raise EvidenceRejected(str(error)) from error


def _check_time(milliseconds: int, now: datetime) -> datetime:
    """Step 3: when it was made. How old it may be, certificates and what is bound say."""
    made_at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    if made_at > now + _AHEAD:
        raise mismatch(
            "time of the document", f"at most {now:%Y-%m-%dT%H:%M:%SZ}",
            f"{made_at:%Y-%m-%dT%H:%M:%SZ}",
        )  # fmt: skip
    return made_at


def _check_enclave(pcrs: Mapping[int, bytes], *, is_allowed: bool) -> bool:
    """Step 4: whether it is under debugging."""
    is_debug = any(not any(pcrs[number]) for number in range(len(_MEASURED)))
    if is_debug and not is_allowed:
        raise mismatch("debugging", "an enclave whose PCR 0, 1 and 2 are measured", "zeros")
    return is_debug


def _check_bound(bound: Bound, user_data: bytes) -> str:
    """Step 5. The enclave chooses how long its user data are: the length is compared first."""
    if bound.report_data is not None and len(user_data) != _USER_DATA:
        raise mismatch(
            "length of the user data, which are the report data", _USER_DATA, len(user_data)
        )
    return check_bound(bound, report_data=user_data)


def _instance_of(module_id: str) -> str:
    """Which machine it is: the instance, without the enclave on it."""
    return sha256(module_id.partition("-enc")[0].encode()).hexdigest()


if TYPE_CHECKING:
    _verifier: Verifier[Document] = NitroVerifier()
