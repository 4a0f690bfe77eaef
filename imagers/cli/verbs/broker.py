# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker serve [OPTION]...
       imagers broker put URI FILE | get URI | list | delete URI
       imagers broker policy show | set FILE | reset | test FILE [OPTION]...
       imagers broker reference-value WORD [OPTION]...
       imagers broker audit [--limit N] [FILTER]...

A key broker for guests. "serve" needs no set-up: its database and keys are made
at first start, for their owner only. The other words administrate a running
one; "get" shows what is known of a secret, never the secret. A secret bound to
an image goes to guests that name this image and whose measurement is a known
one, see "imagers broker reference-value"; the policy may say more.

  serve:
  --state DIR                 database and keys; default:
                              ~/.local/state/imagers/broker
  --listen HOST:PORT          default 127.0.0.1:8080; port 0 takes a free one
  --certificate FILE, --certificate-key FILE
                              PEM, for https, the key without a passphrase;
                              needed to listen on more than loopback
  --trusted-proxy ADDRESS     an address or network (repeat it) whose header
                              X-Forwarded-For is believed, for the share of
                              connections that each address has
  --tee NAME                  take its evidence (repeat it), see docs/tee
  --collateral DIR            lists of revoked certificates and such; default:
                              ~/.local/state/imagers/collateral
  --appraisal-policy FILE     what to let pass of each TEE, and reference values
  --insecure-test-root TEE=FILE
                              certificates in place of the vendor's: for tests
  --issuer NAME               in its tokens; best the https URL of the broker
  --passport-issuers FILE     whose tokens are taken in place of evidence
  --url-file FILE             write the URL here once the broker listens
  --allow-sample-tee          believe guests that prove nothing: for tests and
                              demos only

  the others:
  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-broker-http
                              as for "imagers pull"
  --broker-admin-key FILE     as for "imagers encrypt"
  --replace                   of "put": overwrite; the old bindings are lost
  --limit N                   of "audit": how many entries, the newest ones;
                              default 100; FILTER is any of
    --resource URI, --image DIGEST, --session NAME, --event WORD,
    --outcome ok|refused, --since TIME (RFC 3339, or as 90s, 30m, 12h, 7d)
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker serve --listen 127.0.0.1:8080
"""

from __future__ import annotations

import logging
import os
import re
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import DEFAULT_PORT, BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, VerbGroup, blamed_on, json_option
from imagers.cli.evidence import find_collateral, read_test_roots
from imagers.cli.output import print_json, print_line, print_table, say, write_file
from imagers.cli.verbs import broker_policy_test, broker_reference_value
from imagers.errors import FormatError, LocalError, UsageError
from imagers.settings import read_settings

if TYPE_CHECKING:
    from imagers.broker.server import RunningBroker
    from imagers.kbs.admin import AuditEntry

__all__ = ["command"]

_MAX_PORT = 65535
_SHOWN_DIGEST = len("sha256:") + 12  # as many as for a session; --json has all of it
# Those of `imagers.broker.audit`, which needs the extra.
_EVENTS = ["start", "stop", "auth", "attest", "release", "put", "replace", "delete"]
_EVENTS += ["bind", "policy", "reference", "admin"]
_DIGEST = re.compile(r"(?:sha(?:256|384|512):)?[0-9a-f]{1,128}\Z")
_AGO = re.compile(r"([0-9]{1,9})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group("broker", cls=VerbGroup, help=__doc__)
def command() -> None:
    """See the module."""


command.add_command(broker_reference_value.command)


class _ToStandardError(logging.Handler):
    """Log lines of the server, in the program's form."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.levelname.lower(), record.getMessage())


