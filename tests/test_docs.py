# SPDX-License-Identifier: Apache-2.0
"""The pages and the help against the program: what they say must exist and be so."""

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import imagers
from imagers import __version__, errors
from imagers.cli.main import HELP, VERBS, root
from imagers.testing import make_image, make_tar

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 80
LINES = 50


def files():
    """Every file that is, or could be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def own_files():
    """Those that are text of ours: vectors are other tools' output."""
    vectors = ROOT / "tests" / "vectors"
    return [path for path in files() if not path.is_relative_to(vectors)]


def pages():
    return [path for path in own_files() if path.suffix == ".md"]


def read(name):
    return (ROOT / name).read_text()


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def load(name):
    """A module that is in no package."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAYERS = load("tests/test_layers.py")

# --- pages


def test_page_of_errors_is_the_one_that_the_classes_make():
    maker = load("docs/make_errors.py")
    assert read("docs/errors.md") == maker.page(), "run: python docs/make_errors.py"
    for name in errors.__all__:
        assert f"`{name}`" in maker.page()


def exit_codes():
    return {getattr(errors, name).exit_code for name in errors.__all__} | {0, 130}


@pytest.mark.parametrize("page", ["docs/errors.md", "HELP"])
def test_exit_codes_of_the_page_are_those_of_the_classes(page):
    if page == "HELP":
        text = HELP.partition("exit codes:")[2].partition("\n\n")[0]
        told = set(map(int, re.findall(r"\b(\d+) [a-z]", text)))
    else:
        told = set(map(int, re.findall(r"^\| (\d+) \|", read(page), re.MULTILINE)))
    assert told == exit_codes()


def anchors(text):
    """The anchors that a forge makes of the headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def test_local_links_of_all_pages_lead_somewhere():
    dead = []
    for page in pages():
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            goal = (page.parent / path).resolve() if path else page
            if not goal.exists() or (
                anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text())
            ):
                dead.append(f"{name_of(page)}: {target}")
    assert dead == []


def test_every_page_is_in_the_list_by_task():
    listed = set(re.findall(r"\]\(([\w./-]+)\)", read("docs/README.md")))
    here = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    here = {name for name in here if not name.startswith("adr/")} - {"README.md"}
    root = {f"../{path.name}" for path in ROOT.glob("*.md")}
    assert here | root | {"adr"} == listed


def test_code_paths_that_pages_name_exist():
    """Words such as `imagers/pull/trust.py` or `docs/threats.md` in the pages."""
    dead = [
        f"{name_of(page)}: {path}"
        for page in pages()
        for path in re.findall(
            r"`((?:imagers|docs|tests|examples|plugins|benchmarks)/[\w./-]+\.\w+)`",
            page.read_text(),
        )
        if not (ROOT / path).exists()
    ]
    assert dead == []


def packages():
    """The rows of `tests/test_layers.py`, with what there is of them."""
    there = {path.stem for path in LAYERS.PACKAGE.iterdir()}
    return [row & there for row in LAYERS.ROWS]


def test_picture_of_the_rows_is_the_one_that_imports_are_held_to():
    page = read("docs/architecture.md")
    drawn = re.findall(r"^(\d)  ((?:\w+ *)+)$", page, re.MULTILINE)
    assert [int(number) for number, _ in drawn] == list(reversed(range(len(drawn))))
    assert [set(names.split()) for _, names in reversed(drawn)] == packages()
    table = page.partition("## What each package holds")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set().union(*packages())


def test_table_of_the_package_has_the_same_rows():
    told = re.findall(r"^(\d) +`imagers\.(\w+)`", imagers.__doc__, re.MULTILINE)
    expected = [(str(number), one) for number, row in enumerate(packages()) for one in row]
    assert sorted(told) == sorted(expected)
    assert [number for number, _ in told] == sorted(number for number, _ in told)


def test_tables_of_kinds_that_the_page_names_exist():
    table = read("docs/architecture.md").partition("## Kinds")[2].partition("\n## ")[0]
    named = re.findall(r" `([\w.]+)` \|$", table, re.MULTILINE)
    assert len(named) == 4
    for path in named:
        module, _, name = path.rpartition(".")
        assert len(getattr(importlib.import_module(module), name)) > 1


def test_make_commands_of_the_pages_exist():
    targets = set(re.findall(r"^([a-z][\w-]*):", read("Makefile"), re.MULTILINE))
    told = {
        target
        for page in ("README.md", "CONTRIBUTING.md")
        for target in re.findall(r"(?:`|^)make ([a-z]+)", read(page), re.MULTILINE)
    }
    assert {"demo", "test"} <= told <= targets


