# SPDX-License-Identifier: Apache-2.0
"""HTTP to calls and back: paths, bounds, cookies, statuses.

    POST /kbs/v0/auth                    anybody
    POST /kbs/v0/attest                  session cookie
    GET  /kbs/v0/resource/R/T/T          session cookie or bearer token
    POST, PUT, DELETE the same           admin    (POST creates, PUT or ?replace=true replaces)
    GET  /kbs/v0/resource                admin
    GET  /kbs/v0/imagers/metadata/R/T/T  admin
    POST /kbs/v0/imagers/binding/R/T/T   admin
    GET, POST /kbs/v0/imagers/policy     admin
    GET, POST /kbs/v0/imagers/reference-value        admin    (?add=true joins)
    DELETE    /kbs/v0/imagers/reference-value/NAME   admin
    POST /kbs/v0/imagers/undelete/R/T/T              admin    (?version=N)
    GET  /kbs/v0/imagers/image/R                     admin
    POST /kbs/v0/imagers/image/R/approval            admin    (and revocation, successor, floor)
    GET  /kbs/v0/imagers/audit           admin
    GET, POST /kbs/v0/imagers/admin-key              admin    (?tenant=NAME, of an operator)
    DELETE    /kbs/v0/imagers/admin-key/ID           admin
    GET  /kbs/v0/imagers/tenant                      admin, an operator
    POST, DELETE /kbs/v0/imagers/tenant/NAME         admin, an operator
    POST /kbs/v0/imagers/repository/R                admin, an operator    (who owns it)
    GET, POST /kbs/v0/resource-policy    admin    as Trustee's client sends them, see
    POST /kbs/v0/attestation-policy      admin    `trustee_admin`
    POST /kbs/v0/reference-value         admin
    GET  /kbs/v0/reference-value/NAME    admin
    GET  /.well-known/jwks.json          anybody
    GET  /.well-known/openid-configuration   anybody, where the issuer is a URL
    GET  /openapi.json                   anybody
    GET  /healthz                        anybody

Who is not an admin is told so before the body of an admin's request is read. What is about each
request is in `guarded`.
"""

from __future__ import annotations

import asyncio
import re
from email.utils import format_datetime
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.routing import Route, Router

from imagers.broker.adminkeys import AdminKeys
from imagers.broker.admins import Right, require_right
from imagers.broker.audit import AuditEvent
from imagers.broker.guarded import JSON_TYPE, Guarded, caller_of, place_of, prove, read_body
from imagers.broker.handshake import Handshake
from imagers.broker.images import Images
from imagers.broker.loglines import LimitedLog
from imagers.broker.metrics import CONTENT_TYPE, Metrics
from imagers.broker.openapi import openapi_json
from imagers.broker.policy.rego.scan import is_rego
from imagers.broker.policy.table import MAX_POLICY_BYTES
from imagers.broker.readiness import Readiness
from imagers.broker.references import References
from imagers.broker.refusals import Refusal
from imagers.broker.releases import (
    IMAGE_QUERY,
    MAX_REQUEST,
    Asked,
    Credentials,
    Releases,
    join_released,
    parse_asked,
)
from imagers.broker.resources import Ends, Resources
from imagers.broker.tenants import Tenants
from imagers.broker.trustee_admin import MAX_MESSAGE_BYTES as MAX_ADMIN_MESSAGE
from imagers.broker.trustee_admin import TrusteeAdmin
from imagers.broker.ui.login import COOKIE as LOGIN_COOKIE
from imagers.broker.ui.pages import ASSETS, READERS, Page, Pages, asset
from imagers.kbs.jwe import MAX_RESOURCE_BYTES
from imagers.kbs.messages import MAX_ATTESTATION_BYTES, MAX_MESSAGE_BYTES
from imagers.kbs.wire import COOKIE_NAME, OUR_PREFIX, PREFIX
from imagers.model.keys import SecretKey
from imagers.model.references import MAX_REFERENCES_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from imagers.broker.handshake import Answer
    from imagers.broker.keeping.rows import Admin
    from imagers.broker.state import BrokerState

__all__ = ["create_app"]

