# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

from imagers.build.change import Changed
from imagers.cli.reports import Report, say_entries_left_out
from imagers.encrypt.index import LeftOutEntry
from imagers.encrypt.rewrite import LayerAction, LayerReport, RewrittenImage
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_MANIFEST


def reports():
    return [
        LayerReport(
            index=0,
            action=LayerAction.ENCRYPTED,
            digest=digest_of(b"sealed"),
            media_type="application/x+encrypted",
            cipher="AES_256_CTR_HMAC_SHA256",
            keys=("jwe:a", "broker:b"),
            source_size=2_000_000,
            size=1024,
            seconds=0.5,
        ),
        LayerReport(
            index=1,
            action=LayerAction.KEPT,
            digest=digest_of(b"kept"),
            media_type="application/x",
            cipher="",
            keys=(),
            source_size=10,
            size=10,
            seconds=0.0,
        ),
    ]


LEFT_OUT = (
    LeftOutEntry(
        Descriptor(OCI_MANIFEST, digest_of(b"attestation"), 11),
        "attestation-manifest",
        digest_of(b"old"),
        "linux/amd64",
    ),
    LeftOutEntry(Descriptor(OCI_MANIFEST, digest_of(b"unknown"), 7), "", None, ""),
)


def report(*, is_index=False):
    descriptor = Descriptor(OCI_MANIFEST, digest_of(b"manifest"), 8)
    image = RewrittenImage(
        b"manifest", OCI_MANIFEST, descriptor, tuple(reports()), was_docker=False
    )
    done = Changed((("linux/amd64", image),), digest_of(b"top"), LEFT_OUT if is_index else ())
    return Report(
        "oci:e:v1",
        done,
        "encrypted",
        (LayerAction.ENCRYPTED,),
        1.5,
        is_index=is_index,
        facts={"kek": "kbs:///a/b/c"},
        lines=["key kbs:///a/b/c"],
    )


def test_report_of_an_image_for_machines(capsys):
    report().print(as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["digest"], facts["encrypted"]) == (str(digest_of(b"top")), 1)
    assert (facts["kek"], facts["seconds"]) == ("kbs:///a/b/c", 1.5)
    first, second = facts["layers"]
    assert first["action"] == "encrypted"
    assert first["keys"] == ["jwe:a", "broker:b"]
    assert (first["size"], first["source_size"], first["seconds"]) == (1024, 2_000_000, 0.5)
    assert (first["digest"], second["digest"]) == (
        str(digest_of(b"sealed")),
        str(digest_of(b"kept")),
    )
    assert (first["encrypted"], second["encrypted"]) == (True, False)
    assert second["cipher"] is None


def test_report_of_an_index_has_its_images(capsys):
    report(is_index=True).print(as_json=True)
    facts = json.loads(capsys.readouterr().out)
    first, second = facts["left_out"]
    assert first == {
        "digest": str(digest_of(b"attestation")),
        "media_type": OCI_MANIFEST,
        "size": 11,
        "artifact_type": "attestation-manifest",
        "subject": str(digest_of(b"old")),
        "platform": "linux/amd64",
    }
    assert [second[name] for name in ("artifact_type", "subject", "platform")] == [None] * 3
    (image,) = facts["images"]
    assert (image["platform"], image["encrypted"]) == ("linux/amd64", 1)
    assert len(image["layers"]) == 2


def test_entries_that_were_left_out_are_lines(capsys):
    say_entries_left_out(LEFT_OUT)
    out, told = capsys.readouterr()
    assert out == ""
    about = f"linux/amd64 {digest_of(b'old')}"
    assert told.splitlines() == [
        f"imagers: left out: attestation-manifest {digest_of(b'attestation')}, about {about}",
        f"imagers: left out: {OCI_MANIFEST} {digest_of(b'unknown')}",
        "imagers: these were no images: what they say is about digests that the new index has not",
    ]
    say_entries_left_out(LEFT_OUT * 100)
    told = capsys.readouterr().err.splitlines()
    assert told[-2] == "imagers: left out: 180 entries more; --json has all of them"
    assert len(told) == 22
    say_entries_left_out(())
    assert capsys.readouterr().err == ""


def test_layer_whose_bytes_did_not_pass_here_has_no_rate(capsys):
    done = report().done
    (platform, image) = done.images[0]
    layers = tuple(replace(layer, moved=False) for layer in image.layers)
    replace(
        report(), done=replace(done, images=((platform, replace(image, layers=layers)),))
    ).print(as_json=False)
    _, first, *_ = capsys.readouterr().out.splitlines()
    assert first.split()[4] == "-"


def test_keys_that_were_wrapped_anew_are_counted_among_the_encrypted_layers(capsys):
    done = report().done
    (platform, image) = done.images[0]
    actions = (LayerAction.REWRAPPED, LayerAction.COPIED)
    layers = tuple(
        replace(layer, action=action) for layer, action in zip(image.layers, actions, strict=True)
    )
    images = ((platform, replace(image, layers=layers)),)
    Report(
        "oci:e:v1",
        replace(done, images=images),
        "rewrapped",
        (LayerAction.REWRAPPED,),
        1.5,
        is_index=False,
        keys_only=True,
    ).print(as_json=False)
    assert "rewrapped 1 of 1 layer keys in 1.50 s" in capsys.readouterr().out


def test_report_for_people(capsys):
    report().print(as_json=False)
    head, first, second, *rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["layer", "done", "size", "MB/s", "cipher", "keys"]
    assert first.split() == [
        *("0", "encrypted", "1.0", "KiB", "4", "AES_256_CTR_HMAC_SHA256", "jwe:a,", "broker:b")
    ]
    assert second.split() == ["1", "kept", "10", "B", "-", "-", "-"]
    assert rest == [
        "encrypted 1 of 2 layers, 1.0 KiB in 1.50 s",
        "key kbs:///a/b/c",
        f"manifest {digest_of(b'top')}",
    ]
