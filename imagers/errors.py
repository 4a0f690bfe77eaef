# SPDX-License-Identifier: Apache-2.0
"""Every exception of the API: one tree, split by what the caller can do about it.

`str()` of each is one line: lower case, no full stop, values quoted, expected before
actual. The facts are attributes and the text is made from them, so a test can see both.
`exit_code` is what the command line ends with; `hint` says what to do next.

A caller's own bugs are `TypeError`, `ValueError`, or `RuntimeError` for a call in the
wrong order; those are not part of this tree.

    try:
        ...
    except VerificationError as error:      # we looked, and the answer is no
        ...
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AttestationError",
    "Cancelled",
    "CouldNotVerify",
    "DigestMismatch",
    "EvidenceRejected",
    "EvidenceStale",
    "FormatError",
    "ImagersError",
    "IntegrityError",
    "KeyRefused",
    "KeyUnavailable",
    "LocalError",
    "NoMatchingKey",
    "NoSignature",
    "NoTEE",
    "NotFound",
    "PluginBroken",
    "PluginError",
    "PluginNotFound",
    "PolicyDenied",
    "ProviderFailed",
    "RateLimited",
    "RemoteError",
    "SignatureInvalid",
    "SizeMismatch",
    "TagMismatch",
    "TimedOut",
    "TrailingData",
    "Truncated",
    "Unauthorized",
    "Unsupported",
    "UntrustedSigner",
    "UsageError",
    "VerificationError",
    "WindowTooLarge",
]

_LONGEST_VALUE = 200  # characters of a foreign value that a message repeats


def _shown(value: object) -> str:
    """`value` as a message shows it: quoted, on one line, bounded."""
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if len(text) > _LONGEST_VALUE:
        text = text[:_LONGEST_VALUE] + "…"
    return f"'{_printable(text)}'"


def _printable(text: str) -> str:
    """`text` on one line, without what moves a cursor or hides a word.

    Text of a registry, a broker or a path ends in messages; control characters of it must
    not reach a terminal or a log.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


