# SPDX-License-Identifier: Apache-2.0
"""Manifests, indexes and configs: real ones parse, ambiguous ones are refused with their place."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import (
    FormatError,
    NotFound,
    SizeMismatch,
    Unsupported,
    VerificationError,
)
from imagers.model.descriptor import Descriptor, Platform
from imagers.model.digest import digest_of
from imagers.model.manifest import (
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    Index,
    Manifest,
    check_config_size,
    check_layer_count,
    check_platform,
    parse_config,
    parse_index,
    parse_manifest,
    parse_manifest_or_index,
)
from imagers.model.media import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Compression,
    compressed_media_type,
    compression_of,
    encrypted_media_type,
    is_encrypted,
    plaintext_media_type,
)

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"
DIGEST = "sha256:" + "a" * 64


def descriptor(media_type=OCI_LAYER_GZIP, **members):
    return {"mediaType": media_type, "digest": DIGEST, "size": 12, **members}


MANIFEST = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": descriptor(OCI_CONFIG),
    "layers": [descriptor(), descriptor(OCI_LAYER)],
}
INDEX = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [
        descriptor(OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}),
        descriptor(
            OCI_MANIFEST, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}
        ),
        descriptor(OCI_MANIFEST),
    ],
}
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["A=b"]},
    "rootfs": {"type": "layers", "diff_ids": [DIGEST, "sha256:" + "b" * 64]},
}


def changed(document, **members):
    return {name: value for name, value in {**document, **members}.items() if value is not ...}


def encode(document):
    return json.dumps(document).encode()


# --- real documents


def documents():
    """Every JSON blob and every manifest file of the vectors."""
    for path in sorted(VECTORS.rglob("*")):
        relative = path.relative_to(VECTORS).parts
        if (
            path.is_file()
            and relative[0] in ("plain", "encrypted", "tampered", "signed", "tar")
            and path.stat().st_size <= MAX_CONFIG_BYTES
            and (path.name in ("manifest.json", "index.json") or "." not in path.name)
        ):
            with path.open("rb") as file:
                if file.read(1) == b"{":
                    yield path


def test_vectors_every_manifest_and_config_parses_or_is_refused_with_its_place():
    """The damage of the vectors is elsewhere: in blobs, keys and annotations."""
    kinds = {"manifest": 0, "index": 0, "config": 0, "other": 0}
    for path in documents():
        raw = path.read_bytes()
        try:
            document = json.loads(raw)
        except ValueError:
            continue  # ciphertext that begins with a brace
        if "schemaVersion" in document:
            parsed = parse_manifest_or_index(raw)
            assert parsed.raw is raw
            assert parsed.descriptor.digest == digest_of(raw)
            assert parsed.descriptor.size == len(raw)
            if isinstance(parsed, Manifest):
                kinds["manifest"] += 1
                assert [layer.to_json()["digest"] for layer in parsed.layers] == [
                    layer["digest"] for layer in document["layers"]
                ]
            else:
                kinds["index"] += 1
                assert len(parsed.manifests) == len(document["manifests"])
        elif "rootfs" in document:
            config = parse_config(raw)
            kinds["config"] += 1
            assert [str(one) for one in config.diff_ids] == document["rootfs"]["diff_ids"]
        else:
            kinds["other"] += 1
            with pytest.raises((FormatError, Unsupported)):
                parse_manifest_or_index(raw)
    assert kinds["manifest"] > 100
    assert kinds["index"] > 50
    assert kinds["config"] > 50


# --- manifests


def test_parse_manifest_keeps_the_raw_bytes_and_their_digest():
    raw = json.dumps(MANIFEST, indent=7).encode()
    manifest = parse_manifest(raw)
    assert manifest.raw is raw
    assert manifest.descriptor.digest == digest_of(raw)
    assert manifest.descriptor.size == len(raw)
    assert manifest.descriptor.media_type == OCI_MANIFEST
    assert [layer.media_type for layer in manifest.layers] == [OCI_LAYER_GZIP, OCI_LAYER]
    assert manifest.subject is None
    assert manifest.artifact_type is None
    assert manifest.annotations == {}


def test_parse_manifest_annotations_cannot_be_changed():
    manifest = parse_manifest(encode(changed(MANIFEST, annotations={"a": "b"})))
    with pytest.raises(TypeError):
        manifest.annotations["a"] = "c"


def test_parse_manifest_with_subject_gives_it():
    manifest = parse_manifest(
        encode(changed(MANIFEST, subject=descriptor(OCI_MANIFEST), artifactType="a/b"))
    )
    assert manifest.subject is not None
    assert manifest.subject.media_type == OCI_MANIFEST
    assert manifest.artifact_type == "a/b"


def test_parse_index_with_subject_gives_it():
    index = parse_index(
        encode(changed(INDEX, subject=descriptor(OCI_MANIFEST), artifactType="a/b"))
    )
    assert index.subject is not None
    assert (index.subject.media_type, index.artifact_type) == (OCI_MANIFEST, "a/b")
    without = parse_index(encode(INDEX))
    assert (without.subject, without.artifact_type) == (None, None)
    with pytest.raises(FormatError) as caught:
        parse_index(encode(changed(INDEX, subject={})))
    assert (caught.value.what, caught.value.where) == ("index", "$.subject.mediaType")


@pytest.mark.parametrize(
    ("inside", "told", "found"),
    [
        (..., "", OCI_MANIFEST),
        (..., OCI_MANIFEST, OCI_MANIFEST),
        (..., DOCKER_MANIFEST, DOCKER_MANIFEST),
        (OCI_MANIFEST, "", OCI_MANIFEST),
        (DOCKER_MANIFEST, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (DOCKER_MANIFEST, "application/octet-stream", DOCKER_MANIFEST),
        ("", DOCKER_MANIFEST, DOCKER_MANIFEST),
    ],
)
def test_parse_manifest_media_type_from_inside_or_beside(inside, told, found):
    raw = encode(changed(MANIFEST, mediaType=inside))
    assert parse_manifest(raw, media_type=told).descriptor.media_type == found
    both = parse_manifest_or_index(raw, media_type=told)
    assert both.descriptor.media_type == found


@pytest.mark.parametrize(
    ("inside", "told"),
    [
        (OCI_MANIFEST, DOCKER_MANIFEST),
        (DOCKER_MANIFEST, OCI_MANIFEST),
        (OCI_MANIFEST, OCI_INDEX),
        (OCI_INDEX, OCI_MANIFEST),
        ("a/b", OCI_MANIFEST),
    ],
)
@pytest.mark.parametrize("parse", [parse_manifest, parse_manifest_or_index])
def test_parse_manifest_media_types_that_disagree_refused_with_both(parse, inside, told):
    with pytest.raises(FormatError) as caught:
        parse(encode(changed(MANIFEST, mediaType=inside)), media_type=told)
    assert caught.value.where == "$.mediaType"
    assert str(caught.value).index(told) < str(caught.value).index(inside)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        pytest.param(changed(MANIFEST, mediaType=OCI_INDEX), "", id="says index inside"),
        pytest.param(changed(MANIFEST, mediaType="a/b"), "", id="says something else inside"),
        pytest.param(changed(MANIFEST, mediaType=...), OCI_INDEX, id="told index"),
        pytest.param(changed(MANIFEST, mediaType=...), "image/png", id="told something else"),
        pytest.param(changed(INDEX, mediaType=OCI_MANIFEST), "", id="index says manifest"),
        pytest.param(changed(INDEX, mediaType=...), OCI_MANIFEST, id="index told manifest"),
    ],
)
def test_parse_manifest_of_another_kind_than_its_type_unsupported(document, told):
    with pytest.raises(Unsupported, match="is not supported: expected one of application/vnd"):
        parse_manifest_or_index(encode(document), media_type=told)


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param({"manifests": []}, id="manifest with manifests"),
        pytest.param({"manifests": INDEX["manifests"], "layers": ...}, id="config and manifests"),
        pytest.param({"manifests": [], "config": ...}, id="layers and manifests"),
        pytest.param({"fsLayers": []}, id="manifest with fsLayers"),
        pytest.param({"history": []}, id="manifest with history"),
        pytest.param({"fsLayers": [], "config": ...}, id="layers and fsLayers"),
        pytest.param({"history": [], "config": ...}, id="layers and history"),
        pytest.param({"fsLayers": [], "layers": ...}, id="config and fsLayers"),
        pytest.param({"history": [], "layers": ...}, id="config and history"),
    ],
)
@pytest.mark.parametrize("parse", [parse_manifest, parse_index, parse_manifest_or_index])
def test_parse_document_of_two_kinds_refused(parse, extra):
    """CVE-2021-41190: one digest, two documents."""
    document = changed(MANIFEST, mediaType=..., **extra)
    with pytest.raises(FormatError, match="has both '") as caught:
        parse(encode(document))
    assert caught.value.where == "$"


@pytest.mark.parametrize("member", ["manifests", "fsLayers", "history"])
def test_parse_manifest_member_of_another_kind_that_is_null_is_not_there(member):
    """As for readers in Go: null is no second document."""
    raw = encode(changed(MANIFEST, **{member: None}))
    for parse in (parse_manifest, parse_manifest_or_index):
        manifest = parse(raw)
        assert (manifest.raw, len(manifest.layers)) == (raw, 2)
    with pytest.raises((FormatError, Unsupported)):
        parse_index(raw)


@pytest.mark.parametrize("version", [..., None, 0, 2])
@pytest.mark.parametrize("layers", [..., None, []])
def test_parse_manifest_without_layers_or_version_is_read_as_go_does(version, layers):
    raw = encode(changed(MANIFEST, schemaVersion=version, layers=layers, annotations={"a": None}))
    manifest = parse_manifest_or_index(raw)
    assert isinstance(manifest, Manifest)
    assert (manifest.raw, manifest.layers, manifest.annotations) == (raw, (), {"a": ""})


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"manifests": None}, ""),
        ({"manifests": None, "mediaType": ...}, ""),
        ({"manifests": None, "mediaType": ..., "schemaVersion": ...}, ""),
        ({"manifests": ...}, ""),
        ({"manifests": ..., "mediaType": ...}, OCI_INDEX),
        ({"manifests": [], "layers": None, "config": None}, ""),
    ],
)
def test_parse_index_without_entries_is_an_empty_one(members, told):
    raw = encode(changed(INDEX, **members))
    for parse in (parse_index, parse_manifest_or_index):
        index = parse(raw, media_type=told)
        assert isinstance(index, Index)
        assert (index.raw, index.manifests) == (raw, ())


@pytest.mark.parametrize("raw", [b"{}", b'{"schemaVersion":2}', b'{"errors":[]}'])
@pytest.mark.parametrize("told", ["", "application/json"])
def test_parse_index_of_what_does_not_say_that_it_is_one_refused(raw, told):
    """From an error in place of a list nobody may conclude that there are no signatures."""
    with pytest.raises(FormatError, match="manifests: is missing"):
        parse_index(raw, media_type=told)


@pytest.mark.parametrize(
    "platform", [{}, None, {"os": "linux"}, {"os": "", "architecture": "amd64"}, {"os": None}]
)
def test_parse_index_platform_that_names_not_both_is_none(platform):
    entries = [descriptor(OCI_MANIFEST, platform=platform)]
    index = parse_index(encode(changed(INDEX, manifests=entries)))
    assert index.manifests[0].platform is None


@pytest.mark.parametrize(
    "told", ["application/json", "text/plain", "text/html", "application/octet-stream"]
)
def test_parse_manifest_told_a_type_of_any_file_goes_by_its_members(told):
    for document, found in ((MANIFEST, OCI_MANIFEST), (INDEX, OCI_INDEX)):
        raw = encode(changed(document, mediaType=...))
        assert parse_manifest_or_index(raw, media_type=told).descriptor.media_type == found


@pytest.mark.parametrize("member", ["fsLayers", "history"])
def test_parse_index_with_members_of_schema_1_refused(member):
    with pytest.raises(FormatError, match=f"has both 'manifests' and '{member}'"):
        parse_manifest_or_index(encode(changed(INDEX, **{member: []})))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("Layers", []),
        ("LAYERS", []),
        ("Config", descriptor(OCI_CONFIG)),
        ("Manifests", []),
        ("mediatype", OCI_INDEX),
        ("layer\u017f", []),
    ],
)
def test_parse_manifest_second_spelling_of_a_member_refused(member, value):
    """Go's encoding/json takes either spelling, and the last one wins."""
    with pytest.raises(FormatError, match="got '") as caught:
        parse_manifest_or_index(encode(changed(MANIFEST, **{member: value})))
    assert caught.value.where == "$"


