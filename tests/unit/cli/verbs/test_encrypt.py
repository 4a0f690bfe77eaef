import pytest


def test_encrypt_for_a_key_file_says_what_it_did(run, plain, keys):
    outcome = run("encrypt", plain, "oci:e:v1", "--encryption-key", f"jwe:{keys}/r2048.pub")
    assert outcome.code == 0
    assert "encrypted 3 of 3 layers" in outcome.out
    assert "manifest sha256:" in outcome.out
    assert "AES_256_CTR_HMAC_SHA256" in outcome.out
    assert "stay readable" in outcome.err


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["0"], [True, False, False]),
        (["-1"], [False, False, True]),
        (["0", "2"], [True, False, True]),
        (["1", "1"], [False, True, False]),
    ],
)
def test_encrypt_layer_chooses(run, plain, keys, layers, expected):
    words = [word for layer in layers for word in ("--encrypt-layer", layer)]
    outcome = run(
        "encrypt", plain, "oci:e:v1", "--encryption-key", f"jwe:{keys}/r2048.pub", *words, "--json"
    )
    assert outcome.json()["encrypted"] == sum(expected)
    shown = run("inspect", "oci:e:v1", "--json").json()
    assert [layer["encrypted"] for layer in shown["layers"]] == expected


def test_encrypt_with_allow_nothing_keeps_the_image(run, sealed, keys):
    words = ("--encryption-key", f"jwe:{keys}/r2048.pub")
    refused = run("encrypt", sealed, "oci:e:v1", *words)
    assert refused.code == 2
    assert "--allow-nothing" in refused.err
    outcome = run("encrypt", sealed, "oci:e:v1", *words, "--allow-nothing", "--json")
    assert outcome.code == 0
    assert outcome.json()["encrypted"] == 0
    assert outcome.json()["digest"] == run("inspect", sealed, "--json").json()["digest"]


def test_encrypt_takes_one_platform_of_an_index(run, multi, keys):
    words = ("--encryption-key", f"jwe:{keys}/ec256.pub", "--platform", "linux/arm64")
    assert run("encrypt", multi, "oci:e:v1", *words).code == 0
    assert run("inspect", "oci:e:v1", "--json").json()["platform"] == "linux/arm64"


def test_encrypt_for_a_broker_binds_the_key_to_the_manifest(run, plain, admin, imagers_broker):
    words = ("--encryption-key", "broker:kbs:///default/app/", *admin)
    facts = run("encrypt", plain, "oci:e:v1", *words, "--json").json()
    found = imagers_broker.admin.metadata(facts["key"])
    assert [str(digest) for digest in found.manifest_digests] == [facts["digest"]]
    text = run("encrypt", plain, "oci:f:v1", *words).out
    assert "key-encryption key kbs:///default/app/" in text


def test_encrypt_that_fails_after_the_key_was_stored_says_so(run, plain, admin, imagers_broker):
    words = ("--encryption-key", "broker:kbs:///default/app/key", *admin)
    outcome = run("encrypt", plain, "oci:/proc/e:v1", *words)
    assert outcome.code == 13
    assert "bound to no image: no guest gets it" in outcome.err
    assert imagers_broker.admin.metadata("kbs:///default/app/key").manifest_digests == ()
