# SPDX-License-Identifier: Apache-2.0
"""Pulls through the library: what is asked, in which order, and what is left after a failure.

The source is in memory and fails where it is told to; everything else,
from the trust decision to the rename, is the real thing.
"""

import base64
import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from imagers import waiting
from imagers.core import AES256_GCM_HKDF_1MB, Budget, Cancellation, Limits
from imagers.core.left_out import Left
from imagers.encrypt.image import encrypt_image
from imagers.encrypt.schemes.broker import BrokerKeyUnwrapper, BrokerKeyWrapper
from imagers.errors import (
    Cancelled,
    CouldNotVerify,
    DigestMismatch,
    FormatError,
    ImagersError,
    IntegrityError,
    KeyRefused,
    LocalError,
    NoMatchingKey,
    NoSignature,
    PolicyDenied,
    RemoteError,
    TimedOut,
    Truncated,
    Unsupported,
)
from imagers.model.descriptor import Descriptor, Platform
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.image import load_image
from imagers.model.keys import SecretKey
from imagers.model.manifest import parse_manifest
from imagers.model.media import (
    OCI_MANIFEST,
    Compression,
)
from imagers.model.reference import parse_reference
from imagers.model.time_limits import TimeLimits
from imagers.pull.named import NamedImage, open_image
from imagers.pull.run import PullOptions, pull_image, trust_image
from imagers.pull.trace import Trace
from imagers.pull.trust import Basis
from imagers.sign.formats.sigstore import sign_payload
from imagers.sign.found import CouldNotLook, Found
from imagers.sign.payload import build_payload
from imagers.sign.policy_json import parse_policy
from imagers.sign.sigstore_key import generate_private_key
from imagers.store import Store as KeptLayers
from imagers.testing import (
    Lie,
    MemoryRepository,
    TarEntry,
    make_image,
    make_index,
    make_layer,
    make_tar,
)
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink, open_source

AMD64 = Platform("linux", "amd64")
NAME = "registry.example.org/team/app:v1"
KID = "kbs:///default/app/key"
KEK = bytes(range(32))


class Store:
    """A `ResourceStore` with one secret, which says how often it was asked and for what."""

    def __init__(self, error=None):
        self.calls = []
        self.error = error

    def get(self, uri, *, manifest_digest):
        self.calls.append((uri, manifest_digest))
        if self.error is not None:
            raise self.error
        return SecretKey(KEK)

    def get_all(self, uris, *, manifest_digest):
        self.calls.append((tuple(uris), manifest_digest))
        if self.error is not None:
            raise self.error
        return {uri: SecretKey(KEK) for uri in uris}


def plain_image(*tars, **config):
    """A source with an image of gzip layers; `config` are members of the config's config."""
    return MemoryRepository(make_image(*tars, config={"config": {"Cmd": ["/bin/true"], **config}}))


def encrypted_image(*tars):
    """A source with an image whose layers' keys are wrapped under KEK, in the broker as KID."""
    plain = plain_image(*tars)
    image = load_image(parse_manifest(plain.top.raw), plain)
    source = MemoryRepository()
    with SecretKey(KEK) as kek:
        encrypt_image(image, source, [BrokerKeyWrapper(kek, KID)])
    source.asked.clear()
    return source


@pytest.fixture(scope="module")
def key():
    return generate_private_key()


@pytest.fixture
def source():
    """An encrypted image of two layers; the second is some hundred kilobytes."""
    return encrypted_image(make_tar(("a", b"1")), make_tar(("b", os.urandom(300_000))))


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "bundle"


def named(source, find, *, name=NAME, pinned=False):
    """The image of a source, whose signatures are what `find` gives for a digest."""
    if pinned:
        name = f"{NAME.removesuffix(':v1')}@{digest_of(source.top.raw)}"
    identity = docker_identity(parse_reference(name))
    return NamedImage(identity, source, lambda digest, _: find(digest))


def trusted_by_digest(source):
    """The identity of a name with the digest of what the source has."""
    name = f"{NAME.removesuffix(':v1')}@{digest_of(source.top.raw)}"
    return docker_identity(parse_reference(name))


def options_for(*requirements, **more):
    policy = parse_policy(json.dumps({"default": list(requirements)}).encode())
    return PullOptions(policy, AMD64, **more)


ACCEPT = {"type": "insecureAcceptAnything"}


def signed_by(key):
    pem = base64.b64encode(key.public_key.to_pem()).decode()
    return {"type": "sigstoreSigned", "keyData": pem}


def signed_options(key, **more):
    return options_for(signed_by(key), **more)


def signatures_by(key, identity=NAME):
    def find(digest):
        return Found.everywhere([sign_payload(build_payload(identity, digest, timestamp=0), key)])

    return find


def no_signatures(digest):
    raise AssertionError(f"the policy asks for no signature, and one of {digest} was looked for")


def nothing_is_left(bundle):
    return not os.listdir(bundle.parent)


# ---- the good case ----------------------------------------------------------------------------


def test_pull_signed_image_asks_in_the_order_of_trust(source, bundle, key):
    store = Store()
    seen = []

    def find(digest):
        source.asked.append("signatures")
        return signatures_by(key)(digest)

    report = pull_image(
        named(source, find),
        bundle,
        signed_options(key),
        resources=store,
        on_trusted=lambda _: (source.asked.append("trusted"), seen.append(store.calls[:])),
    )
    assert source.asked == [
        "manifest",
        "signatures",
        "config",
        "trusted",
        "layer 1 of 2",
        "layer 2 of 2",
    ]
    assert seen == [[]]  # no key was asked for before the image was trusted
    assert store.calls == [(KID, digest_of(source.top.raw))]  # and then once for both layers
    assert report.trusted.basis is Basis.SIGNATURE
    assert [layer.opened.entries for layer in report.layers] == [1, 1]
    assert source.left_open == []
    assert sorted(os.listdir(bundle)) == ["config.json", "rootfs"]
    assert (bundle / "rootfs/a").read_bytes() == b"1"
    assert os.listdir(bundle.parent) == ["bundle"]


