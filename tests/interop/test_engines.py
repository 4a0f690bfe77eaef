# SPDX-License-Identifier: Apache-2.0
"""Docker and podman as they are installed: their archives and their sockets, both directions."""

import json
import os
import shutil
import socket as socket_module
import subprocess
import tarfile
import time

import pytest

from imagers.errors import NotFound, RemoteError, Unsupported
from imagers.model.image import load_image
from imagers.model.manifest import parse_manifest
from imagers.model.media import OCI_MANIFEST, Compression
from imagers.testing import make_image, make_layer, make_tar
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import TransportOptions, open_sink, open_source

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="engines are started as root only")


TARS = (make_tar(("one", b"1" * 5000)), make_tar(("two", b"2" * 70_000)))


def run(*words, env=None):
    answer = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=env)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


class Engine:
    def __init__(self, program, socket, env):
        self.program = program
        self.host = f"unix://{socket}"
        self.env = env

    def __call__(self, *words):
        return run(*self.program, *words, env=self.env)

    def reset(self):
        for image in self("images", "-q").split():
            self("rmi", "-f", image)


def start(words, socket, env, log):
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, env=env)
    deadline = time.monotonic() + 20
    # The socket is there before the engine is: it may still find that it cannot run here.
    while not answers(socket):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            pytest.skip(f"{words[0]} does not start here: {log.read_text()[-300:]}")
        time.sleep(0.05)
    return process


