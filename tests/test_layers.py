# SPDX-License-Identifier: Apache-2.0
"""The import rule: imports go down, never up, never sideways; and who may touch the world."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "imagers"

# Row by row from the bottom. A package imports from lower rows only; `errors` is for all.
ROWS = [
    {"errors"},
    {"model", "files", "lazy", "waiting"},
    {"core", "net", "programs"},
    {"gpg", "pki"},
    {"registry", "layout"},
    {"transport", "store"},
    {"encrypt", "sign", "evidence", "kbs"},
    {"pull", "build", "broker", "settings"},
    {"agent", "testing"},
    {"cli"},
]
ROW_OF = {name: number for number, row in enumerate(ROWS) for name in row}

# What a plugin may import of ours, and what one may besides.
PLUGIN_IMPORTS = {"model", "errors", "net", "pki"}
MORE_IMPORTS = {"test_tee": {"testing"}}

# Who may import what touches the world: module -> places (package or package/module prefix).
WORLD = {
    "socket": {"gpg", "net", "broker", "agent", "evidence/agent", "transport/daemon", "testing"},
    "urllib3": {"net"},
    "http.client": {"net"},
    "http.server": {"testing"},
    "requests": set(),
    "subprocess": {"gpg", "programs", "broker/policy/rego/engine"},
    # syncfs, mount(2) and its like, which Python has not.
    "ctypes": {"files", "pull/snapshots/mount"},
    "getpass": {"cli"},
    "time": {
        "gpg",
        "net",
        "programs",
        "broker",
        "cli",
        "kbs",
        "testing",
        "core/plain",
        "core/together",  # how long to wait for threads that are to end
        "core/watch",
        "pull/ahead",
        "pull/trace",
        "registry",
        "store",  # since when this machine runs
        "waiting",
        "encrypt/schemes/providers",
        "evidence/veraison",  # how long to wait for a result
        "evidence/agent",  # for an answer
    },
}
# Who may read the environment, print, exit.
ENVIRONMENT = {"settings", "agent", "cli"}
PRINTS = {"cli"}
# Who may open files by path.
OPENS = {
    "core/cores",  # the quota of the own cgroup
    "files",
    "gpg",
    "layout",
    "pull",
    "build",
    "broker",
    "cli",
    "testing",
    "sign/formats/lookaside",
    "registry/spool",
    "registry/logins",
    "store",
    "evidence/roots",
    "evidence/collateral",  # by name, below one directory
    # Devices and files of the kernel, in a guest.
    "evidence/tsm",
    "evidence/measure",  # the log beside a register
    "evidence/snp/collect",
    "evidence/sgx/collect",
    "evidence/tdx/collect",
    "evidence/tpm/collect",
}
# These do no IO and read no clock.
PURE = [
    "model",
    "pki",
    "pull/trust",
    "sign/decision",
    "sign/judge",
    "sign/requirements",
    "sign/verify",
    # Of a signature format, which is handed what it reads with.
    "sign/formats/format",
    "sign/formats/notation/signed",
    "sign/formats/sigstore_bundle",
    "sign/formats/sigstore_signed",
    "sign/formats/signed_by",
    "sign/policy_json",
    "sign/certified",
    "broker/policy/inputs",
    "broker/policy/rego/scan",
    "broker/policy/table",
    "evidence/appraise",
    "evidence/azure/snp",
    "evidence/azure/tdx",
    "evidence/azure/vtpm",
    "evidence/ccel",
    "evidence/claims",
    "evidence/intel/certificates",
    "evidence/intel/collateral",
    "evidence/intel/documents",
    "evidence/intel/engine",
    "evidence/intel/quote",
    "evidence/judge",
    "evidence/policy",
    "evidence/sgx/verify",
    "evidence/snp/certificates",
    "evidence/snp/report",
    "evidence/snp/revocation",
    "evidence/snp/verify",
    "evidence/steps",
    "evidence/tdx/verify",
    "evidence/tpm/log",
    "evidence/tpm/quote",
    "evidence/tpm/structures",
    "evidence/tpm/verify",
]


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path, root: Path, name: str):
    """Every imported dotted name of a module, absolute, with its line."""
    tree = ast.parse(path.read_text())
    parts = [name, *path.relative_to(root).with_suffix("").parts]
    if parts[-1] == "__init__":
        parts.pop()
        is_package = True
    else:
        is_package = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = parts[: len(parts) - node.level + (1 if is_package else 0)]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def is_allowed(where: str, allowed: set[str]) -> bool:
    return any(where == one or where.startswith(one + "/") for one in allowed)


def break_of(path: Path, imported: str) -> str | None:
    """Why `path` may not import `imported`, or None."""
    if not imported.startswith("imagers."):
        return None
    target = imported.split(".")[1]
    if target == "__version__":
        return None
    own = package_of(path)
    if own in ("__init__", "__main__"):
        return None if own == "__main__" else "the package docstring module imports nothing"
    if target in (own, "errors"):
        return None
    if target not in ROW_OF:
        return f"unknown package {target}"
    if ROW_OF[target] >= ROW_OF[own]:
        return f"{own} (row {ROW_OF[own]}) imports {target} (row {ROW_OF[target]})"
    return None


@pytest.mark.parametrize("path", modules(), ids=place)
def test_imports_go_down_only(path):
    breaks = [
        f"{place(path)}:{line}: {why}"
        for line, imported in imports_of(path, PACKAGE, "imagers")
        if (why := break_of(path, imported))
    ]
    assert breaks == []


@pytest.mark.parametrize("path", modules(), ids=place)
def test_only_named_places_touch_the_world(path):
    where = place(path)
    breaks = [
        f"{where}:{line}: imports {imported}"
        for line, imported in imports_of(path, PACKAGE, "imagers")
        for module, allowed in WORLD.items()
        if (imported == module or imported.startswith(module + "."))
        and not is_allowed(where, allowed)
    ]
    assert breaks == []


@pytest.mark.parametrize("path", modules(), ids=place)
def test_only_named_places_read_environment_print_or_open(path):
    where = place(path)
    breaks = []
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in ("environ", "getenv")
            and not is_allowed(where, ENVIRONMENT)
        ):
            breaks.append(f"{where}:{node.lineno}: reads the environment")
        if isinstance(node, ast.Call):
            function = node.func
            name = function.id if isinstance(function, ast.Name) else ""
            if name in ("print", "input") and not is_allowed(where, PRINTS):
                breaks.append(f"{where}:{node.lineno}: {name}()")
            if name == "open" and not is_allowed(where, OPENS):
                breaks.append(f"{where}:{node.lineno}: opens a file")
            if (
                isinstance(function, ast.Attribute)
                and function.attr in ("read_bytes", "read_text", "write_bytes", "write_text")
                and not is_allowed(where, OPENS)
            ):
                breaks.append(f"{where}:{node.lineno}: opens a file")
    assert breaks == []


@pytest.mark.parametrize("prefix", PURE)
def test_pure_modules_do_no_io_and_read_no_clock(prefix):
    breaks = []
    for path in modules():
        where = place(path)
        if not is_allowed(where, {prefix}):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = node.func
                name = (
                    function.attr
                    if isinstance(function, ast.Attribute)
                    else getattr(function, "id", "")
                )
                if name in ("open", "now", "time", "monotonic", "run", "urlopen", "sleep"):
                    breaks.append(f"{where}:{node.lineno}: {name}()")
    assert breaks == []
    assert any(is_allowed(place(path), {prefix}) for path in modules()), f"{prefix} is no module"


def test_every_place_of_the_tables_is_there():
    places = {place(path) for path in modules()}
    named = set().union(*WORLD.values(), ENVIRONMENT, PRINTS, OPENS)
    future = {"agent"}  # of the parts to come
    missing = {
        one for one in named - future if not any(is_allowed(where, {one}) for where in places)
    }
    assert missing == set()


def test_every_package_has_a_row():
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert packages <= set(ROW_OF)


def test_every_module_has_its_test_file():
    """tests/unit mirrors imagers/; modules without logic are named here with the reason."""
    without_logic = {
        "broker/config": "values",
        "cli/stores": "tested by commands in tests/cli/test_store.py",
        "cli/verbs/store": "tested by commands in tests/cli/test_store.py",
        "pull/layers": "tested in tests/unit/pull/test_run.py",
        "broker/keeping/database": "a Protocol",
        "broker/keeping/rows": "values",
        "broker/keeping/tables": "the schema; used by all tests of the store",
        "__init__": "docstring and version",
        "__main__": "run as a process by tests/cli/test_interruptions.py",
        "testing/evidence/__main__": "run as a process by tests/unit/testing/evidence/test_make.py",
        "model/image": "Protocols; load_image is tested in tests/unit/pull",
        "model/evidence": "values and Protocols",
        "model/media": "tables; tested with the manifests",
        "sign/repository": "Protocols",
    }
    missing = []
    for path in modules():
        where = place(path)
        if path.name == "__init__.py" or where in without_logic:
            continue
        parts = where.split("/")
        parts[-1] = f"test_{parts[-1].lstrip('_')}.py"
        if not (ROOT / "tests" / "unit" / "/".join(parts)).exists():
            missing.append(where)
    assert missing == []


def test_no_folder_of_tests_is_passed_over(pytestconfig):
    """pytest leaves folders of some names out without a word; `build` was one of them."""
    patterns = pytestconfig.getini("norecursedirs")
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    names = {name for folder in folders for name in folder.relative_to(ROOT).parts}
    assert [name for name in names if any(fnmatch(name, one) for one in patterns)] == []


def test_plugins_import_only_what_they_may():
    breaks = []
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        plugin = path.relative_to(ROOT / "plugins").parts[0]
        allowed = PLUGIN_IMPORTS | MORE_IMPORTS.get(plugin, set())
        for line, imported in imports_of(path, ROOT / "plugins", "plugins"):
            if imported.startswith("imagers.") and imported.split(".")[1] not in allowed:
                breaks.append(f"{path.name}:{line}: imports {imported}")
    assert breaks == []


def test_nothing_imports_a_plugin():
    breaks = [
        f"{place(path)}:{line}"
        for path in modules()
        for line, imported in imports_of(path, PACKAGE, "imagers")
        if imported.startswith(("imagers_", "plugins."))
    ]
    assert breaks == []


@pytest.mark.parametrize(
    "source",
    [
        "import imagers.pull.run",
        "from imagers.pull import run",
        "from imagers import pull",
        "from ..pull import run",
        "from .. import pull",
    ],
)
def test_the_rule_itself_sees_each_form_of_an_upward_import(source):
    path = PACKAGE / "encrypt" / "trial.py"
    tree = ast.parse(source)
    found = []
    parts = ["imagers", "encrypt", "trial"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = parts[: len(parts) - node.level]
                base = ".".join([*anchor, base] if base else anchor)
            found += [f"{base}.{alias.name}" for alias in node.names]
    assert any(break_of(path, one) for one in found)


def sources():
    """Every file of the project that somebody wrote as code; vectors are data."""
    for top in (".ci", "benchmarks", "docs", "examples", "imagers", "plugins", "tests"):
        for path in sorted((ROOT / top).rglob("*")):
            parts = path.relative_to(ROOT).parts
            is_code = path.suffix in {".py", ".pyi", ".c", ".h", ".sh"} or (
                top == ".ci" and not path.suffix
            )
            is_data = parts[:2] == ("tests", "vectors")
            is_built = top == "plugins" and parts[2:3] == ("build",)
            if is_code and path.is_file() and not (is_data or is_built):
                yield path


def test_every_source_file_names_its_licence():
    without = [
        str(path.relative_to(ROOT))
        for path in sources()
        if "SPDX-License-Identifier: Apache-2.0" not in path.read_text()[:120]
    ]
    assert without == []
    assert sum(1 for _ in sources()) > 500  # they were looked at