def test_pull_with_the_real_broker_shakes_hands_once(source, bundle, imagers_broker):
    digest = digest_of(source.top.raw)
    imagers_broker.put(KID, KEK, image=digest)
    with imagers_broker.client() as client:
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT),
            resources=client,
        )
    assert (imagers_broker.handshakes, imagers_broker.releases) == (1, 1)
    assert (bundle / "rootfs/b").stat().st_size == 300_000


def test_pulls_at_the_same_time_share_one_attestation_and_one_store(tmp_path, imagers_broker):
    sources = [
        encrypted_image(make_tar(("a", b"1")), make_tar(("b", os.urandom(300_000))))
        for _ in range(4)
    ]
    imagers_broker.put(KID, KEK)
    for source in sources:
        imagers_broker.admin.bind_manifest(KID, digest_of(source.top.raw))
    (tmp_path / "bundles").mkdir()
    begin = threading.Barrier(len(sources))
    with (
        imagers_broker.client() as client,
        SecretKey(b"k" * 32) as key,
        KeptLayers(tmp_path / "store", key) as kept,
        ThreadPoolExecutor(len(sources)) as threads,
    ):

        def pull(number):
            begin.wait()
            return pull_image(
                named(sources[number], no_signatures, pinned=True),
                tmp_path / "bundles" / str(number),
                options_for(ACCEPT, store=kept, budget=Budget(memory_bytes=32 * 2**20)),
                resources=client,
            )

        reports = list(threads.map(pull, range(len(sources))))
        assert len(kept.entries()) == 2 * len(sources)
    assert len(reports) == len(sources)
    assert imagers_broker.handshakes == 1
    for number in range(len(sources)):
        assert (tmp_path / f"bundles/{number}/rootfs/b").stat().st_size == 300_000


def test_same_image_pulled_by_many_at_once_is_right_each_time(source, tmp_path):
    (tmp_path / "bundles").mkdir()
    begin = threading.Barrier(6)
    with (
        SecretKey(b"k" * 32) as key,
        KeptLayers(tmp_path / "store", key) as kept,
        ThreadPoolExecutor(6) as threads,
    ):

        def pull(number):
            begin.wait()
            bundle = tmp_path / "bundles" / str(number)
            options = options_for(ACCEPT, store=kept)
            image = named(source, no_signatures, pinned=True)
            return pull_image(image, bundle, options, resources=Store())

        list(threads.map(pull, range(6)))
        assert len(kept.entries()) == 2
        assert [kept.verify(one.name) for one in kept.entries()] == ["", ""]
    for number in range(6):
        assert (tmp_path / f"bundles/{number}/rootfs/b").stat().st_size == 300_000
    assert not [name for name in os.listdir(tmp_path / "store") if name.startswith(".")]


def test_pull_plain_image_asks_the_broker_nothing(bundle):
    source, store = plain_image(make_tar(("a", b"1"))), Store()
    pull_image(named(source, no_signatures), bundle, options_for(ACCEPT), resources=store)
    assert store.calls == []


def test_pull_unsigned_image_that_a_key_opens_is_nothing_to_a_broker(source, bundle):
    class Key:
        description = "a key of ours"

        def unwrap(self, wrapped, context):
            with BrokerKeyUnwrapper(Store()) as inner:
                return inner.unwrap(wrapped, context)

    store = Store()
    pull_image(
        named(source, no_signatures),
        bundle,
        options_for(ACCEPT),
        unwrappers=[Key()],
        resources=store,
    )
    assert store.calls == []
    assert (bundle / "rootfs/a").read_bytes() == b"1"


def test_pull_index_takes_the_platform_and_tells_the_broker_its_manifest(source, bundle):
    child = source.top
    entry = Descriptor(OCI_MANIFEST, child.digest, len(child.raw), platform=AMD64)
    make_index(entry).write(source)
    source.asked.clear()
    store = Store()
    report = pull_image(
        named(source, no_signatures, pinned=True),
        bundle,
        options_for(ACCEPT),
        resources=store,
    )
    assert store.calls == [(KID, child.digest)]
    assert report.trusted.top_digest == digest_of(source.top.raw)
    assert source.asked[:3] == ["manifest", f"manifest {child.digest}", "config"]


def test_pull_tells_progress_that_grows_to_the_size_of_each_layer(source, bundle):
    seen = {}

    def on_progress(news):
        assert news.done >= seen.get(news.what, 0)
        seen[news.what] = news.done

    report = pull_image(
        named(source, no_signatures, pinned=True),
        bundle,
        options_for(ACCEPT),
        resources=Store(),
        on_progress=on_progress,
    )
    assert seen == {layer.planned.layer.what: layer.opened.size for layer in report.layers}


def test_pull_says_what_it_does_before_there_are_layers(source, bundle):
    steps = []
    pull_image(
        named(source, no_signatures, pinned=True),
        bundle,
        options_for(ACCEPT),
        resources=Store(),
        on_step=steps.append,
    )
    assert steps == ["reads the manifest", "reads the config", "attests, asks for keys"]


# ---- no key for what is not trusted --------------------------------------------------------------


