# SPDX-License-Identifier: Apache-2.0
"""The policy in force and the places of signatures, as the command line names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from imagers.cli.command import blamed_on, option_group
from imagers.cli.output import print_line, say
from imagers.errors import UsageError
from imagers.settings import read_settings

if TYPE_CHECKING:
    from imagers.model.descriptor import Platform
    from imagers.model.keys import ResourceStore
    from imagers.model.manifest import RawManifest
    from imagers.pull.named import NamedImage
    from imagers.pull.trust import TrustedImage
    from imagers.settings import Settings
    from imagers.sign.policy_json import Policy

__all__ = [
    "Demands",
    "demand_options",
    "has_policy",
    "permitted",
    "policy_for",
    "policy_option",
    "print_trusted",
    "registries_d_option",
]

_PIN = "the digest in the name"

registries_d_option = click.option("--registries.d", "registries_d", metavar="DIR")
"""`--registries.d`: where lookasides are configured, as skopeo writes it."""

policy_option = click.option("--policy", metavar="FILE")
"""`--policy`: the one in force, in place of the user's and the system's."""


def policy_for(
    image: NamedImage,
    place: str | None,
    user: Settings | None = None,
    resources: ResourceStore | None = None,
) -> tuple[str, Policy]:
    """The policy that decides whether an image may be used: that of `--policy`, else the one found.

    Before it stands what it is called in an answer: its path, mostly.

    Args:
        place: of `--policy`.
        user: None: what this machine says outside of guests.
        resources: the broker that is asked, if the place is there.

    Raises:
        CouldNotVerify: what was found accepts everything by default, which is nobody's word.
        LocalError, FormatError, Unsupported: there is none, or it cannot be used.
        As `read_document`, for a policy of a broker.
    """
    user = user or read_settings()
    named = user.guest.policy
    by = None if named is None else named.by
    with blamed_on("--policy" if place else by):
        policy = user.policy_for(image.identity, place, resources)
    return user.find_policy(place) or _PIN, policy


@dataclass(frozen=True, slots=True)
class Demands:
    """What `imagers verify` is to demand: a policy, or the words of one in options.

    Attributes:
        policy: path of a file; None for the one found, or for the other options.
        key: path of a public key.
        identity: of a certificate, or a pattern for it in `identity_regexp`.
        issuer: where its owner logged in.
        trusted_root: path of a trusted root file of sigstore.
    """

    policy: str | None
    key: str | None
    identity: str | None
    identity_regexp: str | None
    issuer: str | None
    trusted_root: str | None

    def __post_init__(self) -> None:
        who = [self.policy, self.key, self.identity, self.identity_regexp]
        if sum(one is not None for one in who) > 1:
            raise UsageError(
                "expected one of --policy, --key, --certificate-identity and "
                "--certificate-identity-regexp"
            )
        is_named = self.identity is not None or self.identity_regexp is not None
        for text, option in (
            (self.issuer, "--certificate-oidc-issuer"),
            (self.trusted_root, "--trusted-root"),
        ):
            if is_named and text is None:
                hint = _TRUSTED_ROOT_HINT if option == "--trusted-root" else _ISSUER_HINT
                raise UsageError(f"--certificate-identity: expected {option} too", hint=hint)
            if text is not None and not is_named:
                raise UsageError(f"{option} goes with --certificate-identity")

    def load(self, image: NamedImage) -> tuple[str, Policy]:
        """The policy, and what it is called in an answer: a path, or an option with its value.

        Raises:
            As `policy_for`.
        """
        from imagers.sign.keyfiles import read_key_file
        from imagers.sign.policy_make import policy_of_identity, policy_of_key

        if self.key is not None:
            with blamed_on("--key"):
                return f"--key {self.key}", policy_of_key(self.key, read_key_file(self.key))
        identity, option = self.identity, "--certificate-identity"
        if self.identity_regexp is not None:
            identity, option = self.identity_regexp, "--certificate-identity-regexp"
        if identity is not None:
            assert self.issuer is not None
            assert self.trusted_root is not None
            with blamed_on(option):
                return f"{option} {identity}", policy_of_identity(
                    identity,
                    issuer=self.issuer,
                    trusted_root=self.trusted_root,
                    is_pattern=self.identity_regexp is not None,
                )
        return policy_for(image, self.policy)


def print_trusted(trusted: TrustedImage, policy: str) -> None:
    """Print what may be used, and why.

    Args:
        policy: what it is called, as `policy_for` and `Demands.load` say it.
    """
    print_line(f"trusted {trusted.manifest.descriptor.digest}")
    if trusted.basis.value == "unsigned":
        say("warning", "the policy accepts this image unsigned: nobody says where it is from")
    for signer in trusted.decision.signers:
        name = f" as {signer.reference}" if signer.reference else ""
        subject = f" of {signer.subject}" if signer.subject else ""
        print_line(f"  signed{name} by key {signer.key}{subject}")
    is_file = policy != _PIN and not policy.startswith("--")
    place = f" at {trusted.decision.where}" if is_file else ""
    print_line(f"  basis: {trusted.basis.value}; policy: {policy}{place}")


_TRUSTED_ROOT_HINT = (
    "a trusted_root.json of sigstore; 'cosign initialize' keeps one as "
    "~/.sigstore/root/tuf-repo-cdn.sigstore.dev/targets/trusted_root.json"
)
_ISSUER_HINT = "such as https://token.actions.githubusercontent.com"

demand_options = option_group(
    "demands",
    Demands,
    {
        "policy": policy_option,
        "key": click.option("--key", metavar="FILE"),
        "identity": click.option("--certificate-identity", "identity", metavar="NAME"),
        "identity_regexp": click.option(
            "--certificate-identity-regexp", "identity_regexp", metavar="PATTERN"
        ),
        "issuer": click.option("--certificate-oidc-issuer", "issuer", metavar="URL"),
        "trusted_root": click.option("--trusted-root", metavar="FILE"),
    },
)
"""The options of `Demands`; the verb gets them as `demands`."""


def has_policy(path: str | None) -> bool:
    """Whether a policy is in force: that of `--policy`, else the user's or the system's."""
    return read_settings().find_policy(path) is not None


def permitted(image: NamedImage, policy: str | None, platform: Platform | None) -> RawManifest:
    """What the name of the image means, let through by the policy in force.

    For what copies or changes an image: where there is no policy, it goes on and says so.

    Args:
        policy: of `--policy`.
        platform: which image of an index will be used; None: all.

    Raises:
        VerificationError: the policy says no, or could not look.
    """
    from imagers.pull.permit import permit_image

    if not has_policy(policy):
        say("warning", "there is no policy.json: nobody says whether this image may be used")
        return image.source.read_manifest()
    with blamed_on(policy and "--policy"):
        loaded = read_settings().load_policy(policy)
    return permit_image(image, loaded, platform=platform)
