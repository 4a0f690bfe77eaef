# SPDX-License-Identifier: Apache-2.0
"""OpenPGP recipients and secret keyrings, by the user's gpg.

    with PGPWrapper(["alice@example.com"]) as wrapper: ...
    with PGPUnwrapper(keyring) as unwrapper: ...

Messages come from registries: `imagers.gpg` has the limits of each run, and the homes.

Recipients are looked for in the user's own keyring, by the exact name or e-mail of a user
ID as ocicrypt does, or by fingerprint. Their keys alone are then copied into a fresh private
home; secret keys from a file get one too, in memory where the machine has /dev/shm. So
nothing of the user's keyring, trust database or agent is changed or used.

A packet is one message without signature and compression, as ocicrypt reads it. Whoever
knows a recipient's key can make one: gpg's "good" says nothing about who did.

Spec: RFC 4880 sections 5.1 and 5.13; containers/ocicrypt v1.3.2, keywrap/pgp and gpg.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagers.encrypt.keyfiles import PGPKeyring
from imagers.encrypt.schemes.pgp_packets import split_session_keys
from imagers.encrypt.schemes.scheme import Scheme
from imagers.errors import FormatError, KeyUnavailable, ProviderFailed, UsageError
from imagers.gpg import STRANGERS, PrivateHome, user_gpg
from imagers.model.closing import Closing
from imagers.model.keys import KeyUnwrapper, KeyWrapper, NotMine, SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import ExitStack

    from imagers.encrypt.keyfiles import DecryptionFile
    from imagers.encrypt.schemes.scheme import ProviderSettings, Target
    from imagers.model.keys import UnwrapContext, WrapContext, WrappedKey

__all__ = ["PGP_SCHEME", "SCHEME", "PGPTarget", "PGPUnwrapper", "PGPWrapper", "find_key_ids"]

PGP_SCHEME = "pgp"

_MAX_OUTPUT = 64 * 1024  # private options have 193 bytes; a compressed packet could be a bomb
_FINGERPRINT = re.compile(r"(?:0x)?([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})\Z")
# RFC 4880 section 4.2: packet tag 1, in the old format with each kind of length, and the new.
_SESSION_KEY_TAGS = (0x84, 0x85, 0x86, 0x87, 0xC1)
_MAX_WASTED_S = 60
_UNUSABLE = {"r": "revoked", "e": "expired", "d": "disabled", "i": "not valid"}
_BAD_PASSPHRASE = 11  # GPG_ERR_BAD_PASSPHRASE of libgpg-error
_PKDECRYPT_FAILED = re.compile(r"^\[GNUPG:\] ERROR pkdecrypt_failed (\d+)", re.MULTILINE)


class _WithHome(Closing):
    """What owns a home until `close`."""

    def __init__(self, *, agent: bool) -> None:
        self._home = PrivateHome(
            agent=agent, options=["--pinentry-mode", "loopback", "--no-auto-key-locate"]
        )
        self._home.gpg.encoding = "utf-8"

    def close(self) -> None:
        """End the agent, remove the home. Safe to call twice."""
        self._home.close()


class PGPWrapper(_WithHome):
    """Wraps for OpenPGP keys of the user's keyring, all in one message.

    Args:
        recipients: names, e-mails or fingerprints, at least one.
        user_home: of the keyring that they are looked for in; None for gpg's default.

    Raises:
        KeyUnavailable: a recipient is not there, or has no key to encrypt for.
        UsageError: a recipient could be several keys.
        LocalError: gpg cannot be started.
    """

    scheme = PGP_SCHEME

    def __init__(self, recipients: Sequence[str], *, user_home: str | None = None) -> None:
        if not recipients:
            raise ValueError("a PGP message needs a recipient")
        user = _user_gpg(user_home)
        keys = list(user.list_keys())
        self._fingerprints = tuple(
            dict.fromkeys(_find_key(recipient, keys) for recipient in recipients)
        )
        self._names = tuple(recipients)
        exported = user.export_keys(list(self._fingerprints), armor=False, minimal=True)
        super().__init__(agent=False)
        try:
            imported = self._home.gpg.import_keys(exported)
        except BaseException:
            self.close()
            raise
        if set(imported.fingerprints) != set(self._fingerprints):
            self.close()
            raise ProviderFailed("gpg did not take over the recipients' keys")

    @property
    def recipients(self) -> tuple[str, ...]:
        """As they were given."""
        return tuple(f"pgp:{name}" for name in self._names)

    def wrap(self, private_options: SecretKey, context: WrapContext) -> bytes:
        """One message for all of them.

        Raises:
            ProviderFailed: gpg refuses.
        """
        with private_options.view() as data:
            # `bytes` for python-gnupg: an immutable copy until this function returns.
            result = self._home.gpg.encrypt(
                bytes(data),
                list(self._fingerprints),
                always_trust=True,
                armor=False,
                # ocicrypt reads no AEAD packets, and nothing is to be in the clear.
                extra_args=[
                    "--rfc4880",
                    *("--cipher-algo", "AES256"),
                    *("--compress-algo", "none"),
                    *("--set-filename", ""),
                    "--no-encrypt-to",
                ],
            )
        if not result.ok or not result.data:
            raise ProviderFailed(f"{context.what}: gpg did not encrypt: {result.status}")
        return bytes(result.data)


def _user_gpg(home: str | None) -> Any:
    gpg = user_gpg(home)
    gpg.encoding = "utf-8"  # of the names in a keyring
    return gpg


def _find_key(recipient: str, keys: Sequence[dict[str, Any]]) -> str:
    """The fingerprint of the one key that `recipient` names."""
    match = _FINGERPRINT.match(recipient.replace(" ", ""))
    if match is not None:
        found = [key for key in keys if key["fingerprint"] == match[1].upper()]
    else:
        found = [key for key in keys if any(_is_named(uid, recipient) for uid in key["uids"])]
    if not found:
        raise KeyUnavailable(
            f"pgp: no key of {recipient[:160]!r} in the keyring of gpg",
            hint="expected the exact name, e-mail or fingerprint; see: gpg --list-keys",
        )
    usable = [key for key in found if key["trust"] not in _UNUSABLE and "E" in key["cap"]]
    if not usable:
        why = _UNUSABLE.get(found[0]["trust"], "without a subkey for encryption")
        raise KeyUnavailable(f"pgp: the key of {recipient[:160]!r} is {why}")
    if len(usable) > 1:
        raise UsageError(
            f"pgp: {recipient[:160]!r} could be {len(usable)} keys",
            hint="give a fingerprint: " + " or ".join(key["fingerprint"] for key in usable[:4]),
        )
    return str(usable[0]["fingerprint"])


def find_key_ids(recipient: str, *, user_home: str | None = None) -> frozenset[bytes]:
    """The ids of a recipient's key and subkeys, 8 bytes each, as messages name them.

    Raises:
        KeyUnavailable, UsageError, LocalError: as for `PGPWrapper`.
    """
    keys = list(_user_gpg(user_home).list_keys())
    fingerprint = _find_key(recipient, keys)
    (key,) = (one for one in keys if one["fingerprint"] == fingerprint)
    ids = [key["keyid"], *(subkey[0] for subkey in key["subkeys"])]
    return frozenset(bytes.fromhex(one) for one in ids)


def _is_named(uid: str, recipient: str) -> bool:
    """Whether a user id is `recipient`, or has it as its name or its e-mail.

    `NAME (COMMENT) <EMAIL>`, where the last two may be missing. Keys of anybody are in a
    keyring, and an expression with a blank part beside another takes minutes for a long one.
    """
    if not recipient:
        return False
    if uid == recipient:
        return True
    rest, email = uid.rstrip(), None
    if rest.endswith(">") and "<" in rest:
        rest, _, email = rest[:-1].rpartition("<")
        rest = rest.rstrip()
    if rest.endswith(")") and "(" in rest:
        rest = rest.partition("(")[0]
    if any(mark in rest for mark in "<(") or (email is not None and ">" in email):
        return False  # not of this form: only the whole of it names it
    return recipient in (rest.strip(), email)


class PGPUnwrapper(_WithHome):
    """Opens messages with the secret keys of a file.

    Args:
        keyring: stays the caller's until this returns.
        ask: gets a passphrase that was not given, once; told the file.

    Raises:
        FormatError: the file holds no secret key.
        LocalError: gpg cannot be started.
    """

    def __init__(
        self, keyring: PGPKeyring, *, ask: Callable[[str], SecretKey | None] | None = None
    ) -> None:
        super().__init__(agent=True)
        self._wasted_s = 0.0
        self._name = keyring.name
        self._ask = ask
        self._passphrase: SecretKey | None = None
        try:
            with keyring.content.view() as data:
                imported = self._home.gpg.import_keys(bytes(data))
            if keyring.passphrase is not None:
                with keyring.passphrase.view() as data:
                    self._passphrase = SecretKey(data)
        except BaseException:
            self.close()
            raise
        if not imported.sec_imported:
            self.close()
            raise FormatError("holds no OpenPGP secret key that gpg takes", what=keyring.name)
        self._home.gpg.limits = STRANGERS

    def close(self) -> None:
        """End the agent, remove the keys, wipe the passphrase. Safe to call twice."""
        if self._passphrase is not None:
            self._passphrase.close()
        super().close()

    @property
    def description(self) -> str:
        """The keyring's file."""
        return f"key file {self._name!r}"

    def unwrap(self, wrapped: WrappedKey, context: UnwrapContext) -> SecretKey:
        """The private options in the message; the caller closes them.

        Raises:
            NotMine: another scheme, no message, for other keys, or changed.
            KeyUnavailable: the passphrase is missing or does not open the key.
            ProviderFailed: gpg does not end, or messages that it cannot open took too long.
        """
        if wrapped.scheme != PGP_SCHEME:
            raise NotMine(f"the scheme is {wrapped.scheme[:80]!r}")
        if not wrapped.packet or wrapped.packet[0] not in _SESSION_KEY_TAGS:
            raise NotMine("it does not begin with a session key for a recipient")
        if self._wasted_s > _MAX_WASTED_S:
            raise ProviderFailed(
                f"{context.what}: gpg was kept busy for {_MAX_WASTED_S} s by messages that it "
                "cannot open",
                hint="somebody has put them there; do not use this image",
            )
        result = self._home.gpg.decrypt(
            wrapped.packet,
            always_trust=True,
            passphrase=self._passphrase_text(),
            extra_args=["--max-output", str(_MAX_OUTPUT)],
        )
        # A message that was never encrypted is printed by gpg too, and is not "ok".
        if result.ok and result.returncode == 0 and result.status == "decryption ok":
            # `bytes` of python-gnupg: an immutable copy until this function returns.
            return SecretKey(result.data)
        self._wasted_s += self._home.gpg.seconds
        if self._home.gpg.was_ended:
            raise ProviderFailed(
                f"{context.what}: gpg did not end within {STRANGERS.cpu_s} s of work or "
                f"{STRANGERS.wall_s} s",
                hint="the message may be a trap; do not use this image",
            )
        if self._wants_passphrase(result.stderr, context):
            return self.unwrap(wrapped, context)
        raise NotMine(f"gpg: {result.status or 'not an OpenPGP message'}")

    def _passphrase_text(self) -> str | None:
        """The passphrase as text, which python-gnupg wants: an immutable copy for one call."""
        if self._passphrase is None:
            return None
        with self._passphrase.view() as data:
            try:
                text = bytes(data).decode("utf-8")
            except UnicodeDecodeError as error:
                raise KeyUnavailable(f"{self._name}: expected a passphrase in UTF-8") from error
        if any(c in text for c in "\0\r\n"):
            raise KeyUnavailable(f"{self._name}: expected a passphrase of one line")
        return text

    def _wants_passphrase(self, said: str, context: UnwrapContext) -> bool:
        """Whether a passphrase was missing and has been typed by now.

        Raises:
            KeyUnavailable: it is missing, or not the right one.
        """
        codes = [int(code) & 0xFFFF for code in _PKDECRYPT_FAILED.findall(said)]
        missing = "[GNUPG:] MISSING_PASSPHRASE" in said or (
            self._passphrase is None and "[GNUPG:] NEED_PASSPHRASE" in said
        )
        if _BAD_PASSPHRASE not in codes and not missing:
            return False
        if self._passphrase is None:
            ask, self._ask = self._ask, None
            self._passphrase = None if ask is None else ask(self._name)
            if self._passphrase is not None:
                return True
            raise KeyUnavailable(
                f"{context.what}: --decryption-key {self._name}: the key has a passphrase, and "
                "none was given",
                hint=f"give it as --decryption-key {self._name}:file=PASSWORDFILE or "
                f"{self._name}:fd=N; on a terminal it is asked for",
            )
        raise KeyUnavailable(
            f"{context.what}: --decryption-key {self._name}: the passphrase does not open the key"
        )


