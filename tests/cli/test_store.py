# SPDX-License-Identifier: Apache-2.0
"""What pulls keep, by commands: it saves downloads and no check, and nobody trips over it."""

import json
import os
import shutil

import pytest

PRIVATE = ("--store-place", "private", "--snapshotter", "plain")


@pytest.fixture
def layout(images):
    return images.build(
        images.tar(("etc/hostname", b"guest\n"), ("old", b"gone soon")),
        images.tar((".wh.old", b""), ("data", os.urandom(100_000))),
    )


@pytest.fixture
def image(publish, layout):
    """Encrypted by a broker and signed, in a registry."""
    return publish(layout)


def layers_asked(image):
    """How often a layer was asked for."""
    return sum(
        one.path.endswith(tuple(image.layers)) and one.method == "GET"
        for one in image.registry.requests
    )


def tree(bundle):
    return {
        str(path.relative_to(bundle)): path.read_bytes() if path.is_file() else None
        for path in sorted((bundle / "rootfs").rglob("*"))
    }


def pulled(imagers, image, *more, bundle="bundle"):
    shutil.rmtree(imagers.here / bundle, ignore_errors=True)
    facts = imagers.succeed(*image.pull(*more, "--json")).json()
    return [layer["kept"] for layer in facts["layers"]], tree(imagers.here / bundle)


@pytest.mark.parametrize("more", [(), ("--stream",), PRIVATE, ("--jobs", "1")])
def test_second_pull_downloads_nothing_and_asks_everything(imagers, image, more):
    kept, first = pulled(imagers, image, *more)
    assert kept == [False, False]
    assert layers_asked(image) == 2
    handshakes, releases = image.broker.handshakes, image.broker.releases
    kept, second = pulled(imagers, image, *more)
    assert kept == [True, True]
    assert second == first
    assert layers_asked(image) == 2
    assert image.broker.handshakes == 2 * handshakes
    assert image.broker.releases == 2 * releases


@pytest.mark.parametrize("more", [(), PRIVATE])
def test_kept_image_is_refused_when_the_policy_says_no(imagers, image, more):
    pulled(imagers, image, *more)
    shutil.rmtree(imagers.here / "bundle")
    image.policy.write_text(json.dumps({"default": [{"type": "reject"}]}))
    assert imagers(*image.pull(*more)).code == 21
    assert not (imagers.here / "bundle").exists()


@pytest.mark.parametrize("more", [(), PRIVATE])
def test_kept_image_is_refused_when_the_broker_gives_no_key(imagers, image, more):
    pulled(imagers, image, *more)
    shutil.rmtree(imagers.here / "bundle")
    uri = imagers.succeed("broker", "list", *image.admin, "--json").json()["uris"][0]
    imagers.succeed("broker", "delete", uri, *image.admin)
    assert imagers(*image.pull(*more)).code in {30, 31}
    assert not (imagers.here / "bundle").exists()


def test_no_store_keeps_nothing(imagers, image):
    pulled(imagers, image, "--no-store")
    assert not imagers.store.exists()
    assert pulled(imagers, image, "--no-store")[0] == [False, False]


def test_image_of_a_local_place_is_not_kept(imagers, layout, accept):
    imagers.succeed("pull", f"oci:{layout}:v1", "bundle", "--policy", accept)
    assert imagers.succeed("store", "list", "--json").json()["entries"] == []


def test_blob_that_the_host_changed_is_downloaded_again(imagers, image):
    _, first = pulled(imagers, image)
    (name,) = [f"blob-{image.layers[1].replace(':', '-')}"]
    blob = imagers.store / name / "blob"
    data = bytearray(blob.read_bytes())
    data[50] ^= 1
    blob.write_bytes(data)
    verified = imagers("store", "verify", "--json")
    assert verified.code == 20
    assert json.loads(verified.stdout)["faults"] == {name: "its content is not what was sealed"}
    kept, second = pulled(imagers, image)
    assert kept == [True, False]
    assert second == first
    imagers.succeed("store", "verify")
    assert pulled(imagers, image)[0] == [True, True]