_PUBLISHED_SECONDS = 300  # as long as a token counts
_SMALL = 16 * 1024
_DIGITS = 18  # of a version: it fits into 64 bits
_ADMIN = "admin"  # no session is named so
_COOKIE = re.compile(rf"(?:^|;)\s*{COOKIE_NAME}=([A-Za-z0-9_-]{{1,128}})\s*(?=;|$)")
_LOGIN_COOKIE = re.compile(rf"(?:^|;)\s*{LOGIN_COOKIE}=([0-9a-f.]{{1,200}})\s*(?=;|$)")
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9_.-]+) *\Z")


def create_app(state: BrokerState) -> Router:
    """The ASGI application of an open broker; closing the state is the caller's.

    It is starlette's router without its middleware: what fails is answered here.
    """
    endpoints = _Endpoints(state)
    log = LimitedLog("imagers.broker")

    def guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Guarded:
        return Guarded(endpoint, log, endpoints.counted)

    nothing = guarded(endpoints.nothing)
    image = f"{PREFIX}/imagers/image/{{repository}}"
    return Router(
        routes=[
            Route("/healthz", guarded(endpoints.health), methods=["GET"]),
            Route("/readyz", guarded(endpoints.ready), methods=["GET"]),
            Route("/metrics", guarded(endpoints.metrics), methods=["GET"]),
            Route("/openapi.json", guarded(endpoints.openapi)),
            Route("/.well-known/jwks.json", guarded(endpoints.keys)),
            Route("/.well-known/openid-configuration", guarded(endpoints.discovery)),
            Route(f"{PREFIX}/auth", guarded(endpoints.auth), methods=["POST"]),
            Route(f"{PREFIX}/attest", guarded(endpoints.attest), methods=["POST"]),
            Route(f"{PREFIX}/resource", guarded(endpoints.names), methods=["GET"]),
            Route(f"{PREFIX}/resource/{{path:path}}", guarded(endpoints.resource)),
            Route(f"{PREFIX}/resource-policy", guarded(endpoints.trustee_policy)),
            Route(f"{PREFIX}/attestation-policy", guarded(endpoints.trustee_attestation)),
            Route(f"{PREFIX}/reference-value", guarded(endpoints.trustee_register)),
            Route(f"{PREFIX}/reference-value/{{name:path}}", guarded(endpoints.trustee_values)),
            Route(f"{PREFIX}/imagers/metadata/{{path:path}}", guarded(endpoints.metadata)),
            Route(f"{PREFIX}/imagers/binding/{{path:path}}", guarded(endpoints.bind)),
            Route(f"{PREFIX}/imagers/undelete/{{path:path}}", guarded(endpoints.undelete)),
            Route(image, guarded(endpoints.images)),
            Route(f"{image}/approval", guarded(endpoints.approval)),
            Route(f"{image}/revocation", guarded(endpoints.revocation)),
            Route(f"{image}/successor", guarded(endpoints.successor)),
            Route(f"{image}/floor", guarded(endpoints.floor)),
            Route(f"{PREFIX}/imagers/policy", guarded(endpoints.policy)),
            Route(
                f"{PREFIX}/imagers/attestation-policy/{{name}}",
                guarded(endpoints.attestation_policy),
            ),
            Route(f"{OUR_PREFIX}/release", guarded(endpoints.release)),
            Route(f"{PREFIX}/imagers/reference-value", guarded(endpoints.references)),
            Route(f"{PREFIX}/imagers/reference-value/{{name:path}}", guarded(endpoints.reference)),
            Route(f"{PREFIX}/imagers/tenant", guarded(endpoints.tenants)),
            Route(f"{PREFIX}/imagers/tenant/{{name}}", guarded(endpoints.tenant)),
            Route(f"{PREFIX}/imagers/repository/{{name}}", guarded(endpoints.repository)),
            Route(f"{PREFIX}/imagers/admin-key", guarded(endpoints.admin_keys)),
            Route(f"{PREFIX}/imagers/admin-key/{{id}}", guarded(endpoints.admin_key)),
            Route(f"{PREFIX}/imagers/audit", guarded(endpoints.audit)),
            Route(f"{PREFIX}/imagers/audit/head", guarded(endpoints.audit_heads)),
            Route("/ui", guarded(endpoints.ui)),
            Route("/ui/{path:path}", guarded(endpoints.ui)),
            Route("/{path:path}", nothing),
        ],
        # A path with a line feed in it fits no pattern, and is led to no other.
        default=nothing,
        redirect_slashes=False,
    )


