from imagers.cli.reports import layer_facts, print_layers
from imagers.encrypt.image import LayerAction, LayerReport


def reports():
    return [
        LayerReport(
            index=0,
            action=LayerAction.ENCRYPTED,
            media_type="application/x+encrypted",
            cipher="AES_256_CTR_HMAC_SHA256",
            schemes=("jwe", "provider.attestation-agent"),
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
            schemes=(),
            keys=(),
            source_size=10,
            size=10,
            seconds=0.0,
        ),
    ]


def test_layer_facts_for_machines():
    first, second = layer_facts(reports())
    assert first["action"] == "encrypted"
    assert first["keys"] == ["jwe:a", "broker:b"]
    assert (first["size"], first["source_size"], first["seconds"]) == (1024, 2_000_000, 0.5)
    assert second["cipher"] is None


def test_print_layers_for_people(capsys):
    print_layers(reports())
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["layer", "done", "size", "MB/s", "cipher", "keys"]
    assert first.split() == [
        *("0", "encrypted", "1.0", "KiB", "4", "AES_256_CTR_HMAC_SHA256", "jwe:a,", "broker:b")
    ]
    assert second.split() == ["1", "kept", "10", "B", "-", "-", "-"]