def test_readme_begins_with_the_two_commands_that_need_nothing():
    text = read("README.md")
    assert "make demo" in text[:1500]
    assert "make test" in text[:1500]


def test_dependencies_of_the_project_each_have_their_row():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    page = read("docs/dependencies.md")
    rows = {
        re.split(r"[ (]", row)[0].lower()
        for row in re.findall(r"^\| ([\w-]+[^|]*)\|", page, re.MULTILINE)
    }

    def names(requirements):
        return {re.match(r"[\w-]+", one)[0].lower() for one in requirements}

    extras = project["optional-dependencies"]
    shipped = names(project["dependencies"]) | names(extras["broker"]) | names(extras["grpc"])
    assert shipped <= rows
    for name in names(extras["test"]) | names(extras["dev"]):
        assert name.removeprefix("types-") in page, name


def test_nobody_is_sent_to_an_index_for_a_package_of_ours():
    """Whoever registered such a name there would run where the hint is followed."""
    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    named = re.compile(r"imagers\[\w+\]|\binstall +['\"]?imagers[\w-]*")
    goals = re.compile(r"\bpip install +['\"\\]*([\w./]+)(?:\[(\w+)\])?")
    wrong = []
    right = 0
    for path in own_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        wrong += [f"{name_of(path)}: {words}" for words in named.findall(text)]
        for folder, extra in goals.findall(text):
            is_ours = folder.startswith(".") and (ROOT / folder / "pyproject.toml").is_file()
            if is_ours and (not extra or extra in extras):
                right += 1
            else:
                wrong.append(f"{name_of(path)}: pip install {folder}")
    assert wrong == []
    assert right > 5


def test_version_is_the_same_everywhere():
    assert tomllib.loads(read("pyproject.toml"))["project"]["version"] == __version__


def test_no_file_names_the_machine_that_it_was_written_on():
    # In pieces, so that this file does not name them either.
    private = re.compile("|".join([r"(?<![\w.])/wor" + "k/", "/tmp/te" + "am", r"\.pye" + r"nv\b"]))
    found = []
    for path in own_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name_of(path)}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if private.search(line)
        ]
    assert found == []


def test_no_file_names_a_package_mirror():
    """Mirrors are settings of a machine: of this one, those of its environment."""
    settings = [
        value
        for name, value in os.environ.items()
        if re.search(r"INDEX_URL|_PROXY$|_proxy$|MIRROR|REGISTRY", name)
    ]
    hosts = set(re.findall(r"https?://(?:[^/@\s]*@)?([\w.-]+\.[a-z]{2,})", " ".join(settings)))
    found = []
    for path in own_files():
        data = path.read_bytes()
        found += [f"{name_of(path)}: {host}" for host in hosts if host.encode() in data]
        if re.search(rb"--(extra-)?index-url[ =]https?:" + b"//", data):
            found.append(f"{name_of(path)}: an index of packages")
    assert found == []


# --- help


def module_of(verb):
    """Of a verb, or of words with a help of their own, as `attest collateral`."""
    name, _, word = verb.partition(" ")
    module = VERBS[name] + (f"_{word}" if word else "").replace("-", "_").replace(" ", "_")
    return importlib.import_module(f"imagers.cli.verbs.{module}")


def words_with_own_help(command, words):
    """Words below a verb that have a module, and so a help, of their own."""
    if isinstance(command, click.Group):
        for word, child in command.commands.items():
            if child.help != command.help:
                yield f"{words} {word}"
            yield from words_with_own_help(child, f"{words} {word}")


HELPS = [
    *VERBS,
    *(word for verb in VERBS for word in words_with_own_help(module_of(verb).command, verb)),
]


def commands_of(command):
    """A command and all that are below it and have the same help."""
    yield command
    if isinstance(command, click.Group):
        for child in command.commands.values():
            if child.help == command.help:
                yield from commands_of(child)


def options_of(command):
    return {
        name
        for one in commands_of(command)
        for parameter in one.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }


# Every verb has them; the help of the program explains them.
COMMON = {"--quiet", "--verbose", "--debug"}


def named_options(text):
    """Options in a text; not `--src-`, which is the beginning of several."""
    return set(re.findall(r"(?<![\w-])--[a-z](?:[a-z-]|\.(?=[a-z]))*[a-z](?![a-z-])", text))


def forms_for_one_side(options, text):
    """Those that a help names by their beginning and by the option that they are a form of."""
    if "--src- and --dest- forms" not in " ".join(text.split()):
        return set()
    named = named_options(text)
    return {one for one in options if re.sub("^--(src|dest)-", "--", one) in named}


