"""Keys and certificates of the requirements that a policy has for one image.

    selected = policy.select(identity)
    trust = load_trust(selected, read_key_file)

This is the one step of verification that reads; the decision itself is `verify`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.errors import CouldNotVerify, FormatError, Unsupported
from imagers.sign.found import Form
from imagers.sign.public_key import PublicKey, parse_public_key
from imagers.sign.requirements import (
    KeyRefs,
    NotationSigned,
    Reject,
    SignedBy,
    SigstoreBundle,
    SigstoreSigned,
    Unchecked,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.x509 import Certificate

    from imagers.sign.formats.notation.trust_policy import TrustPolicy
    from imagers.sign.policy_json import Selected
    from imagers.sign.requirements import PKI, Fulcio, Requirement

__all__ = ["FORM_OF", "Material", "Trust", "load_material", "load_trust"]

FORM_OF: dict[type, Form] = {
    SigstoreSigned: Form.SIGSTORE,
    SigstoreBundle: Form.BUNDLE,
    SignedBy: Form.SIMPLE,
    NotationSigned: Form.NOTATION,
}


@dataclass(frozen=True, slots=True)
class Material:
    """What one requirement is checked with; empty where it does not ask for it.

    Attributes:
        keys: of signers.
        rekor: of logs.
        roots: certificates that chains of signers must lead to.
        intermediates: certificates that may help with it.
        tsa: certificates of time-stamp authorities.
        one_witness: whether a log or a stamp will do; else each that is given is demanded.
        keyring: OpenPGP keys, each with its name in messages.
        trust_policy: of notation, with the certificates of its stores by their names.
    """

    keys: tuple[PublicKey, ...] = ()
    rekor: tuple[PublicKey, ...] = ()
    roots: tuple[Certificate, ...] = ()
    intermediates: tuple[Certificate, ...] = ()
    tsa: tuple[Certificate, ...] = ()
    one_witness: bool = False
    keyring: tuple[tuple[str, bytes], ...] = ()
    trust_policy: TrustPolicy | None = None
    stores: Mapping[str, tuple[Certificate, ...]] = field(default_factory=dict)


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

    def forms(self, *, on_index: bool = False) -> frozenset[Form]:
        """The forms of signatures that the answer depends on.

        Args:
            on_index: those of what the name led to, not of the manifest of the platform.
        """
        if not self.keys:
            return frozenset()
        return frozenset(
            FORM_OF[type(one)]
            for one, of_index in walk(self.selected.requirements)
            if type(one) in FORM_OF and of_index is on_index
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
            one.where: load_material(one, read_key)
            for one, _ in walk(selected.requirements)
            if type(one) in FORM_OF
        },
    )


def load_material(requirement: Requirement, read_key: Callable[[str], bytes]) -> Material:
    """The keys of one requirement."""
    where = requirement.where
    if isinstance(requirement, SignedBy):
        return Material(keyring=_read(requirement.keys, where, read_key))
    if isinstance(requirement, SigstoreSigned):
        keys: KeyRefs | None = KeyRefs(requirement.key_paths, requirement.key_datas)
        tsa = None
    elif isinstance(requirement, SigstoreBundle) and requirement.trusted_root is not None:
        return _load_trusted_root(requirement.trusted_root, where, read_key)
    elif isinstance(requirement, SigstoreBundle):
        keys, tsa = requirement.keys, requirement.tsa
    else:
        assert isinstance(requirement, NotationSigned)  # the last of FORM_OF
        return _load_notation(requirement, read_key)
    authority: Fulcio | PKI | None = requirement.fulcio or requirement.pki
    pki = requirement.pki
    return Material(
        keys=_public_keys(keys, where, read_key),
        rekor=_log_keys(requirement.rekor, where, read_key),
        roots=_certificates(None if authority is None else authority.roots, where, read_key),
        intermediates=_certificates(None if pki is None else pki.intermediates, where, read_key),
        tsa=_certificates(tsa, where, read_key),
    )


def _load_trusted_root(path: str, where: str, read_key: Callable[[str], bytes]) -> Material:
    from imagers.sign.certified.trusted_root import parse_trusted_root

    what = f"trusted root '{path}'"
    root = parse_trusted_root(read_key(path), what=what)
    if not root.authorities or not (root.logs or root.stampers):
        raise FormatError(
            f"expected an authority and a log or a time-stamp authority in force, for {where}",
            what=what,
            hint="entries with an end of their validity are left out: get a newer file",
        )
    return Material(roots=root.authorities, rekor=root.logs, tsa=root.stampers, one_witness=True)


def _load_notation(requirement: NotationSigned, read_key: Callable[[str], bytes]) -> Material:
    from imagers.sign.formats.notation.trust_policy import parse_trust_policy
    from imagers.sign.keyfiles import load_trust_store

    path = requirement.trust_policy
    policy = parse_trust_policy(read_key(path), what=f"trust policy '{path}'")
    names = {name for statement in policy.statements.values() for name in statement.stores}
    stores = {name: load_trust_store(requirement.trust_store, name) for name in sorted(names)}
    return Material(trust_policy=policy, stores=stores)


def _read(
    refs: KeyRefs, where: str, read_key: Callable[[str], bytes]
) -> tuple[tuple[str, bytes], ...]:
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
    return tuple(parse_public_key(data, what=what) for what, data in _read(refs, where, read_key))


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
        for what, data in _read(refs, where, read_key)
        for certificate in parse_certificates(data, what=what)
    )