class ImagersError(Exception):
    """Something that a user or a peer did; never a bug of imagers itself.

    Attributes:
        exit_code: what the command line exits with.
        hint: what to do next, or None.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(_printable(message))
        self.hint = None if hint is None else _printable(hint)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross processes with all their facts; `__init__` would make the text anew.
        return _unpickled, (type(self), *self.args), self.__dict__


def _unpickled(kind: type[ImagersError], message: str) -> ImagersError:
    return kind.__new__(kind, message)


class UsageError(ImagersError):
    """The words of a command or the arguments of a call do not fit together."""

    exit_code = 2


class Cancelled(ImagersError):
    """The work was cancelled by its own caller; nothing was published."""

    exit_code = 130


class TimedOut(Cancelled):
    """A time limit of its own caller was reached; nothing was published.

    Attributes:
        phase: of the work.
        limit_s: the limit, in seconds.
        in_all: whether it was that of the whole work, and not of the phase.
        step: what was done, and how far it was; or "".
        waited_for: who did not answer; "" where it worked.
    """

    exit_code = 124  # as timeout(1) has it

    def __init__(
        self, *, phase: str, limit_s: float, in_all: bool, step: str, waited_for: str
    ) -> None:
        doing = f"{step}, " if step else ""
        waited = f"waited for {waited_for}" if waited_for else "still at work on this machine"
        super().__init__(
            f"{phase}: not done within {limit_s:g} s{' in all' if in_all else ''}: {doing}{waited}",
            hint=f"--timeout {'' if in_all else phase + '='}LONGER gives it more time; 0 is none",
        )
        self.phase = phase
        self.limit_s = limit_s
        self.in_all = in_all
        self.step = step
        self.waited_for = waited_for


class FormatError(ImagersError):
    """Bytes from outside that are not what the specification says.

    Attributes:
        where: path of the fault, such as `$.layers[2].size`.
        what: the document, such as `manifest`.
    """

    exit_code = 11

    def __init__(
        self, message: str, *, what: str = "", where: str = "", hint: str | None = None
    ) -> None:
        place = " at ".join(part for part in (what, where) if part)
        super().__init__(f"{place}: {message}" if place else message, hint=hint)
        self.what = what
        self.where = where


class Unsupported(ImagersError):
    """Well-formed, but not done here: a media type, a cipher, a TEE, a kind of entry."""

    exit_code = 12


class WindowTooLarge(Unsupported):
    """A zstd frame whose decoder would hold more memory than there is for it."""


class LocalError(ImagersError):
    """A path, a full disk, a permission, a lock.

    Attributes:
        path: the path concerned.
    """

    exit_code = 13

    def __init__(self, message: str, *, path: str = "", hint: str | None = None) -> None:
        super().__init__(f"{path}: {message}" if path else message, hint=hint)
        self.path = path


class IntegrityError(ImagersError):
    """The bytes are not the bytes that were promised."""

    exit_code = 20


class _Mismatch(IntegrityError):
    noun: ClassVar[str]

    def __init__(
        self, *, expected: object, actual: object, what: str = "", hint: str | None = None
    ) -> None:
        place = f"{what}: " if what else ""
        super().__init__(
            f"{place}{self.noun} mismatch: expected {_shown(expected)}, got {_shown(actual)}",
            hint=hint,
        )
        self.expected = expected
        self.actual = actual
        self.what = what


class DigestMismatch(_Mismatch):
    """A SHA digest differs: of a blob, a manifest, or a tar (then `noun` says diff_id)."""

    noun = "digest"

    def __init__(
        self,
        *,
        expected: object,
        actual: object,
        what: str = "",
        noun: str = "digest",
        hint: str | None = None,
    ) -> None:
        self.noun = noun  # type: ignore[misc]  # one class, two nouns of the OCI specification
        super().__init__(expected=expected, actual=actual, what=what, hint=hint)


class SizeMismatch(_Mismatch):
    """A count differs: bytes of a blob, or layers of an image."""

    noun = "size"

    def __init__(
        self,
        *,
        expected: object,
        actual: object,
        what: str = "",
        noun: str = "size",
        hint: str | None = None,
    ) -> None:
        self.noun = noun  # type: ignore[misc]  # one class: sizes and counts
        super().__init__(expected=expected, actual=actual, what=what, hint=hint)


class TagMismatch(IntegrityError):
    """An HMAC or AEAD tag does not fit: wrong key or changed bytes. Shows neither tag."""

    def __init__(self, *, what: str = "", hint: str | None = None) -> None:
        place = f"{what}: " if what else ""
        super().__init__(
            f"{place}authentication tag does not match: wrong key, or the bytes were changed",
            hint=hint,
        )
        self.what = what


class Truncated(IntegrityError):
    """A stream ended before its format or its descriptor says.

    Attributes:
        expected: bytes promised, or None where only the format says so.
        actual: bytes seen.
    """

    def __init__(
        self,
        message: str = "",
        *,
        expected: int | None = None,
        actual: int | None = None,
        what: str = "",
        hint: str | None = None,
    ) -> None:
        place = f"{what}: " if what else ""
        if expected is not None:
            message = f"ends too early: expected {expected} bytes, got {actual}"
        super().__init__(f"{place}{message or 'ends too early'}", hint=hint)
        self.expected = expected
        self.actual = actual
        self.what = what


class TrailingData(IntegrityError):
    """A stream goes on after its end."""

    def __init__(
        self,
        message: str = "",
        *,
        expected: int | None = None,
        what: str = "",
        hint: str | None = None,
    ) -> None:
        place = f"{what}: " if what else ""
        if expected is not None:
            message = f"has data after its end: expected {expected} bytes, got more"
        super().__init__(f"{place}{message or 'has data after its end'}", hint=hint)
        self.expected = expected
        self.what = what


class VerificationError(ImagersError):
    """We looked, and the answer is no."""

    exit_code = 21


class SignatureInvalid(VerificationError):
    """A signature is there and does not verify, or signs something else."""


class NoSignature(VerificationError):
    """A signature is required and none is there."""


class UntrustedSigner(VerificationError):
    """A good signature by a key that the policy does not name, or for another identity."""


class PolicyDenied(VerificationError):
    """A policy says no."""


class _Stepwise(ImagersError):
    """Ends a verification of numbered steps.

    Attributes:
        step: number and name of the step, such as `6, signature`; "" outside of all.
    """

    step = ""

    def enter_step(self, name: str) -> None:
        """Say that it was in this step; the innermost one stays."""
        if not self.step:
            self.step = name
            self.args = (f"step {name}: {self}",)

    def is_part_of(self, number: int) -> None:
        """Say that the step, as another verifier numbers it, is one of step `number`."""
        if self.step:
            told, self.step = f"step {self.step}", f"{number}.{self.step}"
            self.args = (str(self).replace(told, f"step {self.step}", 1),)


class CouldNotVerify(VerificationError, _Stepwise):
    """We could not look: not a "no", and never a "yes"."""

    exit_code = 22


class KeyUnavailable(ImagersError):
    """There is no key for these bytes."""

    exit_code = 30


class NoMatchingKey(KeyUnavailable):
    """None of the given keys opens the layer.

    Attributes:
        tried: what was tried, a line each.
    """

    def __init__(
        self, message: str, *, tried: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.tried = tried


class KeyRefused(KeyUnavailable):
    """A broker knows the key and refuses it.

    Attributes:
        reason: what the broker said, one bounded line.
    """

    exit_code = 31

    def __init__(self, message: str, *, reason: str = "", hint: str | None = None) -> None:
        super().__init__(f"{message}: {_shown(reason)}" if reason else message, hint=hint)
        self.reason = reason


class ProviderFailed(KeyUnavailable):
    """A key provider was asked and failed."""


class AttestationError(ImagersError):
    """Proving what this machine is, or believing it of another, failed."""

    exit_code = 40


class NoTEE(AttestationError):
    """This machine has no trusted execution environment that we can speak for."""


class EvidenceRejected(AttestationError, _Stepwise):
    """Evidence was looked at, and is not good.

    Attributes:
        claim: what was compared, or "".
        expected, found: its values as text, or "".
    """

    def __init__(
        self,
        message: str,
        *,
        claim: str = "",
        expected: str = "",
        found: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.claim = claim
        self.expected = expected
        self.found = found


class EvidenceStale(AttestationError):
    """Evidence, a nonce or a session is too old."""


class RemoteError(ImagersError):
    """A registry or a broker could not be reached, or gave an answer that is no use.

    Attributes:
        status: the HTTP status, or None where there was no answer.
        code: the error code of the protocol, such as `MANIFEST_UNKNOWN`, or "".
        temporary: whether trying again can help.
        retry_after: seconds that the server asks to wait before, or None.
    """

    exit_code = 10

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        temporary: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.temporary = temporary
        self.retry_after: float | None = None


class NotFound(RemoteError):
    """The server was asked and has no such thing."""


class Unauthorized(RemoteError):
    """The server wants other credentials."""


class RateLimited(RemoteError):
    """The server wants us to wait."""


class PluginError(ImagersError):
    """A plugin is missing or broken.

    Attributes:
        name: the name of the plugin.
    """

    exit_code = 50

    def __init__(self, message: str, *, name: str, hint: str | None = None) -> None:
        super().__init__(f"plugin {_shown(name)}: {message}", hint=hint)
        self.name = name


class PluginNotFound(PluginError):
    """No plugin of that name is installed."""


class PluginBroken(PluginError):
    """A plugin is installed and does not keep the contract."""
