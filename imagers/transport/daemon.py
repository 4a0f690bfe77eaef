# SPDX-License-Identifier: Apache-2.0
"""Images in and out of a local Docker or podman daemon, over its socket.

    with DaemonSource(reference, host="unix:///run/docker.sock", name=...) as source: ...

An engine speaks archives: an image is saved into a nameless file and read from there, and
written into one that is loaded at the end. What was loaded must be what was sent: the id that
the engine gives is held against the config and the manifest.

Spec: Docker Engine API v1.41, ImageGet and ImageLoad.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagers.errors import DigestMismatch, NotFound, RemoteError
from imagers.files import local_errors, reason_of, write_all
from imagers.layout.archive.docker import DockerArchiveSink, DockerArchiveSource
from imagers.layout.archive.tar_file import TarFile
from imagers.model.closing import Closing
from imagers.model.digest import Digest, parse_digest
from imagers.model.manifest import parse_manifest
from imagers.net.urls import redact_url
from imagers.registry.spool import SpoolFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.model.descriptor import Descriptor
    from imagers.model.image import ImageSink, ImageSource
    from imagers.model.manifest import RawManifest
    from imagers.model.reference import Reference
    from imagers.model.stream import ByteStream, RawStream

__all__ = ["DEFAULT_HOST", "DaemonSink", "DaemonSource"]

_log = logging.getLogger(__name__)
DEFAULT_HOST = "unix:///var/run/docker.sock"
_TIMEOUT_S = 600  # of silence, while an engine unpacks
_PIECE = 1024 * 1024
_MAX_ARCHIVE = 1 << 40  # bytes; the disk ends before


@contextmanager
def _engine(host: str, name: str) -> Iterator[Any]:
    """A client of the engine; its errors end here."""
    import docker
    from docker import errors

    _log.debug("asks the engine at %s", redact_url(host))
    _check_listens(host, name)
    try:
        client = docker.DockerClient(base_url=host, timeout=_TIMEOUT_S)
        try:
            yield client
        finally:
            client.close()
    except errors.ImageNotFound as error:
        raise NotFound(
            f"{name}: the engine has no such image", hint="docker images shows what it has"
        ) from error
    except errors.APIError as error:
        raise RemoteError(
            f"{name}: the engine says: {str(error.explanation or error)[:300]}",
            status=error.status_code,
        ) from error
    except (errors.DockerException, OSError) as error:
        # OSError: what requests raises is one.
        raise RemoteError(
            f"{name}: the engine at {host} did not answer: {str(error)[:200]}",
            temporary=True,
            hint="is it running, and may this user use its socket? --daemon-host names another",
        ) from error


def _check_listens(host: str, name: str) -> None:
    """Nothing, unless a local socket takes no connection; docker leaks one when it finds out."""
    if not host.startswith("unix://"):
        return
    path = host.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            raise RemoteError(
                f"{name}: the engine at {host} did not answer: {reason_of(error)}",
                temporary=True,
                hint="is it running, and may this user use its socket? --daemon-host names another",
            ) from error


class DaemonSource(Closing):
    """An `ImageSource` over one image of an engine, saved when it is first read.

    Args:
        image: a name, or the digest that is the image's id.
        host: of the engine, as in DOCKER_HOST.
        name: as the user wrote it, with its transport.
        spool_directory: for the saved image.

    Threads: one at a time until `read_manifest` has returned, then safe.
    """

    def __init__(
        self,
        image: Reference | Digest,
        *,
        host: str,
        name: str,
        spool_directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self._image = image
        self._host = host
        self._name = name
        self._spool_directory = spool_directory
        self._archive: DockerArchiveSource | None = None

    @property
    def name(self) -> str:
        """See `ImageSource`."""
        return self._name

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        """See `ImageSource`; an engine has no manifests of its own, see `DockerArchiveSource`."""
        return self._open().read_manifest(digest)

    def open_blob(self, descriptor: Descriptor, *, what: str) -> ByteStream:
        """See `BlobSource`."""
        return self._open().open_blob(descriptor, what=what)

    def open_raw_blob(self, descriptor: Descriptor, *, what: str) -> RawStream:
        """See `BlobSource`."""
        return self._open().open_raw_blob(descriptor, what=what)

    def close(self) -> None:
        """See `ImageSource`."""
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def _open(self) -> DockerArchiveSource:
        if self._archive is None:
            self._archive = self._save()
        return self._archive

    def _save(self) -> DockerArchiveSource:
        spool = SpoolFile(self._spool_directory)
        try:
            with _engine(self._host, self.name) as client:
                image = client.images.get(str(self._image))
                count = 0
                for piece in image.save(chunk_size=_PIECE, named=False):
                    count += _write(spool.fileno(), piece, self.name)
                    if count > _MAX_ARCHIVE:
                        raise RemoteError(f"{self.name}: the engine sends without end")
            path = Path(f"({self.name})")
            tar = TarFile(os.dup(spool.fileno()), path)
        finally:
            spool.close()
        return DockerArchiveSource(path, None, name=self.name, tar=tar)


def _write(fd: int, piece: bytes, name: str) -> int:
    with local_errors(name, "could not be spooled"):
        write_all(fd, piece)
    return len(piece)


class DaemonSink(DockerArchiveSink):
    """An `ImageSink` into an engine: an archive that is loaded with the named manifest.

    Args:
        reference: the tag that the image gets.
        host: of the engine, as in DOCKER_HOST.
        name: as the user wrote it, with its transport.
        spool_directory: for the archive.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        host: str,
        name: str,
        spool_directory: str | os.PathLike[str] | None = None,
    ) -> None:
        place = spool_directory
        if place is None:
            place = Path("/var/tmp")  # the files there have no name
        super().__init__(None, reference, name=name, directory=place)
        self._reference = reference
        self._host = host

    def put_manifest(
        self, raw: bytes, media_type: str, *, by_name: bool, digest: Digest | None = None
    ) -> None:
        """See `ImageSink`; loads the image.

        Raises:
            DigestMismatch: the engine has another image under the name afterwards.
        """
        super().put_manifest(raw, media_type, by_name=by_name, digest=digest)
        if not by_name:
            return
        manifest = parse_manifest(raw, media_type=media_type)
        fd = os.dup(self.take_file().fileno())
        os.lseek(fd, 0, os.SEEK_SET)
        with os.fdopen(fd, "rb") as file, _engine(self._host, self.name) as client:
            client.images.load(file)
            loaded = client.images.get(str(self._reference)).id
        # With containerd's store an id is the digest of the manifest, else of the config.
        allowed = (manifest.config.digest, manifest.descriptor.digest)
        text = str(loaded)
        actual = parse_digest(text if ":" in text else f"sha256:{text}", what="id of the image")
        if actual not in allowed:
            raise DigestMismatch(
                expected=manifest.config.digest,
                actual=actual,
                what=self.name,
                hint="somebody else may have given the name to another image meanwhile",
            )
        self.close()


if TYPE_CHECKING:
    # What the two promise, checked by mypy.
    _source: type[ImageSource] = DaemonSource
    _sink: type[ImageSink] = DaemonSink
