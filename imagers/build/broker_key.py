# SPDX-License-Identifier: Apache-2.0
"""The life of an image's key-encryption key at a key broker.

    with BrokerKey("kbs:///default/app/", lambda: admin) as key:
        encrypt(source, sink, [key.wrapper, ...], ...)       # binds each manifest at its end

1. The key is stored before the first byte of the image is published, so that no image is there
   without its key.
2. It is created and never overwrites another one, unless that is asked for.
3. When the image is published, its manifest digest is bound to the key: from then on a guest
   gets it for this image and for no other. Until then no guest gets it at all.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from imagers import kbs
from imagers.encrypt.schemes.broker import BrokerKeyWrapper, is_open_name
from imagers.errors import FormatError, NotFound, Unsupported, UsageError
from imagers.files import local_errors
from imagers.model.digest import Digest
from imagers.model.keys import SecretKey, random_secret

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from imagers.model.keys import KeyWrapper

__all__ = ["KEK_BYTES", "BrokerKey", "load_kek"]

KEK_BYTES = 32


def load_kek(path: str) -> SecretKey:
    """A key-encryption key from a file of 32 bytes; the caller closes it.

    Raises:
        LocalError: it cannot be read.
        FormatError: another number of bytes.
    """
    with local_errors(path), open(path, "rb") as file:
        data = file.read(KEK_BYTES + 1)
    if len(data) != KEK_BYTES:
        raise FormatError(
            f"expected exactly {KEK_BYTES} bytes, got "
            + (f"{len(data)}" if len(data) < KEK_BYTES else "more"),
            what=path,
            hint="a raw key, as 'imagers key generate kek' makes it",
        )
    return SecretKey(data)


class BrokerKey:
    """The key of one image, or of all images of an index. See the module.

    Entering makes the key and stores it; leaving wipes it here.

    Args:
        uri: the name of the key; one that ends in "/" gets a fresh one below it.
        open_admin: the administrator's side of the broker, closed by this object after each use.
        kek: a key that somebody put there himself, in place of a fresh one: the broker is then
            not asked. It stays the caller's.
        replace: overwrite a key of the same name.
        on_unbound: told the name of a key that is at the broker for no image, after a failure.

    Raises:
        UsageError: `kek` for a recipient that gets a fresh name.
    """

    def __init__(
        self,
        uri: str,
        open_admin: Callable[[], kbs.BrokerAdmin],
        *,
        kek: SecretKey | None = None,
        replace: bool = False,
        on_unbound: Callable[[str], None] | None = None,
    ) -> None:
        if kek is not None and is_open_name(uri):
            raise UsageError(f"expected the whole name of the key, got {uri!r}")
        self.kid = uri + secrets.token_hex(16) if is_open_name(uri) else uri
        self._open_admin = open_admin
        self._given = kek
        self._replace = replace
        self._on_unbound = on_unbound
        self._stored = False
        self._stack = ExitStack()
        self._wrapper: BrokerKeyWrapper | None = None

    @property
    def wrapper(self) -> KeyWrapper:
        """What wraps layer keys with it, between entering and leaving."""
        assert self._wrapper is not None  # entered
        return self._wrapper

    def __enter__(self) -> Self:
        with ExitStack() as unless_entered:
            kek = self._given
            if kek is None:
                kek = unless_entered.enter_context(random_secret(KEK_BYTES))
                self._store(kek)
            self._wrapper = BrokerKeyWrapper(kek, self.kid)
            self._stack = unless_entered.pop_all()
        return self

    def _store(self, kek: SecretKey) -> None:
        with self._open_admin() as admin:
            # A broker that cannot bind a key to an image cannot refuse a name that is taken
            # either: it is found out before it could overwrite anything.
            try:
                admin.metadata(self.kid)
            except NotFound:
                pass
            except Unsupported as error:
                raise Unsupported(
                    f"{error}: expected a broker that keeps a key for one image",
                    hint="put a key there yourself and name its file with --kek-file",
                ) from error
            admin.put_resource(self.kid, kek, replace=self._replace)
        self._stored = True

    def bind(self, digest: Digest) -> None:
        """Register a manifest with the key: from now on it is this image's key.

        Raises:
            RemoteError: the broker could not be asked; the image is published and signed by
                nobody yet, and no guest gets its key.
        """
        if self._stored:
            with self._open_admin() as admin:
                admin.bind_manifest(self.kid, digest)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        if value is not None and self._stored and self._on_unbound is not None:
            self._on_unbound(self.kid)