@pytest.mark.parametrize("fault", ["short", "missing", "fifo", "link", "other"])
def test_blob_that_is_none_any_more_is_downloaded_again(imagers, image, fault, tmp_path):
    _, first = pulled(imagers, image)
    blobs = [imagers.store / f"blob-{one.replace(':', '-')}" / "blob" for one in image.layers]
    data = blobs[1].read_bytes()
    blobs[1].unlink()
    match fault:
        case "short":
            blobs[1].write_bytes(data[:-1])
        case "fifo":
            os.mkfifo(blobs[1])
        case "link":
            (tmp_path / "moved").write_bytes(data)
            blobs[1].symlink_to(tmp_path / "moved")
        case "other":
            blobs[1].write_bytes(blobs[0].read_bytes())
    kept, second = pulled(imagers, image)
    assert kept[0]
    assert second == first


def test_tree_is_not_given_for_knowing_its_diff_id(imagers, image, images, accept):
    """Somebody else's plain image names the diff_ids of an encrypted one, and has no such layers.

    Without the check of what a layer was stored as, its bundle would hold the secret files.
    """
    pulled(imagers, image, *PRIVATE)
    config = json.loads(
        image.registry.read(json.loads(image.registry.read(image.digest))["config"]["digest"])
    )
    thief = images.build(
        images.tar(("x", b"")),
        images.tar(("y", b"")),
        change_config=lambda mine: mine.__setitem__("rootfs", config["rootfs"]),
    )
    result = imagers("pull", f"oci:{thief}:v1", "stolen", *PRIVATE, "--policy", accept)
    assert result.code == 20
    assert "diff_id" in result.error or "digest" in result.error
    assert not (imagers.here / "stolen").exists()


def test_list_says_what_is_there(imagers, image):
    pulled(imagers, image)
    listed = imagers.succeed("store", "list", "--json").json()
    assert listed["store"] == str(imagers.store)
    assert {one["name"] for one in listed["entries"]} == {
        f"blob-{digest.replace(':', '-')}" for digest in image.layers
    }
    for one in listed["entries"]:
        assert one["image"] == image.digest
        assert one["basis"] == "signature"
        assert not one["in_use"]
        assert one["fault"] is None
        assert len(one["signers"]) == 1
    text = imagers.succeed("store", "list").stdout
    assert "2 entries" in text
    assert image.digest[:19] in text


def test_what_is_removed_is_downloaded_again(imagers, image):
    pulled(imagers, image)
    name = f"blob-{image.layers[0].replace(':', '-')}"
    imagers.succeed("store", "remove", name)
    refused = imagers("store", "remove", name)
    assert refused.code == 13
    assert "expected the name of an entry or the path of a bundle" in refused.error
    assert pulled(imagers, image)[0] == [False, True]


def test_layer_that_another_needs_is_not_removed(imagers, image):
    pulled(imagers, image, *PRIVATE)
    entries = imagers.succeed("store", "list", "--json").json()["entries"]
    base = next(one["name"] for one in entries if not one["needs"])
    refused = imagers("store", "remove", base)
    assert refused.code == 13
    assert "is needed by plain-sha256-" in refused.error


def test_next_boot_knows_nothing_and_gc_removes_it(imagers, image):
    pulled(imagers, image)
    (imagers.runtime / "imagers" / "store.key").unlink()
    assert pulled(imagers, image)[0] == [False, False]
    (imagers.runtime / "imagers" / "store.key").unlink()
    removed = imagers.succeed("store", "gc", "--json").json()["removed"]
    assert len(removed) == 2
    assert all("was not written under this store's key" in one["why"] for one in removed)
    assert imagers.succeed("store", "list", "--json").json()["entries"] == []


def test_key_of_ones_own_outlives_the_boot(imagers, image):
    (imagers.here / "key").write_bytes(os.urandom(32))
    pulled(imagers, image, "--store-key", "key")
    shutil.rmtree(imagers.runtime / "imagers", ignore_errors=True)
    assert pulled(imagers, image, "--store-key", "key")[0] == [True, True]


