# SPDX-License-Identifier: Apache-2.0
"""The Confidential Containers packet: private options under a key that a broker keeps.

The key (KEK, 32 bytes) has a name at the broker, `kbs:///repository/type/tag`; the packet
names it, and only who gets it from the broker opens the packet:

    v1  {"kid":"kbs:///a/b/c","wrapped_data":"<base64>","iv":"<base64>","wrap_type":"A256GCM"}
    v2  also "version":"0.1.0", "provider":"kbs", "provider_settings":{}, "annotations":{}

    A256GCM  wrapped_data = AES-256-GCM ciphertext and its 16-byte tag, iv 12 bytes, no AAD
    A256CTR  wrapped_data = AES-256-CTR ciphertext, iv 16 bytes, *no* authentication

We write v1 with A256GCM, which every reader has. A256CTR is read for images whose manifest
is trusted (signed or pinned) and refused for all others: there anybody could change the
packet bit by bit, learn the layer key from which errors that gives, or put in a key of
their own without knowing the KEK. A trusted manifest covers the packet's bytes.

Annotation name: the key provider of Confidential Containers is called `attestation-agent`,
and that name is written. Readers in Rust ignore the name, so images with others exist: a
packet under another provider's name is looked at too, but only taken if it is one of these.

Spec: guest-components, confidential-data-hub/hub/src/image (both versions);
attestation-agent/coco_keyprovider (the writer).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.encrypt.annotations import COCO_SCHEME, annotation_of
from imagers.encrypt.schemes.scheme import Scheme
from imagers.errors import FormatError, TagMismatch, Unsupported, UsageError
from imagers.model.base64 import encode_base64
from imagers.model.closing import Closing
from imagers.model.keys import KeyUnwrapper, KeyWrapper, NotMine, SecretKey
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import ExitStack

    from imagers.encrypt.schemes.scheme import ProviderSettings, Target
    from imagers.model.digest import Digest
    from imagers.model.keys import KeyWrapper, ResourceStore, UnwrapContext, WrapContext, WrappedKey

__all__ = [
    "KEK_BYTES",
    "SCHEME",
    "BrokerKeyUnwrapper",
    "BrokerKeyWrapper",
    "NameTarget",
    "Packet",
    "build_packet",
    "check_kid",
    "is_open_name",
    "parse_packet",
    "resource_of",
]

KEK_BYTES = 32

_KBS = "kbs"
_VERSION = "0.1.0"
_GCM = "A256GCM"
_CTR = "A256CTR"
_IV_BYTES = {_GCM: 12, _CTR: 16}
_TAG_BYTES = 16
_MAX_BYTES = 64 * 1024  # a packet has some 430
_MAX_KID = 1024
# Trustee: three segments of letters, digits, "_", "-" and, not first, ".".
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_PATH = rf"{_SEGMENT}/{_SEGMENT}/{_SEGMENT}"
_KID = re.compile(rf"kbs:///{_PATH}\Z")
# As coco_keyprovider documents and writes them, and as the Confidential Data Hub reads them.
_KID_IN_PACKET = re.compile(rf"kbs(?:\+resource)?://[A-Za-z0-9.:\[\]_-]*/(?P<path>{_PATH})\Z")


def check_kid(kid: str, *, what: str, where: str = "") -> str:
    """`kid` itself, if it names a resource of a broker: `kbs:///repository/type/tag`.

    An authority (`kbs://host/...`) is refused: which broker is asked is for who asks to say,
    never for an annotation.

    Raises:
        FormatError: it does not.
    """
    if len(kid) > _MAX_KID or not _KID.match(kid):
        raise _no_resource(kid, what, where)
    return kid


def resource_of(kid: str, *, what: str, where: str) -> str:
    """The resource that a packet names: `kbs:///repository/type/tag`.

    A packet may name a broker too (`kbs://host:port/...`), and the plugin that all brokers have
    (`kbs+resource:///...`): the path counts, and nobody connects to the address.

    Raises:
        FormatError: it names none.
    """
    match = _KID_IN_PACKET.match(kid)
    if len(kid) > _MAX_KID or match is None:
        raise _no_resource(kid, what, where)
    return f"kbs:///{match['path']}"


def _no_resource(kid: str, what: str, where: str) -> FormatError:
    return FormatError(
        "expected 'kbs:///REPOSITORY/TYPE/TAG' with letters, digits, '_', '-' and '.', "
        f"got {kid[:160]!r}",
        what=what,
        where=where,
    )


@dataclass(frozen=True, slots=True)
class Packet:
    """One parsed packet. Nothing of it is authenticated but `wrapped_data`, and that not always.

    Attributes:
        kid: name of the key as it came, checked where `provider` is `kbs`.
        wrap_type: "" where a v2 packet of another provider has none.
        provider: whose key it is: `kbs` is a broker of Confidential Containers.
    """

    kid: str
    wrapped_data: bytes
    iv: bytes
    wrap_type: str
    provider: str = _KBS

    @property
    def resource(self) -> str | None:
        """The key at a broker as `resource_of` has it; None for one of another provider."""
        if self.provider != _KBS:
            return None
        return resource_of(self.kid, what="key packet", where="$.kid")


def build_packet(packet: Packet) -> bytes:
    """Version 1 of the packet, compact, byte for byte as coco_keyprovider writes it."""
    if packet.provider != _KBS:
        raise ValueError("version 1 of the packet has no provider but kbs")
    return dump_json(
        {
            "kid": packet.kid,
            "wrapped_data": encode_base64(packet.wrapped_data),
            "iv": encode_base64(packet.iv),
            "wrap_type": packet.wrap_type,
        }
    )


def parse_packet(data: bytes, *, what: str) -> Packet:
    """The packet in `data`, of either version. Unknown members are ignored, as its readers do.

    Raises:
        FormatError: not a packet, or one with a fault.
        Unsupported: another version or way of wrapping.
    """
    inside = f"{what}: key packet"
    document = View.parse(data, what=inside, max_bytes=_MAX_BYTES)
    kid = document.text("kid")
    wrapped_data = document.bytes64("wrapped_data")
    provider = document.optional_text("provider") or _KBS
    wrap_type = document.optional_text("wrap_type") or ""
    iv = b"" if document.value.get("iv") is None else document.bytes64("iv")
    for name in ("provider_settings", "annotations"):
        document.optional_object(name)
    if provider == _KBS:
        version = document.optional_text("version") or _VERSION
        if version != _VERSION:
            raise Unsupported(f"{inside}: expected version {_VERSION!r}, got {version[:40]!r}")
        resource_of(kid, what=inside, where="$.kid")
        _check_wrapping(wrap_type, iv, wrapped_data, inside)
    return Packet(kid, wrapped_data, iv, wrap_type, provider)


def _check_wrapping(wrap_type: str, iv: bytes, wrapped_data: bytes, inside: str) -> None:
    if not wrap_type:
        raise FormatError("is missing, expected a string", what=inside, where="$.wrap_type")
    if wrap_type not in _IV_BYTES:
        raise Unsupported(f"{inside}: expected wrap_type {_GCM!r}, got {wrap_type[:40]!r}")
    if len(iv) != _IV_BYTES[wrap_type]:
        raise FormatError(
            f"expected {_IV_BYTES[wrap_type]} bytes for {wrap_type}, got {len(iv)}",
            what=inside,
            where="$.iv",
        )
    if wrap_type == _GCM and len(wrapped_data) < _TAG_BYTES:
        raise FormatError(
            f"expected at least {_TAG_BYTES} bytes, got {len(wrapped_data)}",
            what=inside,
            where="$.wrapped_data",
        )


class BrokerKeyWrapper:
    """Wraps under one key-encryption key that a broker keeps under the name `kid`.

    Args:
        kek: 32 bytes; stays the caller's, and open while this is used.
        kid: `kbs:///repository/type/tag`.

    Raises:
        FormatError: `kid` is no such name, or the key has another length.
    """

    scheme = COCO_SCHEME

    def __init__(self, kek: SecretKey, kid: str) -> None:
        self._kid = check_kid(kid, what="key-encryption key")
        self._kek = kek
        _check_kek(kek, kid)

    @property
    def recipients(self) -> tuple[str, ...]:
        """The name of the key: who may have it is for the broker's policy to say."""
        return (f"broker:{self._kid}",)

    def wrap(self, private_options: SecretKey, context: WrapContext) -> bytes:
        """One packet, version 1, A256GCM with a fresh random iv."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        del context  # the format binds a packet to nothing
        # Random 96-bit ivs are good for 2^32 packets under one key; one image has 512 at most.
        iv = os.urandom(_IV_BYTES[_GCM])
        with self._kek.view() as kek, private_options.view() as data:
            wrapped_data = AESGCM(kek).encrypt(iv, data, None)
        return build_packet(Packet(self._kid, wrapped_data, iv, _GCM))


class BrokerKeyUnwrapper(Closing):
    """Opens packets with key-encryption keys from a broker.

    Each key is asked for once for each image and kept, in memory that is wiped, until
    `close`.

    Args:
        store: the broker; stays the caller's.
        packets: those of the image; when the first key is asked for, so are the others, by one
            question where the broker takes that.

    Threads: one at a time.
    """

    description = "the key broker"

    def __init__(self, store: ResourceStore, packets: Iterable[WrappedKey] = ()) -> None:
        self._store = store
        self._together = list(dict.fromkeys(filter(None, map(_resource_of, packets))))
        self._keks: dict[tuple[str, Digest | None], SecretKey] = {}

    def unwrap(self, wrapped: WrappedKey, context: UnwrapContext) -> SecretKey:
        """The private options in the packet; the caller closes them.

        Raises:
            NotMine: another scheme, or not a Confidential Containers packet.
            FormatError, Unsupported: such a packet, with a fault.
            TagMismatch: the packet was changed, or made with another key of this name.
            KeyUnavailable, AttestationError, RemoteError: from the store.
        """
        packet = self._parse(wrapped, context)
        resource = packet.resource
        if resource is None:
            raise NotMine(f"the packet is for the key service {packet.provider[:80]!r}")
        if packet.wrap_type == _CTR and context.manifest_digest is None:
            raise Unsupported(
                f"{context.what}: key packet: wrap_type {_CTR!r} has no authentication, and is "
                "read only for an image that is signed or pinned by digest",
                hint="pull the image under a policy that trusts it, or encrypt it anew with a "
                "writer of A256GCM",
            )
        with self._kek(resource, context).view() as kek:
            return _open_packet(packet, kek, context.what)

    def _parse(self, wrapped: WrappedKey, context: UnwrapContext) -> Packet:
        if not wrapped.scheme.startswith("provider."):
            raise NotMine(f"the scheme is {wrapped.scheme[:80]!r}")
        try:
            place = f"{context.what}: annotation {annotation_of(wrapped.scheme)}"
            return parse_packet(wrapped.packet, what=place)
        except (FormatError, Unsupported) as error:
            # Under its own name a damaged packet is told apart from another provider's bytes.
            if wrapped.scheme == COCO_SCHEME and b'"kid"' in wrapped.packet:
                raise
            raise NotMine("not a Confidential Containers packet") from error

    def _kek(self, kid: str, context: UnwrapContext) -> SecretKey:
        digest = context.manifest_digest
        name = (kid, digest)
        if name not in self._keks:
            self._ask_together(kid, digest)
        if name not in self._keks:
            self._keks[name] = self._store.get(kid, manifest_digest=digest)
        kek = self._keks[name]
        try:
            _check_kek(kek, kid)
        except FormatError:
            del self._keks[name]
            kek.close()
            raise
        return kek

    def _ask_together(self, kid: str, digest: Digest | None) -> None:
        """Get the keys of the image, once; what does not come so is asked for one by one."""
        uris, self._together = self._together, []
        if kid in uris and len(uris) > 1:
            found = self._store.get_all(uris, manifest_digest=digest)
            self._keks.update({(uri, digest): kek for uri, kek in found.items()})

    def close(self) -> None:
        """Wipe the keys. Safe to call twice; a later `unwrap` asks the broker again."""
        while self._keks:
            self._keks.popitem()[1].close()


def _resource_of(wrapped: WrappedKey) -> str | None:
    """The name of the key that opens a packet; None where it is no broker's, or has a fault."""
    if not wrapped.scheme.startswith("provider."):
        return None
    try:
        return parse_packet(wrapped.packet, what="").resource
    except (FormatError, Unsupported):
        return None


