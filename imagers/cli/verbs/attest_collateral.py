# SPDX-License-Identifier: Apache-2.0
"""usage: imagers attest collateral fetch EVIDENCE [OPTION]...
       imagers attest collateral import FILE... [OPTION]...
       imagers attest collateral export FILE.tar | show [OPTION]...

Looks after the documents that verifiers need beside evidence: certificates of
chips, lists of revoked ones, what a vendor says of its firmware. They lie in a
directory as their vendor signed them, which can be carried to where there is no
network. Each is verified at each use; no older one replaces a younger.

fetch gets what this evidence needs from its vendor, or from other sources. Each
document comes from the first source that has a good one. The exit code is 22 if
one is expired, and that of the last error if one is missing.

import takes certificates and lists in DER or PEM, Azure's JSON, the collateral
of dcap-qvl and of PcsClientTool, Trustee's offline store of VCEKs, and what
"export" made: a tar, or a directory as it is.

  EVIDENCE                    as for "imagers attest verify"

  --tee NAME                  of the evidence; default: the content tells
  --source URL                ask there and not at the vendor's: a cache of its
                              service, or Azure's for its own machines. Repeat
                              it; the first one is asked first
  --source-ca FILE            PEM, trusted for sources in place of the system's
  --insecure-source-http      plain http to another machine: it, and everybody
                              on the way, learns which chip this is
  --name NAME                 of "import": what the one file is, where nothing
                              in it says so, as snp/Genoa/vcek.crl
  --into DIR                  the directory, of all words; default:
                              ~/.local/state/imagers/collateral
  --insecure-test-root FILE   certificates in PEM in place of the vendor's: for
                              tests only
  --json                      what became of each document as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers attest collateral fetch evidence.json --into collateral
  imagers attest collateral show --into collateral
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, VerbGroup, blamed_on, json_option
from imagers.cli.output import error_facts, print_json, print_line, print_table, say, telling
from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError, ImagersError, UsageError
from imagers.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imagers.cli.command import Verb
    from imagers.evidence.collateral.directory import Document
    from imagers.evidence.collateral.fetch import Fetched, Keeper
    from imagers.net.http import HTTPSettings

__all__ = ["command"]

_AZURE = "http://169.254.169.254/"  # does not leave the host


@click.group("collateral", cls=VerbGroup, help=__doc__)
def command() -> None:
    """Documents that verifiers need beside evidence."""


def _into(function: Verb) -> Verb:
    """`--into`: the directory."""
    option = click.option("--into", metavar="DIR")
    decorated: Verb = option(function)
    return decorated


def _test_root(function: Verb) -> Verb:
    option = click.option("--insecure-test-root", "test_root", metavar="FILE")
    decorated: Verb = option(function)
    return decorated


@command.command("fetch", cls=VerbCommand, help=__doc__)
@click.argument("evidence")
@click.option("--tee", metavar="NAME")
@click.option("--source", "sources", multiple=True, metavar="URL")
@click.option("--source-ca", metavar="FILE")
@click.option("--insecure-source-http", is_flag=True)
@_into
@_test_root
@json_option
def fetch(
    *,
    evidence: str,
    tee: str | None,
    sources: tuple[str, ...],
    source_ca: str | None,
    insecure_source_http: bool,
    into: str | None,
    test_root: str | None,
    as_json: bool,
) -> None:
    """Get what evidence needs."""
    from imagers.cli.evidence import MAX_EVIDENCE, parse_evidence
    from imagers.evidence.collateral.fetch import fetch as fetch_documents
    from imagers.evidence.plugins import load_verifier
    from imagers.files import read_bounded
    from imagers.net.http import HTTPClient

    keeper, directory = _keeper(into, test_root)
    data = read_bounded(evidence, max_bytes=MAX_EVIDENCE)
    tee, parsed, _ = parse_evidence(data, tee=tee, what=evidence)
    names = load_verifier(tee).wanted(parsed)
    settings = _http(sources, source_ca, insecure=insecure_source_http)
    with HTTPClient(settings) as client:
        found = [
            _told(one)
            for one in fetch_documents(names, parsed, sources=sources, keeper=keeper, client=client)
        ]
    if not found:
        say("", f"this evidence of the TEE {tee} needs no document")
    with telling(_fault(found, keeper.now)):
        _print(found, directory, keeper.now, as_json=as_json)


def _fault(found: Iterable[Fetched], now: datetime) -> ImagersError | None:
    """Why the documents do not do."""
    for one in found:
        if one.document is None:
            return one.error or CouldNotVerify(
                f"{one.name}: no source has one",
                hint="--source names another, which is asked as well",
            )
    expired = [one.name for one in found if one.document and one.document.is_expired(now)]
    if expired:
        return CouldNotVerify(
            f"expected documents that are valid now, got expired ones: {', '.join(expired)}",
            hint="no source has a younger one; --source names another, which is asked as well",
        )
    return None


@command.command("import", cls=VerbCommand, help=__doc__)
@click.argument("file", nargs=-1, required=True)
@click.option("--name", metavar="NAME")
@_into
@_test_root
@json_option
def import_files(
    *,
    file: tuple[str, ...],
    name: str | None,
    into: str | None,
    test_root: str | None,
    as_json: bool,
) -> None:
    """Take documents from files."""
    from imagers.evidence.collateral.carry import bring

    if name is not None and len(file) > 1:
        raise UsageError(f"--name: expected one file, got {len(file)}")
    keeper, directory = _keeper(into, test_root)
    found = []
    for path in file:
        with blamed_on(path):
            found += [_told(one) for one in bring(Path(path), keeper=keeper, name=name)]
    with telling(_refused(found)):
        _print(found, directory, keeper.now, as_json=as_json)


def _refused(found: Iterable[Fetched]) -> ImagersError | None:
    """Why not all documents were taken; files of other kinds may lie beside them."""
    names = [one.name for one in found if isinstance(one.error, EvidenceRejected)]
    if not names:
        return None
    return EvidenceRejected(f"not taken, since no verifier would believe them: {', '.join(names)}")


@command.command("export", cls=VerbCommand, help=__doc__)
@click.argument("file")
@_into
@json_option
def export(*, file: str, into: str | None, as_json: bool) -> None:
    """Write all documents into a tar."""
    from imagers.evidence.collateral.carry import pack
    from imagers.evidence.collateral.directory import CollateralDirectory
    from imagers.files import write_new

    directory = CollateralDirectory(_path(into))
    data = pack(directory)
    write_new(file, data, mode=0o644)
    if as_json:
        print_json({"directory": str(directory.path), "file": file, "size": len(data)})
    else:
        print_line(f"{file}: {len(data)} bytes")


@command.command("show", cls=VerbCommand, help=__doc__)
@_into
@_test_root
@json_option
def show(*, into: str | None, test_root: str | None, as_json: bool) -> None:
    """List what is there."""
    from imagers.evidence.collateral.fetch import Fetched

    keeper, directory = _keeper(into, test_root)
    found = []
    for name in keeper.names():
        try:
            document, error = keeper.look(name), None
        except (FormatError, EvidenceRejected) as refusal:
            document, error = None, refusal
        found.append(Fetched(name, "there", document, error=error))
    _print(found, directory, keeper.now, as_json=as_json)


def _path(into: str | None) -> Path:
    return read_settings().collateral if into is None else Path(into)


def _keeper(into: str | None, test_root: str | None) -> tuple[Keeper, Path]:
    from imagers.cli.evidence import MAX_ROOTS
    from imagers.evidence.collateral.directory import CollateralDirectory
    from imagers.evidence.collateral.fetch import Keeper
    from imagers.files import read_bounded

    roots = None
    if test_root is not None:
        say("warning", "certificates for tests stand for the vendor's: this proves nothing")
        roots = read_bounded(test_root, max_bytes=MAX_ROOTS)
    path = _path(into)
    return Keeper(CollateralDirectory(path), datetime.now(UTC), roots), path


def _http(sources: Iterable[str], ca_file: str | None, *, insecure: bool) -> HTTPSettings:
    from imagers.net.http import HTTPSettings
    from imagers.net.urls import parse_origin

    is_plain = False
    for source in sources:
        with blamed_on("--source"):
            origin = parse_origin(source)
        if origin.scheme == "https" or origin.is_loopback:
            continue
        if not (insecure or source.startswith(_AZURE)):
            raise UsageError(
                f"--source: plain http to {origin} is refused: everybody on the way would learn "
                "which chip this is",
                hint="use https, or say --insecure-source-http",
            )
        is_plain = True
    return HTTPSettings(
        ca_file=ca_file,
        proxies=read_settings().proxies(),
        insecure_http=is_plain,
        ca_option="--source-ca FILE",
        plain_option="http:// in its address",
    )


def _told(one: Fetched) -> Fetched:
    """Say at once what went wrong on the way."""
    for text in one.passed_over:
        say("warning", f"{one.name}: {text}")
    if one.error is not None and not one.passed_over:
        say("warning", f"{one.name}: not taken: {one.error}")
    return one


def _print(found: list[Fetched], directory: Path, now: datetime, *, as_json: bool) -> None:
    if as_json:
        print_json({"directory": str(directory), "documents": [_facts(one, now) for one in found]})
        return
    rows = [[one.name, *_cells(one.document, now, one.state)] for one in found]
    for one in found:
        if one.error is not None and one.document is None and one.state == "there":
            say("warning", f"{one.name}: {one.error}")
    print_table(["name", "kind", "issued", "valid until", ""], rows)


def _cells(document: Document | None, now: datetime, state: str) -> list[str]:
    if document is None:
        return ["", "", "", "no good document" if state == "there" else state]
    words = [] if state == "there" else [state]
    if document.is_expired(now):
        words.append("expired")
    return [document.kind, _day(document.issued), _day(document.valid_until), ", ".join(words)]


def _day(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"


def _facts(one: Fetched, now: datetime) -> dict[str, object]:
    document = one.document
    return {
        "name": one.name,
        "state": one.state,
        "kind": None if document is None else document.kind,
        "issued": None if document is None else document.issued.isoformat(),
        "valid_until": None if document is None else document.valid_until.isoformat(),
        "number": None if document is None else document.number,
        "expired": document is not None and document.is_expired(now),
        "source": one.source,
        "passed_over": list(one.passed_over),
    } | ({} if one.error is None else {"error": error_facts(one.error)})
