def test_decrypt_gives_the_plain_layers(run, sealed, keys):
    words = ("--decryption-key", keys / "r2048.key")
    outcome = run("decrypt", sealed, "oci:d:v1", *words)
    assert outcome.code == 0
    assert "decrypted 3 of 3 layers" in outcome.out
    shown = run("inspect", "oci:d:v1", "--json").json()
    assert [layer["encrypted"] for layer in shown["layers"]] == [False] * 3


def test_decrypt_of_a_plain_image_keeps_it_unless_encryption_is_demanded(run, plain):
    outcome = run("decrypt", plain, "oci:d:v1", "--json")
    assert outcome.json()["decrypted"] == 0
    refused = run("decrypt", plain, "oci:e:v1", "--require-encrypted")
    assert refused.code == 21
    assert "layer 1 of 3" in refused.err


def test_decrypt_tries_each_key(run, sealed, keys):
    words = ("--decryption-key", keys / "r4096.key", "--decryption-key", keys / "r2048.key")
    assert run("decrypt", sealed, "oci:d:v1", *words, "--json").json()["decrypted"] == 3


def test_decrypt_with_a_password_in_the_argument_warns_once(run, keys):
    image = f"oci:{keys.parent}/encrypted/jwe-key-password-C/image:v1"
    words = ("--decryption-key", f"{keys}/rpw.key:correct horse") * 2
    outcome = run("decrypt", image, "oci:d:v1", *words)
    assert outcome.code == 0
    assert outcome.err.count("imagers: warning: ") == 1
    assert "horse" not in outcome.err


def test_decrypt_help_says_that_nothing_is_trusted(run):
    assert "no signature is looked at" in " ".join(run("decrypt", "--help").out.split())


def test_decrypt_without_diff_ids_says_so_each_time(run, sealed, keys):
    words = ("--decryption-key", keys / "r2048.key")
    outcome = run("decrypt", sealed, "oci:d:v1", *words, "--insecure-skip-diff-id", "--json")
    assert outcome.json()["decrypted"] == 3
    assert "imagers: warning: diff_ids are not checked" in outcome.err
    assert "diff_ids are not" not in run("decrypt", sealed, "oci:e:v1", *words).err
