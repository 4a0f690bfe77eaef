# SPDX-License-Identifier: Apache-2.0
import sys
from pathlib import Path

import pytest

from imagers.errors import NoTEE, PluginBroken, PluginNotFound, Unsupported
from imagers.evidence.plugins import (
    ATTESTERS,
    DEVICES,
    NOT_SUPPORTED,
    TEES,
    load_attester,
    load_verifier,
    read_evidence,
)

MODULE = """
from imagers.errors import NoTEE, Unsupported

class Good:
    tee = "{name}"
    def collect(self, report_data): ...
    def verify(self, body, *, report_data, now): ...

class Nameless(Good):
    tee = ""

class Wrong:
    tee = "other"
    def collect(self, report_data): ...

class NotOne:
    pass

class Raises:
    def __init__(self):
        raise ZeroDivisionError("secret of the plugin")

class Absent:
    def __init__(self):
        raise NoTEE("no such machine")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make entry points as an installed package would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(package, entries):
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = []
        for group, name, value in entries:
            lines += [f"[{group}]", f"{name} = {value}"]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        module = f"{package}_module"
        (tmp_path / f"{module}.py").write_text(MODULE.format(name="testtee"))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return add


def test_load_sample_plugin_by_name():
    assert load_attester("sample").tee == "sample"
    assert load_verifier("sample").tee == "sample"


def test_installed_plugins_are_listed_and_none_is_loaded(install):
    install("packa", [("imagers.attesters", "testtee", "no_such_module:X")])
    house = ", ".join(sorted(ATTESTERS | DEVICES))
    with pytest.raises(
        PluginNotFound,
        match=rf"there are: {house}, ([\w-]+-test, )*sample, .*, testtee",
    ):
        load_attester("toy")


@pytest.mark.parametrize("load", [load_attester, load_verifier])
def test_load_absent_plugin_says_how_to_install(load):
    with pytest.raises(PluginNotFound) as caught:
        load("toy")
    assert caught.value.name == "toy"
    assert caught.value.hint == "install the plugin that has it into the same environment"
    house = ATTESTERS | DEVICES if load is load_attester else TEES
    assert f"there are: {', '.join(sorted(house))}, " in str(caught.value)


@pytest.mark.parametrize("name", NOT_SUPPORTED)
def test_tee_that_is_known_and_not_supported_says_why(name):
    for load in (load_attester, load_verifier):
        with pytest.raises(Unsupported, match=f"'{name}' is not supported: ") as caught:
            load(name)
        assert NOT_SUPPORTED[name] in str(caught.value)
        assert "docs/tee/not-supported.md" in caught.value.hint
    with pytest.raises(Unsupported, match=f"'{name}' is not supported"):
        read_evidence(b"{}", tee=name, what="evidence.json")


def test_plugin_may_bring_a_tee_that_the_house_does_not_support(install):
    install("packz", [("imagers.attesters", "virtcca", "packz_module:Nameless")])
    with pytest.raises(PluginBroken, match="no attester for that TEE"):
        load_attester("virtcca")


@pytest.mark.parametrize("name", NOT_SUPPORTED)
def test_page_says_what_is_missing(name):
    page = Path(__file__).parents[3] / "docs" / "tee" / "not-supported.md"
    assert f"`{name}`" in page.read_text()


@pytest.mark.parametrize("name", ["", "../x", "Sample", "a b", "x" * 40])
def test_load_name_that_is_none_refused(name):
    with pytest.raises(PluginNotFound, match="expected the name of a TEE"):
        load_attester(name)


def test_load_good_plugin(install):
    install("packb", [("imagers.attesters", "testtee", "packb_module:Good")])
    assert load_attester("testtee").tee == "testtee"


def test_attester_beside_a_tee_gives_evidence_of_it(install):
    install("packh", [("imagers.attesters", "testtee-toy", "packh_module:Good")])
    assert load_attester("testtee-toy").tee == "testtee"


@pytest.mark.parametrize("name", ["testtee-a-b", "other-toy", "testteetoy", "toy-testtee"])
def test_attester_of_another_tee_than_its_name_says_refused(install, name):
    install("packi", [("imagers.attesters", name, "packi_module:Good")])
    with pytest.raises(PluginBroken, match="is no attester for that TEE"):
        load_attester(name)


@pytest.mark.parametrize("name", ["nameless", "nameless-toy"])
def test_attester_of_no_tee_refused(install, name):
    install("packj", [("imagers.attesters", name, "packj_module:Nameless")])
    with pytest.raises(PluginBroken, match="is no attester for that TEE"):
        load_attester(name)


def test_verifier_beside_a_tee_refused(install):
    install("packk", [("imagers.verifiers", "testtee-toy", "packk_module:Good")])
    with pytest.raises(PluginBroken, match="is no verifier for that TEE"):
        load_verifier("testtee-toy")


@pytest.mark.parametrize(
    ("value", "piece"),
    [
        ("packc_module:Wrong", "is no attester for that TEE"),
        ("packc_module:NotOne", "is no attester for that TEE"),
        ("packc_module:Raises", "ZeroDivisionError"),
        ("packc_module:Missing", "AttributeError"),
        ("no_such_module:X", "ModuleNotFoundError"),
    ],
)
def test_load_broken_plugin_refused(install, value, piece):
    install("packc", [("imagers.attesters", "testtee", value)])
    with pytest.raises(PluginBroken) as caught:
        load_attester("testtee")
    assert caught.value.name == "testtee"
    assert piece in str(caught.value)
    assert "secret of the plugin" not in str(caught.value)


def test_load_verifier_that_is_an_attester_refused(install):
    install("packd", [("imagers.verifiers", "testtee", "packd_module:Wrong")])
    with pytest.raises(PluginBroken, match="is no verifier"):
        load_verifier("testtee")


def test_load_two_packages_of_one_name_refused(install):
    install("packe", [("imagers.attesters", "testtee", "packe_module:Good")])
    install("packf", [("imagers.attesters", "testtee", "packf_module:Good")])
    with pytest.raises(PluginBroken, match="2 packages give"):
        load_attester("testtee")


def test_load_plugin_that_finds_no_tee_says_so_itself(install):
    install("packg", [("imagers.attesters", "testtee", "packg_module:Absent")])
    with pytest.raises(NoTEE, match="no such machine"):
        load_attester("testtee")


@pytest.mark.parametrize("name", ATTESTERS)
def test_attester_of_the_house_is_of_its_tee_and_says_where_it_looks(name):
    attester = load_attester(name)
    assert attester.tee == name
    assert "/" in attester.missing()
