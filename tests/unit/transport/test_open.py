import subprocess
import sys

import pytest

from imagers.errors import LocalError, RemoteError, Unauthorized, UsageError
from imagers.registry.auth import Credentials
from imagers.registry.sink import RegistrySink
from imagers.registry.source import RegistrySource
from imagers.store.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.names import parse_image_name
from imagers.transport.open import TransportOptions, open_sink, open_source


@pytest.mark.parametrize(
    ("text", "source", "sink"),
    [
        ("oci:some/where:v1", OCILayoutSource, OCILayoutSink),
        ("docker://127.0.0.1:1/app:v1", RegistrySource, RegistrySink),
    ],
)
def test_open_by_transport_asks_nothing_yet(text, source, sink):
    name = parse_image_name(text)
    for opened, kind in ((open_source(name), source), (open_sink(name), sink)):
        assert type(opened) is kind
        assert opened.name == text
        opened.close()
        opened.close()


def test_open_source_by_position(tmp_path, image_of, places):
    one, two = image_of(), image_of("arm64")
    one.write(places.sink(f"oci:{tmp_path}/l:a"))
    two.write(places.sink(f"oci:{tmp_path}/l:b"))
    assert places.source(f"oci:{tmp_path}/l:@1").read_manifest().raw == two.raw


def test_open_sink_by_position_refused():
    with pytest.raises(UsageError, match="position 0") as caught:
        open_sink(parse_image_name("oci:dir:@0"))
    assert caught.value.hint == "oci:PATH:REF"


def test_open_with_credentials_logs_in(places, image_of):
    options = TransportOptions(credentials=Credentials("me", "hunter2"))
    assert "hunter2" not in repr(options)
    with EmbeddedRegistry(username="me", password="hunter2") as registry:
        name = f"{registry.address}/app:v1"
        image_of().write(places.sink(name, options))
        assert places.source(name, options).read_manifest().raw == image_of().raw
        with pytest.raises(Unauthorized):
            places.source(name).read_manifest()


def test_open_sink_spool_directory_is_used(registry, places, tmp_path):
    options = TransportOptions(spool_directory=tmp_path / "none")
    with pytest.raises(LocalError):
        places.sink(f"{registry.address}/app", options).stage_blob()


def test_open_source_time_limits_are_used(registry, places):
    registry.hang(path="/v2/", times=99)
    options = TransportOptions(read_timeout_s=0.1)
    with pytest.raises(RemoteError, match=r"no answer within 0\.1 s"):
        places.source(f"{registry.address}/app", options).read_manifest()


def test_open_layout_loads_no_http():
    code = (
        "import sys; from imagers.transport.open import open_source; "
        "from imagers.transport.names import parse_image_name; "
        "open_source(parse_image_name('oci:x')); print('urllib3' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert answer.stdout == "False\n"
