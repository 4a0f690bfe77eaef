# SPDX-License-Identifier: Apache-2.0
"""Attesters and verifiers by the name of their TEE: those of the house, and plugins.

An installed plugin is not loaded because it is there: only when its name is given. That
keeps the `sample` TEE, which proves nothing, out of every program that did not ask for it. Names
of the house are the house's: a verifier of the same name is never asked.

    attester = load_attester("sample")
    verifier = load_verifier("snp")
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from imagers.errors import (
    FormatError,
    ImagersError,
    NoTEE,
    PluginBroken,
    PluginNotFound,
    Unsupported,
    UsageError,
)
from imagers.model.evidence import Attester, Verifier
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ATTESTERS",
    "ATTESTER_GROUP",
    "DEVICES",
    "NOT_SUPPORTED",
    "TEES",
    "VERIFIER_GROUP",
    "MachineSettings",
    "find_attester",
    "find_parser",
    "load_attester",
    "load_verifier",
    "read_evidence",
]

ATTESTER_GROUP = "imagers.attesters"
VERIFIER_GROUP = "imagers.verifiers"
TEES = {
    "cca": "imagers.evidence.cca.verify:CCAVerifier",
    "csv": "imagers.evidence.csv.verify:CSVVerifier",
    "nitro": "imagers.evidence.nitro.verify:NitroVerifier",
    "az-snp-vtpm": "imagers.evidence.azure.snp:AzureSNPVerifier",
    "az-tdx-vtpm": "imagers.evidence.azure.tdx:AzureTDXVerifier",
    "nvidia": "imagers.evidence.nvidia.verify:NVIDIAVerifier",
    "sgx": "imagers.evidence.sgx.verify:SGXVerifier",
    "snp": "imagers.evidence.snp.verify:SNPVerifier",
    "tdx": "imagers.evidence.tdx.verify:TDXVerifier",
    "tpm": "imagers.evidence.tpm.verify:TPMVerifier",
}
"""The verifiers of the house: module and class, whose `make` takes settings and test roots."""
ATTESTERS = {
    "snp": "imagers.evidence.snp.collect:SNPAttester",
    "tdx": "imagers.evidence.tdx.collect:TDXAttester",
    "sgx": "imagers.evidence.sgx.collect:SGXAttester",
    "cca": "imagers.evidence.cca.collect:CCAAttester",
    "nitro": "imagers.evidence.nitro.collect:NitroAttester",
    "csv": "imagers.evidence.csv.collect:CSVAttester",
    "az-snp-vtpm": "imagers.evidence.azure.collect:AzureSNPAttester",
    "az-tdx-vtpm": "imagers.evidence.azure.collect:AzureTDXAttester",
    "tpm": "imagers.evidence.tpm.collect:TPMAttester",
}
"""Those who collect evidence of this machine, in the order in which they are looked for."""
DEVICES = {"nvidia": "imagers.evidence.nvidia.collect:NVIDIAAttester"}
"""Those who collect evidence of devices beside that of the machine; never looked for."""
_BY_SETTINGS = {
    "az-snp-vtpm": ("device",),
    "az-tdx-vtpm": ("device",),
    "csv": ("agent_log",),
    "tdx": ("agent_log",),
    "tpm": ("device", "handle", "agent_log"),
}
NOT_SUPPORTED = {
    "se": "of IBM Secure Execution evidence answers an encrypted request, and none is made here",
    "psa": "of a PSA token nothing says what a machine with an operating system runs",
    "virtcca": "Huawei publishes no description of virtCCA's tokens and of their keys",
    "hygondcu": "of Hygon's DCU there is no evidence that a verifier could be tried with",
    "nvidia-dpu": "of NVIDIA's BlueField there is no evidence that a verifier could be tried with",
    "nvswitch": "of NVIDIA's switches there is no evidence that a verifier could be tried with",
    "sev": "guests of SEV give no evidence, their owner looks at the launch: docs/tee/sev.md",
    "sev-es": "guests of SEV-ES give no evidence, their owner looks at the launch: docs/tee/sev.md",
}
"""TEEs that are known and that no verifier of the house is for, and why."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")

_Plugin = TypeVar("_Plugin")


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """Where a machine has its TPM and the log of its agent, for the attesters that need them.

    Attributes:
        device: None: the kernel's.
        handle: of its attestation key; None: the one that Trustee's guests have.
        agent_log: None: the one of Confidential Containers.
    """

    device: Path | None = None
    handle: int | None = None
    agent_log: Path | None = None


def load_attester(name: str, machine: MachineSettings | None = None) -> Attester:
    """The attester of the TEE `name`, or one beside it: `snp-test` gives evidence of `snp`.

    Raises:
        PluginNotFound: none is installed.
        Unsupported: it is one of `NOT_SUPPORTED`.
        PluginBroken: it does not load, or is no attester for that name.
        NoTEE: it says that this machine is none of that kind.
    """
    if name in ATTESTERS or name in DEVICES:
        return _house_attester(name, machine)

    def is_attester(made: object) -> Attester | None:
        if not isinstance(made, Attester):
            return None
        return made if made.tee in (name, name.rpartition("-")[0] or name) else None

    return _load(ATTESTER_GROUP, name, "attester", is_attester)


