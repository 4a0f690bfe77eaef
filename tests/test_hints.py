# SPDX-License-Identifier: Apache-2.0
"""A hint speaks only of options that the command has, of the verbs that can come to say it."""

import ast
import re
from pathlib import Path

import click
import pytest

from imagers.cli.main import VERBS, root

PACKAGE = Path(__file__).resolve().parent.parent / "imagers"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]")
# Options of the programs that hints tell to run.
OF_OTHERS = {
    "gpg": {
        "--armor",
        "--export",
        "--list-keys",
        "--list-secret-keys",
        "--local-user",
        "--show-keys",
    },
    "cosign": {"--new-bundle-format"},
}
WITH_IMAGES = {"copy", "encrypt", "decrypt", "sign", "verify", "inspect", "pull"}
WITH_KEYS = {"encrypt", "decrypt", "pull"}
# Which verbs come to say what stands in a module; the most special row counts. Where a hint names
# the verb that it speaks of ('imagers pull --broker'), that one counts.
SAID_BY = {
    "evidence": {"broker"},
    "evidence/carry": {"attest"},
    "evidence/corim": {"attest"},
    "evidence/ratls": {"pull", "broker", "encrypt"},
    "evidence/snp/collateral": {"attest"},
    "kbs": {"broker"},
    "broker": {"broker"},
    "build/broker_key": {"encrypt"},
    "build/change": {"encrypt"},
    "build/signers": {"sign"},
    "cli/brokers": {"pull", "broker", "encrypt"},
    "cli/evidence": {"attest"},
    "cli/main": set(VERBS),
    "cli/images": WITH_IMAGES,
    "cli/measuring": {"pull"},
    "cli/passphrases": {"sign"},
    "cli/recipients": {"encrypt"},
    "cli/reports": {"encrypt", "decrypt"},
    "cli/signatures": {"copy", "encrypt", "verify", "pull"},
    "cli/stores": {"pull", "store"},
    "encrypt": {"encrypt"},
    "encrypt/keyfiles": WITH_KEYS,
    "encrypt/keys": WITH_KEYS,
    "encrypt/schemes": WITH_KEYS,
    "encrypt/wrappers": WITH_KEYS,
    "core": WITH_KEYS,
    "model": WITH_IMAGES - {"sign"},  # which signs the images of all platforms
    "errors": {"pull"},  # which has time limits
    "model/origin": {"pull"},
    "pull": {"pull"},
    "registry": WITH_IMAGES,
    "settings": {"verify", "pull"},
    "sign": {"verify", "pull"},
    "sign/formats/gpg": {"sign"},
    "store": {"pull", "store"},
    "layout": WITH_IMAGES - {"sign", "verify"},
    "layout/archive/docker": {"copy", "decrypt"},  # what may write there
    "transport": WITH_IMAGES,
    "transport/referrers": {"copy"},
    "transport/copy": {"copy"},
}


def options_of(command):
    found = {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    if isinstance(command, click.Group):
        for one in command.commands.values():
            found |= options_of(one)
    return found


OPTIONS = {name: options_of(root.get_command(click.Context(root), name)) for name in VERBS}


def text_of(node):
    """All the words of an expression that gives a text."""
    return "".join(
        one.value
        for one in ast.walk(node)
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    )


def hints():
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if place.startswith("testing"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                if keyword.arg in ("hint", "ca_option", "plain_option"):
                    yield place, node.lineno, text_of(keyword.value)
            if getattr(node.func, "id", "") == "say" and len(node.args) > 1:
                yield place, node.lineno, text_of(node.args[1])


WITH_OPTIONS = [one for one in hints() if OPTION.search(one[2])]


def verbs_of(place, text):
    named = {name for name in VERBS if f"imagers {name}" in text}
    if named:
        return named
    if place.startswith(("cli/verbs/", "cli/words/")):
        return {place.rpartition("/")[2].partition("_")[0]}
    row = max((one for one in SAID_BY if f"{place}/".startswith(f"{one}/")), key=len, default=None)
    assert row is not None, f"{place}: which verbs say it? name them in SAID_BY"
    return SAID_BY[row]


@pytest.mark.parametrize(
    ("place", "line", "text"), WITH_OPTIONS, ids=[f"{p}:{n}" for p, n, _ in WITH_OPTIONS]
)
def test_hint_names_options_that_the_verb_has(place, line, text):
    del line
    of_others = {option for name, theirs in OF_OTHERS.items() if name in text for option in theirs}
    for option in set(OPTION.findall(text)) - of_others - {"--help"}:
        for verb in verbs_of(place, text):
            assert option in OPTIONS[verb], f"imagers {verb} has no {option}: {text}"


def test_some_hints_are_looked_at():
    assert len(WITH_OPTIONS) > 20
