# SPDX-License-Identifier: Apache-2.0
"""usage: imagers attest reference make FILE --tee NAME [OPTION]...
       imagers attest reference import FILE | show FILE

Reference values: what evidence of your own guests has, computed from what you
build them of. make prints a file of them, which "imagers broker reference-value
set --file" and "imagers attest verify --reference" take; import does so with
Trustee's, CoRIM and SWID tags of NVIDIA, show tells what is in one.

  FILE of "make"              snp, sev, sev-es: the firmware, OVMF; tdx: TDVF;
                              sgx: the enclave: SIGSTRUCT, .signed.so, jar

  --tee NAME                  snp, tdx, sgx; sev, sev-es: see docs/tee/sev.md
  --vcpus N                   of snp, sev-es: how many processors
  --vcpu-type NAME            of these: their model, as QEMU has it: EPYC-v4
  --kernel FILE, --initrd FILE, --append TEXT
                              of snp, sev, sev-es: of a direct boot
  --guest-features N          of snp: SEV_FEATURES of the host; default: 0x1
  --host NAME                 of snp, sev-es: QEMU, ec2, gce; default: QEMU
  --event-log FILE            of tdx: CCEL of a guest that you know to be good,
                              for RTMR 1 and 2
  --by-signer                 of sgx: any enclave of this signer, product and
                              version, and not this one alone
  --key FILE                  of "import": the public key, in PEM, of who has to
                              have signed the CoRIM
  --expires TIME              RFC 3339; from then on they equal nothing
  --source TEXT               where they are from; default: the name of FILE
  --output FILE               a new file; default: standard output
  --json                      the same, with --output too: it is JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers attest reference make OVMF.fd --tee snp --vcpus 4 --vcpu-type EPYC-v4
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, VerbGroup, blamed_on, json_option
from imagers.cli.evidence import parse_time
from imagers.cli.output import print_json, print_table, say
from imagers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagers.cli.command import Verb
    from imagers.model.references import ReferenceValue
    from imagers.model.strict_json import JSON

__all__ = ["command"]

_MAX_KEY = 64 * 1024
# Options of a launch, and of which TEEs they are.
_LAUNCH = {
    "vcpus": ("snp", "sev-es"),
    "vcpu_type": ("snp", "sev-es"),
    "kernel": ("snp", "sev-es", "sev"),
    "initrd": ("snp", "sev-es", "sev"),
    "append": ("snp", "sev-es", "sev"),
    "guest_features": ("snp",),
    "host": ("snp", "sev-es"),
}


@click.group("reference", cls=VerbGroup, help=__doc__)
def command() -> None:
    """Reference values of what one builds."""


def _written(function: Verb) -> Verb:
    """The options of a file that is made."""
    for option in (
        click.option("--output", metavar="FILE"),
        click.option("--source", metavar="TEXT"),
        click.option("--expires", metavar="TIME"),
    ):
        function = option(function)
    return function


@command.command("make", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--tee", type=click.Choice(["snp", "tdx", "sgx", "sev", "sev-es"]), required=True)
@click.option("--vcpus", type=int)
@click.option("--vcpu-type", metavar="NAME")
@click.option("--kernel", metavar="FILE")
@click.option("--initrd", metavar="FILE")
@click.option("--append", metavar="TEXT")
@click.option("--guest-features", metavar="N")
@click.option("--host", type=click.Choice(["QEMU", "ec2", "gce"]))
@click.option("--event-log", metavar="FILE")
@click.option("--by-signer", is_flag=True)
@_written
@json_option
def make(
    *,
    file: str,
    tee: str,
    event_log: str | None,
    by_signer: bool,
    expires: str | None,
    source: str | None,
    output: str | None,
    as_json: bool,
    **launch: str | int | None,
) -> None:
    """Compute them."""
    from imagers.model.references import ReferenceValue

    _check_options(tee, launch, event_log=event_log, by_signer=by_signer)
    when = _time(expires)
    values: Mapping[str, JSON]
    if tee in ("snp", "sev", "sev-es"):
        values = _of_launch(tee, file, launch)
    elif tee == "tdx":
        values = _of_firmware(file, event_log)
    else:
        values = _of_enclave(file, by_signer=by_signer)
    _write(
        [
            ReferenceValue(name, (value,), when, Path(file).name if source is None else source)
            for name, value in values.items()
        ],
        output,
        as_json=as_json,
    )


def _check_options(
    tee: str, launch: Mapping[str, str | int | None], *, event_log: str | None, by_signer: bool
) -> None:
    of_others = {
        f"--{name.replace('_', '-')}": tee not in tees and launch[name]
        for name, tees in _LAUNCH.items()
    }
    of_others |= {
        "--event-log": tee != "tdx" and event_log,
        "--by-signer": tee != "sgx" and by_signer,
    }
    wrong = [name for name, given in of_others.items() if given not in (None, False)]
    if wrong:
        raise UsageError(f"{wrong[0]} is not for {tee}")


def _of_launch(tee: str, file: str, given: Mapping[str, str | int | None]) -> dict[str, JSON]:
    from imagers.evidence.snp.launch import Launch, measure_launch

    vcpus, model = given["vcpus"], given["vcpu_type"]
    if tee != "sev" and (vcpus is None or model is None):
        raise UsageError(f"{tee}: expected --vcpus and --vcpu-type: they are measured")
    features = str(given["guest_features"] or "0x1")
    try:
        bits = int(features, 0)
    except ValueError:
        bits = -1
    if not 0 <= bits < 2**64:
        raise UsageError(f"--guest-features: expected a number such as 0x1, got {features[:40]!r}")
    digest = measure_launch(
        Launch(
            firmware=Path(file),
            vcpus=None if vcpus is None else int(vcpus),
            vcpu_type=None if model is None else str(model),
            kernel=_path(given["kernel"]),
            initrd=_path(given["initrd"]),
            append=str(given["append"] or ""),
            guest_features=bits,
            host=str(given["host"] or "QEMU"),
            tee=tee,
        )
    )
    if given["kernel"] is None:
        say("warning", "without --kernel nothing says which kernel runs: the host gives its disk")
    name = "snp_launch_measurement" if tee == "snp" else "sev_launch_digest"
    return {name: digest.hex()}


def _path(given: str | int | None) -> Path | None:
    return None if given is None else Path(str(given))


def _of_firmware(file: str, event_log: str | None) -> dict[str, JSON]:
    from imagers.evidence.ccel import MAX_LOG, parse_event_log, replay
    from imagers.evidence.tdx.firmware import MAX_FIRMWARE, measure_firmware
    from imagers.files import read_bounded

    firmware = read_bounded(file, max_bytes=MAX_FIRMWARE)
    with blamed_on(file):
        mrtd = measure_firmware(firmware)
    values: dict[str, JSON] = {"mr_td": mrtd.hex()}
    if event_log is None:
        say("warning", "without --event-log nothing says which kernel runs: RTMR 1 and 2 are open")
        return values
    with blamed_on("--event-log"):
        events = parse_event_log(read_bounded(event_log, max_bytes=MAX_LOG))
    for number in (1, 2):  # in the log the register after it
        values[f"rtmr_{number}"] = replay(events, number + 1, "SHA-384").hex()
    return values


def _of_enclave(file: str, *, by_signer: bool) -> dict[str, JSON]:
    from imagers.evidence.sgx.sigstruct import MAX_ENCLAVE, find_sigstructs
    from imagers.files import read_bounded

    enclave = read_bounded(file, max_bytes=MAX_ENCLAVE)
    with blamed_on(file):
        found = find_sigstructs(enclave)
    if len(found) > 1:
        names = ", ".join(one.mr_enclave.hex()[:12] for one in found)
        raise UsageError(f"{file}: expected one enclave, got {len(found)}: {names}")
    (one,) = found
    say(
        "",
        f"enclave {one.mr_enclave.hex()[:12]}, signer {one.mr_signer.hex()[:12]}, product "
        f"{one.product}, version {one.svn}, signed {one.date or 'at no time'}; "
        f"debugging is {one.debug}",
    )
    if one.debug != "forbidden":
        say("warning", f"debugging of this enclave is {one.debug}: its host can look into it")
    if not by_signer:
        return {"sgx_mr_enclave": one.mr_enclave.hex()}
    return {
        "sgx_mr_signer": one.mr_signer.hex(),
        "sgx_isv_prod_id": one.product,
        "sgx_isv_svn": one.svn,
    }


@command.command("import", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--key", metavar="FILE")
@_written
@json_option
def import_file(
    *,
    file: str,
    key: str | None,
    expires: str | None,
    source: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Take others'."""
    from imagers.evidence.reference import import_references
    from imagers.files import read_bounded
    from imagers.model.references import MAX_REFERENCES_BYTES

    data = read_bounded(file, max_bytes=MAX_REFERENCES_BYTES)
    with blamed_on(file):
        found = import_references(
            data,
            expires=_time(expires),
            source=Path(file).name if source is None else source,
            key=None if key is None else read_bounded(key, max_bytes=_MAX_KEY),
        )
    if found.left_out:
        say("warning", f"{found.left_out} measurements are no claims here and were left out")
    if found.trust_anchors:
        say("", "it has keys of platforms: the file is a policy, for --policy of 'verify'")
    _write(found.references, output, as_json=as_json, trust_anchors=found.trust_anchors)


