# SPDX-License-Identifier: Apache-2.0
"""usage: imagers attest initdata make NAME=FILE... [OPTION]...
       imagers attest initdata digest FILE [--tee NAME]
       imagers attest initdata show FILE [--annotation | --raw]

Init data of Confidential Containers: files for a guest that its host hands over
and that evidence is bound to, by the digest of the document. make writes the
document (TOML), digest tells what evidence of each TEE has to have, show what
is in a document, or in the value of the annotation of a pod.

  NAME=FILE                   the name in the guest, and the file: aa.toml=aa
  FILE                        the document, or the value of the annotation

  --algorithm NAME            sha256, sha384, sha512 or sm3; default: sha384
  --output FILE               a new file; default: standard output
  --tee NAME                  one that binds init data, such as snp: its digest
                              alone
  --annotation                print the annotation for Kubernetes: name, value
  --raw                       print the document as it is
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers attest initdata digest init.toml --tee snp
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, VerbGroup, blamed_on, json_option
from imagers.cli.output import print_bytes, print_json, print_line, print_table
from imagers.errors import FormatError, UsageError

if TYPE_CHECKING:
    from imagers.evidence.init_data import InitData

__all__ = ["command"]


@click.group("initdata", cls=VerbGroup, help=__doc__)
def command() -> None:
    """Init data of Confidential Containers."""


@command.command("make", cls=VerbCommand, help=__doc__)
@click.argument("name=file", nargs=-1, required=True)
@click.option(
    "--algorithm", type=click.Choice(["sha256", "sha384", "sha512", "sm3"]), default="sha384"
)
@click.option("--output", metavar="FILE")
@json_option
def make(*, algorithm: str, output: str | None, as_json: bool, **given: tuple[str, ...]) -> None:
    """Write the document."""
    from imagers.evidence.init_data import MAX_INIT_DATA, make_init_data, parse_init_data
    from imagers.files import read_bounded, write_new

    data: dict[str, str] = {}
    for pair in given["name=file"]:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise UsageError(f"expected NAME=FILE, got {pair[:80]!r}")
        if name in data:
            raise UsageError(f"expected {name[:80]!r} once, got it twice")
        content = read_bounded(path, max_bytes=MAX_INIT_DATA)
        with blamed_on(path):
            data[name] = _text(content)
    document = make_init_data(data, algorithm)
    if output is not None:
        write_new(output, document, mode=0o644)
    if as_json:
        print_json(_facts(parse_init_data(document)))
    elif output is None:
        print_bytes(document)


@command.command("digest", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--tee", metavar="NAME")
@json_option
def digest(*, file: str, tee: str | None, as_json: bool) -> None:
    """Tell what evidence has to have."""
    from imagers.evidence.init_data import FIELDS, digest_for

    if tee is not None and tee not in FIELDS:
        raise UsageError(f"--tee: expected one of {', '.join(FIELDS)}, got {tee[:40]!r}")
    _, found = _read(file)
    if as_json:
        print_json(_facts(found))
    elif tee is not None:
        print_line(digest_for(tee, found.digest).hex())
    else:
        width = max(map(len, FIELDS)) + 2
        print_line(f"{'':{width}}{found.algorithm:12}{found.digest.hex()}")
        for one, (name, _) in FIELDS.items():
            print_line(f"{one:{width}}{name:12}{digest_for(one, found.digest).hex()}")


@command.command("show", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--annotation", is_flag=True)
@click.option("--raw", is_flag=True)
@json_option
def show(*, file: str, annotation: bool, raw: bool, as_json: bool) -> None:
    """Tell what is in it."""
    from imagers.evidence.init_data import ANNOTATION, to_annotation

    if annotation + raw + as_json > 1:
        raise UsageError("expected one of --annotation, --raw and --json")
    document, found = _read(file)
    if annotation:
        print_line(f"{ANNOTATION}: {to_annotation(document)}")
    elif raw:
        print_bytes(document)
    elif as_json:
        print_json(_facts(found))
    else:
        print_line(f"version {found.version}, {found.algorithm} {found.digest.hex()}")
        rows = [[name, str(len(text.encode()))] for name, text in found.data.items()]
        print_table(["name", "bytes"], rows)


def _facts(found: InitData) -> dict[str, object]:
    from imagers.evidence.init_data import FIELDS, digest_for

    return {
        "version": found.version,
        "algorithm": found.algorithm,
        "digest": found.digest.hex(),
        "digests": {tee: digest_for(tee, found.digest).hex() for tee in FIELDS},
        "data": dict(found.data),
    }


def _read(path: str) -> tuple[bytes, InitData]:
    """The document in a file, which may be an annotation, and what is in it."""
    from imagers.evidence.init_data import (
        ANNOTATION,
        MAX_INIT_DATA,
        of_annotation,
        parse_init_data,
    )
    from imagers.files import read_bounded

    data = read_bounded(path, max_bytes=2 * MAX_INIT_DATA)
    text = data.strip().removeprefix(ANNOTATION.encode()).lstrip(b": ").strip(b"\"'")
    with blamed_on(path):
        if text.startswith(b"H4sI"):  # a gzip in base64; no TOML begins so and has `version`
            data = of_annotation(text.decode("ascii", "replace"))
        return data, parse_init_data(data)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FormatError("expected text in UTF-8") from None