@pytest.mark.parametrize(
    ("members", "where", "piece"),
    [
        pytest.param({"schemaVersion": 3}, "$.schemaVersion", "expected 2, got 3", id="version 3"),
        pytest.param({"schemaVersion": "2"}, "$.schemaVersion", "a string", id="version text"),
        pytest.param({"schemaVersion": True}, "$.schemaVersion", "a boolean", id="version true"),
        pytest.param({"schemaVersion": 2.0}, "$.schemaVersion", "whole", id="version fraction"),
        pytest.param({"mediaType": 1}, "$.mediaType", "expected a string", id="type a number"),
        pytest.param({"config": ...}, "$.config", "is missing", id="no config"),
        pytest.param({"config": None}, "$.config", "is missing", id="null config"),
        pytest.param({"config": []}, "$.config", "got a list", id="config a list"),
        pytest.param({"config": descriptor(size=-1)}, "$.config.size", "from 0", id="config size"),
        pytest.param({"layers": {}}, "$.layers", "got an object", id="layers an object"),
        pytest.param(
            {"layers": [descriptor(), None]},
            "$.layers[1]",
            "expected an object",
            id="null layer",
        ),
        pytest.param(
            {"layers": [descriptor(), descriptor(), descriptor(size="1")]},
            "$.layers[2].size",
            "got a string",
            id="size of the third layer",
        ),
        pytest.param(
            {"layers": [descriptor(digest="sha256:" + "A" * 64)]},
            "$.layers[0].digest",
            "lower-case hex",
            id="digest of the first layer",
        ),
        pytest.param({"annotations": {"a": 1}}, "$.annotations['a']", "number", id="annotation"),
        pytest.param({"subject": {}}, "$.subject.mediaType", "is missing", id="empty subject"),
        pytest.param({"subject": "x"}, "$.subject", "got a string", id="subject a string"),
        pytest.param({"artifactType": 1}, "$.artifactType", "got a number", id="artifact type"),
    ],
)
def test_parse_manifest_bad_member_refused_with_its_place(members, where, piece):
    with pytest.raises(FormatError) as caught:
        parse_manifest(encode(changed(MANIFEST, **members)))
    assert caught.value.where == where
    assert caught.value.what == "manifest"
    assert piece in str(caught.value)
    assert str(caught.value).startswith(f"manifest at {where}: ")


