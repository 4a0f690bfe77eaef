# SPDX-License-Identifier: Apache-2.0
"""The policy in force and the places of signatures, as the command line names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.command import blamed_on
from imagers.cli.output import say
from imagers.settings import read_settings

if TYPE_CHECKING:
    from imagers.model.descriptor import Platform
    from imagers.model.manifest import RawManifest
    from imagers.pull.named import NamedImage
    from imagers.sign.policy_json import Policy

__all__ = ["has_policy", "load_policy", "permitted", "policy_option", "registries_d_option"]

registries_d_option = click.option("--registries.d", "registries_d", metavar="DIR")
"""`--registries.d`: where lookasides are configured, as skopeo writes it."""

policy_option = click.option("--policy", metavar="FILE")
"""`--policy`: the one in force, in place of the user's and the system's."""


def load_policy(path: str | None) -> Policy:
    """The policy in force: that of `--policy`, else the user's or the system's."""
    with blamed_on(path and "--policy"):
        return read_settings().load_policy(path)


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
    return permit_image(image, load_policy(policy), platform=platform)
