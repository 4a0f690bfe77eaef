import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imagers.cli import signatures
from imagers.cli.images import RegistryOptions, name_of, opened_source
from imagers.cli.signatures import permitted, places_of
from imagers.errors import FormatError, LocalError, PolicyDenied
from imagers.model.digest import digest_of
from imagers.model.reference import parse_reference
from imagers.sign.formats.lookaside import find_in_lookaside
from imagers.sign.found import Form

DIGEST = digest_of(b"image")


def places(text, **options):
    name = name_of(text)
    with opened_source(name, RegistryOptions()) as source:
        return places_of(source, name, RegistryOptions(), **options)


@pytest.mark.usefixtures("home")
def test_places_of_a_directory_are_its_files(tmp_path):
    assert places(f"dir:{tmp_path}").directory == str(tmp_path)


def test_places_of_a_registry_are_configured_by_registries_d(home, tmp_path):
    name = "registry.example.org/app:v1"
    assert places(name).lookaside().endswith("/containers/sigstore")
    folder = home / ".config" / "containers" / "registries.d"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("default-docker: {lookaside: 'file:///user'}")
    (folder / "ignored.txt").write_text("{")
    assert places(name).lookaside() == "file:///user"
    (tmp_path / "b.yaml").write_text("docker: {registry.example.org: {sigstore: 'file:///b'}}")
    assert places(name, registries_d=str(tmp_path)).lookaside() == "file:///b"
    with pytest.raises(LocalError):
        places(name, registries_d=str(tmp_path / "none"))
    (folder / "c.yaml").write_text("{")
    with pytest.raises(FormatError, match=r"c\.yaml"):
        places(name)


def permit(text, policy=None):
    name = name_of(text)
    options = RegistryOptions()
    with opened_source(name, options) as source:
        return permitted(source, name, options, policy=policy, registries_d=None, platform=None)


@pytest.mark.usefixtures("home")
def test_permitted_without_any_policy_goes_on_and_says_so(plain, tmp_path, monkeypatch, capsys):
    found = signatures.read_settings()
    monkeypatch.setattr(
        signatures, "read_settings", lambda: replace(found, policy_paths=(tmp_path / "none",))
    )
    assert permit(plain).raw
    said = capsys.readouterr().err
    assert said.startswith("imagers: warning: there is no policy.json")
    (tmp_path / "reject.json").write_text('{"default":[{"type":"reject"}]}')
    with pytest.raises(PolicyDenied):
        permit(plain, str(tmp_path / "reject.json"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [(200, b"<!DOCTYPE html><html>log in", None), (404, b"<html>no", 0), (200, b"\x89\x01", 1)],
)
@pytest.mark.usefixtures("home")
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
        fetch = places("registry.example.org/app:v1").fetch
        result = find_in_lookaside(
            base, parse_reference("registry.example.org/app:v1"), digest_of(b""), fetch=fetch
        )
        server.shutdown()
    if found is None:
        assert "a page of type 'text/html' from 127.0.0.1" in str(result.failure(Form.SIMPLE).error)
        assert not result.looked
    else:
        assert len(result.of(Form.SIMPLE)) == found
        assert result.was_looked_for(Form.SIMPLE)