def test_parse_manifest_schema_1_unsupported_with_what_to_do():
    with pytest.raises(Unsupported, match=r"schema 1 is not supported.*push the image again"):
        parse_manifest_or_index(encode({"schemaVersion": 1, "fsLayers": [], "history": []}))


def test_as_many_layers_and_entries_as_the_bytes_allow_are_read():
    """677 layers are in use, a source image has one for each dependency."""
    small = {"mediaType": "text/plain", "digest": DIGEST, "size": 1}
    count = (MAX_MANIFEST_BYTES - 5000) // (len(encode(small)) + 2)
    raw = encode(changed(MANIFEST, layers=[small] * count))
    assert MAX_MANIFEST_BYTES - 20_000 < len(raw) < MAX_MANIFEST_BYTES
    assert len(parse_manifest(raw).layers) == count > 30_000
    entries = [small | {"mediaType": OCI_MANIFEST}] * 20_000
    assert len(parse_index(encode(changed(INDEX, manifests=entries))).manifests) == 20_000
    rootfs = {"type": "layers", "diff_ids": [DIGEST] * count}
    assert len(parse_config(encode(changed(CONFIG, rootfs=rootfs))).diff_ids) == count


@pytest.mark.parametrize("parse", [parse_manifest, parse_index, parse_manifest_or_index])
def test_parse_manifest_beyond_4_mib_refused_before_it_is_read(parse):
    assert MAX_MANIFEST_BYTES == 4 * 1024 * 1024
    with pytest.raises(FormatError, match="expected at most 4194304 bytes, got 4194305"):
        parse(b"{" + b" " * MAX_MANIFEST_BYTES)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{}", b'"manifest"', b"\xff\xfe", b"<html>"])