@command.command("show", cls=VerbCommand, help=__doc__)
@click.argument("file")
@json_option
def show(*, file: str, as_json: bool) -> None:
    """Tell what is in a file."""
    from imagers.files import read_bounded
    from imagers.model.references import MAX_REFERENCES_BYTES, parse_references, references_to_json

    data = read_bounded(file, max_bytes=MAX_REFERENCES_BYTES)
    found = parse_references(data, what=file)
    if as_json:
        print_json(references_to_json(found))
        return
    rows = []
    for one in found:
        expires = "" if one.expires is None else f"{one.expires:%Y-%m-%d}"
        if one.expires is not None and one.expires <= datetime.now(UTC):
            expires += ", expired"
        rows += [[one.name, str(value), expires, one.source] for value in one.values]
    print_table(["name", "value", "expires", "source"], rows)


def _write(
    found: Sequence[ReferenceValue],
    output: str | None,
    *,
    as_json: bool,
    trust_anchors: Sequence[JSON] = (),
) -> None:
    from imagers.files import write_new
    from imagers.model.references import references_to_json

    document = references_to_json(found)
    if trust_anchors:
        document = {"tees": {"cca": {"trust_anchors": [*trust_anchors]}}, **document}
    if output is not None:
        write_new(output, _text(document), mode=0o644)
    if output is None or as_json:
        print_json(document)


def _text(document: JSON) -> bytes:
    import json

    return (json.dumps(document, indent=2) + "\n").encode()


def _time(text: str | None) -> datetime | None:
    return None if text is None else parse_time("--expires", text)