class _Endpoints:
    def __init__(self, state: BrokerState) -> None:
        self._state = state
        self._handshake = Handshake(state)
        self._releases = Releases(state)
        self._resources = Resources(state)
        self._references = References(state)
        self._images = Images(state)
        self._tenants = Tenants(state)
        self._admin_keys = AdminKeys(state)
        self._readiness = Readiness(state)
        self._pages = Pages(state, self._resources, self._references, self._images)
        self.counted = Metrics()
        self._trustee = TrusteeAdmin(self._resources, self._references)

    async def health(self, _: Request) -> Response:
        return Response(b"ok\n", media_type="text/plain")

    async def ready(self, _: Request) -> Response:
        await self._readiness.check()
        return Response(b"ok\n", media_type="text/plain")

    async def metrics(self, _: Request) -> Response:
        return Response(self.counted.text(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:
        _only(request, "GET")
        return _published(openapi_json())

    async def keys(self, request: Request) -> Response:
        _only(request, "GET")
        return _published(self._state.guest_tokens.jwks())

    async def discovery(self, request: Request) -> Response:
        _only(request, "GET")
        document = self._state.guest_tokens.discovery()
        if document is None:
            raise Refusal("InvalidRequestPath", "the issuer of this broker is no URL")
        return _published(document)

    async def nothing(self, request: Request) -> NoReturn:
        path = request.url.path[:80]
        if path.startswith(f"{PREFIX}/"):
            raise Refusal("PluginNotFound", f"there is nothing at {path!r} for {request.method}")
        raise Refusal("InvalidRequestPath", f"expected a path below '{PREFIX}', got {path!r}")

    async def trustee_policy(self, request: Request) -> Response:
        if request.method == "GET":
            await self._admin(request, Right.READ)
            return _json(await self._trustee.resource_policies())
        return await self._trustee_set(request, self._trustee.set_resource_policy)

    async def trustee_attestation(self, request: Request) -> Response:
        return await self._trustee_set(request, self._trustee.set_attestation_policy)

    async def trustee_register(self, request: Request) -> Response:
        return await self._trustee_set(request, self._trustee.register)

    async def trustee_values(self, request: Request) -> Response:
        if request.method != "GET":
            await self.nothing(request)
        by = await self._admin(request, Right.READ)
        return _json(await self._trustee.value(by, request.path_params["name"]))

    async def _trustee_set(
        self, request: Request, change: Callable[[Admin, bytes], Awaitable[None]]
    ) -> Response:
        if request.method != "POST":
            await self.nothing(request)  # as Trustee does: it looks for a plugin of that name
        by = await self._admin(request, Right.RULE)
        await change(by, bytes(await read_body(request, MAX_ADMIN_MESSAGE)))
        return Response(b"")

    async def auth(self, request: Request) -> Response:
        body = bytes(await read_body(request, MAX_MESSAGE_BYTES))
        auth = self._handshake.auth(body, caller=caller_of(request))
        return _with_cookie(await auth)

    async def attest(self, request: Request) -> Response:
        cookie, caller = _cookie(request), caller_of(request)
        # Nobody without a session makes us hold 2 MiB.
        await self._handshake.check_session(cookie, caller=caller)
        body = bytes(await read_body(request, MAX_ATTESTATION_BYTES))
        answer = await self._handshake.attest(cookie, body, caller=caller)
        prove(request, answer.session)
        return _with_cookie(answer)

    async def resource(self, request: Request) -> Response:
        path = request.path_params["path"]
        if request.method == "GET":
            credentials = Credentials(cookie=_cookie(request), bearer=_bearer(request))
            query = request.query_params
            asked = Asked((path,), query.getlist(IMAGE_QUERY), dict(query))
            released = await self._releases.release(credentials, asked, caller=caller_of(request))
            prove(request, released.caller)
            return _json(released.bodies[0])
        by = await self._admin(request, Right.WRITE)
        if request.method == "DELETE":
            await self._resources.delete(by, path, permanently=_flag(request, "permanently"))
            return Response(b"")
        _only(request, "POST", "PUT")
        replace = request.method == "PUT" or _flag(request, "replace")
        ends = Ends.parse(_one_value(request, "expires"), _one_value(request, "max-uses"))
        data = await read_body(request, MAX_RESOURCE_BYTES)
        await asyncio.shield(_put(self._resources, by, path, data, replace=replace, ends=ends))
        return Response(b"")

    async def names(self, request: Request) -> Response:
        by = await self._admin(request, Right.SEE)
        _only(request, "GET")
        return _json(await self._resources.names(by))

    async def metadata(self, request: Request) -> Response:
        by = await self._admin(request, Right.SEE)
        _only(request, "GET")
        return _json(await self._resources.metadata(by, request.path_params["path"]))

    async def bind(self, request: Request) -> Response:
        by = await self._admin(request, Right.WRITE)
        _only(request, "POST")
        body = bytes(await read_body(request, _SMALL))
        await self._resources.bind(by, request.path_params["path"], body)
        return Response(b"")

    async def undelete(self, request: Request) -> Response:
        by = await self._admin(request, Right.WRITE)
        _only(request, "POST")
        text = _one_value(request, "version")
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            raise Refusal("SerdeError", f"expected the number of a version, got {text[:40]!r}")
        version = None if text is None else int(text)
        await self._resources.undelete(by, request.path_params["path"], version)
        return Response(b"")

    async def images(self, request: Request) -> Response:
        by = await self._admin(request, Right.SEE)
        _only(request, "GET")
        return _json(await self._images.list(by, request.path_params["repository"]))

    async def approval(self, request: Request) -> Response:
        return await self._change_image(request, Right.WRITE, self._images.approve)

    async def revocation(self, request: Request) -> Response:
        return await self._change_image(request, Right.WRITE, self._images.revoke)

    async def successor(self, request: Request) -> Response:
        return await self._change_image(request, Right.WRITE, self._images.supersede)

    async def floor(self, request: Request) -> Response:
        return await self._change_image(request, Right.RULE, self._images.set_floor)

    async def _change_image(
        self, request: Request, right: Right, change: Callable[[Admin, str, bytes], Awaitable[None]]
    ) -> Response:
        by = await self._admin(request, right)
        _only(request, "POST")
        await change(by, request.path_params["repository"], bytes(await read_body(request, _SMALL)))
        return Response(b"")

    async def policy(self, request: Request) -> Response:
        by = await self._admin(request, _to_rule(request))
        _only(request, "GET", "POST")
        if request.method == "GET":
            policy = await self._resources.policy_text(by)
            return _text(policy) if is_rego(policy.decode()) else _json(policy)
        body = bytes(await read_body(request, MAX_POLICY_BYTES))
        await self._resources.set_policy(by, body)
        return Response(b"")

    async def attestation_policy(self, request: Request) -> Response:
        by = await self._admin(request, _to_rule(request))
        _only(request, "GET", "POST", "DELETE")
        name = request.path_params["name"]
        if request.method == "GET":
            return _text(await self._resources.attestation_policy(by, name))
        body = None
        if request.method == "POST":
            body = bytes(await read_body(request, MAX_POLICY_BYTES))
        await self._resources.set_attestation_policy(by, name, body)
        return Response(b"")

    async def release(self, request: Request) -> Response:
        _only(request, "POST")
        credentials = Credentials(cookie=_cookie(request), bearer=_bearer(request))
        credentials.require()
        asked = parse_asked(bytes(await read_body(request, MAX_REQUEST)))
        released = await self._releases.release(credentials, asked, caller=caller_of(request))
        prove(request, released.caller)
        return _json(join_released(asked, released))

    async def references(self, request: Request) -> Response:
        by = await self._admin(request, _to_rule(request))
        _only(request, "GET", "POST")
        if request.method == "GET":
            return _json(await self._references.list(by))
        body = bytes(await read_body(request, MAX_REFERENCES_BYTES))
        await self._references.set(by, body, add=_flag(request, "add"))
        return Response(b"")

    async def reference(self, request: Request) -> Response:
        by = await self._admin(request, Right.RULE)
        _only(request, "DELETE")
        await self._references.delete(by, request.path_params["name"])
        return Response(b"")

    async def audit(self, request: Request) -> Response:
        by = await self._admin(request, Right.READ, Right.OPERATE)
        _only(request, "GET")
        query = dict(request.query_params)
        limit = query.pop("limit", "100")
        return _json(await self._resources.audit(by, limit, query))

    async def audit_heads(self, request: Request) -> Response:
        await self._admin(request, Right.OPERATE)
        _only(request, "GET")
        return _json(await self._resources.audit_heads())

    async def tenants(self, request: Request) -> Response:
        await self._admin(request, Right.OPERATE)
        _only(request, "GET")
        return _json(await self._tenants.list())

    async def tenant(self, request: Request) -> Response:
        by = await self._admin(request, Right.OPERATE)
        _only(request, "POST", "DELETE")
        name = request.path_params["name"]
        await (self._tenants.add if request.method == "POST" else self._tenants.remove)(by, name)
        return Response(b"")

    async def repository(self, request: Request) -> Response:
        by = await self._admin(request, Right.OPERATE)
        _only(request, "POST")
        body = bytes(await read_body(request, _SMALL))
        await self._tenants.assign(by, request.path_params["name"], body)
        return Response(b"")

    async def admin_keys(self, request: Request) -> Response:
        by = await self._admin(request, Right.APPOINT, Right.OPERATE)
        _only(request, "GET", "POST")
        if request.method == "GET":
            return _json(await self._admin_keys.list(by, request.query_params.get("tenant")))
        return _json(await self._admin_keys.add(by, bytes(await read_body(request, _SMALL))))

    async def admin_key(self, request: Request) -> Response:
        by = await self._admin(request, Right.APPOINT, Right.OPERATE)
        _only(request, "DELETE")
        await self._admin_keys.remove(by, request.path_params["id"])
        return Response(b"")

    async def ui(self, request: Request) -> Response:
        """All pages for people: those of `imagers.broker.ui`."""
        path = request.path_params.get("path", "")
        if request.method == "POST":
            return await self._enter_or_leave(request, path)
        _only(request, "GET", "HEAD")  # the server leaves the body of an answer to HEAD out
        if path in ASSETS:
            return Response(asset(path), headers={"Content-Type": ASSETS[path]})
        by = await self._state.find_logged_in(_login_cookie(request))
        if by is None:
            return _show(self._pages.login())
        try:
            self._check_certificate(request)
            prove(request, f"{_ADMIN} of {by.tenant}")
            return _show(await self._pages.show(by, path, dict(request.query_params)))
        except Refusal as refusal:
            return _show(self._pages.refused(refusal, by))

    async def _enter_or_leave(self, request: Request, path: str) -> Response:
        """Log in, or out: by a form of ours, and no other site's."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refusal("AdminAuthAccess", "the form is of another site")
        secure = "; Secure" if self._is_https(request) else ""
        attributes = f"; Path=/ui; HttpOnly; SameSite=Strict{secure}"
        response = Response(status_code=303, headers={"Location": "/ui"})
        if path == "logout":
            response.headers["Set-Cookie"] = f"{LOGIN_COOKIE}=; Max-Age=0{attributes}"
            return response
        if path != "login":
            await self.nothing(request)
        form = parse_qs(bytes(await read_body(request, _SMALL)).decode("ascii", "replace"))
        try:
            token = form.get("token", [""])[0].strip()
            by = await self._check_admin(request, token or None, *READERS)
        except Refusal as refusal:
            return _show(self._pages.login(refusal.detail))
        cookie = self._state.log_in(by)
        response.headers["Set-Cookie"] = f"{LOGIN_COOKIE}={cookie}{attributes}"
        return response

    def _is_https(self, request: Request) -> bool:
        """Whether the browser speaks https: to us, or to the proxy that ends TLS before us."""
        if request.url.scheme == "https" or self._state.config.issuer.startswith("https://"):
            return True
        place = place_of(request)
        is_proxied = place is not None and place.is_proxied
        return is_proxied and request.headers.get("x-forwarded-proto") == "https"

    async def _admin(self, request: Request, *rights: Right) -> Admin:
        """The admin whose request it is, who has one of the rights."""
        return await self._check_admin(request, _bearer(request), *rights)

    async def _check_admin(self, request: Request, token: str | None, *rights: Right) -> Admin:
        asked = f"{request.method} {request.url.path[:160]}"
        try:
            by = await self._state.admin_of(token)
            self._check_certificate(request)
        except Refusal as refusal:
            event = AuditEvent(
                event="admin", outcome="refused", detail=f"{asked}: {refusal.detail}"
            )
            await self._state.log_refusal(event, caller=caller_of(request))
            raise
        prove(request, f"{_ADMIN} of {by.tenant}")
        try:
            require_right(by, *rights)
        except Refusal as refusal:
            await self._state.log_denied(by, f"{asked}: {refusal.detail}")
            raise
        return by

    def _check_certificate(self, request: Request) -> None:
        if self._state.config.admin_ca_file is None:
            return
        place = place_of(request)
        if place is None or not place.shows_certificate:
            raise Refusal(
                "AdminCertificate",
                "expected a certificate of the admins' CA, got none",
            )


async def _put(
    resources: Resources, by: Admin, path: str, data: bytearray, *, replace: bool, ends: Ends
) -> None:
    # A task of its own: an admin who hangs up ends the request, which would wipe the secret while
    # the writer's thread seals it, and zeros would be stored.
    with SecretKey(data) as secret:
        data[:] = bytes(len(data))
        await resources.put(by, path, secret, replace=replace, ends=ends)


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise Refusal("MethodNotAllowed", f"expected {' or '.join(methods)}, got {request.method}")


def _to_rule(request: Request) -> Right:
    """What an admin has to have for policies and reference values."""
    return Right.READ if request.method == "GET" else Right.RULE


def _flag(request: Request, name: str) -> bool:
    values = request.query_params.getlist(name)
    if values not in ([], ["true"], ["false"]):
        raise Refusal("SerdeError", f"expected '{name}=true' or '{name}=false'")
    return values == ["true"]


def _one_value(request: Request, name: str) -> str | None:
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise Refusal("SerdeError", f"expected '{name}' once")
    return values[0] if values else None


def _cookie(request: Request) -> str | None:
    found = _COOKIE.search(request.headers.get("cookie", ""))
    return found[1] if found else None


def _login_cookie(request: Request) -> str | None:
    found = _LOGIN_COOKIE.search(request.headers.get("cookie", ""))
    return found[1] if found else None


def _bearer(request: Request) -> str | None:
    found = _BEARER.match(request.headers.get("authorization", ""))
    return found[1] if found else None


def _show(page: Page) -> Response:
    return Response(page.body, page.status, media_type="text/html")


def _text(body: bytes) -> Response:
    return Response(body, headers={"Cache-Control": "no-store"}, media_type="text/plain")


def _json(body: bytes) -> Response:
    return Response(body, headers={"Cache-Control": "no-store"}, media_type=JSON_TYPE)


def _published(body: bytes) -> Response:
    """What is for anybody, and stays as it is for a while."""
    headers = {"Cache-Control": f"public, max-age={_PUBLISHED_SECONDS}"}
    return Response(body, headers=headers, media_type=JSON_TYPE)


def _with_cookie(answer: Answer) -> Response:
    # No Path, Secure or SameSite: as Trustee, whose clients' cookie jars are used to it.
    expires = format_datetime(answer.expires, usegmt=True)
    return Response(
        answer.body,
        headers={
            "Set-Cookie": f"{COOKIE_NAME}={answer.cookie}; Expires={expires}",
            "Cache-Control": "no-store",
        },
        media_type=JSON_TYPE,
    )