@pytest.mark.parametrize(
    ("parse", "what"),
    [
        (parse_manifest, "manifest"),
        (parse_index, "index"),
        (parse_manifest_or_index, "manifest"),
        (parse_config, "config"),
    ],
)
def test_parse_manifest_of_something_else_is_a_format_error(parse, what, raw):
    if (parse, raw) == (parse_config, b"{}"):
        return  # an image without layers that says nothing
    with pytest.raises(FormatError) as caught:
        parse(raw)
    assert caught.value.what == what


@pytest.mark.parametrize(
    ("parse", "document", "found"),
    [(parse_manifest, MANIFEST, OCI_MANIFEST), (parse_index, INDEX, OCI_INDEX)],
)
def test_parse_manifest_that_nobody_gives_a_media_type_has_that_of_oci(parse, document, found):
    raw = encode(changed(document, mediaType=...))
    assert parse(raw).descriptor.media_type == found
    assert parse_manifest_or_index(raw).descriptor.media_type == found


# Members that are read here, or mean another kind of document.
MEMBERS = [
    "schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "artifactType",
    "annotations", "fsLayers", "history",
]  # fmt: skip
CONFIG_MEMBERS = ["os", "architecture", "variant", "rootfs", "config"]


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("document", [MANIFEST, INDEX], ids=["manifest", "index"])
def test_parse_manifest_every_member_has_one_spelling(document, member):
    with pytest.raises(FormatError, match=f"expected '{member}', got '{member.upper()}'"):
        parse_manifest_or_index(encode({**document, member.upper(): None}))


@pytest.mark.parametrize(
    ("member", "where"),
    [
        *[(member, "$") for member in CONFIG_MEMBERS],
        *[(member, "$.rootfs") for member in ("type", "diff_ids")],
    ],
)
def test_parse_config_every_member_has_one_spelling(member, where):
    document = json.loads(encode(CONFIG))
    inside = document if where == "$" else document[where.removeprefix("$.")]
    inside[member.upper()] = None
    with pytest.raises(FormatError, match=f"expected '{member}', got '{member.upper()}'") as caught:
        parse_config(encode(document))
    assert caught.value.where == where


# --- indexes


def test_parse_index_gives_its_entries_in_order():
    raw = encode(INDEX)
    index = parse_manifest_or_index(raw)
    assert isinstance(index, Index)
    assert index.raw is raw
    assert index.descriptor.media_type == OCI_INDEX
    assert [str(one.platform) for one in index.manifests] == [
        "linux/amd64",
        "linux/arm64/v8",
        "None",
    ]
    docker = parse_index(encode(changed(INDEX, mediaType=...)), media_type=DOCKER_INDEX)
    assert docker.descriptor.media_type == DOCKER_INDEX


@pytest.mark.parametrize(
    ("platform", "position"),
    [
        (Platform("linux", "amd64"), 0),
        (Platform("linux", "arm64"), 1),
        (Platform("linux", "arm64", "v8"), 1),
        (Platform("linux", "arm64", "v7"), None),
        (Platform("windows", "amd64"), None),
        (Platform("linux", ""), None),
        (Platform("", ""), None),
    ],
)
def test_find_platform_first_entry_that_fits_or_none(platform, position):
    index = parse_index(encode(INDEX))
    expected = None if position is None else index.manifests[position]
    assert index.find_platform(platform) == expected