def test_help_of_the_program_names_its_verbs_and_no_others():
    block = HELP.partition("\n\n")[2]
    assert re.findall(r"^  ([a-z][a-z-]*) .* {2,}\S", block, re.MULTILINE) == list(VERBS)
    result = CliRunner().invoke(root, ["--help"])
    assert result.output == HELP
    assert result.exit_code == 0


def test_readme_shows_the_table_of_the_help():
    """The same lines, so that neither can go on alone."""
    readme = read("README.md")
    table = re.findall(
        r"^  ([a-z][a-z-]* .* {2,}\S.*)$", HELP.partition("exit codes")[0], re.MULTILINE
    )
    assert [line.split()[0] for line in table] == list(VERBS)
    for line in table:
        assert f"imagers {line}" in readme
    told = re.findall(r"^imagers ([a-z-]+) .* {2,}\S", readme, re.MULTILINE)
    assert told == list(VERBS)


def test_every_verb_module_is_a_verb():
    folder = ROOT / "imagers" / "cli" / "verbs"
    modules = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    words = {module_of(one).__name__.rpartition(".")[2] for one in HELPS}
    assert modules == words


@pytest.mark.parametrize("verb", HELPS)
def test_help_of_a_verb_is_the_docstring_of_its_module(verb):
    text = module_of(verb).__doc__.strip("\n") + "\n"
    result = CliRunner().invoke(root, [*verb.split(), "--help"])
    assert result.output == text
    assert result.exit_code == 0


@pytest.mark.parametrize("verb", [None, *HELPS])
def test_help_fits_a_screen(verb):
    text = HELP if verb is None else module_of(verb).__doc__.strip("\n")
    assert len(text.splitlines()) <= LINES
    assert [line for line in text.splitlines() if len(line) > COLUMNS] == []
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


@pytest.mark.parametrize("verb", HELPS)
def test_help_of_a_verb_names_its_options_and_no_others(verb):
    command = module_of(verb).command
    text, _, _ = module_of(verb).__doc__.partition("\nexample")
    named = named_options(text)
    options = options_of(command) - COMMON
    assert options <= named | forms_for_one_side(options, text)
    assert re.search(r"^  -q, -v, -h +quiet, verbose, this text$", text, re.MULTILINE)
    # A help may speak of another verb's option; one that is nowhere is a mistake.
    everywhere = {name for other in HELPS for name in options_of(module_of(other).command)}
    assert named <= everywhere | options_of(root) | {"--help"}


@pytest.mark.parametrize("verb", HELPS)
def test_help_of_a_verb_explains_no_option_twice(verb):
    explained = re.findall(r"^  (--[a-z.-]+).* {2,}\S", module_of(verb).__doc__, re.MULTILINE)
    assert sorted(set(explained)) == sorted(explained)


