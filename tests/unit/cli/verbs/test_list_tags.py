# SPDX-License-Identifier: Apache-2.0
import pytest


@pytest.fixture
def repository(run, plain, imagers_registry):
    name = f"{imagers_registry.address}/team/app"
    for tag in ("v2", "v1"):
        assert run("copy", plain, f"{name}:{tag}").code == 0
    return name


def test_list_tags_is_a_tag_a_line(run, repository):
    for name in (repository, f"docker://{repository}"):
        assert run("list-tags", name).out == "v1\nv2\n"


def test_list_tags_as_json_has_the_repository_and_its_tags(run, repository):
    facts = run("list-tags", f"docker://{repository}", "--json").json()
    assert facts == {"repository": repository, "tags": ["v1", "v2"]}


def test_list_tags_of_an_empty_repository_is_nothing(run, repository, imagers_registry):
    imagers_registry.answer_with(200, path="/tags/list", body=b'{"tags":null}', times=2)
    assert run("list-tags", repository).out == ""
    assert run("list-tags", repository, "--json").json()["tags"] == []


def test_list_tags_of_a_layout(run, plain):
    for tag in ("a", "b"):
        run("copy", plain, f"oci:app:{tag}")
    assert run("list-tags", "oci:app").out == "a\nb\n"
    assert run("list-tags", "oci:app", "--json").json() == {
        "repository": "oci:app",
        "tags": ["a", "b"],
    }


@pytest.mark.parametrize("end", [":v1", "@sha256:" + "0" * 64])
def test_list_tags_of_one_image_refused(run, repository, end):
    outcome = run("list-tags", repository + end)
    assert (outcome.code, outcome.out) == (2, "")
    assert "expected a repository, got an image of one" in outcome.err
    assert "imagers: hint: leave out what follows the name" in outcome.err


def test_list_tags_of_no_repository_is_an_error(run, imagers_registry):
    outcome = run("list-tags", f"{imagers_registry.address}/none")
    assert (outcome.code, outcome.out) == (10, "")
    assert "NAME_UNKNOWN" in outcome.err