UNTRUSTED = {
    "no signature": (lambda _key: lambda _digest: Found.everywhere([]), NoSignature),
    "a signature of another image": (
        lambda key: lambda _digest: signatures_by(key)(digest_of(b"another")),
        ImagersError,
    ),
    "a signature for another name": (
        lambda key: signatures_by(key, "registry.example.org/team/other:v1"),
        ImagersError,
    ),
    "a signature by another key": (
        lambda _key: signatures_by(generate_private_key()),
        ImagersError,
    ),
    "signatures that nobody looked for": (
        lambda _key: lambda _digest: Found(),
        CouldNotVerify,
    ),
    "signatures that nobody could look for": (
        lambda _key: lambda _digest: Found(failures=(CouldNotLook(RemoteError("no answer")),)),
        CouldNotVerify,
    ),
}


@pytest.mark.parametrize("case", UNTRUSTED.values(), ids=UNTRUSTED)
def test_pull_untrusted_image_asks_for_no_key_and_no_layer(source, bundle, key, case):
    find, error = case
    store = Store()
    with pytest.raises(error) as caught:
        pull_image(
            named(source, find(key)),
            bundle,
            signed_options(key),
            resources=store,
        )
    assert caught.value.exit_code in (21, 22)
    assert store.calls == []
    assert source.asked == ["manifest"]
    assert nothing_is_left(bundle)


def test_pull_unsigned_image_that_is_accepted_gets_no_key_of_a_broker(source, bundle):
    store = Store()
    with pytest.raises(PolicyDenied, match="keys are not asked for"):
        pull_image(named(source, no_signatures), bundle, options_for(ACCEPT), resources=store)
    assert store.calls == []
    assert nothing_is_left(bundle)


def test_pull_image_with_a_plain_layer_where_encryption_is_demanded_denied(bundle):
    source = plain_image(make_tar(("a", b"1")))
    with pytest.raises(PolicyDenied, match="layer 1 of 1 is not encrypted"):
        pull_image(
            named(source, no_signatures),
            bundle,
            options_for(ACCEPT, require_encrypted=True),
        )
    assert "layer 1 of 1" not in source.asked
    assert nothing_is_left(bundle)


def test_trust_image_asks_for_no_layer(source, key):
    trusted = trust_image(named(source, signatures_by(key)), signed_options(key))
    assert trusted.basis is Basis.SIGNATURE
    assert source.asked == ["manifest", "config"]


# ---- failures at each stage ----------------------------------------------------------------------


class Bug(Exception):
    """An error that no part of imagers knows."""


FAULTS = {
    "the manifest": ("manifest", None),
    "the config": ("config", None),
    "the middle of the config": ("config", 10),
    "the first layer": ("layer 1 of 2", None),
    "the middle of the first layer": ("layer 1 of 2", 50),
    "the last layer": ("layer 2 of 2", None),
    "the middle of the last layer": ("layer 2 of 2", 100_000),
}


@pytest.mark.parametrize("error", [RemoteError("gone"), KeyboardInterrupt(), Bug()], ids=repr)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_pull_that_fails_at_this_stage_leaves_nothing(source, bundle, fault, error):
    what, after = fault
    source.lies[what] = Lie(error=error, after=after)
    with pytest.raises(type(error)):
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT),
            resources=Store(),
        )
    assert nothing_is_left(bundle)
    assert source.left_open == []
    # The same pull succeeds when the fault is gone.
    source.lies.clear()
    pull_image(
        named(source, no_signatures, pinned=True),
        bundle,
        options_for(ACCEPT),
        resources=Store(),
    )
    assert os.listdir(bundle.parent) == ["bundle"]


@pytest.mark.parametrize("hook", ["on_trusted", "on_step", "on_progress"])
def test_pull_whose_caller_fails_leaves_nothing(source, bundle, hook):
    def fail(*_):
        raise Bug

    with pytest.raises(Bug):
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT),
            resources=Store(),
            **{hook: fail},
        )
    assert nothing_is_left(bundle)


def test_pull_whose_keys_are_refused_asks_for_no_layer(source, bundle):
    store = Store(KeyRefused("refused", reason="policy"))
    with pytest.raises(KeyRefused, match="refused: 'policy'"):
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT),
            resources=store,
        )
    assert source.asked == ["manifest", "config"]
    assert len(store.calls) == 1
    assert nothing_is_left(bundle)


def test_pull_without_any_key_asks_for_no_layer(source, bundle):
    with pytest.raises(NoMatchingKey, match="layer 1 of 2"):
        pull_image(named(source, no_signatures, pinned=True), bundle, options_for(ACCEPT))
    assert source.asked == ["manifest", "config"]
    assert nothing_is_left(bundle)


def test_pull_layer_with_other_bytes_leaves_nothing(source, bundle):
    layer = parse_manifest(source.top.raw, media_type=OCI_MANIFEST).layers[1]
    data = bytearray(source.blobs[layer.digest])
    data[1000] ^= 1
    source.blobs[layer.digest] = bytes(data)
    with pytest.raises(DigestMismatch, match="layer 2 of 2") as caught:
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT),
            resources=Store(),
        )
    assert caught.value.expected == layer.digest
    assert nothing_is_left(bundle)


def test_pull_layer_that_ends_early_leaves_nothing(source, bundle):
    layer = parse_manifest(source.top.raw, media_type=OCI_MANIFEST).layers[1]
    source.blobs[layer.digest] = source.blobs[layer.digest][:-1]
    with pytest.raises(Truncated, match="layer 2 of 2") as caught:
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT),
            resources=Store(),
        )
    assert (caught.value.expected, caught.value.actual) == (layer.size, layer.size - 1)
    assert nothing_is_left(bundle)


# ---- checked first, opened then -----------------------------------------------------------------


PIECE = 256 * 1024
BIG = os.urandom(3 * PIECE)


