# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

from imagers.errors import LocalError, RemoteError, Unauthorized, UsageError
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.registry.credentials import Credentials
from imagers.registry.registries_conf import parse_registries_conf
from imagers.registry.sink import RegistrySink
from imagers.registry.source import RegistrySource
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


def test_open_sink_by_tag_and_digest_refused():
    text = "r.example/app:v1@sha256:" + "0" * 64
    with pytest.raises(UsageError, match="a tag and a digest"):
        open_sink(parse_image_name(text))
    open_source(parse_image_name(text)).close()


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


def test_open_short_name_that_registries_conf_has_searched_for_refused():
    conf = parse_registries_conf([("x", 'unqualified-search-registries = ["a.io", "b.io"]')])
    options = TransportOptions(registries=conf)
    for do in (open_source, open_sink):
        with pytest.raises(UsageError, match=r"searched for in 'a\.io', 'b\.io'") as caught:
            do(parse_image_name("app:v1"), options)
        assert "docker.io/library/app" in caught.value.hint
        do(parse_image_name("docker://app:v1"), options).close()
        do(parse_image_name("docker.io/app:v1"), options).close()


def test_open_takes_logins_from_the_helpers_of_registries_conf(
    tmp_path, monkeypatch, image_of, places
):
    program = tmp_path / "docker-credential-mine"
    program.write_text("""#!/bin/sh\necho '{"Username":"me","Secret":"pw"}'\n""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    conf = parse_registries_conf([("x", 'credential-helpers = ["mine"]')])
    with EmbeddedRegistry(username="me", password="pw") as registry:
        name = f"{registry.address}/app:v1"
        image_of().write(places.sink(name, TransportOptions(registries=conf)))
        with pytest.raises(Unauthorized):
            places.source(name).read_manifest()


def test_open_source_reads_big_blobs_in_as_many_ranges_as_asked():
    name = parse_image_name("127.0.0.1:1/app")
    for count in (1, 3):
        source = open_source(name, TransportOptions(ranges=count))
        assert source._ranges.lanes(10**9) == count
        source.close()


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
