# SPDX-License-Identifier: Apache-2.0
"""The wheel: built as a user builds it, and imported where nothing else is installed."""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from imagers import __version__

ROOT = Path(__file__).resolve().parent.parent

# What the extension may need of the machine: the libraries of docs/dependencies.md, the C
# library and the compiler's own. Anything else is a dependency that nobody decided on.
LIBRARIES = re.compile(
    r"libcrypto\.so\.3|libzstd\.so\.1|libisal\.so\.2|libz\.so\.1"
    r"|libc\.so\.6|libpthread\.so\.0|libgcc_s\.so\.1|ld-linux-[\w-]+\.so\.\d"
    r"|libc\.musl-\w+\.so\.1|ld-musl-\w+\.so\.1"
)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the wheel is for Linux"),
    pytest.mark.timeout(600),
]


def clean_environment():
    """This environment without what leads to the checkout, with meson and ninja of this Python."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDEVMODE", "PYTHONWARNINGS")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', os.defpath)}"}


def run(*command, cwd):
    result = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built once also where several workers run the tests."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = shared / "built-wheel"
    with (shared / "built-wheel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            making = shared / "built-wheel.new"
            # meson-python asks for patchelf, which it uses only for wheels that bring libraries.
            build = (sys.executable, "-m", "build", "--wheel", "--no-isolation")
            run(*build, "--skip-dependency-check", "--outdir", making, ROOT, cwd=shared)
            making.rename(out)
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The Python of a virtual environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
        *("--no-deps", "--no-index", "--no-cache-dir", "--disable-pip-version-check", wheel),
        cwd=folder,
    )
    return python


def content(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_is_for_the_stable_abi_of_this_python_and_machine(wheel):
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    machine = platform.machine()
    pattern = rf"imagers-{re.escape(__version__)}-{python}-abi3-(many|musl)?linux_.*{machine}\.whl"
    assert re.fullmatch(pattern, wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        tags = archive.read(f"imagers-{__version__}.dist-info/WHEEL").decode()
    assert "Root-Is-Purelib: false" in tags
    assert f"{python}-abi3-" in tags


def test_wheel_has_every_module_the_types_the_licence_and_one_extension(wheel):
    names = set(content(wheel))
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "imagers").rglob("*")
        if path.suffix in (".py", ".pyi", ".css", ".js") or path.name == "py.typed"
    }
    assert modules <= names
    assert [name for name in names if name.endswith(".so")] == ["imagers/core/_core.abi3.so"]
    assert any(name.endswith("/LICENSE") for name in names)
    assert f"imagers-{__version__}.dist-info/entry_points.txt" in names


def test_wheel_has_nothing_else(wheel):
    allowed = re.compile(
        rf"imagers/(\w+/)*\w+\.(py|pyi)|imagers/py\.typed|imagers/core/_core\.abi3\.so"
        rf"|imagers/evidence/\w+/roots/\w+\.pem|imagers/broker/policy/rego/\w+\.rego"
        rf"|imagers/broker/ui/page\.(css|js)"
        rf"|imagers-{re.escape(__version__)}\.dist-info/.*"
    )
    assert [name for name in content(wheel) if not allowed.fullmatch(name)] == []


def test_wheel_imports_where_nothing_else_is_installed(environment, tmp_path):
    program = """
        import sys
        import imagers, imagers.core._core
        print(imagers.__version__)
        print(imagers.core._core.__file__)
        print(*sorted(name.partition(".")[0] for name in sys.modules))
    """
    program = "\n".join(line.strip() for line in program.splitlines())
    version, path, modules = run(environment, "-c", program, cwd=tmp_path).splitlines()
    assert version == __version__
    assert path.endswith("/site-packages/imagers/core/_core.abi3.so")
    assert str(ROOT) not in path
    assert not {"cryptography", "urllib3", "zstandard", "click"} & set(modules.split())


def test_wheel_installs_the_command(environment):
    text = (environment.parent / "imagers").read_text()
    assert "from imagers.__main__ import main" in text


def test_extension_needs_only_the_libraries_that_were_decided_on(wheel, tmp_path):
    if shutil.which("readelf") is None:
        pytest.skip("there is no readelf")
    with zipfile.ZipFile(wheel) as archive:
        path = archive.extract("imagers/core/_core.abi3.so", tmp_path)
    dynamic = run("readelf", "-d", "-W", path, cwd=tmp_path)
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    assert "libcrypto.so.3" in needed
    assert [name for name in needed if not LIBRARIES.fullmatch(name)] == []
    # A search path of the machine that built it would load somebody else's libcrypto.
    assert not re.findall(r"\((RPATH|RUNPATH)\)", dynamic)


def test_extension_exports_its_init_function_and_nothing_else(wheel, tmp_path):
    """A name such as `seal` that other extensions see would be theirs to override."""
    if shutil.which("readelf") is None:
        pytest.skip("there is no readelf")
    with zipfile.ZipFile(wheel) as archive:
        path = archive.extract("imagers/core/_core.abi3.so", tmp_path)
    symbols = run("readelf", "--dyn-syms", "-W", path, cwd=tmp_path)
    exported = {
        fields[7]
        for line in symbols.splitlines()
        if len(fields := line.split()) >= 8
        and fields[4] in ("GLOBAL", "WEAK")
        and fields[6] != "UND"
        and fields[3] in ("FUNC", "OBJECT")
    }
    assert exported == {"PyInit__core"}
