# SPDX-License-Identifier: Apache-2.0
import json

from imagers.build.change import Changed
from imagers.cli.reports import Report
from imagers.encrypt.rewrite import LayerAction, LayerReport, RewrittenImage
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_MANIFEST


def reports():
    return [
        LayerReport(
            index=0,
            action=LayerAction.ENCRYPTED,
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
            media_type="application/x",
            cipher="",
            keys=(),
            source_size=10,
            size=10,
            seconds=0.0,
        ),
    ]


def report(*, is_index=False):
    descriptor = Descriptor(OCI_MANIFEST, digest_of(b"manifest"), 8)
    image = RewrittenImage(
        b"manifest", OCI_MANIFEST, descriptor, tuple(reports()), was_docker=False
    )
    done = Changed((("linux/amd64", image),), digest_of(b"top"), 1 if is_index else 0)
    return Report(
        done,
        "encrypted",
        (LayerAction.ENCRYPTED,),
        1.5,
        is_index=is_index,
        facts={"key": "kbs:///a/b/c"},
        lines=["key kbs:///a/b/c"],
    )


def test_report_of_an_image_for_machines(capsys):
    report().print(as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["digest"], facts["encrypted"]) == (str(digest_of(b"top")), 1)
    assert (facts["key"], facts["seconds"]) == ("kbs:///a/b/c", 1.5)
    first, second = facts["layers"]
    assert first["action"] == "encrypted"
    assert first["keys"] == ["jwe:a", "broker:b"]
    assert (first["size"], first["source_size"], first["seconds"]) == (1024, 2_000_000, 0.5)
    assert second["cipher"] is None


def test_report_of_an_index_has_its_images(capsys):
    report(is_index=True).print(as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["left_out"] == 1
    (image,) = facts["images"]
    assert (image["platform"], image["encrypted"]) == ("linux/amd64", 1)
    assert len(image["layers"]) == 2


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
