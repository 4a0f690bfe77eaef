# SPDX-License-Identifier: Apache-2.0
import pytest


@pytest.fixture
def pushed(run, plain, imagers_registry):
    name = f"docker://{imagers_registry.address}/team/app:v1"
    assert run("copy", plain, name).code == 0
    return name


@pytest.fixture
def digest(run, pushed):
    return run("inspect", pushed, "--json").json()["digest"]


def test_delete_says_what_is_gone(run, pushed, digest, imagers_registry):
    outcome = run("delete", pushed)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"deleted {digest}\n  tags that meant it: v1\n"
    assert imagers_registry.tags("team/app") == {}
    assert run("inspect", pushed).code == 10


def test_delete_as_json(run, pushed, digest):
    assert run("delete", pushed, "--json").json() == {
        "reference": pushed,
        "digest": digest,
        "tags": ["v1"],
        "indexes": [],
        "entries": [],
        "referrers": [],
    }


def test_delete_by_one_of_two_tags_deletes_nothing(run, plain, pushed, digest, imagers_registry):
    run("copy", plain, pushed.replace(":v1", ":v2"))
    outcome = run("delete", pushed)
    assert (outcome.code, outcome.out) == (2, "")
    assert "the same image is tagged 'v2', which would lose it" in outcome.err
    assert f"team/app@{digest} deletes it under all its names" in outcome.err
    assert set(imagers_registry.tags("team/app")) == {"v1", "v2"}
    by_digest = run("delete", pushed.replace(":v1", f"@{digest}"))
    assert by_digest.out.splitlines()[1] == "  tags that meant it: v1, v2"


def test_delete_of_a_signed_image_names_what_stays(run, pushed, digest, imagers_registry):
    run("key", "generate", "cosign", "--output", "signer")
    run("sign", pushed, "--sign-by-sigstore-private-key", "signer.key", "--new-bundle-format")
    outcome = run("delete", pushed)
    tag = digest.replace(":", "-") + ".sig"
    assert f"  what refers to it stays: {tag}, sha256:" in outcome.out
    assert set(imagers_registry.tags("team/app")) == {tag}
    assert run("delete", pushed.replace(":v1", f":{tag}")).code == 0


def test_delete_of_an_index_and_of_an_image_in_one(run, multi, pushed):
    index = pushed.replace(":v1", ":multi")
    run("copy", multi, index, "--all")
    facts = run("inspect", index, "--json").json()
    inside = index.replace(":multi", f"@{facts['manifest']}")
    outcome = run("delete", inside)
    assert outcome.out == (f"deleted {facts['manifest']}\n  indexes that lack it now: multi\n")
    assert "  its images stay: sha256:" in run("delete", index).out


def test_delete_where_nobody_tells_the_tags(run, pushed, digest, imagers_registry):
    imagers_registry.answer_with(404, path="/tags/list", times=9)
    assert run("delete", pushed).code == 10
    outcome = run("delete", pushed.replace(":v1", f"@{digest}"))
    assert "tags that meant it are gone too; the registry does not tell which" in outcome.out


def test_delete_of_a_name_without_tag_and_digest_refused(run, pushed, imagers_registry):
    outcome = run("delete", pushed.replace(":v1", ""))
    assert outcome.code == 2
    assert "expected a tag or a digest, got a repository" in outcome.err
    assert set(imagers_registry.tags("team/app")) == {"v1"}


def test_delete_where_the_registry_does_not_says_how_it_would(run, pushed, imagers_registry):
    body = b'{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}'
    imagers_registry.answer_with(405, method="DELETE", path="/manifests/", body=body)
    outcome = run("delete", pushed)
    assert (outcome.code, outcome.out) == (10, "")
    assert "the registry answered 405" in outcome.err
    assert "REGISTRY_STORAGE_DELETE_ENABLED=true" in outcome.err