def find_attester(machine: MachineSettings | None = None) -> Attester:
    """The attester of the TEE that this machine is.

    Raises:
        NoTEE: it is none that is known here; what was looked for, and where.
    """
    looked = []
    for name in ATTESTERS:
        attester = _house_attester(name, machine)
        why = attester.missing()
        if not why:
            return attester
        looked.append(f"{name}: {why}")
    raise NoTEE(
        f"this machine is no TEE that is known here ({'; '.join(looked)})",
        hint="a plugin's is named with --tee NAME; evidence is for root to ask for",
    )


class _Own(Attester, Protocol):
    """An attester of the house."""

    def missing(self) -> str:
        """Why this machine is none of that kind; "" if it is."""


def _house_attester(name: str, machine: MachineSettings | None) -> _Own:
    module, _, kind = (ATTESTERS | DEVICES)[name].partition(":")
    told = {one: getattr(machine, one, None) for one in _BY_SETTINGS.get(name, ())}
    given = {one: value for one, value in told.items() if value is not None}
    made: _Own = getattr(import_module(module), kind)(**given)
    return made


def load_verifier(
    name: str, *, settings: View | None = None, roots: bytes | None = None
) -> Verifier[Any]:
    """The verifier of the TEE `name`.

    Args:
        settings: of the appraisal of this TEE, as docs/tee has them; None: the strict ones.
        roots: certificates in PEM in place of the vendor's, for tests.

    Raises:
        PluginNotFound: none is installed.
        Unsupported: it is one of `NOT_SUPPORTED`.
        PluginBroken: it does not load, or is no verifier for that name.
        FormatError: the settings are none of this TEE.
        UsageError: settings or roots for a plugin, which takes none.
    """
    if name in TEES:
        module, _, kind = TEES[name].partition(":")
        made: Verifier[Any] = getattr(import_module(module), kind).make(
            View({}, what=f"settings for {name}") if settings is None else settings, roots
        )
        return made
    if settings is not None or roots is not None:
        raise UsageError(f"the TEE {name!r} takes neither settings nor test roots")

    def is_verifier(made: object) -> Verifier[Any] | None:
        return made if isinstance(made, Verifier) and made.tee == name else None

    return _load(VERIFIER_GROUP, name, "verifier", is_verifier)


def find_parser(tee: str) -> Callable[[bytes], Any]:
    """What reads a file with evidence of a TEE of the house: raw, or in the protocol's JSON.

    It raises FormatError for what is neither.
    """
    module, _, _ = TEES[tee].partition(":")
    parser: Callable[[bytes], Any] = import_module(module).parse_file
    return parser


def read_evidence(data: bytes, *, tee: str | None, what: str) -> tuple[str, Any]:
    """The TEE that the content of a file is evidence of, and the evidence as its verifier takes it.

    Args:
        tee: None: the content tells.
        what: the file, for messages.

    Raises:
        FormatError: it is evidence of no TEE of the house, or not of this one.
        Unsupported: it is one of `NOT_SUPPORTED`.
        UsageError: there is no such TEE.
    """
    if tee in NOT_SUPPORTED:
        raise _not_supported(tee)
    if tee is not None and tee not in TEES:
        raise UsageError(f"expected a TEE among {', '.join(TEES)}, got {tee[:40]!r}")
    if tee is not None:
        return tee, find_parser(tee)(data)
    for name in TEES:
        with suppress(FormatError):
            return name, find_parser(name)(data)
    raise FormatError(
        f"is evidence of none of the TEEs {', '.join(TEES)}",
        what=what,
        hint="--tee NAME says what is wrong with it as evidence of one",
    )


def _not_supported(name: str) -> Unsupported:
    return Unsupported(
        f"the TEE {name!r} is not supported: {NOT_SUPPORTED[name]}",
        hint="docs/tee/not-supported.md says what is missing",
    )


def _find(group: str) -> tuple[str, ...]:
    from importlib.metadata import entry_points

    return tuple(sorted({point.name for point in entry_points(group=group)}))


def _load(group: str, name: str, kind: str, as_kind: Callable[[object], _Plugin | None]) -> _Plugin:
    import logging
    from importlib.metadata import entry_points

    if not _NAME.match(name):
        raise PluginNotFound(f"expected the name of a TEE as {kind}, such as 'sample'", name=name)
    # One distribution seen twice on the path is one plugin; two that differ are a conflict.
    points = {point.value: point for point in entry_points(group=group, name=name)}
    if not points and name in NOT_SUPPORTED:
        raise _not_supported(name)
    if not points:
        house = sorted(TEES if group == VERIFIER_GROUP else ATTESTERS | DEVICES)
        installed = ", ".join((*house, *_find(group)))
        # Only a folder of ours is named: whoever owns a guessed name gets to run in the guest.
        hint = "install the plugin that has it into the same environment"
        if name == "sample":
            hint = "in the clone of imagers: pip install ./plugins/sample_tee"
        raise PluginNotFound(
            f"no {kind} of that name is installed (there are: {installed})",
            name=name,
            hint=hint,
        )
    if len(points) > 1:
        raise PluginBroken(
            f"{len(points)} packages give a {kind} of that name: {', '.join(sorted(points))}",
            name=name,
            hint="uninstall all but one",
        )
    (point,) = points.values()
    try:
        made: object = point.load()()
        logging.getLogger(__name__).debug("the %s of the TEE %r is %s", kind, name, point.value)
    except ImagersError:
        raise
    except Exception as error:  # a plugin may raise anything; this is the border
        raise PluginBroken(
            f"the {kind} {point.value!r} does not load: {type(error).__name__}", name=name
        ) from error
    checked = as_kind(made)
    if checked is None:
        raise PluginBroken(f"{point.value!r} is no {kind} for that TEE", name=name)
    return checked