def _open_packet(packet: Packet, kek: memoryview, what: str) -> SecretKey:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if packet.wrap_type == _CTR:
        decryptor = Cipher(algorithms.AES256(kek), modes.CTR(packet.iv)).decryptor()
        return SecretKey(decryptor.update(packet.wrapped_data) + decryptor.finalize())
    try:
        # `bytes` of cryptography: an immutable copy until this function returns.
        return SecretKey(AESGCM(kek).decrypt(packet.iv, packet.wrapped_data, None))
    except InvalidTag:
        raise TagMismatch(
            what=f"{what}: key packet of {packet.kid}",
            hint="the packet was changed, or the key of this name is another one by now",
        ) from None


def _check_kek(kek: SecretKey, kid: str) -> None:
    if len(kek) != KEK_BYTES:
        raise FormatError(f"expected a key of {KEK_BYTES} bytes, got {len(kek)}", what=kid)


_wrapper: type[KeyWrapper] = BrokerKeyWrapper
_unwrapper: type[KeyUnwrapper] = BrokerKeyUnwrapper


@dataclass(frozen=True, slots=True)
class NameTarget:
    """A key at a broker, or all that a provider wrapped.

    Attributes:
        scheme: `provider.NAME`; "" for any.
        kid: of the key at a broker, whatever address a packet names beside it; "" for all
            packets of the scheme.
        name: in messages.
    """

    scheme: str
    kid: str
    name: str

    def drop_from(self, wrapped: WrappedKey, number: int) -> bytes | None:
        """None for a packet of theirs: it is for nobody else."""
        del number
        if not wrapped.scheme.startswith("provider.") or self.scheme not in ("", wrapped.scheme):
            return wrapped.packet
        if self.kid:
            try:
                packet = parse_packet(wrapped.packet, what="")
            except (FormatError, Unsupported):
                return wrapped.packet
            return None if self.kid in (packet.kid, packet.resource) else wrapped.packet
        return None


def is_open_name(uri: str) -> bool:
    """Whether each run makes a name of its own below `uri`: `kbs:///repository/type/`."""
    return uri.endswith("/")


class _BrokerScheme(Scheme):
    """`broker:URI`, the name of a key at a key broker.

    The life of that key is `imagers.build.broker_key`'s, which gives the wrapper.
    """

    def check(self, value: str) -> None:
        """See `Scheme`."""
        check_kid(f"{value}tag" if is_open_name(value) else value, what="recipient")

    def open_wrappers(
        self, values: Sequence[str], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyWrapper]:
        """See `Scheme`."""
        del values, settings, stack
        return ()

    def load_target(self, value: str, settings: ProviderSettings) -> Target:
        """See `Scheme`."""
        del settings
        if is_open_name(value):
            raise UsageError(f"expected the whole name of the key, got {value!r}")
        return NameTarget("", value, f"broker:{value}")


SCHEME = _BrokerScheme()
