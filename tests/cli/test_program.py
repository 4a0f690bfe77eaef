# SPDX-License-Identifier: Apache-2.0
"""The program as such: start-up, help, verbs, exit codes, where text goes, and no secrets."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imagers import __version__, errors
from imagers.cli.main import HELP, VERBS, root

OCICRYPT = Path(__file__).resolve().parent.parent / "vectors" / "ocicrypt"
PLAIN, KEYS = OCICRYPT / "plain" / "tiny", OCICRYPT / "keys"

# The only words that verbs may have.
WORDS = {
    "copy",
    "encrypt",
    "decrypt",
    "sign",
    "verify",
    "inspect",
    "pull",
    "list-tags",
    "delete",
    "login",
    "logout",
    "policy",
    "attest",
    "broker",
    "keyprovider",
    "key",
    "agent",
    "store",
}
BELOW = {
    "broker": {
        "serve",
        "init",
        "check-config",
        "put",
        "get",
        "list",
        "delete",
        "policy",
        "reference-value",
        "image",
        "undelete",
        "audit",
        "ui",
        "tenant",
        "admin-key",
        "rotate-master-key",
        "backup",
        "restore",
        "import-trustee",
    },
    "key": {"generate", "show"},
    "store": {"list", "verify", "gc", "remove"},
}
HEAVY = (
    "cryptography",
    "urllib3",
    "jwcrypto",
    "starlette",
    "uvicorn",
    "tqdm",
    "nacl",
)


@pytest.mark.parametrize("words", [["--version"], ["--help"], [], ["pull", "--help"]])
def test_program_that_does_nothing_loads_nothing_heavy(imagers, words):
    script = (
        "import sys\n"
        "from imagers.cli.main import run\n"
        "run(sys.argv[1:])\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        check=True,
        capture_output=True,
        text=True,
        env=imagers.environment,
    )
    assert done.stderr == "\n"


def test_version_prints_one_line(imagers):
    result = imagers.succeed("--version")
    assert result.stdout == f"imagers {__version__}\n"
    assert result.stderr == ""


def loaded(imagers, begin):
    """Every module that a fresh process has after it has run these lines."""
    script = f"import sys\n{begin}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env=imagers.environment,
        cwd=imagers.here,
    )
    return set(done.stdout.split("\n")[-2].split())


def loaded_by(imagers, *words):
    """Every module that a command needs, beside those of the help."""
    run = "from imagers.cli.main import run\nassert run({}) == 0"
    most = loaded(imagers, run.format([str(word) for word in words]))
    return most - loaded(imagers, run.format(["--help"]))


def families(modules):
    """The packages of others among them, and the heavy part of one of them."""
    return {name.partition(".")[0] for name in modules} | modules.intersection(
        {"cryptography.x509", "cryptography.hazmat.primitives.serialization"}
    )


def test_start_loads_next_to_nothing_beside_what_it_stands_on(imagers):
    floor = loaded(imagers, "import click, json, importlib, signal")
    more = loaded(imagers, "from imagers.cli.main import run\nrun(['--version'])") - floor
    ours = {name for name in more if name.partition(".")[0] == "imagers"}
    assert len(ours) <= 6, ours
    assert len(more - ours) <= 4, more - ours


HEAVY = {"cryptography", "cryptography.x509", "urllib3", "yaml", "jwcrypto", "asn1crypto", "cbor2"}
RARE = {"requests", "docker", "grpc", "gnupg", "tqdm", "zstandard", "uvicorn"}


KEYS_NEED = {"cryptography", "cryptography.x509"}


def test_inspect_of_a_layout_loads_little(imagers):
    """About as much again as the help, and nothing that only certificates or registries need."""
    more = loaded_by(imagers, "inspect", f"oci:{PLAIN}:v1")
    assert not families(more) & (HEAVY | RARE)
    assert len(more) <= 70, sorted(more)


def test_encrypt_of_a_layout_loads_no_client_and_no_rare_kind(imagers):
    key = f"jwe:{KEYS}/ec256.pub"
    accept = imagers.here / "accept.json"
    accept.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    words = ["encrypt", f"oci:{PLAIN}:v1", "oci:sealed:v1", "--encryption-key", key]
    more = loaded_by(imagers, *words, "--policy", accept)
    assert families(more) & (RARE | HEAVY) <= KEYS_NEED


def test_pull_of_a_layout_loads_no_client_and_no_rare_kind(imagers):
    accept = imagers.here / "accept.json"
    accept.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    more = loaded_by(imagers, "pull", f"oci:{PLAIN}:v1", "bundle", "--policy", accept)
    assert families(more) & (RARE | HEAVY) <= KEYS_NEED


def test_help_is_shown_with_each_way_to_ask(imagers):
    asked = imagers.succeed("--help")
    assert asked.stdout == HELP
    nothing = imagers()
    assert (nothing.code, nothing.stdout, nothing.stderr) == (2, HELP, "")


def test_help_names_every_verb_in_its_order():
    named = [
        match[1]
        for match in re.finditer(r"^  ([a-z-]+) +\S", HELP.partition("REF, SRC")[0], re.MULTILINE)
    ]
    assert named == list(VERBS)


def test_verbs_are_words_of_the_design():
    assert set(VERBS) <= WORDS
    for name, words in BELOW.items():
        assert set(root.get_command(None, name).commands) <= words


def test_exit_codes_in_the_help_are_those_of_the_classes():
    text = " ".join(HELP.partition("exit codes: ")[2].partition(".")[0].split())
    shown = {}
    for part in re.split(r", (?=[0-9])", text):
        number, _, meaning = part.partition(" ")
        shown[int(number)] = meaning
    classes = {
        one.exit_code
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.ImagersError)
    }
    assert set(shown) == classes | {0, 1}
    assert shown[errors.PolicyDenied.exit_code] == "verification says no"
    assert shown[errors.CouldNotVerify.exit_code] == "could not verify"
    assert shown[errors.KeyRefused.exit_code] == "key refused"


@pytest.mark.parametrize("name", [*VERBS, "key generate", "broker policy set"])
def test_help_of_verb_is_printed_and_is_a_success(imagers, name):
    result = imagers.succeed(*name.split(), "--help")
    assert result.stdout.startswith("usage: imagers ")
    assert result.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ["nosuchverb"],
        ["--nosuchoption"],
        ["pull", "--nosuchoption"],
        ["pull"],
        ["pull", "one"],
        ["pull", "one", "two", "three"],
        ["pull", "a", "b", "--policy"],
        ["inspect", "a", "--tls-verify", "perhaps"],
        ["key"],
        ["key", "nosuchword"],
        ["broker"],
        ["broker", "policy"],
        ["broker", "audit", "--limit", "0"],
        ["broker", "serve", "--listen", "8080"],
        ["broker", "serve", "--listen", "0.0.0.0:0"],
        ["broker", "serve", "--listen", "127.0.0.1:99999"],
        ["copy", "oci:a:v1", "oci:b:v1", "--all", "--platform", "linux/amd64"],
        ["copy", "oci:a:v1", "oci:b:v1", "--platform", "linux"],
        ["copy", "oci:a:v1", "oci:b:@0"],
        ["inspect", ""],
        ["pull", "oci:a:v1", "bundle", "--policy", ""],
        ["encrypt", "oci:a:v1", "oci:b:v1", "--encryption-key", ""],
    ],
    ids=" ".join,
)
def test_words_that_do_not_fit_are_usage_errors(imagers, words):
    result = imagers(*words)
    assert result.code == 2, result
    assert result.error
    assert result.stdout == ""
    assert imagers.leftovers() == []


def test_misspelt_verb_gets_a_hint(imagers):
    assert '"imagers --help"' in imagers("pul").stderr
    assert '"imagers pull --help"' in imagers("pull", "--polcy", "x").stderr


def test_closed_output_is_no_fault(imagers):
    for words in (["--help"], ["inspect", "--help"]):
        with imagers.start(*words, bufsize=0) as process:
            process.stdout.close()
            stderr = process.stderr.read()
            process.wait(20)
        assert stderr == ""
        assert process.returncode == 0


def test_closed_error_output_keeps_the_exit_code(imagers):
    with imagers.start("inspect", "oci:nowhere:v1", bufsize=0) as process:
        process.stderr.close()
        assert process.stdout.read() == ""
        process.wait(20)
    assert process.returncode == 13


def test_no_standard_streams_at_all_is_no_bug(imagers):
    words = imagers.words("inspect", "oci:nowhere:v1")
    script = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *words], check=False, env=imagers.environment, cwd=imagers.here
    )
    assert done.returncode == 13


def test_debug_shows_a_traceback_and_nothing_else_does(imagers):
    plain = imagers("inspect", "oci:nowhere:v1")
    assert plain.code == 13
    assert plain.error
    for words in (["--debug", "inspect"], ["inspect", "--debug"]):
        debug = imagers(*words, "oci:nowhere:v1")
        assert "Traceback" in debug.stderr
        assert "LocalError" in debug.stderr


def test_password_in_an_argument_gives_one_warning_and_is_never_repeated(imagers, keys, vectors):
    key = f"{keys}/rpw.key:correct horse"
    image = f"oci:{vectors}/encrypted/jwe-key-password-C/image:v1"
    for form in (key, key.replace(":correct", ":pass=correct")):
        words = ("--decryption-key", form, "--decryption-key", form)
        result = imagers.succeed("decrypt", image, f"oci:{len(form)}:v1", *words)
        warnings = [line for line in result.stderr.splitlines() if "warning" in line]
        assert len(warnings) == 1
        assert "password in an argument" in warnings[0]
        assert "horse" not in result.stderr + result.stdout


def test_secrets_of_arguments_and_files_are_in_no_message(imagers, images, keys, tmp_path):
    secret = "battery-staple"
    (tmp_path / "passphrase").write_text(secret)
    image = f"oci:{images.build()}:v1"
    sign = ["sign", "127.0.0.1:1/app", "--sign-by-sigstore-private-key", keys / "cosign1.key"]
    for words in (
        ["inspect", "127.0.0.1:1/app", "--creds", f"user:{secret}"],
        ["copy", image, "127.0.0.1:1/app", "--dest-creds", f"user:{secret}"],
        ["decrypt", image, "oci:x:v1", "--decryption-key", f"{keys}/rpw.key:{secret}"],
        [*sign, "--passphrase-file", tmp_path / "passphrase"],
        ["broker", "list", "--broker", f"http://user:{secret}@127.0.0.1:1"],
        ["broker", "list", "--broker", f"http://127.0.0.1:1/?token={secret}"],
        ["inspect", f"user:{secret}@127.0.0.1:1/app"],
    ):
        for debug in ([], ["--debug"]):
            result = imagers(*debug, *words)
            assert result.code not in (0, 1) or debug
            assert secret not in result.stdout + result.stderr, words


def test_text_of_a_stranger_cannot_move_the_cursor(imagers, images, accept):
    """Labels of an image and names in it reach a terminal as plain characters only."""
    evil = "\x1b[2J\x1b]0;owned\x07\r\nimagers: trusted\u202e\x9b"

    def change_os(config):
        config.update(os=f"linux{evil}", architecture=evil)

    def change_user(config):
        config["config"]["User"] = evil

    def change_type(_index, layer, _put):
        layer.update(mediaType=f"application/x.{evil}")

    for layout in (
        images.build(change_layer=change_type),
        images.build(change_config=change_os),
        images.build(change_config=change_user),
        images.build(change_manifest=lambda manifest: {**manifest, "mediaType": evil}),
    ):
        name = f"oci:{layout}:v1"
        for words in (
            ["inspect", name],
            ["inspect", name, "--json"],
            ["pull", name, "bundle", "--policy", accept, "--platform", "linux/amd64"],
        ):
            result = imagers(*words)
            text = result.stdout + result.stderr
            assert not {"\x1b", "\x07", "\r", "\u202e", "\x9b"} & set(text), (words, result)
            assert "\nimagers: trusted" not in text
            assert "Traceback" not in text


def test_results_are_on_stdout_and_parse_as_json(imagers, images):
    image = f"oci:{images.build()}:v1"
    result = imagers.succeed("inspect", image, "--json")
    assert json.loads(result.stdout)["layers"]
    assert result.stderr == ""


def test_resources_are_closed_before_the_end(imagers, images, accept):
    """In Python's development mode files that are left open become lines on stderr."""
    environment = {**imagers.environment, "PYTHONDEVMODE": "1"}
    image = f"oci:{images.build()}:v1"
    for words in (
        ["inspect", image],
        ["copy", image, "oci:copy:v1"],
        ["pull", image, "bundle", "--policy", accept],
        ["inspect", "oci:nowhere:v1"],
        ["inspect", "127.0.0.1:1/app"],
    ):
        result = imagers(*words, env=environment)
        assert "unclosed" not in result.stderr
        assert "Traceback" not in result.stderr