OFFERED = {
    "the baseline before what needs a newer processor": (
        ["linux/amd64/v3", "linux/amd64"],
        {"linux/amd64": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3"},
    ),
    "nothing that needs a newer processor": (["linux/amd64/v3"], {"linux/amd64": None}),
    "the newest that runs": (
        ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3"],
        {"linux/amd64/v2": "linux/amd64/v2", "linux/amd64/v4": "linux/amd64/v3"},
    ),
    "arm is v7": (
        ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm/v8"],
        {"linux/arm": "linux/arm/v7", "linux/arm/v6": "linux/arm/v6"},
    ),
    "what is behind the variant": (
        ["linux/arm/v5", "linux/arm/v6"],
        {
            "linux/arm": "linux/arm/v6",
            "linux/arm/v7": "linux/arm/v6",
            "linux/arm/v5": "linux/arm/v5",
        },
    ),
    "arm64 is v8": (
        ["linux/arm64"],
        {
            "linux/arm64/v8": "linux/arm64",
            "linux/arm64/8": "linux/arm64",
            "linux/aarch64": "linux/arm64",
        },
    ),
    "v8 for v9": (["linux/arm64/v8"], {"linux/arm64/v9": "linux/arm64/v8"}),
    "not v9 for v8": (["linux/arm64/v9"], {"linux/arm64": None}),
    "the first of two that are the same": (
        ["linux/arm64/v8", "linux/arm64"],
        {"linux/arm64": "linux/arm64/v8"},
    ),
    "a variant of an architecture that has no known ones": (
        ["linux/riscv64/rva22", "linux/riscv64"],
        {"linux/riscv64": "linux/riscv64", "linux/riscv64/rva22": "linux/riscv64/rva22"},
    ),
    "the only variant of such an architecture": (
        ["linux/riscv64/rva22"],
        {"linux/riscv64": "linux/riscv64/rva22", "linux/riscv64/x": None},
    ),
    "an unknown variant is nothing but itself": (["linux/arm/v7"], {"linux/arm/x": None}),
    "another system": (["windows/amd64"], {"linux/amd64": None}),
}


def platform_of(text):
    return Platform(*text.split("/"))


@pytest.mark.parametrize("case", OFFERED)
def test_find_platform_takes_the_best_entry_that_runs(case):
    offered, wanted = OFFERED[case]
    entries = [
        descriptor(
            OCI_MANIFEST,
            platform={"os": one.os, "architecture": one.architecture}
            | ({"variant": one.variant} if one.variant else {}),
        )
        for one in map(platform_of, offered)
    ]
    index = parse_index(encode(changed(INDEX, manifests=entries)))
    found = {text: index.find_platform(platform_of(text)) for text in wanted}
    assert {text: one and str(one.platform) for text, one in found.items()} == wanted


def test_require_platform_gives_the_entry_or_says_which_there_are():
    index = parse_index(encode(INDEX))
    arm = Platform("linux", "arm64")
    assert index.require_platform(arm, what="image x") == index.manifests[1]
    with pytest.raises(NotFound, match=r"expected one of linux/amd64, linux/arm64/v8$") as caught:
        index.require_platform(Platform("linux", "s390x"), what="image x")
    assert str(caught.value).startswith("image x is not there for platform 'linux/s390x'")
    assert "--platform" in caught.value.hint
    none = parse_index(encode(changed(INDEX, manifests=[])))
    with pytest.raises(NotFound, match=r"expected one of none$"):
        none.require_platform(arm, what="image x")
    unnamed = [
        {name: value for name, value in one.items() if name != "platform"}
        for one in INDEX["manifests"]
    ]
    several = parse_index(encode(changed(INDEX, manifests=unnamed)))
    with pytest.raises(NotFound, match="says of none what it is for") as caught:
        several.require_platform(arm, what="image x")
    assert "NAME@DIGEST" in caught.value.hint


@pytest.mark.parametrize(
    ("members", "where"),
    [
        ({"manifests": {}}, "$.manifests"),
        ({"manifests": ..., "mediaType": ...}, "$.manifests"),
        ({"manifests": ["x"]}, "$.manifests[0]"),
        ({"manifests": [descriptor(platform={"os": 1})]}, "$.manifests[0].platform.os"),
        ({"annotations": []}, "$.annotations"),
        ({"schemaVersion": 4}, "$.schemaVersion"),
    ],
)
def test_parse_index_bad_member_refused_with_its_place(members, where):
    with pytest.raises(FormatError) as caught:
        parse_index(encode(changed(INDEX, **members)))
    assert caught.value.where == where
    assert caught.value.what == "index"


AMD64 = {"os": "linux", "architecture": "amd64"}
MARK = {"vnd.docker.reference.type": "attestation-manifest"}
SBOM = "application/vnd.example.sbom"


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"annotations": MARK}, id="an attestation for the platform"),
        pytest.param({"artifactType": SBOM}, id="an artifact for the platform"),
        pytest.param({"mediaType": SBOM}, id="no manifest"),
        pytest.param({"platform": {"os": "unknown", "architecture": "unknown"}}, id="buildx"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_find_platform_never_takes_what_is_no_image(members, first):
    artifact = {**descriptor(OCI_MANIFEST, platform=AMD64), **members}
    image = {**descriptor(OCI_MANIFEST, platform=AMD64), "size": 77}
    entries = [artifact, image] if first else [image, artifact]
    index = parse_index(encode(changed(INDEX, manifests=entries)))
    amd64 = Platform("linux", "amd64")
    found = index.find_platform(amd64)
    assert found is not None
    assert found.size == 77
    assert index.platforms() == (amd64,)
    assert parse_index(encode(changed(INDEX, manifests=[artifact]))).find_platform(amd64) is None


def test_attestations_are_told_by_their_mark_or_by_their_platform():
    marks = [{"annotations": MARK}, {"platform": {"os": "unknown", "architecture": "unknown"}}]
    others = [{"platform": AMD64}, {"artifactType": SBOM}, {"mediaType": SBOM}]
    entries = [{**descriptor(OCI_MANIFEST), **members} for members in [*marks, *others]]
    index = parse_index(encode(changed(INDEX, manifests=entries)))
    assert [one.is_attestation for one in index.manifests] == [True, True, False, False, False]


@pytest.mark.parametrize("kind", ["", OCI_CONFIG, DOCKER_CONFIG, None])
def test_find_platform_artifact_type_of_an_image_is_one(kind):
    entry = descriptor(OCI_MANIFEST, platform=AMD64, artifactType=kind)
    index = parse_index(encode(changed(INDEX, manifests=[entry])))
    assert index.find_platform(Platform("linux", "amd64")) is index.manifests[0]


def test_find_platform_of_one_image_that_names_none_is_that_image():
    image = descriptor(OCI_MANIFEST, platform={})
    artifact = descriptor(OCI_MANIFEST, artifactType=SBOM)
    asked = Platform("linux", "amd64")
    index = parse_index(encode(changed(INDEX, manifests=[artifact, image])))
    assert index.find_platform(asked) is index.manifests[1]
    two = parse_index(encode(changed(INDEX, manifests=[image, image])))
    assert two.find_platform(asked) is None
    other = descriptor(OCI_MANIFEST, platform={"os": "linux", "architecture": "arm64"})
    both = parse_index(encode(changed(INDEX, manifests=[image, other])))
    assert both.find_platform(asked) is None


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, False),
        ({"artifactType": SBOM}, True),
        ({"artifactType": OCI_CONFIG}, False),
        ({"config": descriptor("application/vnd.oci.empty.v1+json")}, True),
        ({"config": descriptor(DOCKER_CONFIG)}, False),
        ({"config": descriptor("application/octet-stream")}, False),
    ],
)
def test_manifest_is_artifact_by_its_types(members, expected):
    assert parse_manifest(encode(changed(MANIFEST, **members))).is_artifact is expected