def kept_files():
    """Links to the files in which layers are kept."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            if "/layer-" in (name := os.readlink(link)) and name.endswith("(deleted)"):
                found.append(link)
    return found


def kept_file():
    """A descriptor of the only one, with which it can be changed."""
    (found,) = kept_files()
    return os.open(found, os.O_RDWR)


def flip(at):
    def change(fd):
        os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 1]), at)

    return change


def swap_pieces(fd):
    first, second = os.pread(fd, PIECE, 0), os.pread(fd, PIECE, PIECE)
    os.pwrite(fd, second + first, 0)


def overwrite(fd):
    os.pwrite(fd, os.urandom(os.fstat(fd).st_size), 0)


CHANGES = {
    "first byte": (flip(0), 0),
    "last byte of the first piece": (flip(PIECE - 1), 0),
    "second piece": (flip(PIECE), PIECE),
    "last piece": (flip(3 * PIECE), 3 * PIECE),
    "swapped": (swap_pieces, 0),
    "overwritten": (overwrite, 0),
    "cut": (lambda fd: os.ftruncate(fd, 2 * PIECE), 2 * PIECE),
    "emptied": (lambda fd: os.ftruncate(fd, 0), 0),
    "prolonged": (lambda fd: os.pwrite(fd, b"x", os.fstat(fd).st_size), None),
}


def after_the_check(size, action):
    """Progress that does something between the two passes over a layer, once."""
    done = []

    def on_progress(news):
        if news.done == size // 2 and not done:
            done.append(action())

    return on_progress


def layers_of(source):
    return parse_manifest(source.top.raw, media_type=OCI_MANIFEST).layers


@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "plain"])
@pytest.mark.parametrize(("change", "start"), CHANGES.values(), ids=CHANGES)
def test_pull_layer_that_changes_after_its_check_leaves_nothing(bundle, change, start, encrypted):
    tar = make_tar(("big", BIG))
    source = encrypted_image(tar) if encrypted else plain_image(tar)
    (layer,) = layers_of(source)
    where = layer.size if start is None else start

    def act():
        fd = kept_file()
        try:
            change(fd)
        finally:
            os.close(fd)

    with pytest.raises(
        IntegrityError, match=f"layer 1 of 1: expected the bytes .* others from byte {where} on"
    ):
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT),
            resources=Store(),
            on_progress=after_the_check(layer.size, act),
        )
    assert nothing_is_left(bundle)


@pytest.mark.parametrize("at", [0, 2 * PIECE + 1])
def test_pull_from_a_local_layout_that_changes_after_the_check_leaves_nothing(bundle, tmp_path, at):
    memory = encrypted_image(make_tar(("big", BIG)))
    (layer,) = layers_of(memory)
    layout = f"oci:{tmp_path}/layout"
    with open_sink(parse_image_name(layout)) as sink:
        copy_image(memory, sink)
    blob = tmp_path / "layout" / "blobs" / "sha256" / layer.digest.hex
    assert blob.read_bytes() == memory.blobs[layer.digest]

    def act():
        fd = os.open(blob, os.O_RDWR)
        flip(at)(fd)
        os.close(fd)

    with (
        open_source(parse_image_name(layout)) as source,
        pytest.raises(IntegrityError, match=f"others from byte {at - at % PIECE} on"),
    ):
        pull_image(
            NamedImage(trusted_by_digest(memory), source, lambda *_: no_signatures("")),
            bundle,
            options_for(ACCEPT),
            resources=Store(),
            on_progress=after_the_check(layer.size, act),
        )
    assert nothing_is_left(bundle)


@pytest.mark.parametrize("stream", [False, True], ids=["checked", "streamed"])
def test_pull_goes_on_where_a_registry_broke_off(bundle, stream):
    memory = encrypted_image(make_tar(("a", b"1")), make_tar(("big", BIG)))
    layer = layers_of(memory)[1]
    with EmbeddedRegistry() as registry:
        name = f"docker://{registry.address}/team/app:v1"
        with open_sink(parse_image_name(name)) as sink:
            copy_image(memory, sink)
        path = f"/blobs/{layer.digest}"
        registry.break_off(path=path, after=300_000)
        with open_source(parse_image_name(name)) as source:
            pull_image(
                NamedImage(trusted_by_digest(memory), source, lambda *_: no_signatures("")),
                bundle,
                options_for(ACCEPT, stream=stream),
                resources=Store(),
            )
        asked = [one.status for one in registry.requests if path in one.path]
    assert asked[-2:] == [200, 206]
    assert (bundle / "rootfs" / "big").read_bytes() == BIG


def works_of(trace):
    """The layers by the work that was done on them."""
    works = {}
    for span in trace.spans:
        works.setdefault(span.name, []).append(span.layer)
    return works


@pytest.mark.parametrize(
    ("stream", "works"),
    [
        (False, {"download and check": [0, 1], "open": [0, 1]}),
        (True, {"download and open": [0, 1]}),
    ],
    ids=["checked", "streamed"],
)
def test_trace_has_each_work_of_a_pull(source, bundle, stream, works):
    trace = Trace()
    pull_image(
        named(source, no_signatures, pinned=True),
        bundle,
        options_for(ACCEPT, stream=stream, budget=Budget(jobs=1)),
        resources=Store(),
        trace=trace,
    )
    once = ("manifest", "policy", "config", "keys", "working directory", "sync", "publish")
    # No signatures: the policy asks for none.
    assert works_of(trace) == works | {"request": [0, 1]} | {name: [None] for name in once}
    assert trace.key_names == (KID,)
    assert trace.trusted is not None
    assert trace.explanation.decision is not None


def test_trace_does_not_change_what_is_asked(source, bundle):
    pull_image(
        named(source, no_signatures, pinned=True),
        bundle,
        options_for(ACCEPT),
        resources=Store(),
        trace=Trace(),
    )
    assert source.asked == ["manifest", "config", "layer 1 of 2", "layer 2 of 2"]


def test_trace_of_a_refusal_says_how_far_it_came(source, bundle, key):
    trace = Trace()
    image = named(source, lambda _: Found.everywhere([]))
    with pytest.raises(NoSignature):
        pull_image(image, bundle, signed_options(key), trace=trace)
    assert list(works_of(trace)) == ["manifest", "signatures", "policy"]
    assert trace.explanation is not None
    assert trace.explanation.decision is None
    assert (trace.trusted, trace.key_names) == (None, ())


@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "plain"])
@pytest.mark.parametrize("stream", [False, True], ids=["checked", "streamed"])
def test_pull_unpacks_nothing_of_a_layer_before_all_of_it_was_checked(bundle, stream, encrypted):
    """With `stream` the tree grows while the layer comes: what the test looks at is there."""
    tar = make_tar(("early", b"1"), ("big", BIG))
    source = encrypted_image(tar) if encrypted else plain_image(tar)
    (layer,) = layers_of(source)
    seen = []

    class Slow:
        """Its last byte comes when somebody has looked into the staging place."""

        def __init__(self, inner):
            self.inner = inner
            self.left = layer.size

        def readinto(self, buffer):
            if self.left == 1:
                (place,) = bundle.parent.iterdir()
                early = place / "rootfs" / "early"
                deadline = time.monotonic() + 60
                while stream and not early.exists() and time.monotonic() < deadline:
                    os.sched_yield()
                seen.append(early.exists())
            count = self.inner.readinto(buffer[: max(1, self.left - 1)])
            self.left -= count
            return count

        def close(self):
            self.inner.close()

    open_raw_blob = source.open_raw_blob
    source.open_raw_blob = lambda *args, **more: Slow(open_raw_blob(*args, **more))
    pull_image(
        named(source, no_signatures, pinned=True),
        bundle,
        options_for(ACCEPT, stream=stream),
        resources=Store(),
    )
    assert seen[0] is stream
    assert (bundle / "rootfs" / "big").read_bytes() == BIG


@pytest.mark.parametrize(("stream", "error"), [(False, DigestMismatch), (True, Unsupported)])
def test_pull_layer_with_other_bytes_is_not_looked_at(bundle, stream, error):
    """Not even its compression: bzip2 is refused only where bytes are looked at as they come."""
    source = plain_image(make_tar(("a", b"1")))
    (layer,) = layers_of(source)
    source.blobs[layer.digest] = b"BZh91AY&SY".ljust(layer.size, b"x")
    with pytest.raises(error):
        pull_image(
            named(source, no_signatures, pinned=True), bundle, options_for(ACCEPT, stream=stream)
        )
    assert nothing_is_left(bundle)


def test_pull_layer_whose_compression_changes_after_its_check_is_still_told_by_what_was_checked(
    bundle,
):
    """What undoes the compression is not asked of the file again."""
    source = plain_image(make_tar(("a", b"1")))
    (layer,) = layers_of(source)

    def act():
        fd = kept_file()
        os.pwrite(fd, b"BZh91AY&SY", 0)
        os.close(fd)

    with pytest.raises(IntegrityError, match="others from byte 0 on"):
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT),
            on_progress=after_the_check(layer.size, act),
        )
    assert nothing_is_left(bundle)


def test_pull_layer_whose_tags_are_its_own_needs_no_check_before(bundle):
    """Each segment is authenticated before it is decompressed: nothing of it is kept."""
    plain = plain_image(make_tar(("early", b"1"), ("big", BIG)))
    image = load_image(parse_manifest(plain.top.raw), plain)
    source = MemoryRepository()
    with SecretKey(KEK) as kek:
        encrypt_image(image, source, [BrokerKeyWrapper(kek, KID)], cipher=AES256_GCM_HKDF_1MB)
    kept = []

    def on_progress(_news):
        kept.extend(kept_files())

    pull_image(
        named(source, no_signatures, pinned=True),
        bundle,
        options_for(ACCEPT),
        resources=Store(),
        on_progress=on_progress,
    )
    assert kept == []
    assert (bundle / "rootfs" / "big").read_bytes() == BIG


def test_pull_streamed_gives_the_same_tree_and_report(bundle):
    tars = [make_tar(("a", b"1")), make_tar(("b", BIG))]
    source = encrypted_image(*tars)
    reports = [
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle.with_name(f"bundle-{stream}"),
            options_for(ACCEPT, stream=stream),
            resources=Store(),
        )
        for stream in (False, True)
    ]
    opened = [[layer.opened for layer in report.layers] for report in reports]
    assert opened[0] == opened[1]
    for stream in (False, True):
        root = bundle.with_name(f"bundle-{stream}") / "rootfs"
        assert (root / "b").read_bytes() == BIG


def test_pull_beyond_the_limits_of_a_layer_leaves_nothing(source, bundle):
    with pytest.raises(ImagersError, match="layer 2 of 2"):
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT, limits=Limits(max_tar_bytes=100_000)),
            resources=Store(),
        )
    assert nothing_is_left(bundle)


@pytest.mark.parametrize("room", [0, -1])
def test_pull_holds_all_layers_together_to_the_bound_of_a_tar(source, bundle, room):
    both = 2_048 + 301_568  # tars of the two layers
    limits = Limits(max_tar_bytes=both + room)

    def pull():
        options = options_for(ACCEPT, limits=limits)
        pull_image(named(source, no_signatures, pinned=True), bundle, options, resources=Store())

    if room == 0:
        pull()
        return
    with pytest.raises(Unsupported, match="layer 2 of 2: has a tar above the limit of 301567"):
        pull()
    assert nothing_is_left(bundle)


def bombs(count):
    """An image of layers that are each a thousand times smaller than what comes out of them."""
    layers = []
    for number in range(count):
        tar = make_tar((f"z{number}", bytes(900_000)))
        stored = zstandard.ZstdCompressor(level=19).compress(tar)
        assert len(tar) > 1100 * len(stored)
        layers.append(make_layer(tar, Compression.ZSTD, stored=stored))
    return MemoryRepository(make_image(*layers))


def test_pull_what_is_free_of_the_ratio_is_free_once_for_an_image(bundle):
    """It was free for every layer: 512 of them could bring 512 GiB."""
    limits = Limits(free_tar_bytes=2_000_000)
    for count in (2, 3):
        source = bombs(count)
        options = options_for(ACCEPT, limits=limits)
        if count == 2:
            pull_image(named(source, no_signatures), bundle, options)
            shutil.rmtree(bundle)
            continue
        with pytest.raises(Unsupported, match="layer 3 of 3: has a tar above the limit of"):
            pull_image(named(source, no_signatures), bundle, options)
        assert nothing_is_left(bundle)


def test_pull_entries_of_all_layers_together_have_a_bound(source, bundle):
    with pytest.raises(Unsupported, match=r"layer 2 of 2.*entries|entries"):
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT, limits=Limits(max_entries=1)),
            resources=Store(),
        )
    assert nothing_is_left(bundle)


@pytest.mark.parametrize("before", [True, False], ids=["before the start", "in a layer"])
def test_pull_cancelled_leaves_nothing(source, bundle, before):
    cancellation = Cancellation()
    if before:
        cancellation.cancel()
    waiting = threading.Event()

    class Slow:
        """Gives one byte at a time, and has its reader cancelled after some."""

        def __init__(self, stream):
            self.stream, self.close, self.given = stream, stream.close, 0

        def readinto(self, buffer):
            if self.given == 100:
                cancellation.cancel()
            waiting.wait(0.001)
            self.given += 1
            return self.stream.readinto(buffer[:1])

    open_raw = source.open_raw_blob

    def open_slowly(descriptor, *, what):
        stream = open_raw(descriptor, what=what)
        return Slow(stream) if what == "layer 2 of 2" else stream

    source.open_raw_blob = open_slowly
    with pytest.raises(Cancelled):
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT),
            resources=Store(),
            cancellation=cancellation,
        )
    assert nothing_is_left(bundle)


def test_pull_to_a_taken_place_asks_nobody(source, bundle):
    bundle.mkdir()
    (bundle / "mine").touch()
    with pytest.raises(LocalError, match="expected nothing or an empty directory"):
        pull_image(named(source, no_signatures, pinned=True), bundle, options_for(ACCEPT))
    assert source.asked == []
    assert os.listdir(bundle) == ["mine"]


def test_pull_to_a_place_that_is_taken_meanwhile_leaves_it_alone(source, bundle):
    def take(_):
        bundle.mkdir()
        (bundle / "mine").touch()

    with pytest.raises(LocalError, match="expected nothing or an empty directory"):
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT),
            resources=Store(),
            on_trusted=lambda _: take(None),
        )
    assert os.listdir(bundle.parent) == ["bundle"]
    assert os.listdir(bundle) == ["mine"]


# ---- users and owners ---------------------------------------------------------------------------


PASSWD = b"root:x:0:0::/:/bin/sh\napp:x:1234:99::/:/bin/sh\n"


def pull_plain(source, bundle):
    pull_image(named(source, no_signatures), bundle, options_for(ACCEPT))
    return json.loads((bundle / "config.json").read_bytes())["process"]["user"]


def test_pull_user_is_looked_up_in_the_image(bundle):
    source = plain_image(make_tar(("etc/passwd", PASSWD)), User="app")
    assert pull_plain(source, bundle) == {"uid": 1234, "gid": 99}


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([("etc", "/etc")], id="etc is a link to the host's"),
        pytest.param([("etc", "../../../../../../etc")], id="etc is a link that goes up"),
        pytest.param([("etc/passwd", "/etc/passwd")], id="passwd is a link to the host's"),
        pytest.param([("etc/passwd", "../../../../../../etc/passwd")], id="passwd goes up"),
        pytest.param([("etc/passwd", "/proc/self/environ")], id="passwd is a link to proc"),
        pytest.param([("etc/passwd/x", b"")], id="passwd is a directory"),
        pytest.param([("etc", b"root")], id="etc is a file"),
    ],
)
def test_pull_reads_no_account_of_the_host(bundle, entries):
    source = plain_image(make_tar(*entries), User="daemon")
    with pytest.raises(FormatError, match="expected a user of the image") as caught:
        pull_plain(source, bundle)
    assert caught.value.where == "$.config.User"
    assert nothing_is_left(bundle)


@pytest.mark.parametrize(
    ("entries", "path", "made"),
    [
        ([], "/home/app", ["home", "home/app"]),
        ([("home/f", b"")], "/home/../home//app/.", ["home/app"]),
        ([("srv", "/data/x"), ("data/x/f", b"")], "/srv/app", ["data/x/app"]),
        ([("srv", "../../../../data")], "/srv/app", ["data", "data/app"]),
        ([("etc/f", b"")], "/etc", []),
        ([], "/", []),
    ],
    ids=["missing", "partly there", "behind a link", "a link that goes up", "there", "root"],
)
def test_pull_makes_the_working_directory_where_no_layer_has_it(bundle, entries, path, made):
    layer = make_tar(*entries)
    pull_image(
        named(plain_image(layer, WorkingDir=path), no_signatures),
        bundle,
        options_for(ACCEPT),
    )
    assert json.loads((bundle / "config.json").read_bytes())["process"]["cwd"] == path
    root = bundle / "rootfs"
    for name in made:
        status = (root / name).lstat()
        assert stat.S_ISDIR(status.st_mode)
        assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, 0)
        assert status.st_uid == os.geteuid()
    implied = {str(parent) for name, _ in entries for parent in Path(name).parents} - {"."}
    expected = implied | {name for name, _ in entries} | set(made)
    assert {str(one.relative_to(root)) for one in root.rglob("*")} == expected
    assert os.listdir(bundle.parent) == ["bundle"]


@pytest.mark.parametrize(
    ("entries", "path", "reason"),
    [
        ([("etc/passwd", b"")], "/etc/passwd/x", ": not a directory"),
        ([("app", b"")], "/app", ": not a directory"),
        ([("a", "b"), ("b", "a")], "/a/x", ": too many levels of symbolic links"),
        ([], "/" + "n" * 256, ": file name too long"),
        ([], "/n" * 2048, "expected a path of at most 4095 bytes"),
    ],
    ids=["below a file", "a file", "a loop", "a long part", "a long path"],
)
def test_pull_whose_working_directory_cannot_be_is_refused(bundle, entries, path, reason):
    source = plain_image(make_tar(*entries), WorkingDir=path)
    with pytest.raises(FormatError) as caught:
        pull_image(named(source, no_signatures), bundle, options_for(ACCEPT))
    assert caught.value.where == "$.config.WorkingDir"
    assert str(caught.value).endswith(reason)
    assert nothing_is_left(bundle)


def labelled(*names):
    records = {"SCHILY.xattr.security.selinux": "x", "SCHILY.acl.access": "y"}
    return make_tar(*(TarEntry.file(name, pax_headers=records) for name in names))


def test_pull_report_has_what_was_left_out_of_all_layers(bundle):
    report = pull_image(
        named(plain_image(labelled("a"), make_tar(("f", b"")), labelled("b", "c")), no_signatures),
        bundle,
        options_for(ACCEPT),
    )
    assert [(one.kind, one.count, one.where) for one in report.left_out] == [
        (Left.LABEL, 3, "'security.selinux' of 'a'"),
        (Left.ACL, 3, "'SCHILY.acl.access' of 'a'"),
    ]


def test_pull_counts_the_holes_of_sparse_files_as_bytes_of_tars(bundle):
    """Whoever reads the tree reads them: 512 bytes of a tar may say 8 EiB."""
    records = {
        "GNU.sparse.map": "0,0",
        "GNU.sparse.numblocks": "1",
        "GNU.sparse.size": "600000",
    }
    tar = make_tar(TarEntry.file("hole", pax_headers=records))
    image = plain_image(tar, tar)
    small = Limits(max_tar_bytes=1_000_000)
    with pytest.raises(Unsupported, match="layer 2 of 2: has a tar above the limit of"):
        pull_image(named(image, no_signatures), bundle, options_for(ACCEPT, limits=small))
    assert nothing_is_left(bundle)


AS_SOMEBODY_ELSE = """
import ctypes, importlib, os, pathlib, pkgutil, sys
import imagers
for module in pkgutil.walk_packages(imagers.__path__, "imagers."):
    if module.name.startswith(("imagers.core", "imagers.pull", "imagers.layout", "imagers.model")):
        importlib.import_module(module.name)
