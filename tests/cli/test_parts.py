# SPDX-License-Identifier: Apache-2.0
"""A pull that ends in the middle of a layer, by commands: the next one asks for the rest alone."""

import json
import os
import re
import shutil
import signal
import time

import pytest

MIB = 1024 * 1024
SIZE = 16 * MIB
AFTER = SIZE * 9 // 10
IN_HAND = 3 * MIB  # of a download: what a process has in memory and not written yet
PATIENCE_S = 60


@pytest.fixture
def layout(images):
    return images.build(
        images.tar(("etc/hostname", b"guest\n")), images.tar(("large", os.urandom(SIZE)))
    )


@pytest.fixture
def image(layout, imagers, imagers_registry, accept):
    """Words of a pull, the registry, and the digest of the large layer."""
    reference = f"docker://{imagers_registry.address}/team/app:v1"
    imagers.succeed("copy", f"oci:{layout}:v1", reference, "--policy", accept)
    (digest,) = imagers_registry.tags("team/app").values()
    layers = json.loads(imagers_registry.read(digest))["layers"]
    words = ("pull", reference, "bundle", "--policy", accept)
    return words, imagers_registry, layers[1]["digest"]


def part_of(imagers, digest):
    return imagers.store / f"part-{digest.replace(':', '-')}" / "blob"


def size_of(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def ended(imagers, image, number, *more, after=AFTER):
    """A pull that gets this signal when a part of the large layer is there; its exit code."""
    words, registry, digest = image
    registry.hang(path=digest, method="GET", after=after)
    part = part_of(imagers, digest)
    with imagers.start(*words, *more) as process:
        deadline = time.monotonic() + PATIENCE_S
        while size_of(part) < after - IN_HAND or not [*imagers.store.glob("blob-*")]:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE_S)
    assert not (imagers.here / "bundle").exists()
    return process.returncode


def bytes_asked(registry, digest):
    """The bytes of the large layer that each request asked for."""
    size = len(registry.read(digest))
    asked = []
    for one in registry.requests:
        if one.method == "GET" and one.path.endswith(digest):
            first = re.fullmatch(r"bytes=(\d+)-", one.range)
            asked.append(size - int(first[1]) if first else size)
    return asked


