# SPDX-License-Identifier: Apache-2.0
"""usage: imagers verify [OPTION]... REF

Says whether an image may be used, as a containers policy.json demands it, and
changes nothing: the same decision as that of "imagers pull", without keys and
layers. The exit code is 0 for yes, 21 for no, 22 if it could not be looked up.

  --policy FILE               containers policy.json; default: that of the user
                              or the system, which is none where it accepts
                              everything by default
  --key FILE                  in place of a policy: signed with this key, by
                              cosign in either form or by gpg, under this name
  --certificate-identity NAME, --certificate-identity-regexp PATTERN
                              in place of a policy: signed by cosign for a login
                              of this e-mail address or URI; a pattern of RE2
                              must match all of it
  --certificate-oidc-issuer URL, --trusted-root FILE
                              where that login was; and authorities and logs of
                              sigstore, as nothing is fetched
  --explain                   the whole decision as a tree: which scope of the
                              policy, each requirement, where signatures were
                              looked for, each signature with each check: yes,
                              no or could not look
  --registries.d DIR          where lookasides of GPG signatures are configured;
                              else ~/.config/containers/registries.d, else
                              /etc/containers/registries.d
  --platform OS/ARCH[/VAR]    which image of an index; default: this machine's
  --creds USER:PASSWORD, --tls-verify BOOL, --registry-ca FILE, --cert-dir DIR,
  --authfile FILE, --daemon-host URL, --image-rs-registries FILE
                              as for "imagers copy"
  --json                      the result, and with --explain the tree, as JSON
  -q, -v, -h                  quiet, verbose, this text

The policy is asked about the manifest of the platform, as podman and skopeo do
it; a requirement of type "index" is about the index instead: docs/policy.md.

example:
  imagers verify registry.example.org/app:v1 --key release.pub --explain
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, json_option, platform_option
from imagers.cli.images import (
    RegistryOptions,
    open_named,
    parse_platform,
    registry_options,
)
from imagers.cli.output import error_facts, print_json, print_line, telling
from imagers.cli.signatures import Demands, demand_options, print_trusted, registries_d_option
from imagers.errors import ImagersError

if TYPE_CHECKING:
    from imagers.pull.trust import TrustedImage
    from imagers.sign.decision import Explanation
    from imagers.sign.policy_json import Selected

__all__ = ["command"]


@click.command("verify", cls=VerbCommand, help=__doc__)
@click.argument("ref")
@demand_options
@click.option("--explain", is_flag=True)
@registries_d_option
@platform_option
@registry_options
@json_option
def command(
    *,
    ref: str,
    demands: Demands,
    explain: bool,
    registries_d: str | None,
    platform: str | None,
    registry: RegistryOptions,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.model.time_limits import TimeLimits
    from imagers.pull.run import PullOptions, trust_image

    told: list[Explanation] = []
    trusted: TrustedImage | None = None
    error: ImagersError | None = None
    with open_named(ref, registry, registries_d) as image:
        path, document = demands.load(image)
        selected = document.select(image.identity)
        # A key that cannot be read is no answer of the policy's, neither "no" nor a tree.
        image.requirements(document)
        try:
            trusted = trust_image(
                image,
                PullOptions(document, parse_platform(platform), time_limits=TimeLimits(trust=None)),
                on_explained=told.append,
            )
        except ImagersError as refusal:
            error = refusal
    with telling(error):
        if as_json:
            facts = {"reference": image.source.name} | _facts(path, selected, trusted, error)
            if explain and told:
                facts |= {"scope": _why(path, selected)[1], "tree": told[0].root.to_json()}
            print_json(facts)
        else:
            if explain:
                _print_tree(path, selected, told)
            if trusted is not None:
                print_trusted(trusted, path)


def _why(path: str, selected: Selected) -> list[str]:
    """Which list of the policy, and which scopes were tried before it."""
    scopes = [*selected.identity.scopes, ""]
    if selected.where == "$.default":
        tried = f"none of the {len(scopes)} scopes of '{selected.identity}' is in the policy"
    else:
        chosen = selected.where.partition("[")[2][1:-2]
        tried = "it is the most specific scope that is in the policy"
        if chosen in scopes and scopes.index(chosen):
            tried += "; not there: " + ", ".join(f"'{s}'" for s in scopes[: scopes.index(chosen)])
    return [f"policy {path}", f"list {selected.where}: {tried}"]


def _facts(
    path: str,
    selected: Selected,
    trusted: TrustedImage | None,
    error: ImagersError | None,
) -> dict[str, object]:
    facts: dict[str, object] = {
        "answer": "yes" if trusted is not None else _answer(error),
        "policy": path,
        "requirements": selected.where,
    }
    if trusted is not None:
        facts["digest"] = str(trusted.manifest.descriptor.digest)
        facts["basis"] = trusted.basis.value
        facts["signers"] = [
            {"key": one.key, "identity": one.reference, "subject": one.subject}
            for one in trusted.decision.signers
        ]
    if error is not None:
        facts["error"] = error_facts(error)
    return facts


def _answer(error: ImagersError | None) -> str:
    from imagers.errors import CouldNotVerify, RemoteError

    could_not = isinstance(error, CouldNotVerify | RemoteError)
    return "could not look" if could_not else "no"


def _print_tree(path: str, selected: Selected, told: list[Explanation]) -> None:
    for line in _why(path, selected):
        print_line(line)
    if not told:
        click.echo("the policy was not asked: the image itself could not be read")
        return
    for depth, finding in told[0].root.lines():
        print_line(f"{'  ' * depth}{finding.answer.value + ':':16}{finding.text}")
