# SPDX-License-Identifier: Apache-2.0
"""What a TPM is told, in bytes: the commands that evidence needs, and no others.

    tpm = TPM(transmit)
    tpm.read_public(0x81010002)
    attest, signature, values = tpm.quote(0x81010002, nonce)

`transmit` hands one command to the TPM and gives its answer, whole. Each command has
`tag u16, size u32, code u32, handles, sessions, parameters`, each answer `tag, size, code, ...`.
Passwords are empty, as those of a machine's own keys are.

Spec: TCG TPM 2.0 Library 1.59, part 1, 18 (structure of commands), part 3.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from hashlib import sha256, sha384
from typing import TYPE_CHECKING

from imagers.errors import LocalError
from imagers.evidence.tpm.structures import (
    ALG_NULL,
    MAX_ATTEST,
    PCRS,
    RSASSA,
    SHA256,
    Attest,
    Reader,
    Selection,
    parse_attest,
    sized,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["AK_TEMPLATE", "ENDORSEMENT", "OWNER", "TPM"]

OWNER, ENDORSEMENT, NULL = 0x40000001, 0x4000000B, 0x40000007
_PASSWORD = 0x40000009
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_WHAT = "answer of the TPM"
_MAX_ANSWER = 4096
_NV_CHUNK = 512  # what each TPM reads at once
_AUTH_READ = 1 << 18
_ATTEMPTS = 8
_POLICY_SESSION = 0x01
_COMMANDS = {
    "EvictControl": 0x120,
    "CreatePrimary": 0x131,
    "ActivateCredential": 0x147,
    "NV_Read": 0x14E,
    "PolicySecret": 0x151,
    "Quote": 0x158,
    "FlushContext": 0x165,
    "NV_ReadPublic": 0x169,
    "ReadPublic": 0x173,
    "StartAuthSession": 0x176,
    "GetCapability": 0x17A,
    "PCR_Read": 0x17E,
    "PCR_Extend": 0x182,
}
_CAP_PCRS = 5
_MAX_BANKS = 16
_HANDLE = 0x08B
_RETRY = frozenset({0x908, 0x90A, 0x922})  # TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_RETRY
_WORDS = {
    0x084: "a value is not one that it takes",
    0x085: "this hierarchy is switched off",
    _HANDLE: "there is no such key or place",
    0x08E: "there is a password, or it is wrong",
    0x09D: "the policy of the key is not met",
    0x09F: "the credential is for another TPM, or for another key",
    0x0A2: "there is a password, or it is wrong",
    0x100: "it was not started",
    0x101: "it failed its self test, and does nothing until it is reset",
    0x143: "it does not know this command",
    0x148: "the place is locked",
    0x149: "the place is not for everybody",
    0x14A: "nothing was written there",
    0x14C: "something is there already",
    0x107: "it lets nobody extend this register from here",
    0x902: "it has no room for another key",
    0x903: "it has no room for another session",
    0x908: "it is busy",
    0x90A: "it tests itself",
    0x920: "it writes no faster",
    0x921: "it is locked, after too many wrong passwords",
    0x922: "it is busy",
    0x923: "its memory cannot be written now",
}
"""What a TPM says, less the number of what it is about."""
AK_TEMPLATE = (
    struct.pack(">HHI", 0x0001, SHA256, 0x00050072)
    + sized(b"")
    + struct.pack(">HHHHI", ALG_NULL, RSASSA, SHA256, 2048, 0)
    + sized(b"")
)
"""A restricted key of RSA that signs with SHA-256, was made in the TPM and does not leave it."""


class TPM:
    """Speaks with a TPM.

    Args:
        transmit: hands a command to it, and gives the answer.
    """

    def __init__(self, transmit: Callable[[bytes], bytes]) -> None:
        self._transmit = transmit

    def has(self, handle: int) -> bool:
        """Whether a key or a place has this handle."""
        name = "NV_ReadPublic" if handle >> 24 == 0x01 else "ReadPublic"
        code, _ = self._run(name, (handle,))
        if code in (0, _HANDLE):
            return code == 0
        raise _failed(name, code)

    def read_public(self, handle: int) -> bytes:
        """The public part of a key: a TPMT_PUBLIC."""
        return self._ask("ReadPublic", (handle,)).sized(_MAX_ANSWER)

    def read_pcrs(self) -> tuple[bytes, ...]:
        """All registers of the SHA-256 bank."""
        values: dict[int, bytes] = {}
        left = tuple(range(PCRS))
        while left:
            wanted = struct.pack(">I", 1) + Selection(SHA256, left).pack()
            answer = self._ask("PCR_Read", (), parameters=wanted)
            answer.number(4)  # counts the changes of registers
            if answer.number(4) != 1:
                raise LocalError("the TPM has no SHA-256 bank", path=_WHAT)
            bank, bits = answer.number(2), int.from_bytes(answer.take(answer.number(1)), "little")
            given = [at for at in left if bits >> at & 1]
            if bank != SHA256 or not given or answer.number(4) != len(given):
                raise LocalError(
                    "the TPM has no SHA-256 bank, or not all of its registers", path=_WHAT
                )
            for at in given:
                values[at] = answer.sized(64)
            left = tuple(at for at in left if at not in values)
        return tuple(values[at] for at in range(PCRS))

    def banks(self, register: int) -> tuple[int, ...]:
        """The hashes for which a register has a value."""
        answer = self._ask("GetCapability", (), parameters=struct.pack(">III", _CAP_PCRS, 0, 1))
        has_more, capability, count = answer.number(1), answer.number(4), answer.number(4)
        if has_more or capability != _CAP_PCRS or count > _MAX_BANKS:
            raise LocalError("the TPM does not say which banks it has", path=_WHAT)
        found = []
        for _ in range(count):
            bank, bits = answer.number(2), int.from_bytes(answer.take(answer.number(1)), "little")
            if bits >> register & 1:
                found.append(bank)
        return tuple(found)

    def extend(self, register: int, digests: Mapping[int, bytes]) -> None:
        """Extend a register, in each bank with the digest by its hash."""
        parameters = struct.pack(">I", len(digests))
        parameters += b"".join(struct.pack(">H", bank) + one for bank, one in digests.items())
        self._ask("PCR_Extend", (register,), (_PASSWORD,), parameters)

    def quote(self, key: int, nonce: bytes) -> tuple[Attest, bytes, tuple[bytes, ...]]:
        """A quote of all registers of the SHA-256 bank, its TPMT_SIGNATURE, and their values.

        Raises:
            LocalError: the TPM refuses, or registers were extended each time.
        """
        parameters = sized(nonce) + struct.pack(">HI", ALG_NULL, 1)
        parameters += Selection(SHA256, tuple(range(PCRS))).pack()
        for _ in range(_ATTEMPTS):
            values = self.read_pcrs()
            answer = self._ask("Quote", (key,), (_PASSWORD,), parameters)
            attest = parse_attest(answer.sized(MAX_ATTEST))
            signature = answer.rest()
            joined = b"".join(values)
            # The digest is by the hash that the key signs with.
            if attest.pcr_digest in (sha256(joined).digest(), sha384(joined).digest()):
                return attest, signature, values
        raise LocalError(
            f"registers were extended in between, in each of {_ATTEMPTS} attempts", path=_WHAT
        )

    def read_nv(self, index: int) -> bytes:
        """All that is in a place of its memory."""
        public = Reader(self._ask("NV_ReadPublic", (index,)).sized(_MAX_ANSWER), _WHAT)
        public.take(6)  # index, hash of its name
        # The owner reads what is not for everybody.
        reader = index if public.number(4) & _AUTH_READ else OWNER
        public.sized(64)
        size = public.number(2)
        data = b""
        while len(data) < size:
            chunk = struct.pack(">HH", min(_NV_CHUNK, size - len(data)), len(data))
            piece = self._ask("NV_Read", (reader, index), (_PASSWORD,), chunk).sized(_NV_CHUNK)
            if not piece:
                raise LocalError("the TPM gives less than it says", path=_WHAT)
            data += piece
        return data

    @contextmanager
    def primary(self, hierarchy: int, template: bytes) -> Iterator[int]:
        """The key that a template gives, the same each time; its handle, until the block ends."""
        empty = sized(sized(b"") * 2)
        parameters = empty + sized(template) + sized(b"") + struct.pack(">I", 0)
        code, answer = self._run("CreatePrimary", (hierarchy,), (_PASSWORD,), parameters)
        if code:
            raise _failed("CreatePrimary", code)
        handle = Reader(answer, _WHAT).number(4)
        try:
            yield handle
        finally:
            self._run("FlushContext", (), parameters=struct.pack(">I", handle))

    def persist(self, key: int, handle: int) -> None:
        """Keep a key under a handle, over restarts."""
        parameters = struct.pack(">I", handle)
        code, _ = self._run("EvictControl", (OWNER, key), (_PASSWORD,), parameters)
        if code:
            raise _failed("EvictControl", code)

    def activate_credential(self, ak: int, ek: int, blob: bytes, seed: bytes) -> bytes:
        """The secret in a credential for the key `ak`, by the endorsement key `ek`."""
        parameters = sized(bytes(32)) + sized(b"")
        parameters += struct.pack(">BHH", _POLICY_SESSION, ALG_NULL, SHA256)
        code, answer = self._run("StartAuthSession", (NULL, NULL), parameters=parameters)
        if code:
            raise _failed("StartAuthSession", code)
        session = Reader(answer, _WHAT).number(4)
        try:
            # Who knows the password of the endorsement hierarchy may use the key.
            policy = sized(b"") * 3 + struct.pack(">i", 0)
            self._ask("PolicySecret", (ENDORSEMENT, session), (_PASSWORD,), policy)
            parameters = sized(blob) + sized(seed)
            return self._ask(
                "ActivateCredential", (ak, ek), (_PASSWORD, session), parameters
            ).sized(64)
        finally:
            # The TPM ends it with the command; where that failed it is still there.
            self._run("FlushContext", (), parameters=struct.pack(">I", session))

    def _ask(
        self,
        name: str,
        handles: tuple[int, ...],
        sessions: tuple[int, ...] = (),
        parameters: bytes = b"",
    ) -> Reader:
        """The parameters of the answer of a command that gives no handle."""
        code, answer = self._run(name, handles, sessions, parameters)
        if code:
            raise _failed(name, code)
        reader = Reader(answer, _WHAT)
        return Reader(reader.take(reader.number(4)), _WHAT) if sessions else reader

    def _run(
        self,
        name: str,
        handles: tuple[int, ...],
        sessions: tuple[int, ...] = (),
        parameters: bytes = b"",
    ) -> tuple[int, bytes]:
        """The code of an answer, and what is behind it."""
        body = b"".join(struct.pack(">I", one) for one in handles)
        if sessions:
            area = b"".join(struct.pack(">IHBH", one, 0, 0, 0) for one in sessions)
            body += struct.pack(">I", len(area)) + area
        body += parameters
        tag = _SESSIONS if sessions else _NO_SESSIONS
        command = struct.pack(">HII", tag, 10 + len(body), _COMMANDS[name]) + body
        for _ in range(_ATTEMPTS):
            reader = Reader(self._transmit(command), _WHAT)
            reader.number(2)
            size, code = reader.number(4), reader.number(4)
            answer = reader.take(size - 10) if 10 <= size <= _MAX_ANSWER else b""
            reader.end()
            if code not in _RETRY:
                break
        return _plain(code), answer


def _plain(code: int) -> int:
    """A code without the number of the handle, session or parameter that it is about.

    Spec: part 2, 6.6.3: bit 7 tells the codes that have one.
    """
    return code & 0x0BF if code & 0x080 else code


def _failed(name: str, code: int) -> LocalError:
    word = _WORDS.get(code, "it refuses")
    return LocalError(f"TPM2_{name}: {word} ({code:#05x})", path="the TPM")