@command.command("serve", cls=VerbCommand, help=__doc__)
@click.option("--state", metavar="DIR")
@click.option("--listen", default=f"127.0.0.1:{DEFAULT_PORT}", metavar="HOST:PORT")
@click.option("--certificate", metavar="FILE")
@click.option("--certificate-key", metavar="FILE")
@click.option("--trusted-proxy", multiple=True, metavar="ADDRESS")
@click.option("--tee", "tees", multiple=True, metavar="NAME")
@click.option("--collateral", metavar="DIR")
@click.option("--appraisal-policy", metavar="FILE")
@click.option("--insecure-test-root", "test_roots", multiple=True, metavar="TEE=FILE")
@click.option("--issuer", metavar="NAME")
@click.option("--passport-issuers", metavar="FILE")
@click.option("--url-file", metavar="FILE")
@click.option("--allow-sample-tee", is_flag=True)
def serve(
    *,
    state: str | None,
    listen: str,
    certificate: str | None,
    certificate_key: str | None,
    trusted_proxy: tuple[str, ...],
    tees: tuple[str, ...],
    collateral: str | None,
    appraisal_policy: str | None,
    test_roots: tuple[str, ...],
    issuer: str | None,
    passport_issuers: str | None,
    url_file: str | None,
    allow_sample_tee: bool,
) -> None:
    """Run a broker."""
    try:
        from imagers.broker.server import BrokerConfig
        from imagers.broker.server import serve as run_broker
        from imagers.broker.tokens import DEFAULT_ISSUER
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the broker's packages are not installed: {error.name} is missing",
            hint="in the clone of imagers: pip install '.[broker]'",
        ) from error
    for several in (one for one in tees if "," in one):  # as "imagers pull" has them
        raise UsageError(
            f"--tee: expected one name, got {several[:80]!r}",
            hint=f"write {' '.join(f'--tee {one}' for one in several[:80].split(','))}",
        )
    host, port = _parse_listen(listen)
    written: list[str] = []
    handler = _ToStandardError(level=logging.WARNING)
    logging.getLogger().addHandler(handler)

    def on_start(broker: RunningBroker) -> None:
        _announce(broker)
        if url_file is not None:
            write_file(url_file, broker.url + "\n")
            written.append(url_file)

    if collateral is None and tees:
        with suppress(OSError):  # so that what is fetched into it later is found
            read_settings().collateral.mkdir(parents=True, exist_ok=True)
    try:
        run_broker(
            BrokerConfig(
                state_directory=Path(state) if state else read_settings().broker_state,
                host=host,
                port=port,
                certificate_file=Path(certificate) if certificate else None,
                certificate_key_file=Path(certificate_key) if certificate_key else None,
                trusted_proxies=trusted_proxy,
                tees=tees,
                collateral_directory=find_collateral(collateral),
                appraisal_policy_file=Path(appraisal_policy) if appraisal_policy else None,
                test_roots=read_test_roots(test_roots),
                allow_sample_tee=allow_sample_tee,
                passport_issuers_file=Path(passport_issuers) if passport_issuers else None,
                issuer=issuer if issuer is not None else DEFAULT_ISSUER,
            ),
            on_start=on_start,
        )
    finally:
        logging.getLogger().removeHandler(handler)
        for path in written:
            with suppress(OSError):
                if stat.S_ISREG(os.lstat(path).st_mode):  # not /dev/stdout
                    os.unlink(path)


