# SPDX-License-Identifier: Apache-2.0
import ssl
from contextlib import closing

import pytest
import trustme

from imagers.errors import FormatError, LocalError, RemoteError
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.certificates import certificate_directories, find_certificates
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import TransportOptions, open_sink, open_source


def test_certificates_of_the_first_directory_that_is_there(tmp_path):
    one, two = certificate_directories([tmp_path / "a", tmp_path / "b"], "reg.io:5000")
    assert find_certificates([one, two]).ca_files == ()
    two.mkdir(parents=True)
    for name in ("ca.crt", "me.cert", "me.key", "notes.txt"):
        (two / name).write_text("")
    found = find_certificates([one, two])
    assert found.ca_files == (two / "ca.crt",)
    assert found.client_pairs == ((two / "me.cert", two / "me.key"),)


@pytest.mark.parametrize(("name", "lacks"), [("me.cert", "me.key"), ("me.key", "me.cert")])
def test_certificates_a_half_of_a_pair_refused(tmp_path, name, lacks):
    (tmp_path / name).write_text("")
    with pytest.raises(LocalError, match=lacks):
        find_certificates([tmp_path])


@pytest.fixture
def mutual(tmp_path):
    """A registry that wants certificates of its clients, and a directory with such."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with EmbeddedRegistry(tls=context) as registry:
        directory = tmp_path / "certs.d" / registry.address
        directory.mkdir(parents=True)
        authority.cert_pem.write_to_path(directory / "ca.crt")
        client = authority.issue_cert("client@example.org")
        client.cert_chain_pems[0].write_to_path(directory / "me.cert")
        client.private_key_pem.write_to_path(directory / "me.key")
        yield registry, directory


@pytest.mark.parametrize("by_root", [False, True])
def test_mutual_tls_by_directory(mutual, tmp_path, image_of, places, by_root):
    registry, directory = mutual
    options = (
        TransportOptions(cert_roots=(tmp_path / "none", directory.parent))
        if by_root
        else TransportOptions(cert_dir=directory)
    )
    image_of().write(places.sink(f"oci:{tmp_path}/l:v1"))
    name = parse_image_name(f"docker://{registry.address}/app:v1")
    with closing(open_sink(name, options)) as sink:
        copy_image(places.source(f"oci:{tmp_path}/l:v1"), sink)
    with closing(open_source(name, options)) as source:
        assert source.read_manifest().raw == image_of().raw


def test_mutual_tls_without_a_certificate_fails(mutual):
    registry, directory = mutual
    (directory / "me.cert").unlink()
    (directory / "me.key").unlink()
    options = TransportOptions(cert_dir=directory)
    source = open_source(parse_image_name(f"docker://{registry.address}/app:v1"), options)
    with closing(source), pytest.raises(RemoteError):
        source.read_manifest()


def test_certificates_that_are_none_refused(tmp_path):
    (tmp_path / "x.crt").write_text("no PEM")
    source = open_source(
        parse_image_name("docker://127.0.0.1:1/app:v1"), TransportOptions(cert_dir=tmp_path)
    )
    with closing(source), pytest.raises(FormatError, match="PEM"):
        source.read_manifest()
    with pytest.raises(LocalError, match="expected a directory"):
        open_source(
            parse_image_name("docker://127.0.0.1:1/app:v1"),
            TransportOptions(cert_dir=tmp_path / "none"),
        )
