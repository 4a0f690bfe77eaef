# SPDX-License-Identifier: Apache-2.0
"""CoRIM: reference values and keys of platforms, in CBOR, with or without a signature.

    manifest = parse_corim(data, key=None)
    manifest.values["snp_launch_measurement"], manifest.trust_anchors

    501({0: id, 1: [506(bytes of a CoMID)], 3: profile, 4: validity})
    18([{1: algorithm, 3: content type, 8: meta}, {}, bytes of 501(...), signature])

The profile says what the measurements of a CoMID are; those that are claims of a verifier here
get its names, all others are counted:

| profile | measurements |
|---|---|
| `tag:amd.com,2024:snp-corim-profile` | 641 and its neighbours, by number |
| `tag:arm.com,2025:cca_platform#1.0.0` | firmware and configuration, keys of platforms |
| `tag:arm.com,2025:cca_realm#1.0.0` | `cca.rim`, `cca.rem0` to `3`, `cca.rpv` |
| any other, or none | those whose key is a text that is the name of a claim |

Endorsed values, conditions and dependent manifests say nothing here.

Spec: draft-ietf-rats-corim-08; draft-deeglaze-amd-sev-snp-corim-profile-02;
draft-ydb-rats-cca-endorsements-02; IANA "Named Information" (numbers of hashes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from imagers.errors import CouldNotVerify, FormatError, NoSignature, Unsupported
from imagers.evidence.cca.token import Component
from imagers.evidence.cca.verify import software_digest
from imagers.model.base64 import encode_base64url
from imagers.model.references import is_reference_name
from imagers.model.strict_cbor import CBORView, Tag, parse_cbor
from imagers.pki.cose import ALG, CONTENT_TYPE, Sign1, parse_sign1

if TYPE_CHECKING:
    from imagers.model.strict_cbor import CBOR
    from imagers.model.strict_json import JSON

__all__ = ["MAX_CORIM", "Manifest", "is_corim", "parse_corim"]

MAX_CORIM = 1024 * 1024
"""In bytes."""
_WHAT = "CoRIM"
_UNSIGNED, _COMID, _SIGN1 = 501, 506, 18
_WRAPPERS = (b"\xd9\x01\xf4", b"\xd9\x01\xf6")  # tags 500 and 502 of older drafts
_CONTENT_TYPES = ("application/rim+cbor", "application/corim-unsigned+cbor")
_META = 8  # label of a header
_BYTES, _UEID, _PKIX_KEY, _URI, _TIME = 560, 550, 554, 32, 1  # tags
_SNP = "tag:amd.com,2024:snp-corim-profile"
_PLATFORM = "tag:arm.com,2025:cca_platform#1.0.0"
_REALM = "tag:arm.com,2025:cca_realm#1.0.0"
_MAX_TAGS, _MAX_TRIPLES, _MAX_MEASUREMENTS = 256, 1024, 1024
_DIGESTS = {1: 32, 7: 48, 8: 64}  # sha-256, sha-384, sha-512
_SNP_NAMES = {
    641: "snp_launch_measurement",
    642: "snp_host_data",
    643: "snp_id_key_digest",
    644: "snp_author_key_digest",
}
_REALM_NAMES = {
    "cca.rim": "cca_realm_initial_measurement",
    **{f"cca.rem{number}": f"cca_realm_extensible_measurement_{number}" for number in range(4)},
    "cca.rpv": "cca_realm_personalization_value",
}
_COMPONENT, _CONFIG = "cca.software-component", "cca.platform-config"
# Labels of a measurement's values.
_DIGEST_LIST, _RAW, _NAME, _KEYS = 2, 4, 11, 13


@dataclass(slots=True)
class Manifest:
    """What a manifest says that means something here.

    Attributes:
        values: by the names of reference values.
        trust_anchors: keys of CCA platforms, as `tees.cca.trust_anchors` has them.
        expires: aware; None: it does not say.
        left_out: how many measurements have no name here.
    """

    values: dict[str, list[JSON]] = field(default_factory=dict)
    trust_anchors: list[JSON] = field(default_factory=list)
    expires: datetime | None = None
    left_out: int = 0

    def add(self, name: str, value: JSON) -> None:
        """Take a value once."""
        values = self.values.setdefault(name, [])
        if value not in values:
            values.append(value)


def is_corim(data: bytes) -> bool:
    """Whether bytes can be a manifest: one of its tags stands first."""
    return data[:1] in (b"\xd2", b"\xd9")


def parse_corim(data: bytes, *, key: bytes | None) -> Manifest:
    """What a manifest says.

    Args:
        key: public, in PEM, of who has to have signed it; None: nobody has to.

    Raises:
        FormatError: it is none.
        NoSignature: it is not signed, and there is a key.
        CouldNotVerify: it is signed, and there is no key.
        SignatureInvalid: it is signed by another.
    """
    while data.startswith(_WRAPPERS):
        data = data[3:]
    ends: list[datetime | None] = []
    if data[:1] == b"\xd2":
        data, end = _signed(data, key)
        ends.append(end)
    elif key is not None:
        raise NoSignature("the CoRIM is not signed, and a key is given")
    document = parse_cbor(data, what=_WHAT, max_bytes=MAX_CORIM)
    view = CBORView(_untagged(document, _UNSIGNED, "a manifest"), what=_WHAT)
    ends.append(_expiry(view, 4))
    manifest = Manifest(expires=min((one for one in ends if one is not None), default=None))
    profile = _profile(view)
    for tag in view.array(1, least=1, most=_MAX_TAGS):
        if not isinstance(tag, Tag) or tag.number != _COMID:
            manifest.left_out += 1  # CoSWID and others
            continue
        if not isinstance(tag.value, bytes):
            raise view.error("expected the bytes of a CoMID", 1)
        comid = CBORView.parse(tag.value, what="CoMID", max_bytes=MAX_CORIM)
        _read_triples(comid.map(4), profile, manifest)
    return manifest


def _signed(data: bytes, key: bytes | None) -> tuple[bytes, datetime | None]:
    """What is signed, after the signature was checked, and until when that one is good."""
    message: Sign1 = parse_sign1(data, what=_WHAT, max_bytes=MAX_CORIM)
    if key is None:
        raise CouldNotVerify(
            "the CoRIM is signed, and nobody said by whom it has to be",
            hint="--key FILE names the public key, in PEM",
        )
    try:
        public = load_pem_public_key(key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("expected a public key in PEM", what="key") from error
    message.check_signature(public)
    headers = CBORView(message.protected, what=f"{_WHAT}, protected headers")
    # A key or a certificate that comes along is no reason to trust it.
    headers.only(ALG, CONTENT_TYPE, _META, 4, 15, 33)
    if headers.text(CONTENT_TYPE) not in _CONTENT_TYPES:
        expected = " or ".join(_CONTENT_TYPES)
        raise headers.error(f"expected {expected}", CONTENT_TYPE)
    if _META not in headers:
        return message.payload, None
    meta = CBORView.parse(headers.byte_string(_META), what=f"{_WHAT}, meta", max_bytes=MAX_CORIM)
    return message.payload, _expiry(meta, 1)


def _untagged(value: CBOR, number: int, kind: str) -> CBOR:
    if not isinstance(value, Tag) or value.number != number:
        raise FormatError(f"expected {kind}, tag {number}", what=_WHAT)
    return value.value


def _profile(view: CBORView) -> str:
    value = view.value.get(3)
    if isinstance(value, Tag) and value.number == _URI:
        value = value.value
    return value if isinstance(value, str) else ""


def _expiry(view: CBORView, label: int) -> datetime | None:
    """The end of a validity, which the map has at a label."""
    if label not in view:
        return None
    validity = view.map(label)
    end = validity.value.get(1)
    if not isinstance(end, Tag) or end.number != _TIME or type(end.value) is not int:
        raise validity.error("expected a time, tag 1", 1)
    try:
        return datetime.fromtimestamp(end.value, UTC)
    except (ValueError, OverflowError, OSError):  # a year that has no name
        raise validity.error("expected a time before the year 10000", 1) from None


def _read_triples(triples: CBORView, profile: str, manifest: Manifest) -> None:
    for environment, measurements in _records(triples, 0):
        if profile == _PLATFORM:
            _read_platform(environment, measurements, manifest)
            continue
        for one in measurements:
            name = _name_of(one, profile)
            if name is None:
                manifest.left_out += 1
            else:
                manifest.add(name, _value_of(one).hex())
    if profile == _PLATFORM and 3 in triples:
        for record in triples.array(3, most=_MAX_TRIPLES):
            manifest.trust_anchors.append(_read_anchor(record, triples))


def _records(triples: CBORView, label: int) -> list[tuple[CBORView, list[CBORView]]]:
    """Environment and measurements of each reference triple."""
    found = []
    if label not in triples:
        return []
    for number, record in enumerate(triples.array(label, most=_MAX_TRIPLES)):
        where = f"{triples.at(label)}[{number}]"
        if not isinstance(record, tuple) or len(record) != 2 or not isinstance(record[1], tuple):
            raise FormatError(
                "expected an environment and measurements", what=triples.what, where=where
            )
        if len(record[1]) > _MAX_MEASUREMENTS:
            raise FormatError(
                f"expected at most {_MAX_MEASUREMENTS} measurements", what=triples.what, where=where
            )
        environment = CBORView(record[0], what=triples.what, where=f"{where}[0]")
        measurements = [
            CBORView(one, what=triples.what, where=f"{where}[1][{at}]")
            for at, one in enumerate(record[1])
        ]
        found.append((environment, measurements))
    return found


def _name_of(measurement: CBORView, profile: str) -> str | None:
    """The name of a claim of ours; None: it has none here."""
    key = measurement.value.get(0)
    if profile == _SNP:
        return _SNP_NAMES.get(key) if isinstance(key, int) else None
    if profile == _REALM:
        return _REALM_NAMES.get(key) if isinstance(key, str) else None
    return key if isinstance(key, str) and is_reference_name(key) else None


def _value_of(measurement: CBORView) -> bytes:
    """The one digest, or the raw value: all of it, which is stricter than a mask of some bits."""
    values = measurement.map(1)
    if _DIGEST_LIST in values:
        return _digest(values)
    raw = values.value.get(_RAW)
    if isinstance(raw, Tag) and raw.number == _BYTES:
        raw = raw.value
    if not isinstance(raw, bytes):
        raise values.error("expected a digest or bytes")
    return raw


def _digest(values: CBORView) -> bytes:
    found = values.array(_DIGEST_LIST, least=1)
    if len(found) != 1:
        raise values.error(f"expected one digest, got {len(found)}", _DIGEST_LIST)
    match found[0]:
        case (int() as algorithm, bytes() as value) if len(value) == _DIGESTS.get(algorithm):
            return value
    raise values.error("expected a digest of sha-256, sha-384 or sha-512", _DIGEST_LIST)


def _read_platform(environment: CBORView, measurements: list[CBORView], manifest: Manifest) -> None:
    """All firmware of a platform is one value; see `software_digest`."""
    components = []
    for one in measurements:
        if one.value.get(0) == _COMPONENT:
            values = one.map(1)
            components.append(
                Component(
                    kind=values.text(_NAME) if _NAME in values else "",
                    measurement=_digest(values),
                    signer=_signer(values),
                    version="",
                )
            )
        elif one.value.get(0) == _CONFIG:
            manifest.add("cca_platform_config", _value_of(one).hex())
        else:
            manifest.left_out += 1
    if components:
        manifest.add("cca_platform_software", software_digest(components))
    manifest.add("cca_platform_implementation_id", _implementation(environment).hex())


def _signer(values: CBORView) -> bytes:
    keys = values.array(_KEYS, least=1, most=1)
    if isinstance(keys[0], Tag) and isinstance(keys[0].value, bytes):
        return keys[0].value
    raise values.error("expected the id of a signer", _KEYS)


def _implementation(environment: CBORView) -> bytes:
    return _tagged(environment.map(0), 0, _BYTES, 32)


def _tagged(view: CBORView, label: int, number: int, size: int) -> bytes:
    value = view.value.get(label)
    match value:
        case Tag(number=found, value=bytes() as data) if found == number and len(data) == size:
            return data
    raise view.error(f"expected {size} bytes with tag {number}", label)


def _read_anchor(record: CBOR, triples: CBORView) -> JSON:
    """The key of a platform."""
    match record:
        case (environment, (Tag(number=number, value=str() as pem),)) if number == _PKIX_KEY:
            place = CBORView(environment, what=triples.what, where=f"{triples.at(3)}[0]")
        case _:
            raise triples.error("expected an environment and one key in PEM", 3)
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise triples.error("expected a public key in PEM", 3) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Unsupported("key of a platform: expected one on a curve of NIST")
    return {
        "instance-id": _tagged(place, 1, _UEID, 33).hex(),
        "implementation-id": _implementation(place).hex(),
        "pkey": _jwk(key),
    }


def _jwk(key: ec.EllipticCurvePublicKey) -> JSON:
    numbers, size = key.public_numbers(), (key.curve.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": f"P-{key.curve.key_size}",
        "x": encode_base64url(numbers.x.to_bytes(size)),
        "y": encode_base64url(numbers.y.to_bytes(size)),
    }