def _parse_listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > _MAX_PORT:
        raise UsageError(
            f"--listen: expected HOST:PORT, got {text!r}",
            hint="for guests and admins of this machine only: 127.0.0.1:8080",
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _announce(broker: RunningBroker) -> None:
    from imagers.evidence.plugins import DEVICES

    for made, path, what in (
        (broker.master_key_made, broker.master_key_file, "master key"),
        (broker.admin_key_made, broker.admin_key_file, "admin key"),
    ):
        if made:
            say("", f"made the {what} {path}; keep a copy in a safe place")
    say("", f"the broker listens on {broker.url}; admin key {broker.admin_key_file}")
    tees = ", ".join(broker.tees) or "none"
    say("", f"it takes evidence of: {tees}; resources: {broker.resources}")
    if broker.issuers:
        say("", f"it takes passports of: {', '.join(broker.issuers)}")
    if broker.fault:
        say("warning", f"this broker can release nothing: {broker.fault}")
        say(
            "hint",
            "'imagers broker policy show' has its rules, 'imagers broker policy set' changes them"
            if set(broker.tees) - DEVICES.keys()
            else "say which, as --tee snp; for tests and demos: --allow-sample-tee",
        )
    for tee, names in broker.unknown.items():
        say(
            "warning",
            f"no guest of the TEE {tee} is known as yours: there is no reference value "
            f"{', '.join(names)}",
        )
        say("hint", "'imagers broker reference-value set' gives one; docs/tee says how to make it")


def _parse_since(text: str) -> str:
    """A time of RFC 3339, or how long ago."""
    ago = _AGO.match(text)
    try:
        if ago is not None:
            moment = datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        else:
            moment = datetime.fromisoformat(text)
        # A time without a zone is one of the clock on the wall here.
        return moment.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since: expected a time such as 2026-01-31T12:00:00Z, or 90s, 30m, 12h, 7d, "
            f"got {text[:80]!r}"
        ) from None


@command.command("put", cls=VerbCommand, help=__doc__)
@click.argument("uri")
@click.argument("file")
@click.option("--replace", is_flag=True)
@admin_options
@json_option
def put(*, uri: str, file: str, replace: bool, broker: BrokerOptions, as_json: bool) -> None:
    """Store a secret."""
    from imagers.kbs.jwe import MAX_RESOURCE_BYTES
    from imagers.model.keys import SecretKey

    with open(file, "rb") as stream:
        data = stream.read(MAX_RESOURCE_BYTES + 1)
    if not 1 <= len(data) <= MAX_RESOURCE_BYTES:
        raise LocalError(f"expected 1 to {MAX_RESOURCE_BYTES} bytes of secret", path=file)
    with SecretKey(data) as secret, this_broker(broker).admin() as admin:
        admin.put_resource(uri, secret, replace=replace)
    if as_json:
        print_json({"uri": uri, "size": len(data)})
    else:
        print_line(f"stored {uri}, {len(data)} bytes, bound to no image")


@command.command("get", cls=VerbCommand, help=__doc__)
@click.argument("uri")
@admin_options
@json_option
def get(*, uri: str, broker: BrokerOptions, as_json: bool) -> None:
    """Show what is known of a secret."""
    with this_broker(broker).admin() as admin:
        found = admin.metadata(uri)
    digests = [str(digest) for digest in found.manifest_digests]
    if as_json:
        print_json(
            {
                "uri": found.uri,
                "size": found.size,
                "version": found.version,
                "created_at": found.created_at,
                "manifest_digests": digests,
            }
        )
        return
    print_line(f"{found.uri}: {found.size} bytes, version {found.version}, {found.created_at}")
    for digest in digests:
        click.echo(f"  bound to {digest}")


@command.command("list", cls=VerbCommand, help=__doc__)
@admin_options
@json_option
def list_(*, broker: BrokerOptions, as_json: bool) -> None:
    """List the secrets."""
    with this_broker(broker).admin() as admin:
        uris = admin.list_resources()
    if as_json:
        print_json({"uris": list(uris)})
    else:
        for uri in uris:
            click.echo(uri)


@command.command("delete", cls=VerbCommand, help=__doc__)
@click.argument("uri")
@admin_options
@json_option
def delete(*, uri: str, broker: BrokerOptions, as_json: bool) -> None:
    """Remove a secret."""
    with this_broker(broker).admin() as admin:
        admin.delete_resource(uri)
    if as_json:
        print_json({"uri": uri})
    else:
        print_line(f"deleted {uri}")


@command.group("policy", cls=VerbGroup, help=__doc__)
def policy() -> None:
    """The resource policy."""


policy.add_command(broker_policy_test.command)


@policy.command("show", cls=VerbCommand, help=__doc__)
@admin_options
@json_option
def show_policy(*, broker: BrokerOptions, as_json: bool) -> None:
    """Show the policy in force."""
    with this_broker(broker).admin() as admin:
        text = admin.get_policy()
    if as_json:
        print_json({"text": text})
        return
    for line in text.rstrip("\n").split("\n"):
        print_line(line)