# --- configs


def test_parse_config_gives_platform_diff_ids_and_what_to_run():
    raw = encode(CONFIG)
    config = parse_config(raw)
    assert config.raw is raw
    assert config.platform == Platform("linux", "amd64")
    assert [str(one) for one in config.diff_ids] == CONFIG["rootfs"]["diff_ids"]
    assert config.config == {"Env": ["A=b"]}
    assert parse_config(encode(changed(CONFIG, config=None))).config == {}
    most = {"type": "layers", "diff_ids": [DIGEST] * 512}
    assert len(parse_config(encode(changed(CONFIG, rootfs=most))).diff_ids) == 512


@pytest.mark.parametrize(
    ("members", "where", "piece"),
    [
        pytest.param({"architecture": 1}, "$.architecture", "number", id="architecture a number"),
        pytest.param({"variant": []}, "$.variant", "a list", id="variant a list"),
        pytest.param(
            {"rootfs": {"type": "x", "diff_ids": []}}, "$.rootfs.type", "'layers'", id="other type"
        ),
        pytest.param(
            {"rootfs": {"type": "layers", "diff_ids": [DIGEST, 1]}},
            "$.rootfs.diff_ids[1]",
            "expected a string",
            id="diff_id a number",
        ),
        pytest.param(
            {"rootfs": {"type": "layers", "diff_ids": ["a" * 64]}},
            "$.rootfs.diff_ids[0]",
            "expected 'sha256:'",
            id="diff_id without algorithm",
        ),
        pytest.param(
            {"rootfs": {**CONFIG["rootfs"], "Diff_Ids": []}}, "$.rootfs", "'diff_ids'", id="spelt"
        ),
        pytest.param({"config": []}, "$.config", "a list", id="config a list"),
        pytest.param({"RootFS": {}}, "$", "expected 'rootfs', got 'RootFS'", id="second rootfs"),
    ],
)
def test_parse_config_bad_member_refused_with_its_place(members, where, piece):
    with pytest.raises(FormatError) as caught:
        parse_config(encode(changed(CONFIG, **members)))
    assert caught.value.where == where
    assert caught.value.what == "config"
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("members", "platform", "count"),
    [
        pytest.param({"os": ...}, "amd64", 2, id="no system"),
        pytest.param({"os": None, "architecture": None}, "", 2, id="nulls for a platform"),
        pytest.param({"rootfs": ...}, "linux/amd64", 0, id="no rootfs"),
        pytest.param({"rootfs": None}, "linux/amd64", 0, id="null rootfs"),
        pytest.param({"rootfs": {}}, "linux/amd64", 0, id="empty rootfs"),
        pytest.param({"rootfs": {"type": "layers"}}, "linux/amd64", 0, id="no ids"),
        pytest.param({"rootfs": {"diff_ids": [DIGEST]}}, "linux/amd64", 1, id="no type"),
        pytest.param({"history": None, "created": 7}, "linux/amd64", 2, id="null history"),
        pytest.param({"config": {"Labels": None, "labels": {}}}, "linux/amd64", 2, id="labels"),
        pytest.param({"config": {"entrypoint": [1]}}, "linux/amd64", 2, id="spelt otherwise"),
    ],
)
def test_parse_config_is_lenient_where_nothing_is_decided(members, platform, count):
    raw = encode(changed(CONFIG, **members))
    config = parse_config(raw)
    assert (config.raw, str(config.platform), len(config.diff_ids)) == (raw, platform, count)