def answers(path):
    with socket_module.socket(socket_module.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


def check_loads_its_own(engine, directory):
    """Skip where the engine cannot even load what it saved itself, as in a bare chroot."""
    with tarfile.open(directory / "own.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("own"))
    words = (
        ("import", str(directory / "own.tar"), "own:v1"),
        ("save", "-o", str(directory / "saved.tar"), "own:v1"),
        ("rmi", "-f", "own:v1"),
        ("load", "-i", str(directory / "saved.tar")),
    )
    for one in words:
        done = subprocess.run(
            [*engine.program, *one], env=engine.env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = done.stderr.strip()[-300:]
            pytest.skip(f"{engine.program[0]} cannot {one[0]} an image of its own: {reason}")


def stop(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    if not shutil.which("dockerd"):
        pytest.skip("dockerd is not installed")
    directory = tmp_path_factory.mktemp("d")
    socket = directory / "s"
    command = [
        "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-masq=false",
        "--data-root", str(directory / "data"), "--exec-root", str(directory / "exec"),
        "--pidfile", str(directory / "pid"), "-H", f"unix://{socket}",
    ]  # fmt: skip
    process = start(command, socket, dict(os.environ), directory / "log")
    try:
        made = Engine(["docker", "-H", f"unix://{socket}"], socket, dict(os.environ))
        check_loads_its_own(made, directory)
        yield made
    finally:
        stop(process)


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    directory = tmp_path_factory.mktemp("p")
    (directory / "storage.conf").write_text(
        f'[storage]\ndriver="vfs"\nrunroot="{directory}/run"\ngraphroot="{directory}/graph"\n'
    )
    (directory / "registries.conf").write_text("")
    (directory / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    (directory / "containers.conf").write_text('[engine]\ncgroup_manager="cgroupfs"\n')
    env = {
        **os.environ,
        "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(directory / "registries.conf"),
        "CONTAINERS_CONF": str(directory / "containers.conf"),
        "HOME": str(directory),
        "XDG_CONFIG_HOME": str(directory / "config"),
    }
    policy = directory / "config" / "containers"
    policy.mkdir(parents=True)
    (directory / "policy.json").rename(policy / "policy.json")
    socket = directory / "s"
    command = ["podman", "system", "service", "--time=0", f"unix://{socket}"]
    process = start(command, socket, env, directory / "log")
    try:
        made = Engine(["podman"], socket, env)
        check_loads_its_own(made, directory)
        yield made
    finally:
        stop(process)


@pytest.fixture(params=["docker", "podman"])
def engine(request):
    one = request.getfixturevalue(request.param)
    one.reset()
    return one


@pytest.fixture
def layout(tmp_path):
    """An image with a plain and a gzip layer, in an OCI layout."""
    one, two = TARS
    image = make_image(make_layer(one, Compression.NONE), two, config={"config": {"Cmd": ["/one"]}})
    return image.save(tmp_path / "layout")


def copy(source, sink, host=None):
    options = TransportOptions(daemon_host=host)
    source = open_source(parse_image_name(source), options)
    sink = open_sink(parse_image_name(sink), options)
    try:
        return copy_image(source, sink)
    finally:
        source.close()
        sink.close()


def config_and_tars(name, host=None):
    """Digest of the config, and diff_ids that were held against the layers' bytes."""
    source = open_source(parse_image_name(name), TransportOptions(daemon_host=host))
    try:
        answer = source.read_manifest()
        image = load_image(parse_manifest(answer.raw, media_type=answer.media_type), source)
        for layer in image.layers():
            with layer.open_stored() as stream:
                while stream.readinto(memoryview(bytearray(1 << 20))):
                    pass
        return image.manifest.config.digest, image.config.diff_ids
    finally:
        source.close()


def test_engine_loads_an_archive_of_ours(engine, layout, tmp_path):
    copy(layout, f"docker-archive:{tmp_path}/a.tar:example.org/app:v1")
    engine("load", "-i", str(tmp_path / "a.tar"))
    digest, _ = config_and_tars(layout)
    loaded = json.loads(engine("inspect", "--type", "image", "example.org/app:v1"))[0]
    assert loaded["Id"].removeprefix("sha256:") == digest.hex
    assert loaded["RepoTags"] == ["example.org/app:v1"]


def test_engine_saves_and_we_read(engine, layout, tmp_path):
    copy(layout, f"docker-archive:{tmp_path}/a.tar:example.org/app:v1")
    engine("load", "-i", str(tmp_path / "a.tar"))
    engine("save", "-o", str(tmp_path / "b.tar"), "example.org/app:v1")
    expected = config_and_tars(layout)
    for name in (f"docker-archive:{tmp_path}/b.tar", f"docker-archive:{tmp_path}/b.tar:@0"):
        assert config_and_tars(name) == expected
    copy(f"docker-archive:{tmp_path}/b.tar:example.org/app:v1", f"oci:{tmp_path}/back:v1")
    assert config_and_tars(f"oci:{tmp_path}/back:v1") == expected


def test_engine_socket_takes_and_gives_an_image(engine, layout, tmp_path):
    copy(layout, "docker-daemon:example.org/app:v2", engine.host)
    expected = config_and_tars(layout)
    assert config_and_tars("docker-daemon:example.org/app:v2", engine.host) == expected
    by_id = f"docker-daemon:sha256:{expected[0].hex}"
    copy(by_id, f"oci:{tmp_path}/back:v1", engine.host)
    assert config_and_tars(f"oci:{tmp_path}/back:v1") == expected


def test_engine_without_the_image_says_so(engine):
    with pytest.raises(NotFound, match="no such image"):
        config_and_tars("docker-daemon:example.org/none:v1", engine.host)


def test_engine_refuses_an_encrypted_image(engine, layout, tmp_path):
    source = open_source(parse_image_name(layout))
    document = json.loads(source.read_manifest().raw)
    document["layers"][1]["mediaType"] += "+encrypted"
    sink = open_sink(parse_image_name(f"oci:{tmp_path}/layout:encrypted"))
    sink.put_manifest(json.dumps(document).encode(), OCI_MANIFEST, by_name=True)
    sink.close()
    with pytest.raises(Unsupported, match="is encrypted"):
        copy(f"oci:{tmp_path}/layout:encrypted", "docker-daemon:app:v1", engine.host)


def test_engine_that_is_not_there_says_how_to_name_one(layout, tmp_path):
    with pytest.raises(RemoteError, match="did not answer") as caught:
        copy(layout, "docker-daemon:app:v1", f"unix://{tmp_path}/none")
    assert "--daemon-host" in caught.value.hint
    assert list(tmp_path.glob(".*")) == []


def test_skopeo_reads_archives_and_directories_of_ours(layout, tmp_path):
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    for name in ("docker-archive:{}/s.tar:app:v1", "oci-archive:{}/o.tar:v1", "dir:{}/dir"):
        here = name.format(tmp_path)
        copy(layout, here)
        there = f"dir:{tmp_path}/from-{here.partition(':')[0]}"
        run("skopeo", "--insecure-policy", "copy", "--preserve-digests", here, there)
        assert config_and_tars(there) == config_and_tars(layout)


def test_skopeo_writes_archives_and_directories_and_we_read(layout, tmp_path):
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    expected = config_and_tars(layout)[1]
    for name in ("docker-archive:{}/s.tar:app:v1", "oci-archive:{}/o.tar:v1", "dir:{}/dir"):
        there = name.format(tmp_path)
        run("skopeo", "--insecure-policy", "copy", layout, there)
        assert config_and_tars(there)[1] == expected
