# SPDX-License-Identifier: Apache-2.0
"""A key provider that is a program: one question on its standard input, one answer back.

It gets the environment of this process, as under ocicrypt, and a session of its own, which
is killed as a whole where it fails or does not end in time. What it writes to standard error
goes into the message if it fails, bounded; what it answers is bounded too.

Spec: containers/ocicrypt v1.3.2, utils/keyprovider and utils/ioutils.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers import programs
from imagers.encrypt.schemes.providers.messages import MAX_ANSWER_BYTES
from imagers.errors import ProviderFailed
from imagers.files import reason_of
from imagers.model.keys import SecretKey

if TYPE_CHECKING:
    from imagers.encrypt.schemes.providers.config import ProgramProvider

__all__ = ["ask_program"]


def ask_program(
    provider: ProgramProvider, question: SecretKey, *, timeout_s: float, what: str
) -> SecretKey:
    """The answer of the program; the caller closes it.

    Raises:
        ProviderFailed: it does not start, fails, answers too much, or not in time.
    """
    named = f"{what} ({provider.path[:200]!r})"
    try:
        with question.view() as data:
            answer = programs.ask_program(
                [provider.path, *provider.args],
                data,
                timeout_s=timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
                own_session=True,
            )
    except (TimeoutError, OverflowError) as error:
        raise ProviderFailed(f"{named}: {error}") from error
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise ProviderFailed(f"{what}: cannot start {provider.path[:200]!r}: {reason}") from error
    try:
        if answer.status == 0:
            return SecretKey(answer.out)
        said = answer.error.decode("utf-8", "replace").strip()
        how = f"exit code {answer.status}" if answer.status > 0 else f"signal {-answer.status}"
        raise ProviderFailed(f"{named}: failed with {how}" + (f": {said}" if said else ""))
    finally:
        answer.out[:] = bytes(len(answer.out))
