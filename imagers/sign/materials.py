# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates of the requirements that a policy has for one image.

    selected = policy.select(identity)
    trust = load_trust(selected, read_key_file)

This is the one step of verification that reads; the decision itself is `verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import CouldNotVerify, FormatError, Unsupported
from imagers.sign.formats.format import find_format
from imagers.sign.policy_json import Selected
from imagers.sign.requirements import Reject, Requirement, SignatureRequirement, Unchecked, walk

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from imagers.sign.public_key import PublicKey
    from imagers.sign.requirements import PKI, Fulcio, KeyRefs

__all__ = [
    "Material",
    "SignerMaterial",
    "Trust",
    "load_signers",
    "load_trust",
    "load_trusted_root",
    "read_refs",
]


class Material:
    """What one requirement is checked with: a class of its format."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class SignerMaterial(Material):
    """What a sigstore signature is checked with; empty where the requirement does not ask for it.

    Attributes:
        keys: of signers.
        rekor: of logs.
        roots: certificates that chains of signers must lead to.
        intermediates: certificates that may help with it.
        tsa: certificates of time-stamp authorities.
        one_witness: whether a log or a stamp will do; else each that is given is demanded.
    """

    keys: tuple[PublicKey, ...] = ()
    rekor: tuple[PublicKey, ...] = ()
    roots: tuple[Certificate, ...] = ()
    intermediates: tuple[Certificate, ...] = ()
    tsa: tuple[Certificate, ...] = ()
    one_witness: bool = False


@dataclass(frozen=True, slots=True)
class Trust:
    """The requirements for one image, with the keys loaded. Made by `load_trust`.

    Attributes:
        keys: by place of the requirement in the policy.
    """

    selected: Selected
    keys: Mapping[str, Material]

    @property
    def needs_signatures(self) -> bool:
        """Whether the answer depends on signatures; if not, none need be looked for."""
        return bool(self.keys)

    def material_of(self, requirement: Requirement) -> Material:
        """The keys of a requirement. Without them nothing was loaded, and nothing holds.

        Raises:
            CouldNotVerify: there are none.
        """
        material = self.keys.get(requirement.where)
        if material is None:
            raise CouldNotVerify(f"the keys of {requirement.where} were not loaded")
        return material

    def formats(self, *, on_index: bool = False) -> frozenset[str]:
        """The formats of signatures that the answer depends on.

        Args:
            on_index: those of what the name led to, not of the manifest of the platform.
        """
        if not self.keys:
            return frozenset()
        return frozenset(
            one.format
            for one, of_index in walk(self.selected.requirements)
            if isinstance(one, SignatureRequirement) and of_index is on_index
        )


def load_trust(selected: Selected, read_key: Callable[[str], bytes]) -> Trust:
    """The requirements with their keys; nothing is decided yet.

    Every key must be there and be one, also those that turn out not to be needed: a spare key
    that is broken is found before it is needed. No key is read for a list that has a `reject`
    or a requirement that cannot be checked, whose answer is settled.

    Args:
        read_key: gives the bytes for a `keyPath`, such as `keyfiles.read_key_file`.

    Raises:
        LocalError: as `read_key` raises it.
        FormatError, Unsupported: it is not a public key for signatures of images.
    """
    if any(isinstance(one, Reject | Unchecked) for one in selected.requirements):
        return Trust(selected, {})
    return Trust(
        selected,
        {
            one.where: find_format(one.format).load(one, read_key)
            for one, _ in walk(selected.requirements)
            if isinstance(one, SignatureRequirement)
        },
    )


def load_signers(
    where: str,
    read_key: Callable[[str], bytes],
    *,
    keys: KeyRefs | None,
    rekor: KeyRefs | None,
    fulcio: Fulcio | None,
    pki: PKI | None,
    tsa: KeyRefs | None = None,
) -> SignerMaterial:
    """The keys and certificates of a requirement for signatures of sigstore."""
    authority: Fulcio | PKI | None = fulcio or pki
    return SignerMaterial(
        keys=_public_keys(keys, where, read_key),
        rekor=_log_keys(rekor, where, read_key),
        roots=_certificates(None if authority is None else authority.roots, where, read_key),
        intermediates=_certificates(None if pki is None else pki.intermediates, where, read_key),
        tsa=_certificates(tsa, where, read_key),
    )


def load_trusted_root(
    path: str, where: str, read_key: Callable[[str], bytes], *, stamps: bool
) -> SignerMaterial:
    """The certificates and keys of a trusted root of sigstore; one witness of them is enough.

    Args:
        stamps: whether signatures of this format have time stamps, and an authority for them
            will do in place of a log.

    Raises:
        FormatError: it is none, or lacks an authority or a witness that is in force.
    """
    from imagers.sign.certified.trusted_root import parse_trusted_root

    what = f"trusted root '{path}'"
    root = parse_trusted_root(read_key(path), what=what)
    tsa = root.stampers if stamps else ()
    if not root.authorities or not (root.logs or tsa):
        witness = "a log or a time-stamp authority" if stamps else "a log"
        raise FormatError(
            f"expected an authority and {witness} in force, for {where}",
            what=what,
            hint="entries with an end of their validity are left out: get a newer file",
        )
    return SignerMaterial(roots=root.authorities, rekor=root.logs, tsa=tsa, one_witness=True)


def read_refs(
    refs: KeyRefs, where: str, read_key: Callable[[str], bytes]
) -> tuple[tuple[str, bytes], ...]:
    """The bytes of keys or certificates, each with its name in messages."""
    files = [(f"key file '{path}'", read_key(path)) for path in refs.paths]
    inline = [
        (f"{refs.label} {number} in the policy at {where}", data)
        for number, data in enumerate(refs.datas, 1)
    ]
    return (*files, *inline)


def _public_keys(
    refs: KeyRefs | None, where: str, read_key: Callable[[str], bytes]
) -> tuple[PublicKey, ...]:
    if refs is None:
        return ()
    from imagers.sign.public_key import parse_public_key

    return tuple(
        parse_public_key(data, what=what) for what, data in read_refs(refs, where, read_key)
    )


def _log_keys(
    refs: KeyRefs | None, where: str, read_key: Callable[[str], bytes]
) -> tuple[PublicKey, ...]:
    keys = _public_keys(refs, where, read_key)
    for key in keys:
        if not key.kind.startswith("ECDSA"):
            raise Unsupported(
                f"the policy at {where} names a log with a key {key.kind}, expected ECDSA"
            )
    return keys


def _certificates(
    refs: KeyRefs | None, where: str, read_key: Callable[[str], bytes]
) -> tuple[Certificate, ...]:
    if refs is None:
        return ()
    from imagers.pki.chain import parse_certificates

    return tuple(
        certificate
        for what, data in read_refs(refs, where, read_key)
        for certificate in parse_certificates(data, what=what)
    )
