# SPDX-License-Identifier: Apache-2.0
"""OpenPGP through the user's gpg: read and make the messages of simple signing.

    with Keyring([("key file 'release.gpg'", data)]) as keyring:
        reading = keyring.read(blob)         # payload and signer, or why not

Reading happens in a fresh home that holds the keys of one requirement and nothing else: no
configuration, no agent, no network, no trust database of the user decides anything. What counts
is gpg's status output, in which, for a yes,

1. every line is of a kind that is known here,
2. there is exactly one text, one signature and one VALIDSIG,
3. nothing says that signature or key are expired, revoked, bad or unknown,
4. VALIDSIG names a binary signature with a hash of at least 256 bits, by a key whose primary
   fingerprint is one of the imported keys,
5. and gpg ended with 0. The payload is what gpg gave out, never what we cut out of the blob.

`verify().valid` of python-gnupg is not used: it says yes to an expired signature.

Spec: GnuPG doc/DETAILS, "Format of the --status-fd output"; containers-signature.5.md.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from imagers.errors import FormatError, KeyUnavailable, LocalError, UsageError
from imagers.gpg import STRANGERS, PrivateHome, user_gpg
from imagers.sign.formats.signed_by import KeyringMaterial
from imagers.sign.found import Reading, SimpleSignature
from imagers.sign.requirements import walk

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from types import TracebackType

    from imagers.model.keys import SecretKey
    from imagers.sign.found import Found
    from imagers.sign.materials import Trust

__all__ = [
    "MAX_BLOB_BYTES",
    "Keyring",
    "export_key",
    "parse_fingerprint",
    "read_simple_signatures",
    "sign_simple",
]

MAX_BLOB_BYTES = 128 * 1024  # of one signature; a real one has 600 bytes
_MAX_PAYLOAD_BYTES = 64 * 1024  # after decompression, as of every payload
_MAX_SPENT_S = 60  # of gpg with all signatures that one requirement is held against
_STATUS = "[GNUPG:] "
_OPTIONS = ("--no-auto-key-retrieve", "--trust-model=always")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}(?:[0-9A-F]{24})?\Z")
_HASHES = frozenset({"8", "9", "10", "11", "12", "14"})  # RFC 4880 9.4: SHA-2, SHA-3
_BINARY_SIGNATURE = "00"  # RFC 4880 5.2.1
_KNOWN = frozenset(
    {
        "GOODSIG",
        "KEY_CONSIDERED",
        "NEWSIG",
        "NOTATION_DATA",  # free text of the signer: it decides nothing
        "NOTATION_FLAGS",
        "NOTATION_NAME",
        "PLAINTEXT",
        "PLAINTEXT_LENGTH",
        "POLICY_URL",
        "PROGRESS",
        "SIG_ID",
        "TRUST_FULLY",
        "TRUST_MARGINAL",
        "TRUST_ULTIMATE",
        "TRUST_UNDEFINED",
        "VALIDSIG",
        "VERIFICATION_COMPLIANCE_MODE",
    }
)
_ONCE = ("PLAINTEXT", "NEWSIG", "GOODSIG", "VALIDSIG")
_REASONS = {
    "EXPSIG": "the signature is expired",
    "EXPKEYSIG": "the key that made it is expired",
    "REVKEYSIG": "the key that made it is revoked",
    "BADSIG": "the signature does not fit the text",
    "NO_PUBKEY": "the key that made it is not among the trusted ones",
    "ERRSIG": "the signature cannot be checked",
    "NODATA": "it is no OpenPGP message",
    "BEGIN_DECRYPTION": "it is encrypted",
    "ENC_TO": "it is encrypted",
}


class Keyring:
    """The keys of one requirement, in a gpg home of their own, until the context ends.

    Args:
        keys: name for messages, and OpenPGP public keys, binary or armored.

    Raises:
        FormatError: on entering: one of `keys` holds no public key.
        LocalError: on entering: gpg is not installed, or there is no place for a home.

    Threads: one at a time.
    """

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._keys = tuple(keys)
        self._home: PrivateHome | None = None
        self._spent_s = 0.0
        self.fingerprints: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        self._home = PrivateHome(agent=False, options=_OPTIONS)
        try:
            found: set[str] = set()
            for name, data in self._keys:
                found |= self._import(self._home, name, data)
            self.fingerprints = frozenset(found)
            self._home.gpg.limits = STRANGERS
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._home is not None:
            self._home.close()
            self._home = None

    def _import(self, home: PrivateHome, name: str, data: bytes) -> set[str]:
        result = home.gpg.import_keys(data)
        lines = _status_lines(result.stderr)
        found = {words[2] for words in lines if words[0] == "IMPORT_OK" and len(words) > 2}
        if not found or not all(_FINGERPRINT.match(one) for one in found):
            raise FormatError(
                "expected OpenPGP public keys, found none that can be used",
                what=name,
                hint="'gpg --export FINGERPRINT > FILE' writes such a file",
            )
        return found

    def read(self, blob: bytes) -> Reading:
        """What gpg says about one blob.

        Raises:
            RuntimeError: outside of the context.
        """
        if self._home is None:
            raise RuntimeError("expected an entered keyring")
        if len(blob) > MAX_BLOB_BYTES:
            return _refused(f"expected at most {MAX_BLOB_BYTES} bytes, got {len(blob)}")
        # Bit 7 is set in every OpenPGP packet: no cleartext framework and no armor, whose
        # text gpg reads with rules of its own.
        if not blob or not blob[0] & 0x80:
            return _refused("expected a binary OpenPGP message, got another kind of file")
        if self._spent_s > _MAX_SPENT_S:
            return _failed(f"gpg was kept busy for {_MAX_SPENT_S} s by other signatures")
        gpg = self._home.gpg
        result = gpg.decrypt(
            blob, always_trust=True, extra_args=["--max-output", str(_MAX_PAYLOAD_BYTES)]
        )
        self._spent_s += gpg.seconds
        if gpg.was_ended:
            return _failed(
                f"gpg did not end within {STRANGERS.cpu_s} s of work or {STRANGERS.wall_s} s"
            )
        return self._judge(_status_lines(result.stderr), result.returncode, bytes(result.data))

    def _judge(self, lines: list[list[str]], code: int | None, payload: bytes) -> Reading:
        words = [line[0] for line in lines]
        for word, reason in _REASONS.items():  # step 3
            if word in words:
                return _refused(reason + _by(lines, word))
        unknown = next((word for word in words if word not in _KNOWN), None)
        if unknown is not None:  # step 1
            return _refused(f"gpg says {unknown[:40]!r} of it")
        for word in _ONCE:  # step 2
            if words.count(word) != 1:
                return _refused(
                    f"expected one text with one signature, got {words.count(word)} {word}"
                )
        valid = lines[words.index("VALIDSIG")]
        if len(valid) < 11:  # step 4: the primary fingerprint is the tenth argument
            return _refused("gpg does not say which primary key made it")
        hash_algorithm, signature_class, primary = valid[8], valid[9], valid[10]
        if hash_algorithm not in _HASHES:
            return _refused(f"expected a hash of SHA-2 or SHA-3, got OpenPGP hash {hash_algorithm}")
        if signature_class != _BINARY_SIGNATURE:
            return _refused(f"expected a signature of class 00, got {signature_class}")
        if primary not in self.fingerprints:
            return _refused(f"made by key {primary}, which is not among the trusted ones")
        if code != 0 or len(payload) > _MAX_PAYLOAD_BYTES:  # step 5
            return _refused(f"gpg ended with {code}")
        return Reading(payload, fingerprint=primary)


def _refused(reason: str) -> Reading:
    return Reading(None, refusal=reason)


def _failed(reason: str) -> Reading:
    return Reading(
        None,
        failed=LocalError(
            f"a signature could not be checked: {reason}",
            hint="it may be a trap: who may write signatures beside the image?",
        ),
    )


def _by(lines: list[list[str]], word: str) -> str:
    """Which key a refusal is about, as far as gpg says it."""
    line = next(line for line in lines if line[0] == word)
    key = line[1] if len(line) > 1 else ""
    return f": key {key}" if re.fullmatch(r"[0-9A-F]{16,64}", key) else ""


def _status_lines(text: str) -> list[list[str]]:
    return [
        words
        for line in text.splitlines()
        if line.startswith(_STATUS) and (words := line[len(_STATUS) :].split(" "))
    ]


def read_simple_signatures(trust: Trust, found: Found) -> Found:
    """The same with what gpg says about each OpenPGP signature, for each requirement.

    gpg is not started where there is nothing to read. That it cannot be started is no answer
    about a signature, and stays in the readings as such.

    Raises:
        FormatError: a key of the policy is no OpenPGP key.
    """
    blobs = {one.blob for one in found.signatures if isinstance(one, SimpleSignature)}
    readings: dict[bytes, dict[str, Reading]] = {blob: {} for blob in blobs}
    for one, _ in walk(trust.selected.requirements):
        material = trust.keys.get(one.where)
        if not blobs or not isinstance(material, KeyringMaterial):
            continue
        try:
            with Keyring(material.keyring) as keyring:
                for blob in blobs:
                    readings[blob][one.where] = keyring.read(blob)
        except LocalError as error:
            for blob in blobs:
                readings[blob][one.where] = Reading(None, failed=error)
    return found.with_signatures(
        [
            replace(one, readings=readings[one.blob]) if isinstance(one, SimpleSignature) else one
            for one in found.signatures
        ]
    )


def parse_fingerprint(text: str) -> str:
    """A whole fingerprint, in capitals without blanks.

    Raises:
        UsageError: it is none. A short key id or a user name is refused: several keys can
            have it, and gpg would choose one.
    """
    fingerprint = text.replace(" ", "").upper().removeprefix("0X")
    if not _FINGERPRINT.match(fingerprint):
        raise UsageError(
            f"expected the fingerprint of a key, 40 hex digits, got {text[:80]!r}",
            hint="'gpg --list-secret-keys' prints it",
        )
    return fingerprint


def export_key(fingerprint: str, *, home: str | os.PathLike[str] | None = None) -> bytes:
    """The public half of a key of the user's gpg.

    Raises:
        KeyUnavailable: there is none.
        LocalError: gpg is not installed.
    """
    gpg = user_gpg(home)
    found = gpg.export_keys(fingerprint, armor=False)
    if not found:
        raise KeyUnavailable(
            f"gpg has no key {fingerprint}",
            hint="'gpg --list-secret-keys' shows the keys that there are",
        )
    return bytes(found)


def sign_simple(
    payload: bytes,
    fingerprint: str,
    keyring: Keyring,
    *,
    passphrase: SecretKey | None = None,
    home: str | os.PathLike[str] | None = None,
) -> bytes:
    """A signed message over `payload`, made by the user's gpg and read back.

    Args:
        fingerprint: of the primary key, as `parse_fingerprint` gives it.
        keyring: entered, with the public half of this key and nothing else.
        passphrase: None leaves it to the user's agent, which may ask.
        home: of gpg; None: the user's.

    Raises:
        KeyUnavailable: gpg has no such secret key, or may not use it; or what it made would
            not be accepted.
        LocalError: gpg is not installed.
    """
    gpg = user_gpg(home)
    text: str | None = None
    if passphrase is not None:
        with passphrase.view() as view:
            text = bytes(view).decode("latin-1")  # python-gnupg encodes it back
    result = gpg.sign(
        payload,
        keyid=fingerprint,
        passphrase=text,
        clearsign=False,
        detach=False,
        binary=True,
    )
    blob = bytes(result.data)
    lines = _status_lines(result.stderr or "")
    if result.returncode != 0 or [line[0] for line in lines].count("SIG_CREATED") != 1:
        raise KeyUnavailable(
            f"gpg does not sign with key {fingerprint}",
            hint="'gpg --list-secret-keys' shows the keys that there are; --passphrase-file "
            "gives the passphrase where no agent can ask for it",
        )
    # What is published was read as those who verify will read it: a second --local-user in
    # gpg.conf, an expired key or another hash is found here and not by them.
    reading = keyring.read(blob)
    if reading.payload != payload or reading.fingerprint != fingerprint:
        raise KeyUnavailable(
            f"what gpg made with key {fingerprint} would not be accepted: "
            + (reading.refusal or "it signs something else, or with another key")
        )
    return blob