def test_key_of_the_store_can_be_a_brokers(imagers, image):
    (imagers.here / "key").write_bytes(os.urandom(32))
    uri = "kbs:///default/store/key"
    imagers.succeed("broker", "put", uri, "key", *image.admin)
    rules = [
        {"name": "store", "effect": "allow", "resource": "default/store/*", "image": "any"},
        {"name": "bound", "effect": "allow", "resource": "*/*/*", "image": "bound"},
    ]
    (imagers.here / "policy.json").write_text(json.dumps({"rules": rules}))
    imagers.succeed("broker", "policy", "set", "policy.json", *image.admin)
    kept, _ = pulled(imagers, image, "--store-key", uri)
    assert kept == [False, False]
    assert pulled(imagers, image, "--store-key", uri)[0] == [True, True]
    assert image.broker.handshakes == 2  # one a pull


def test_short_key_is_refused(imagers, image):
    (imagers.here / "key").write_bytes(b"short")
    result = imagers(*image.pull("--store-key", "key"))
    assert result.code == 11
    assert result.error == "--store-key: key: expected at least 32 bytes, got 5"


def test_size_limit_keeps_what_fits(imagers, image):
    kept, _ = pulled(imagers, image, "--store-size", "50K")
    assert kept == [False, False]
    # The second layer has 100,000 bytes that no compression makes smaller.
    assert pulled(imagers, image, "--store-size", "50K")[0] == [True, False]


def test_private_store_without_room_says_what_to_do(imagers, image):
    result = imagers(*image.pull(*PRIVATE, "--store-size", "50K"))
    assert result.code == 13
    assert "layer 2 of 2 takes " in result.error
    assert "--store-size" in result.stderr
    assert not (imagers.here / "bundle").exists()


def test_options_that_exclude_each_other_are_told(imagers):
    words = ("pull", "oci:x", "bundle")
    both = imagers(*words, "--no-store", "--store", "s")
    assert (both.code, both.error) == (2, "--store and --no-store exclude each other")
    alone = imagers(*words, "--snapshotter", "plain")
    assert alone.code == 2
    assert "--snapshotter is for --store-place private" in alone.error


def test_default_store_that_cannot_be_had_is_a_warning_and_a_named_one_an_error(imagers, image):
    (imagers.here / "file").write_bytes(b"")
    imagers.environment["IMAGERS_STORE"] = str(imagers.here / "file")
    result = imagers.succeed(*image.pull())
    assert "imagers: warning: nothing is kept of this image: " in result.stderr
    shutil.rmtree(imagers.here / "bundle")
    assert imagers(*image.pull("--store", "file")).code == 13


def test_failed_pull_keeps_no_layer_that_was_wrong(imagers, image):
    image.registry.corrupt_blob(image.layers[1])
    assert imagers(*image.pull()).code == 20
    names = [one["name"] for one in imagers.succeed("store", "list", "--json").json()["entries"]]
    assert names == [f"blob-{image.layers[0].replace(':', '-')}"]
    assert not [name for name in os.listdir(imagers.store) if name.startswith(".")]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts are for root")
@pytest.mark.parametrize("store", ["here", "sub/deep"])
def test_bundle_over_a_mounted_root_is_removed_with_what_it_wrote(imagers, image, store):
    """The store by a path that is relative to where the command is."""
    words = ("--store", store)
    kept, first = pulled(imagers, image, *words, "--store-place", "private")
    assert kept == [False, False]
    root = imagers.here / "bundle" / "rootfs"
    assert os.path.ismount(root)
    (root / "written").write_bytes(b"x")
    names = [one.name for one in (imagers.here / store).iterdir()]
    assert {name.partition("-")[0] for name in names} == {"overlay", "bundle"}
    refused = imagers("store", "remove", next(n for n in names if n[0] == "o"), *words)
    assert "is needed by" in refused.error
    imagers.succeed("store", "remove", "bundle", *words)
    assert not os.path.ismount(root)
    kept, second = pulled(imagers, image, *words, "--store-place", "private")
    assert kept == [True, True]
    assert second == first
    imagers.succeed("store", "remove", imagers.here / "bundle", *words)
