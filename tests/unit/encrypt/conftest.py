# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from imagers.encrypt.keyfiles import load_private_key, load_public_key
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.image import load_image
from imagers.model.manifest import parse_manifest

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"


@pytest.fixture(scope="session")
def vector_keys():
    return json.loads((VECTORS / "manifest.json").read_text())["keys"]


@pytest.fixture(scope="session")
def public_key():
    """A public key of the vectors by its file's name."""
    return lambda name: load_public_key(str(VECTORS / "keys" / name))


@pytest.fixture(scope="session")
def private_key():
    """A private key of the vectors by its file's name."""
    return lambda name: load_private_key(str(VECTORS / "keys" / name))


def load(path, ref="v1"):
    source = OCILayoutSource(path, ref, name=f"oci:{path}")
    raw = source.read_manifest()
    return load_image(parse_manifest(raw.raw, media_type=raw.media_type), source)


@pytest.fixture(scope="session")
def load_layout():
    """The image of an OCI layout."""
    return load


@pytest.fixture(scope="session")
def plain_image():
    """One of the plain images of the vectors: gzip, mixed, raw, tiny or zstd."""
    return lambda name: load(VECTORS / "plain" / name)


@pytest.fixture
def changed_image(tmp_path):
    """A plain image of the vectors with its manifest changed by a function."""

    def change_image(name, change):
        layout = tmp_path / f"changed-{name}"
        shutil.copytree(VECTORS / "plain" / name, layout)
        index = json.loads((layout / "index.json").read_text())
        (entry,) = index["manifests"]
        document = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_text())
        document = change(document) or document
        raw = json.dumps(document, indent=3).encode()
        digest = hashlib.sha256(raw).hexdigest()
        (layout / "blobs" / "sha256" / digest).write_bytes(raw)
        entry |= {"digest": f"sha256:{digest}", "size": len(raw)}
        entry["mediaType"] = document.get("mediaType", entry["mediaType"])
        (layout / "index.json").write_text(json.dumps(index))
        return load(layout)

    return change_image


@pytest.fixture
def new_sink(tmp_path):
    """A sink for an image, closed at the end; `path` of it for looking at what was written."""
    sinks = []

    def make(name="out"):
        sink = OCILayoutSink(tmp_path / name, "v1", name=f"oci:{name}")
        sinks.append(sink)
        return sink, tmp_path / name

    yield make
    for sink in sinks:
        sink.close()