@pytest.mark.parametrize(
    "media_type",
    [DOCKER_CONFIG, "application/octet-stream", "application/json", "text/html"],
)
def test_parse_config_of_a_type_that_old_clients_and_registries_wrote_is_read(media_type):
    assert parse_config(encode(CONFIG), media_type=media_type).platform.os == "linux"


def test_check_platform_of_a_config_that_names_none_says_so():
    config = parse_config(encode(changed(CONFIG, os=..., architecture=...)))
    with pytest.raises(VerificationError, match="for 'linux/amd64', got one for no platform"):
        check_platform(config, Platform("linux", "amd64"))


def test_parse_config_of_an_artifact_unsupported():
    with pytest.raises(Unsupported, match="another kind of artifact"):
        parse_config(b"{}", media_type="application/vnd.oci.empty.v1+json")


def test_parse_config_beyond_8_mib_refused():
    with pytest.raises(FormatError, match="expected at most 8388608 bytes"):
        parse_config(b"{" + b" " * MAX_CONFIG_BYTES)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_check_layer_count_other_count_raises_with_both(layers):
    manifest = parse_manifest(encode(changed(MANIFEST, layers=[descriptor()] * layers)))
    with pytest.raises(
        SizeMismatch, match=f"count of layers mismatch: expected 2, got {layers}"
    ) as caught:
        check_layer_count(manifest, parse_config(encode(CONFIG)))
    assert (caught.value.expected, caught.value.actual) == (2, layers)


def test_check_layer_count_same_count_passes():
    check_layer_count(parse_manifest(encode(MANIFEST)), parse_config(encode(CONFIG)))


# --- any document

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**64)
    | st.sampled_from([DIGEST, OCI_MANIFEST, "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "mediaType",
                    "digest",
                    "size",
                    "annotations",
                    "platform",
                    "os",
                    "type",
                    "diff_ids",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    st.sampled_from([MANIFEST, INDEX, CONFIG]),
    st.dictionaries(
        st.sampled_from(
            [
                "schemaVersion",
                "mediaType",
                "config",
                "layers",
                "manifests",
                "subject",
                "rootfs",
                "os",
            ]
        ),
        JSON,
        max_size=3,
    ),
)
def test_parse_any_document_gives_a_value_or_an_error_of_the_api(document, members):
    raw = encode({**document, **members})
    for parse in (parse_manifest, parse_index, parse_manifest_or_index, parse_config):
        try:
            parsed = parse(raw)
        except (FormatError, Unsupported):
            continue
        assert parsed.raw is raw


# --- media types of layers

# type, compression, type after encryption
LAYER_TYPES = [
    (OCI_LAYER, Compression.NONE, OCI_LAYER + "+encrypted"),
    (OCI_LAYER_GZIP, Compression.GZIP, OCI_LAYER_GZIP + "+encrypted"),
    (OCI_LAYER_ZSTD, Compression.ZSTD, OCI_LAYER_ZSTD + "+encrypted"),
    (DOCKER_LAYER, Compression.NONE, OCI_LAYER + "+encrypted"),
    (DOCKER_LAYER_GZIP, Compression.GZIP, OCI_LAYER_GZIP + "+encrypted"),
    (DOCKER_LAYER + ".zstd", Compression.ZSTD, OCI_LAYER_ZSTD + "+encrypted"),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        Compression.GZIP,
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip+encrypted",
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        Compression.NONE,
        "application/vnd.oci.image.layer.nondistributable.v1.tar+encrypted",
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        Compression.GZIP,
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip+encrypted",
    ),
]


@pytest.mark.parametrize(("plain", "compression", "encrypted"), LAYER_TYPES)
def test_layer_media_type_there_and_back(plain, compression, encrypted):
    assert compression_of(plain) is compression
    assert not is_encrypted(plain)
    assert encrypted_media_type(plain) == encrypted
    assert is_encrypted(encrypted)
    assert compression_of(plaintext_media_type(encrypted)) is compression


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("plain", [row[0] for row in LAYER_TYPES])
def test_compressed_media_type_is_of_that_compression(plain, compression):
    assert compression_of(compressed_media_type(plain, compression)) is compression


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "foo",
        "foo/ bar",
        OCI_CONFIG,
        OCI_LAYER + "+xz",
        OCI_LAYER + "+gzip+gzip",
        OCI_LAYER_GZIP.upper(),
    ],
)
def test_layer_media_type_unknown_unsupported_everywhere(media_type):
    for function in (
        compression_of,
        encrypted_media_type,
        plaintext_media_type,
        lambda one: plaintext_media_type(one + "+encrypted"),
        lambda one: compressed_media_type(one, Compression.GZIP),
    ):
        with pytest.raises(Unsupported, match="media type"):
            function(media_type)


def test_layer_media_type_encrypted_twice_unsupported():
    with pytest.raises(Unsupported):
        encrypted_media_type(OCI_LAYER + "+encrypted")
    with pytest.raises(Unsupported):
        plaintext_media_type(OCI_LAYER + "+encrypted+encrypted")
    with pytest.raises(Unsupported):
        plaintext_media_type(DOCKER_LAYER + "+encrypted")