_wrapper: type[KeyWrapper] = PGPWrapper
_unwrapper: type[KeyUnwrapper] = PGPUnwrapper


@dataclass(frozen=True, slots=True)
class PGPTarget:
    """Whoever has the OpenPGP key with one of these ids.

    Attributes:
        key_ids: of 8 bytes each, of the key's subkeys.
        name: in messages.
    """

    key_ids: frozenset[bytes]
    name: str

    def drop_from(self, wrapped: WrappedKey, number: int) -> bytes | None:
        """The packet without them; None if nobody is left in it."""
        del number
        if wrapped.scheme != "pgp":
            return wrapped.packet
        try:
            session_keys, rest = split_session_keys(wrapped.packet)
        except FormatError:
            return wrapped.packet
        left = [one.raw for one in session_keys if one.key_id not in self.key_ids]
        if len(left) == len(session_keys):
            return wrapped.packet
        return b"".join(left) + rest if left else None


class _PGP(Scheme):
    """`pgp:ID`: exact name, e-mail or fingerprint of a key of the user's gpg."""

    def open_wrappers(
        self, values: Sequence[str], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyWrapper]:
        """See `Scheme`."""
        return [stack.enter_context(PGPWrapper(values, user_home=settings.gpg_home))]

    def open_unwrappers(
        self, files: Sequence[DecryptionFile], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyUnwrapper]:
        """See `Scheme`."""
        return [
            stack.enter_context(PGPUnwrapper(one, ask=settings.ask))
            for one in files
            if isinstance(one, PGPKeyring)
        ]

    def load_target(self, value: str, settings: ProviderSettings) -> Target:
        """See `Scheme`."""
        return PGPTarget(find_key_ids(value, user_home=settings.gpg_home), f"pgp:{value}")

    def list_recipients(self, wrapped: WrappedKey) -> list[tuple[str, str]]:
        """See `Scheme`."""
        return [("", one.key_id.hex().upper()) for one in split_session_keys(wrapped.packet)[0]]


SCHEME = _PGP()