def examples():
    """Every command line that the help and the pages show, ready to be typed.

    Those of console are run: tests/cli/test_pages.py.
    """
    for verb in HELPS:
        _, _, example = module_of(verb).__doc__.partition("\nexample")
        for line in re.findall(r"^  (imagers (?:.*\\\n)*.*)$", example, re.MULTILINE):
            yield f"help of {verb}", line
    for line in re.findall(r"^  (imagers .*)$", HELP.partition("\nexample")[2], re.MULTILINE):
        yield "help", line
    for page in pages():
        for block in re.findall(
            r"^```(?!console)\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        ):
            for line in re.findall(r"^(?:\$ )?(imagers (?:.*\\\n)*.*)$", block, re.MULTILINE):
                if not re.search(r"\S {2,}\S", line.replace("\\\n", " ").replace("  ", " ")):
                    yield name_of(page), line


@pytest.mark.parametrize("verb", HELPS)
def test_help_of_a_verb_ends_with_an_example(verb):
    _, _, example = module_of(verb).__doc__.partition("\nexample")
    lines = example.strip("\n").splitlines()
    assert lines[0] in (":", "s:")
    assert lines[1].startswith(f"  imagers {verb} ")
    assert all(line.startswith("  ") for line in lines[1:])


def test_examples_are_command_lines_that_the_program_takes():
    wrong = []
    count = 0
    top = root.make_context("imagers", [], resilient_parsing=True)
    for place, line in examples():
        words = shlex.split(line.replace("\\\n", " "), comments=True)[1:]
        command = root
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            command = command.get_command(click.Context(command), words.pop(0))
            if command is None:
                break
        count += 1
        try:
            command.make_context(line, words, parent=top)
        except (click.ClickException, AttributeError) as error:
            wrong.append(f"{place}: {line}: {error}")
    assert wrong == []
    assert count > len(VERBS)


# --- code of the pages


def blocks(page, language="python"):
    """The code blocks of a page in one language, each on the lines where it stands."""
    text = read(page)
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield "\n" * text[: found.start(1)].count("\n") + found[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty directory of a user without settings, with the keys of a guest in it."""
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name.startswith(("XDG_", "DOCKER_", "COSIGN_", "OCICRYPT_", "REGISTRY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    keys = ROOT / "tests" / "vectors" / "ocicrypt" / "keys"
    for half in ("key", "pub"):
        (tmp_path / f"recipient.{half}").write_bytes((keys / f"r2048.{half}").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_page_of_the_library_runs_from_top_to_bottom(place, imagers_registry):
    make_image(make_tar(("etc/hostname", b"guest\n"))).save(place / "app")
    names = {"__name__": "page"}
    for block in blocks("docs/library.md"):
        code = block.replace("registry.example.org", imagers_registry.address)
        exec(compile(code, "docs/library.md", "exec"), names)  # noqa: S102  # a page of ours
    assert names["copied"].digest == names["done"].digest


def test_page_of_the_library_names_every_public_name():
    page = read("docs/library.md")
    table = page.partition("## The packages that are public")[2].partition("\n## ")[0]
    table += page.partition("## Tests")[2]
    told = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\|.*\|$", table, re.MULTILINE))))
    inits = (ROOT / "imagers").glob("*/__init__.py")
    doors = [one.parent.name for one in inits if "import door\n" in one.read_text()]
    assert "pull" in doors
    for package in (*doors, "settings"):
        assert set(importlib.import_module(f"imagers.{package}").__all__) <= told, package


def test_example_of_the_fixtures_runs_as_a_test(tmp_path):
    (block,) = (one for one in blocks("README.md") if "def test_" in one)
    (tmp_path / "test_readme.py").write_text(block)
    words = ["-q", "-W", "error", "-p", "imagers.testing.plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "test_readme.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def plugins(place):
    """The files of the page for authors of plugins, installed: with entry points, and in PATH."""
    named = r"^`([\w.-]+)`:\n\n```\w+\n(.*?)^```$"
    files = re.findall(named, read("docs/plugins.md"), re.MULTILINE | re.DOTALL)
    for name, text in files:
        (place / name).write_text(text)
    (place / "imagers-keyprovider-locker").chmod(0o755)
    project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
    installed = place / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    installed.mkdir()
    words = f"Name: {project['name']}\nVersion: {project['version']}\n"
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\n{words}")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    (place / "pyproject.toml").unlink()  # which would make this the root of the tests
    return place


def test_page_of_plugins_passes_its_own_tests(plugins):
    words = ["-q", "-W", "error", "-p", "imagers.testing.plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=plugins,
        env={
            **os.environ,
            "PATH": f"{plugins}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": f"{plugins}:{ROOT}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "9 passed" in done.stdout, done.stdout + done.stderr


def test_page_of_plugins_names_what_they_may_import_and_keeps_to_it(plugins):
    page = read("docs/plugins.md")
    rule = page.partition("## What a plugin may import")[2].partition(", and in its tests")[0]
    told = set(re.findall(r"`imagers\.(\w+)`", rule))
    assert told == LAYERS.PLUGIN_IMPORTS
    used = re.findall(r"^from imagers\.(\w+)", (plugins / "toy_tee.py").read_text(), re.MULTILINE)
    assert set(used) <= told


# --- what the pages say of other tools


def test_cells_of_the_table_of_tools_name_tests_that_exist():
    page = read("docs/compatibility.md")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "::" in line]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, function in named:
            assert f"\ndef {function}(" in read(f"tests/{file}"), (file, function)
    # A row of a table without a test is a claim.
    table = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    assert [line for line in table if "::" not in line and "measured by" not in line] == []


def version_of(*words):
    """The version that a program says it has; None where it is not installed."""
    if shutil.which(words[0]) is None:
        return None
    said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"(\d+\.\d+(?:\.\d+)?)", said.stdout + said.stderr)
    return None if found is None else found[1]


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("skopeo", ("skopeo", "--version")),
        ("podman", ("podman", "--version")),
        ("Docker", ("dockerd", "--version")),
        ("runc", ("runc", "--version")),
        ("docker-registry", ("docker-registry", "--version")),
    ],
)
def test_versions_of_the_table_of_tools_are_those_that_were_run(tool, words):
    version = version_of(*words)
    if version is None:
        pytest.skip(f"{words[0]} is not installed")
    told = re.findall(rf"{tool} ([\d., ]+)", read("docs/compatibility.md"))
    named = {one for text in told for one in re.findall(r"[\d.]+\d", text)}
    if not any(f"{version}.".startswith(f"{one}.") for one in named):
        pytest.skip(f"{tool} {version} of this machine is not in docs/compatibility.md: {named}")
