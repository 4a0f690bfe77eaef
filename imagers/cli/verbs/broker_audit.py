# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker audit [--limit N] [--follow] [FILTER]...
       imagers broker audit --why ID
       imagers broker audit --export-head FILE
       imagers broker audit --verify [--head FILE]... [--state DIR]

Show who got what, and who did not; the newest entries last.

  --limit N                   how many entries, default 100; of those that fit:
    --resource URI, --image DIGEST, --session NAME, --event WORD,
    --outcome ok|refused, --since TIME (RFC 3339, or as 90s, 30m, 12h, 7d)
  --follow                    go on with those that come, until Ctrl-C
  --why ID                    all of one entry, and what its session did before
  --export-head FILE          write down what the log is now, signed; keep it
                              where nobody who can write the store can
  --verify                    whether rows of the store on this machine were
                              changed, dropped or put in; without a head, only
                              whether they are consistent with themselves
    --head FILE               of --export-head, of any time (repeat it)
    --state DIR, --database URL
                              as for "imagers broker serve"
  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-test-root TEE=FILE,
  --insecure-broker-http, --broker-admin-key FILE,
  --broker-admin-certificate FILE, --broker-admin-certificate-key FILE
                              as for "imagers broker"; --verify needs none
  --json                      the facts as JSON; a line each with --follow
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker audit --outcome refused --since 2h
"""

from __future__ import annotations

import json
import re
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, blamed_on, json_option
from imagers.cli.output import harmless, print_json, print_line, print_table, say, write_file
from imagers.errors import IntegrityError, LocalError, NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from imagers.kbs.admin import AuditEntry, BrokerAdmin

__all__ = ["command"]

_SHOWN_DIGEST = len("sha256:") + 12  # as many as for a session; --json has all of it
# Those of `imagers.broker.audit`, which needs the extra.
_EVENTS = ["start", "stop", "auth", "attest", "release", "put", "replace", "delete", "undelete"]
_EVENTS += [
    "bind",
    "approve",
    "supersede",
    "revoke",
    "floor",
    "policy",
    "reference",
    "admin",
    "admin-key",
    "restore",
    "rotate",
    "tenant",
]
_DIGEST = re.compile(r"(?:sha(?:256|384|512):)?[0-9a-f]{1,128}\Z")
_ID = re.compile(r"[0-9a-f]{16}\Z")
_AGO = re.compile(r"([0-9]{1,9})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ALL = 10_000  # entries of one answer
_POLL_S = 1.0
_OVERLAP = timedelta(seconds=30)  # a row can be written that long after its time
_HEAD = ["id", "at", "event", "outcome", "tee", "who", "resource", "image", "rule", "detail"]


@click.command("audit", cls=VerbCommand, help=__doc__)
@click.option("--limit", type=click.IntRange(1, _ALL), default=100)
@click.option("--resource", metavar="URI")
@click.option("--image", metavar="DIGEST")
@click.option("--session", metavar="NAME")
@click.option("--event", type=click.Choice(_EVENTS))
@click.option("--outcome", type=click.Choice(["ok", "refused"]))
@click.option("--since", metavar="TIME")
@click.option("--follow", is_flag=True)
@click.option("--why", metavar="ID")
@click.option("--export-head", metavar="FILE")
@click.option("--verify", "is_check", is_flag=True)
@click.option("--head", "heads", multiple=True, metavar="FILE")
@click.option("--state", metavar="DIR")
@click.option("--database", metavar="URL")
@admin_options
@json_option
def command(
    *,
    limit: int,
    follow: bool,
    why: str | None,
    export_head: str | None,
    is_check: bool,
    heads: tuple[str, ...],
    state: str | None,
    database: str | None,
    broker: BrokerOptions,
    as_json: bool,
    **asked: str | None,
) -> None:
    """Show who got what, and who did not."""
    filters = _filters(**asked)
    doing = [
        name
        for name, is_given in (
            ("--follow", follow),
            ("--why", why is not None),
            ("--export-head", export_head is not None),
            ("--verify", is_check),
        )
        if is_given
    ]
    if len(doing) > 1:
        raise UsageError(f"expected one of {' and '.join(doing)}")
    if not is_check and (heads or state or database):
        raise UsageError("--head, --state and --database belong to --verify")
    if filters and doing not in ([], ["--follow"]):
        raise UsageError(f"{doing[0]} takes no filter, such as --{min(filters)}")
    if is_check:
        _verify(heads, state, database, as_json=as_json)
        return
    with this_broker(broker).admin() as admin:
        if export_head is not None:
            _export_head(admin, export_head, as_json=as_json)
        elif why is not None:
            _explain(admin, why, as_json=as_json)
        elif follow:
            _follow(admin, limit, filters, as_json=as_json)
        else:
            _show(admin.audit(limit, filters), as_json=as_json)


def _filters(
    *,
    resource: str | None,
    image: str | None,
    session: str | None,
    event: str | None,
    outcome: str | None,
    since: str | None,
) -> Mapping[str, str]:
    """What is asked for, by the names of the broker."""
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
    return {name: value for name, value in asked.items() if value is not None}


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


def _show(entries: Sequence[AuditEntry], *, as_json: bool) -> None:
    if as_json:
        print_json({"entries": [_facts(entry) for entry in entries]})
    else:
        print_table(_HEAD, [_cells(entry) for entry in entries])


def _cells(entry: AuditEntry) -> list[str]:
    texts = [
        entry.id,
        entry.at,
        entry.event,
        entry.outcome,
        entry.tee,
        entry.session or entry.admin,
        entry.path,
        entry.image[:_SHOWN_DIGEST],
        entry.rule,
        entry.detail,
    ]
    return [text or "-" for text in texts]


def _facts(entry: AuditEntry) -> dict[str, object]:
    """A row for a program; null where a member does not apply."""
    return {
        "id": entry.id,
        "at": entry.at,
        "event": entry.event,
        "outcome": entry.outcome,
        "tee": entry.tee or None,
        "session": entry.session or None,
        "uri": f"kbs:///{entry.path}" if entry.path else None,
        "digest": entry.image or None,
        "rule": entry.rule or None,
        "client": entry.client or None,
        "evidence": entry.evidence or None,
        "claims": entry.claims or None,
        "tenant": entry.tenant or None,
        "admin": entry.admin or None,
        "detail": entry.detail or None,
    }


def _follow(admin: BrokerAdmin, limit: int, filters: Mapping[str, str], *, as_json: bool) -> None:
    """Print entries, and those that come, until the user has seen enough."""
    with suppress(KeyboardInterrupt):  # this is how it is meant to end
        for entry in _coming(admin, limit, filters):
            if as_json:
                click.echo(json.dumps(_facts(entry)))
            else:
                print_line("  ".join(_cells(entry)))


def _coming(admin: BrokerAdmin, limit: int, filters: Mapping[str, str]) -> Iterator[AuditEntry]:
    """The last entries and all that come, each once.

    Brokers that share a store write their rows side by side, so the order of the times is not that
    of the rows: each look goes back a little, and what was seen is left out.
    """
    found = admin.audit(limit, filters)
    seen: dict[str, str] = {}
    while True:
        for entry in found:
            if entry.id not in seen:
                seen[entry.id] = entry.at
                yield entry
        time.sleep(_POLL_S)
        since = filters.get("since", "")
        if seen:
            newest = datetime.fromisoformat(max(seen.values()))
            since = max(since, (newest - _OVERLAP).isoformat())
        seen = {one: at for one, at in seen.items() if at >= since}
        found = admin.audit(_ALL, {**filters, "since": since} if since else filters)
        if len(found) == _ALL:
            say("warning", "more entries came than one answer holds: some are not shown")


def _explain(admin: BrokerAdmin, why: str, *, as_json: bool) -> None:
    """Print all of one entry, after what its session did before."""
    if not _ID.match(why):
        raise UsageError(f"--why: expected the id of an entry, 16 hex digits, got {why[:80]!r}")
    found = admin.audit(1, {"id": why})
    if not found:
        raise NotFound(
            f"the broker has no entry {why}", hint="'imagers broker audit' shows the ids"
        )
    (entry,) = found
    before: Sequence[AuditEntry] = ()
    if entry.session:
        story = admin.audit(_ALL, {"session": entry.session})
        ids = [one.id for one in story]
        before = story[: ids.index(entry.id)] if entry.id in ids else story
    if as_json:
        print_json({"entry": _facts(entry), "before": [_facts(one) for one in before]})
        return
    for one in before:
        print_line(f"{one.at}  {one.event} {one.outcome}  {one.path or one.tee}  {one.detail}")
    for name, value in _facts(entry).items():
        if name == "detail" and value is not None:
            # What was wanted of each claim, found, and would admit it.
            print_line("detail:")
            for part in str(value).split("; "):
                print_line(f"  {part}")
        elif value is not None:
            print_line(f"{name + ':':10}{harmless(str(value))}")


def _export_head(admin: BrokerAdmin, path: str, *, as_json: bool) -> None:
    if Path(path).is_file():
        raise LocalError(
            "is there already: an older head proves what a newer one does not",
            path=path,
            hint="give each head a file of its own",
        )
    data = admin.audit_heads()
    write_file(path, data.decode() + "\n")
    if as_json:
        print_json({"file": path})
    else:
        print_line(f"wrote {path}; 'imagers broker audit --verify --head {path}' compares with it")


def _verify(
    paths: tuple[str, ...], state: str | None, database: str | None, *, as_json: bool
) -> None:
    """Compare the store of this machine with heads that were kept."""
    from imagers.broker.audit_check import check_store
    from imagers.broker.audit_heads import MAX_HEADS, parse_heads
    from imagers.broker.config import STORE
    from imagers.broker.start import open_database
    from imagers.files import read_bounded
    from imagers.settings import read_settings

    kept = [parse_heads(read_bounded(one, max_bytes=MAX_HEADS), what=one) for one in paths]
    folder = Path(state) if state else read_settings().broker_state
    if not database and not (folder / STORE).is_file():
        raise LocalError("there is no store", path=str(folder / STORE), hint="--state DIR has it")
    with closing(open_database(folder, database)) as store:
        report = check_store(store, kept)
    if as_json:
        print_json(
            {"rows": report.rows, "signed": report.signed, "problems": list(report.problems)}
        )
    else:
        for problem in report.problems:
            print_line(problem)
        if not report.problems:
            print_line(
                f"{report.rows} rows, {report.signed} of them as they were when a head was signed"
                if kept
                else f"{report.rows} rows, consistent with themselves; no head was given"
            )
    if report.problems:
        raise IntegrityError(
            f"the audit log is not what was written: {len(report.problems)} places"
        )