@policy.command("set", cls=VerbCommand, help=__doc__)
@click.argument("file")
@admin_options
@json_option
def set_policy(*, file: str, broker: BrokerOptions, as_json: bool) -> None:
    """Put another policy in force."""
    from imagers.broker.policy.table import MAX_POLICY_BYTES

    with open(file, "rb") as stream:
        data = stream.read(MAX_POLICY_BYTES + 1)
    if len(data) > MAX_POLICY_BYTES:
        raise FormatError(f"expected at most {MAX_POLICY_BYTES} bytes, got more", what=file)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise FormatError("is not UTF-8", what=file) from None
    with this_broker(broker).admin() as admin:
        admin.set_policy(text, what=file)
    if as_json:
        print_json({"policy": file})
    else:
        print_line(f"policy {file} is in force")


@policy.command("reset", cls=VerbCommand, help=__doc__)
@admin_options
@json_option
def reset_policy(*, broker: BrokerOptions, as_json: bool) -> None:
    """Put the default policy in force."""
    from imagers.broker.policy.table import DEFAULT_POLICY

    with this_broker(broker).admin() as admin:
        admin.set_policy(DEFAULT_POLICY)
    if as_json:
        print_json({"policy": None})
        return
    click.echo(
        "the default policy is in force: keys go to your own guests of the image that they are for"
    )


@command.command("audit", cls=VerbCommand, help=__doc__)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100)
@click.option("--resource", metavar="URI")
@click.option("--image", metavar="DIGEST")
@click.option("--session", metavar="NAME")
@click.option("--event", type=click.Choice(_EVENTS))
@click.option("--outcome", type=click.Choice(["ok", "refused"]))
@click.option("--since", metavar="TIME")
@admin_options
@json_option
def audit(
    *,
    limit: int,
    resource: str | None,
    image: str | None,
    session: str | None,
    event: str | None,
    outcome: str | None,
    since: str | None,
    broker: BrokerOptions,
    as_json: bool,
) -> None:
    """Show who got what, and who did not."""
    from imagers.kbs.resources import parse_resource_path

    # A value that no entry can have would show nothing, and look like "nobody got anything".
    if resource is not None:
        with blamed_on("--resource"):
            resource = str(parse_resource_path(resource.removeprefix("kbs:///")))
    if image is not None:
        image = image.lower()
        if _DIGEST.match(image) is None:
            raise UsageError(f"--image: expected a digest or its beginning, got {image[:160]!r}")
        if ":" not in image:
            image = f"sha256:{image}"
    asked = {
        "path": resource,
        "image": image,
        "session": session,
        "event": event,
        "outcome": outcome,
        "since": None if since is None else _parse_since(since),
    }
    filters = {name: value for name, value in asked.items() if value is not None}
    with this_broker(broker).admin() as admin:
        entries = admin.audit(limit, filters)
    if as_json:
        print_json({"entries": [_audit_facts(entry) for entry in entries]})
        return
    print_table(
        ["no", "at", "event", "outcome", "tee", "session", "resource", "image", "rule", "detail"],
        [
            [
                str(entry.number),
                entry.at,
                entry.event,
                entry.outcome,
                entry.tee or "-",
                entry.session or "-",
                entry.path or "-",
                entry.image[:_SHOWN_DIGEST] or "-",
                entry.rule or "-",
                entry.detail or "-",
            ]
            for entry in entries
        ],
    )


def _audit_facts(entry: AuditEntry) -> dict[str, object]:
    """A row for a program; null where a member does not apply."""
    return {
        "number": entry.number,
        "at": entry.at,
        "event": entry.event,
        "outcome": entry.outcome,
        "tee": entry.tee or None,
        "session": entry.session or None,
        "uri": f"kbs:///{entry.path}" if entry.path else None,
        "digest": entry.image or None,
        "rule": entry.rule or None,
        "detail": entry.detail or None,
    }