# --- the platform of an image

PLATFORMS = {
    # asked for, said by the index, said by the config -> taken
    "the same": ("linux/amd64", None, "linux/amd64", True),
    "another architecture": ("linux/amd64", None, "linux/arm64", False),
    "another system": ("linux/amd64", None, "windows/amd64", False),
    "no variant asked for": ("linux/arm", None, "linux/arm/v5", True),
    "a variant that runs": ("linux/arm/v7", None, "linux/arm/v6", True),
    "a variant that does not": ("linux/arm/v6", None, "linux/arm/v7", False),
    "the default variant": ("linux/arm/v7", None, "linux/arm", True),
    "the entry's variant": ("linux/arm", "linux/arm/v6", "linux/arm/v6", True),
    "not the entry's variant": ("linux/arm", "linux/arm/v6", "linux/arm/v5", False),
    "not the entry's variant, though it runs": (
        "linux/arm/v7",
        "linux/arm/v6",
        "linux/arm/v5",
        False,
    ),
    "an entry without the variant asked for": (
        "linux/arm64/v8",
        "linux/arm64",
        "linux/arm64",
        True,
    ),
    "an entry of the default variant": ("linux/arm/v7", "linux/arm", "linux/arm/v6", False),
    "an entry without any": ("linux/riscv64", "linux/riscv64", "linux/riscv64/rva22", True),
    "an entry that lies about the architecture": (
        "linux/amd64",
        "linux/amd64",
        "linux/arm64",
        False,
    ),
    "an entry that agrees with the config only": (
        "linux/amd64",
        "linux/arm64",
        "linux/arm64",
        False,
    ),
}


@pytest.mark.parametrize("case", PLATFORMS)
def test_check_platform(case):
    wanted, entry, found, good = PLATFORMS[case]
    said = platform_of(found)
    members = {"os": said.os, "architecture": said.architecture}
    if said.variant:
        members["variant"] = said.variant
    config = parse_config(encode(changed(CONFIG, **members)))
    named = None if entry is None else platform_of(entry)
    if good:
        check_platform(config, platform_of(wanted), entry=named)
        return
    with pytest.raises(VerificationError, match=f"got one for '{found}'") as caught:
        check_platform(config, platform_of(wanted), entry=named)
    assert ("--platform" in caught.value.hint) is (entry is None)


def test_check_config_size_up_to_the_bound():
    check_config_size(Descriptor(OCI_CONFIG, digest_of(b""), MAX_CONFIG_BYTES))
    with pytest.raises(FormatError, match="at most 8388608 bytes, got 8388609") as caught:
        check_config_size(Descriptor(OCI_CONFIG, digest_of(b""), MAX_CONFIG_BYTES + 1))
    assert caught.value.where == "$.config.size"


@pytest.mark.parametrize("member", ["config", "layers"])
def test_null_list_of_manifests_beside_what_a_manifest_has_makes_no_index(member):
    document = {"schemaVersion": 2, "manifests": None, member: MANIFEST[member]}
    raw = json.dumps(document).encode()
    if member == "config":
        assert isinstance(parse_manifest_or_index(raw), Manifest)
        return
    with pytest.raises(FormatError, match="config"):
        parse_manifest_or_index(raw)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"schemaVersion": 2, "mediaType": OCI_MANIFEST}, ""),
        ({"schemaVersion": 2, "mediaType": []}, ""),
        ({"schemaVersion": 2, "mediaType": {}}, ""),
    ],
)
def test_document_without_members_is_an_index_only_where_it_says_so(document, told):
    with pytest.raises(FormatError) as caught:
        parse_manifest_or_index(json.dumps(document).encode(), media_type=told)
    assert caught.value.what == "manifest"


@pytest.mark.parametrize("told", ["application/json", "binary/octet-stream", "text/plain"])
def test_type_that_servers_give_to_any_file_is_no_word_about_a_manifest(told):
    raw = json.dumps({**MANIFEST, "mediaType": None}).encode()
    assert parse_manifest(raw, media_type=told).descriptor.media_type == OCI_MANIFEST


@pytest.mark.parametrize(("member", "value"), [("type", 1), ("diff_ids", {})])
def test_config_fault_in_rootfs_has_its_place(member, value):
    raw = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {member: value}}).encode()
    with pytest.raises(FormatError) as caught:
        parse_config(raw)
    assert caught.value.where == f"$.rootfs.{member}"


def test_config_rootfs_type_that_is_empty_is_not_said():
    assert parse_config(b'{"rootfs":{"type":"","diff_ids":null}}').diff_ids == ()


@pytest.mark.parametrize("said", [{"os": "linux"}, {"architecture": "amd64"}])
def test_check_platform_of_half_a_platform_says_that_it_is_none(said):
    with pytest.raises(VerificationError, match="got one for no platform"):
        check_platform(parse_config(json.dumps(said).encode()), Platform("linux", "amd64"))


def test_document_without_anything_is_no_index_whatever_it_was_announced_as():
    with pytest.raises(Unsupported):
        parse_manifest_or_index(b"{}", media_type=OCI_INDEX)