from imagers.model.descriptor import Platform
from imagers.pull.named import open_image
from imagers.pull.run import PullOptions, pull_image
from imagers.sign.policy_json import parse_policy
image = open_image("oci:image:v1")
image.signatures(image.requirements(parse_policy(b'{"default":[{"type":"reject"}]}')))
os.setgroups([])
os.setgid(65533)
os.setuid(65534)
policy = parse_policy(b'{"default":[{"type":"insecureAcceptAnything"}]}')
report = pull_image(
    image, pathlib.Path("bundle").absolute(), PullOptions(policy, Platform("linux", "amd64"))
)
print(*[left.text for left in report.left_out])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_pull_by_an_ordinary_user_makes_everything_his():
    tar = make_tar(
        TarEntry.file("file", mode=0o4755),
        TarEntry.file("closed", mode=0o000, uid=7, gid=7),
        TarEntry.file("mine", uid=65534, gid=65534),
        TarEntry.other("console", tarfile.CHRTYPE, devmajor=5, devminor=1),
    )
    image = make_image(tar, config={"config": {"WorkingDir": "/home/app"}})
    # Not below pytest's own directory, which is closed to others.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        image.save(place / "image")
        os.chown(place, 65534, 65533)
        done = subprocess.run(
            [sys.executable, "-c", AS_SOMEBODY_ELSE],
            check=False,
            capture_output=True,
            text=True,
            cwd=place,
        )
        assert done.returncode == 0, done.stderr
        root = place / "bundle" / "rootfs"
        names = {str(path.relative_to(root)) for path in root.rglob("*")}
        assert names == {"file", "closed", "mine", "home", "home/app"}
        assert (
            done.stdout == "1 device node, 'console': only root can make them; a runtime "
            "mounts its own /dev\n"
        )
        for path in (place / "bundle", root, *root.rglob("*")):
            assert (path.lstat().st_uid, path.lstat().st_gid) == (65534, 65533)
        config = json.loads((place / "bundle" / "config.json").read_bytes())
        assert sorted(os.listdir(place)) == ["bundle", "image"]
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 65534, "size": 1}]
    assert config["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 65533, "size": 1}]


# ---- names -------------------------------------------------------------------------------------


class Measured:
    """A `Measure` that notes what there is at the bundle when it is asked; it can refuse."""

    def __init__(self, bundle, error=None):
        self.bundle, self.error = bundle, error
        self.events = []

    def record(self, operation, content):
        self.events.append((operation, content, self.bundle.exists()))
        if self.error is not None:
            raise self.error


def test_pull_is_measured_after_the_last_check_and_before_it_appears(source, bundle):
    measure = Measured(bundle)
    options = options_for(ACCEPT)
    image = named(source, lambda _: Found(), pinned=True)
    store = Store()
    report = pull_image(image, bundle, options, resources=store, measure=measure)
    manifest = report.trusted.manifest
    content = {
        "image": str(manifest.descriptor.digest),
        "top": str(report.trusted.top_digest),
        "config": str(manifest.config.digest),
        "policy": str(options.policy.digest),
        "keys": [KID],
    }
    assert measure.events == [("PullImage", content, False)]
    assert (bundle / "config.json").exists()


def test_pull_that_cannot_be_measured_leaves_no_bundle(source, bundle):
    error = LocalError("no register", path="/dev/tpmrm0")
    image = named(source, lambda _: Found(), pinned=True)
    with pytest.raises(LocalError, match="no register"):
        pull_image(
            image, bundle, options_for(ACCEPT), resources=Store(), measure=Measured(bundle, error)
        )
    assert list(bundle.parent.iterdir()) == []


@pytest.mark.parametrize("fault", ["key", "layer"])
def test_pull_that_fails_is_not_measured(source, bundle, fault):
    measure = Measured(bundle)
    image = named(source, lambda _: Found(), pinned=True)
    store = Store(KeyRefused("no", reason="policy") if fault == "key" else None)
    if fault == "layer":
        source.lies["layer 2 of 2"] = Lie(after=10)
    with pytest.raises(ImagersError):
        pull_image(image, bundle, options_for(ACCEPT), resources=store, measure=measure)
    assert measure.events == []


def test_image_without_keys_is_measured_with_none(bundle):
    measure = Measured(bundle)
    image = named(plain_image(make_tar(("a", b"1"))), lambda _: Found(), pinned=True)
    pull_image(image, bundle, options_for(ACCEPT), measure=measure)
    ((_, content, _),) = measure.events
    assert content["keys"] == []


# ---- time limits, and an end from elsewhere ------------------------------------------------------


@pytest.fixture
def served():
    """An image of two layers in a registry, and its name there."""
    with EmbeddedRegistry() as registry:
        name = parse_image_name(f"docker://{registry.address}/team/app:v1")
        image = plain_image(make_tar(("a", b"1")), make_tar(("b", os.urandom(300_000))))
        with open_sink(name) as sink:
            copy_image(image, sink)
        registry.requests.clear()
        yield registry, name, [one.digest for one in parse_manifest(image.top.raw).layers]


@pytest.fixture
def kept_layers(tmp_path):
    with SecretKey(b"k" * 32) as key, KeptLayers(tmp_path / "store", key) as kept:
        yield kept


WAITS = {
    "trust": lambda _: "/manifests/v1",
    "layers": lambda layers: f"/blobs/{layers[0]}",
    "layers ahead": lambda layers: f"/blobs/{layers[1]}",
}


@pytest.mark.parametrize("seconds", [0.5, None], ids=["a limit", "a cancellation"])
@pytest.mark.parametrize("where", WAITS)
def test_pull_in_a_thread_that_waits_ends_with_all_that_it_started(
    served, bundle, where, seconds, kept_layers
):
    registry, name, layers = served
    registry.hang(path=WAITS[where](layers), times=9)
    stop = Cancellation()
    phase = where.split()[0]
    options = options_for(ACCEPT, store=kept_layers, time_limits=TimeLimits(**{phase: seconds}))
    before = set(threading.enumerate())

    def run():
        with open_image(name) as image:
            pull_image(image, bundle, options, cancellation=stop)

    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(run)
        if seconds is None:
            time.sleep(0.5)  # wherever it is by then
            stop.cancel()
        with pytest.raises(Cancelled) as caught:
            pulling.result(20)
    assert isinstance(caught.value, TimedOut) is (seconds is not None)
    if seconds is not None:
        assert caught.value.waited_for == registry.address
        assert caught.value.phase == phase
    assert list(bundle.parent.iterdir()) == []
    left = [one for one in threading.enumerate() if one not in before and "download" in one.name]
    for one in left:
        one.join(20)
        assert not one.is_alive()


def test_pull_ends_with_what_its_caller_has_in_force(served, bundle):
    registry, name, _ = served
    registry.hang(path="/manifests/v1", times=9)
    outer = Cancellation(seconds=0.3, phase="pod")
    with pytest.raises(TimedOut) as caught, outer.in_force(), open_image(name) as image:
        pull_image(image, bundle, options_for(ACCEPT))
    assert (caught.value.phase, caught.value.in_all) == ("trust", True)


def test_trust_alone_has_its_limit(served):
    registry, name, _ = served
    registry.hang(path="/manifests/v1", times=9)
    with pytest.raises(TimedOut, match=r"^trust: not done within 0.3 s: "), open_image(name) as one:
        trust_image(one, options_for(ACCEPT, time_limits=TimeLimits(trust=0.3)))


@pytest.mark.parametrize("phase", ["total", "bundle"])
def test_limit_that_is_reached_before_the_rename_publishes_nothing(source, bundle, phase):
    class Slow:
        """What measures takes longer than there is time."""

        def record(self, operation, content):
            del operation, content
            while not waiting.in_force().is_cancelled:
                time.sleep(0.01)

    with pytest.raises(TimedOut, match=r"bundle: not done within 3 s.*: measures, still at work"):
        pull_image(
            named(source, no_signatures, pinned=True),
            bundle,
            options_for(ACCEPT, time_limits=TimeLimits(**{phase: 3})),
            resources=Store(),
            measure=Slow(),
        )
    assert list(bundle.parent.iterdir()) == []
