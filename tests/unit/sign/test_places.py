# SPDX-License-Identifier: Apache-2.0
"""Where signatures of an image may be, by its name."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imagers.model.digest import digest_of
from imagers.model.reference import parse_reference
from imagers.sign.formats.lookaside import find_in_lookaside
from imagers.sign.places import Lookasides, places_of
from imagers.sign.registries_d import parse_registries_d
from imagers.transport.names import locate, parse_image_name
from imagers.transport.open import open_source

NAME = "registry.example.org/app:v1"


def places(text, **options):
    name = locate(parse_image_name(text))
    with open_source(name) as source:
        return places_of(name, source, **options)


def test_places_of_a_directory_are_its_files(tmp_path):
    assert places(f"dir:{tmp_path}").directory == str(tmp_path)


def test_places_of_a_layout_are_none(tmp_path):
    found = places(f"oci:{tmp_path}:v1")
    assert (found.directory, found.repository, found.lookaside()) == (None, None, None)


def test_places_of_a_registry_have_the_lookaside_that_is_configured():
    assert places(NAME).lookaside() is None
    assert places(NAME, lookasides=Lookasides(default="file:///d")).lookaside() == "file:///d"
    raw = b"docker: {registry.example.org: {lookaside: 'file:///b'}}"
    config = parse_registries_d([("b.yaml", raw)])
    found = places(NAME, lookasides=Lookasides(config, "file:///d"))
    assert found.lookaside() == "file:///b"
    assert str(found.reference) == NAME


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [(200, b"<!DOCTYPE html><html>log in", None), (404, b"<html>no", 0), (200, b"\x89\x01", 1)],
)
def test_page_in_place_of_a_file_of_a_lookaside_is_nobody_has_looked(status, body, found):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            there = status == 200 and self.path.endswith("signature-1")
            self.send_response(status if there else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        fetch = places(NAME).fetch
        result = find_in_lookaside(base, parse_reference(NAME), digest_of(b""), fetch=fetch)
        server.shutdown()
    if found is None:
        assert "a page of type 'text/html' from 127.0.0.1" in str(
            result.failure("simple signing").error
        )
        assert not result.looked
    else:
        assert len(result.of("simple signing")) == found
        assert result.was_looked_for("simple signing")
