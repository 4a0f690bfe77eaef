# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker image list REPOSITORY [OPTION]...
       imagers broker image approve REPOSITORY DIGEST [--until TIME]
       imagers broker image supersede REPOSITORY DIGEST --by DIGEST
       imagers broker image revoke REPOSITORY DIGEST --reason TEXT
       imagers broker image floor REPOSITORY DIGEST | --none

Which images of a repository guests may be given keys of. A repository is the
first part of a secret's name; it knows the images that a secret of its was ever
bound to, in that order. Each change is in force for the next request.

  approve      with your admin key; a policy can demand several approvals. Who
               bound a secret to the image first does not count
  supersede    another image follows it; it is served still
  revoke       it is served nevermore, and that is final; refusals name the one
               that follows it
  floor        nothing older than it is served; --none: all that is not revoked

  --until TIME                RFC 3339, or as 30d, 12h; default 365d
  --by DIGEST                 of supersede: the image that follows it
  --reason TEXT               of revoke: for the audit log
  --none                      of floor: in place of a digest
  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-test-root TEE=FILE,
  --insecure-broker-http      as for "imagers pull"
  --broker-admin-key FILE, --broker-admin-certificate FILE,
  --broker-admin-certificate-key FILE
                              as for "imagers broker"
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker image revoke default sha256:0f2c... --reason CVE-2026-1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, VerbGroup, blamed_on, json_option
from imagers.cli.output import print_json, print_line, print_table
from imagers.errors import UsageError

if TYPE_CHECKING:
    from imagers.kbs.images import KnownImage
    from imagers.model.digest import Digest

__all__ = ["command"]

_DEFAULT = "365d"


@click.group("image", cls=VerbGroup, help=__doc__)
def command() -> None:
    """See the module."""


@command.command("list", cls=VerbCommand, help=__doc__)
@click.argument("repository")
@admin_options
@json_option
def list_(*, repository: str, broker: BrokerOptions, as_json: bool) -> None:
    """List the images of a repository."""
    with this_broker(broker).admin() as admin:
        known = admin.images(repository)
    if as_json:
        print_json(
            {
                "repository": known.repository,
                "floor": None if known.floor is None else str(known.floor),
                "images": [_facts(one) for one in known.images],
            }
        )
        return
    print_table(
        ["digest", "state", "by", "approved by", "successor", "reason"],
        [
            [
                str(one.digest),
                one.state,
                one.proposed_by or "-",
                ", ".join(sorted(one.approvals)) or "-",
                "-" if one.successor is None else str(one.successor),
                one.reason or "-",
            ]
            for one in known.images
        ],
    )


@command.command("approve", cls=VerbCommand, help=__doc__)
@click.argument("repository")
@click.argument("digest")
@click.option("--until", metavar="TIME", default=_DEFAULT)
@admin_options
@json_option
def approve(
    *, repository: str, digest: str, until: str, broker: BrokerOptions, as_json: bool
) -> None:
    """Say that an image is good."""
    from imagers.cli.evidence import parse_time_ahead

    image, end = _digest("DIGEST", digest), parse_time_ahead("--until", until)
    with this_broker(broker).admin() as admin:
        admin.approve_image(repository, image, until=end)
    if as_json:
        print_json({"repository": repository, "digest": digest, "until": end.isoformat()})
    else:
        print_line(f"approved {image} until {end.isoformat()}")


@command.command("supersede", cls=VerbCommand, help=__doc__)
@click.argument("repository")
@click.argument("digest")
@click.option("--by", metavar="DIGEST", required=True)
@admin_options
@json_option
def supersede(
    *, repository: str, digest: str, by: str, broker: BrokerOptions, as_json: bool
) -> None:
    """Say what follows an image."""
    image, successor = _digest("DIGEST", digest), _digest("--by", by)
    with this_broker(broker).admin() as admin:
        admin.supersede_image(repository, image, successor=successor)
    if as_json:
        print_json({"repository": repository, "digest": digest, "successor": by})
    else:
        print_line(f"{successor} follows {image}, which is served still")


@command.command("revoke", cls=VerbCommand, help=__doc__)
@click.argument("repository")
@click.argument("digest")
@click.option("--reason", metavar="TEXT", required=True)
@admin_options
@json_option
def revoke(
    *, repository: str, digest: str, reason: str, broker: BrokerOptions, as_json: bool
) -> None:
    """Serve an image nevermore."""
    image = _digest("DIGEST", digest)
    with this_broker(broker).admin() as admin:
        admin.revoke_image(repository, image, reason=reason)
    if as_json:
        print_json({"repository": repository, "digest": digest, "reason": reason})
    else:
        print_line(f"revoked {image}: no guest gets a key of it any more")


@command.command("floor", cls=VerbCommand, help=__doc__)
@click.argument("repository")
@click.argument("digest", required=False)
@click.option("--none", "serve_all", is_flag=True)
@admin_options
@json_option
def floor(
    *,
    repository: str,
    digest: str | None,
    serve_all: bool,
    broker: BrokerOptions,
    as_json: bool,
) -> None:
    """Say which is the oldest image that is served."""
    if (digest is None) != serve_all:
        raise UsageError("expected the DIGEST of the oldest image that is served, or --none")
    image = None if digest is None else _digest("DIGEST", digest)
    with this_broker(broker).admin() as admin:
        admin.set_image_floor(repository, image)
    if as_json:
        print_json({"repository": repository, "floor": digest})
    elif image is None:
        print_line(f"no image of {repository} is too old")
    else:
        print_line(f"no image of {repository} older than {image} is served")


def _digest(name: str, text: str) -> Digest:
    from imagers.model.digest import parse_digest

    with blamed_on(name):
        return parse_digest(text)


def _facts(one: KnownImage) -> dict[str, object]:
    return {
        "digest": str(one.digest),
        "state": one.state,
        "successor": None if one.successor is None else str(one.successor),
        "reason": one.reason or None,
        "proposed_by": one.proposed_by or None,
        "proposed_at": one.proposed_at or None,
        "approvals": [
            {"admin": admin, "until": until} for admin, until in sorted(one.approvals.items())
        ],
    }