def check_tree(imagers, layout):
    """The bundle has what the layout has."""
    (imagers.here / "accept.json").write_text(
        json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
    )
    words = ("--no-store", "--policy", "accept.json")
    imagers.succeed("pull", f"oci:{layout}:v1", "expected", *words)
    for name in ("etc/hostname", "large"):
        paths = [imagers.here / bundle / "rootfs" / name for bundle in ("bundle", "expected")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    assert os.listdir(imagers.here / "bundle/rootfs") == os.listdir(
        imagers.here / "expected/rootfs"
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_pull_after_one_that_was_ended_asks_for_the_rest(imagers, image, layout, number):
    words, registry, digest = image
    code = ended(imagers, image, number)
    if number == signal.SIGINT:
        assert code == 130
    there = part_of(imagers, digest).stat().st_size
    registry.requests.clear()
    facts = imagers.succeed(*words, "--json").json()
    assert [layer["resumed"] for layer in facts["layers"]] == [0, there]
    assert facts["layers"][0]["kept"]
    size = len(registry.read(digest))
    assert bytes_asked(registry, digest) == [size - there]
    assert size - there <= size - AFTER + IN_HAND
    assert {name.partition("-")[0] for name in os.listdir(imagers.store)} == {"blob"}
    check_tree(imagers, layout)
    imagers.succeed("store", "verify")


def test_rest_of_an_encrypted_layer_of_a_signed_image(imagers, publish, layout):
    published = publish(layout)
    image = published.pull(), published.registry, published.layers[1]
    ended(imagers, image, signal.SIGKILL)
    handshakes = published.broker.handshakes
    there = part_of(imagers, published.layers[1]).stat().st_size
    facts = imagers.succeed(*published.pull(), "--json").json()
    assert [layer["resumed"] for layer in facts["layers"]] == [0, there]
    assert facts["basis"] == "signature"
    assert published.broker.handshakes == handshakes + 1
    check_tree(imagers, layout)


@pytest.mark.parametrize("more", [("--stream",), ("--jobs", "1"), ("--ranges", "4")])
def test_pull_with_other_options_asks_for_the_rest(imagers, image, layout, more):
    words, registry, digest = image
    ended(imagers, image, signal.SIGKILL, *more)
    there = part_of(imagers, digest).stat().st_size
    registry.requests.clear()
    imagers.succeed(*words, *more)
    assert bytes_asked(registry, digest) == [len(registry.read(digest)) - there]
    check_tree(imagers, layout)


def test_part_that_the_host_changed_costs_one_download(imagers, image, layout):
    words, registry, digest = image
    ended(imagers, image, signal.SIGKILL)
    part = part_of(imagers, digest)
    there = part.stat().st_size
    with part.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    registry.requests.clear()
    result = imagers.succeed(*words, "-v")
    assert f"layer 2 of 2: {there} of " in result.stderr
    assert "it is downloaded anew" in result.stderr
    size = len(registry.read(digest))
    assert bytes_asked(registry, digest) == [size - there, size]
    check_tree(imagers, layout)


def test_no_store_leaves_no_part(imagers, image):
    words, registry, digest = image
    registry.hang(path=digest, method="GET", after=AFTER)
    seen = len(registry.requests)
    with imagers.start(*words, "--no-store") as process:
        deadline = time.monotonic() + PATIENCE_S
        while not any(one.path.endswith(digest) for one in registry.requests[seen:]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert not imagers.store.exists()


def test_words_of_the_store_know_parts(imagers, image):
    ended(imagers, image, signal.SIGKILL)
    part = part_of(imagers, image[2])
    listed = imagers.succeed("store", "list", "--json").json()["entries"]
    (found,) = [one for one in listed if one["name"] == part.parent.name]
    assert found["size"] == part.stat().st_size
    assert (found["fault"], found["image"], found["in_use"]) == (None, None, False)
    (line,) = [
        line for line in imagers.succeed("store", "list").stdout.splitlines() if "part-" in line
    ]
    assert line.split()[-1] == "part"
    assert imagers.succeed("store", "verify", "--json").json() == {"checked": 1, "faults": {}}
    assert imagers.succeed("store", "gc", "--json").json()["removed"] == []
    os.utime(part, (1, 1))
    removed = imagers.succeed("store", "gc", "--json").json()["removed"]
    assert [one["name"] for one in removed] == [part.parent.name]
    shutil.rmtree(imagers.store)
    ended(imagers, image, signal.SIGKILL)
    imagers.succeed("store", "remove", part.parent.name)
    assert not part.parent.exists()


def test_next_boot_goes_on_with_what_an_earlier_one_left(imagers, image):
    """The key of the seals is another one then, and a part has none."""
    words, _, digest = image
    ended(imagers, image, signal.SIGKILL)
    there = part_of(imagers, digest).stat().st_size
    (imagers.runtime / "imagers" / "store.key").unlink()
    facts = imagers.succeed(*words, "--json").json()
    assert [layer["resumed"] for layer in facts["layers"]] == [0, there]
    assert [layer["kept"] for layer in facts["layers"]] == [False, False]


def test_image_that_is_refused_now_gets_nothing_from_its_part(imagers, image):
    words, _, digest = image
    ended(imagers, image, signal.SIGKILL)
    policy = imagers.here / "reject.json"
    policy.write_text(json.dumps({"default": [{"type": "reject"}]}))
    before = part_of(imagers, digest).read_bytes()
    words = [policy if str(word).endswith(".json") else word for word in words]
    assert imagers(*words).code == 21
    assert part_of(imagers, digest).read_bytes() == before
