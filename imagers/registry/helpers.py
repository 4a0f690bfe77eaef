# SPDX-License-Identifier: Apache-2.0
"""Credential helpers: programs named `docker-credential-NAME` that keep logins.

    ask_helper(HelperName("pass", "registry.example.org"))

A helper that is missing or breaks is an error and not "no login": who configured one does
not want to be anonymous.

Spec: docker/docker-credential-helpers v0.9, "Development".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import FormatError, PluginBroken, PluginNotFound
from imagers.files import reason_of
from imagers.model.strict_json import View, dump_json
from imagers.programs import ask_program
from imagers.registry.credentials import Credentials, IdentityToken

if TYPE_CHECKING:
    from imagers.registry.auth_files import HelperName

__all__ = ["ask_helper", "erase_from_helper", "store_in_helper"]

_TIMEOUT_S = 60.0  # it may ask a person
_MAX_ANSWER = 256 * 1024
_NONE = b"credentials not found"
_TOKEN_USER = "<token>"  # noqa: S105  # a name, not a password


def ask_helper(helper: HelperName) -> Credentials | IdentityToken | None:
    """The login that a helper has; None if it says that it has none.

    Raises:
        PluginNotFound: there is no such program.
        PluginBroken: it failed, or its answer is none.
    """
    code, answer = _run(helper, "get", helper.server.encode())
    if code != 0:
        if _NONE in answer:
            return None
        raise PluginBroken("gave no login", name=_program(helper), hint="ask it by hand")
    try:
        document = View.parse(answer, what="answer", max_bytes=_MAX_ANSWER)
        username, secret = document.text("Username"), document.text("Secret")
    except FormatError as error:
        raise PluginBroken(f"expected a login, got {error}", name=_program(helper)) from None
    if not username and not secret:
        return None
    return IdentityToken(secret) if username == _TOKEN_USER else Credentials(username, secret)


def store_in_helper(helper: HelperName, login: Credentials) -> None:
    """Give a login to a helper. Raises as `ask_helper`."""
    with login.password.view() as password:
        secret = bytes(password).decode()
    document = {"ServerURL": helper.server, "Username": login.username, "Secret": secret}
    code, _ = _run(helper, "store", dump_json(document))
    if code != 0:
        raise PluginBroken("did not take the login", name=_program(helper))


def erase_from_helper(helper: HelperName) -> None:
    """Make a helper forget a login. Raises as `ask_helper`."""
    code, answer = _run(helper, "erase", helper.server.encode())
    if code != 0 and _NONE not in answer:
        raise PluginBroken("did not forget the login", name=_program(helper))


def _program(helper: HelperName) -> str:
    return f"docker-credential-{helper.name}"


def _run(helper: HelperName, verb: str, request: bytes) -> tuple[int, bytes]:
    program = _program(helper)
    try:
        answer = ask_program(  # the name was checked; it is what the user configured
            [program, verb],
            request,
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_ANSWER,
            own_session=False,
        )
    except FileNotFoundError:
        raise PluginNotFound(
            "the program is not in PATH",
            name=program,
            hint="an auth file or registries.conf names it; install it, or give --creds",
        ) from None
    except TimeoutError:
        raise PluginBroken(f"gave no answer within {_TIMEOUT_S:g} s", name=program) from None
    except OverflowError:
        raise PluginBroken("its answer is too long", name=program) from None
    except OSError as error:
        raise PluginBroken(f"does not start: {reason_of(error)}", name=program) from error
    return answer.status, bytes(answer.out)
