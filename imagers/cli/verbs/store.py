# SPDX-License-Identifier: Apache-2.0
"""usage: imagers store list | verify | gc [OPTION]...
       imagers store remove NAME... [OPTION]...

Looks after what "imagers pull" keeps, so that the next pull of an image is
short. Policy, signatures and keys are asked at each pull, whatever is kept.

  list                        what is there; a part is what came of a layer
                              whose download broke off, unverified: the next
                              pull checks it and goes on
  verify                      read all but parts, and say what is not what was
                              kept; the exit code is 20 then
  gc                          remove what is good for nothing, such as what an
                              earlier boot has kept, parts that are a day old,
                              and what is above the limit
  remove                      remove entries; NAME may be the path of a bundle
                              whose root is mounted: it is unmounted, and what
                              its container wrote goes

  --store DIR                 default: IMAGERS_STORE, else for root
                              /var/lib/imagers/store, for others
                              ~/.local/state/imagers/store
  --store-key KEY             of the seals: a file with 32 bytes or more, or, of
                              "pull", kbs:///A/B/C of the broker; default: one
                              for each boot, in XDG_RUNTIME_DIR or /run/imagers
  --store-size SIZE           parts go first, then what was longest not used;
                              default: 10GiB, or a quarter of the file system

"imagers pull" has these, and:

  --store-place KIND          "shared", the default: others, such as the host,
                              may read and write there. Layers are kept as the
                              registry has them; each time they are checked,
                              decrypted and unpacked. "private": memory, or a
                              volume that only the guest reads. Unpacked layers
                              are kept
  --snapshotter NAME          how: overlay, plain (directories) or erofs (with
                              dm-verity); default: overlay where it can be
                              mounted, else plain
  --json                      the result as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers store list
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, VerbGroup, json_option
from imagers.cli.output import human_bytes, print_json, print_line, print_table
from imagers.cli.stores import StoreOptions, store_options
from imagers.errors import IntegrityError, LocalError
from imagers.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.cli.stores import OpenedStore
    from imagers.store.store import Found

__all__ = ["command"]

_HOUR_S, _DAY_S = 3600, 86400


@click.group("store", cls=VerbGroup, help=__doc__)
def command() -> None:
    """What pulls keep."""


@contextmanager
def _opened(options: StoreOptions) -> Iterator[OpenedStore]:
    with options.opened(read_settings(), must=True) as opened:
        assert opened is not None
        yield opened


@command.command("list", cls=VerbCommand, help=__doc__)
@store_options
@json_option
def list_(*, store: StoreOptions, as_json: bool) -> None:
    """Say what is there."""
    with _opened(store) as opened:
        found = opened.store.entries()
        path, limit = str(opened.store.path), opened.store.max_bytes
    if as_json:
        print_json({"store": path, "limit": limit, "entries": [_facts(one) for one in found]})
        return
    print_table(
        ["name", "size", "used", "of image", "state"],
        [
            [
                one.name,
                human_bytes(one.size) if one.seal is not None or one.is_part else "-",
                _ago(time.time() - one.used),
                str(one.seal.checks.image)[:19] if one.seal is not None else "-",
                one.fault or ("in use" if one.in_use else "part" if one.is_part else "kept"),
            ]
            for one in found
        ],
    )
    total = human_bytes(sum(one.size for one in found))
    print_line(f"{path}: {len(found)} entries, {total} of {human_bytes(limit or 0)}")


def _facts(one: Found) -> dict[str, object]:
    seal = one.seal
    return {
        "name": one.name,
        "size": one.size,
        "used_at": int(one.used),
        "in_use": one.in_use,
        "fault": one.fault or None,
        "needs": list(one.needs),
        "image": None if seal is None else str(seal.checks.image),
        "basis": None if seal is None else seal.checks.basis,
        "policy": None if seal is None else f"sha256:{seal.checks.policy}",
        "signers": [] if seal is None else list(seal.checks.signers),
        "checked_at": None if seal is None else seal.checks.at,
        "diff_id": None if seal is None or seal.diff_id is None else str(seal.diff_id),
        "bundle": None if seal is None else seal.facts.get("bundle"),
    }


def _ago(seconds: float) -> str:
    if seconds < _HOUR_S:
        return f"{max(0, seconds) / 60:.0f} min ago"
    return f"{seconds / _HOUR_S:.0f} h ago" if seconds < _DAY_S else f"{seconds / _DAY_S:.0f} d ago"


@command.command("verify", cls=VerbCommand, help=__doc__)
@store_options
@json_option
def verify(*, store: StoreOptions, as_json: bool) -> None:
    """Read all of it."""
    with _opened(store) as opened:
        names = [one.name for one in opened.store.entries() if not one.is_part]
        faults = {name: opened.store.verify(name) for name in names}
    bad = {name: fault for name, fault in faults.items() if fault}
    if as_json:
        print_json({"checked": len(names), "faults": bad})
    else:
        for name, fault in bad.items():
            print_line(f"{name}: {fault}")
        print_line(f"{len(names)} entries read, {len(bad)} not what was kept")
    if bad:
        raise IntegrityError(
            f"{len(bad)} of {len(names)} entries are not what was kept",
            hint='"imagers store remove NAME" removes one; it is fetched again when it is needed',
        )


@command.command("gc", cls=VerbCommand, help=__doc__)
@store_options
@json_option
def gc(*, store: StoreOptions, as_json: bool) -> None:
    """Remove what is good for nothing."""
    from imagers.pull.trees import remove_stale_bundles

    with _opened(store) as opened:
        remove_stale_bundles(opened.store)
        removed = opened.store.collect()
    if as_json:
        facts = [{"name": one.name, "size": one.size, "why": one.why} for one in removed]
        print_json({"removed": facts})
        return
    for one in removed:
        print_line(f"{one.name}: {one.why}")
    print_line(f"{len(removed)} removed, {human_bytes(sum(one.size for one in removed))}")


@command.command("remove", cls=VerbCommand, help=__doc__)
@click.argument("name", nargs=-1, required=True)
@store_options
@json_option
def remove(*, name: tuple[str, ...], store: StoreOptions, as_json: bool) -> None:
    """Remove layers, or what a bundle wrote."""
    from imagers.pull.trees import remove_bundle

    with _opened(store) as opened:
        for one in name:
            if not (remove_bundle(opened.store, Path(one)) or opened.store.remove(one)):
                raise LocalError(
                    f"expected the name of an entry or the path of a bundle, got {one[:200]!r}",
                    path=str(opened.store.path),
                    hint='"imagers store list" has the names',
                )
            if not as_json:
                print_line(f"removed {one}")
    if as_json:
        print_json({"removed": list(name)})
