# SPDX-License-Identifier: Apache-2.0
"""The description of the broker's HTTP interface, in OpenAPI 3.1.

    GET /openapi.json        anybody

It is the one place in which paths, bodies and answers are written down for machines; a test holds
it against the routes of `app`, and another lets a fuzzer loose by it. What the parts mean is in
docs/broker.md.

Spec: OpenAPI 3.1.0; JSON Schema 2020-12.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from imagers import __version__
from imagers.broker.admins import ROLES
from imagers.broker.images import MAX_REASON
from imagers.broker.policy.table import MAX_APPROVALS, MAX_POLICY_BYTES
from imagers.broker.refusals import STATUS
from imagers.broker.rules import CLASSES
from imagers.kbs.jwe import MAX_RESOURCE_BYTES
from imagers.kbs.messages import PROTOCOL_VERSION
from imagers.kbs.wire import COOKIE_NAME, ERROR_TYPE_PREFIX, PREFIX
from imagers.model.strict_json import dump_json

if TYPE_CHECKING:
    from imagers.model.strict_json import JSON, JSONObject

__all__ = ["openapi_json"]

_JSON = "application/json"
_SEGMENT: JSONObject = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$",
    "maxLength": 255,
}
_DIGEST: JSONObject = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_FLAG: JSONObject = {"type": "string", "enum": ["true", "false"]}
_NUMBER: JSONObject = {"type": "integer", "minimum": 1}
_TEXT: JSONObject = {"type": "string"}
_TEXT_PLAIN = "text/plain"
_REGO: JSONObject = {_TEXT_PLAIN: {"schema": {"type": "string", "minLength": 1}}}
_NONE: JSONObject = {"description": "done"}
_ADMIN: JSON = [{"admin": []}]
_GUEST: JSON = [{"session": []}, {"token": []}]


@cache
def openapi_json() -> bytes:
    """The document."""
    return dump_json(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "imagers key broker",
                "version": __version__,
                "description": "Releases secrets to guests that prove what they are, by the key "
                f"broker protocol {PROTOCOL_VERSION} of Confidential Containers, and is "
                "administrated by who has an admin's key.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": {
                **_guest_paths(),
                **_resource_paths(),
                **_release_path(),
                **_trustee_paths(),
                **_admin_paths(),
                **_tenant_paths(),
                **_public_paths(),
            },
            "components": {
                "schemas": _schemas(),
                "securitySchemes": {
                    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE_NAME},
                    "token": {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "JWT",
                        "description": "what `attest` gave, or a passport of an issuer that the "
                        "broker lists",
                    },
                    "admin": {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "JWT",
                        "description": "EdDSA by the admin's key, which `kid` names by the SHA-256 "
                        "of its 32 bytes in hex, `role` is `admin`, for at most ten minutes. "
                        "Which roles of the key an operation is for is in docs/broker.md; without "
                        "one the answer is 403",
                    },
                },
            },
        }
    )


def _operation(
    summary: str,
    answer: JSONObject,
    *,
    security: JSON = None,
    body: JSONObject | None = None,
    parameters: tuple[JSONObject, ...] = (),
) -> JSONObject:
    """One method of a path; each may answer with an error."""
    found: JSONObject = {"summary": summary, "security": security or []}
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = {"required": True, "content": body}
    error: JSONObject = {"description": "an error", "content": _content("Error")}
    found["responses"] = {"200": answer, "default": error}
    return found


def _content(schema: str) -> JSONObject:
    return {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _answer(description: str, schema: str) -> JSONObject:
    return {"description": description, "content": _content(schema)}


def _parameter(name: str, schema: JSONObject, where: str = "query") -> JSONObject:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _object(required: dict[str, JSON], optional: dict[str, JSON] | None = None) -> JSONObject:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


def _with_cookie(answer: JSONObject) -> JSONObject:
    cookie: JSONObject = {"schema": _TEXT, "description": f"`{COOKIE_NAME}`"}
    return {**answer, "headers": {"Set-Cookie": cookie}}


def _guest_paths() -> JSONObject:
    return {
        f"{PREFIX}/auth": {
            "post": _operation(
                "Begin a handshake",
                _with_cookie(_answer("a challenge and the cookie of a session", "Challenge")),
                body=_content("Request"),
            )
        },
        f"{PREFIX}/attest": {
            "post": _operation(
                "Show evidence that binds the nonce and a public key",
                _with_cookie(_answer("a token", "Token")),
                security=[{"session": []}],
                body=_content("Attestation"),
            )
        },
    }


def _resource_paths() -> JSONObject:
    secret: JSONObject = {
        "application/octet-stream": {
            "schema": {"type": "string", "minLength": 1, "maxLength": MAX_RESOURCE_BYTES}
        }
    }
    names = [_parameter(name, _SEGMENT, "path") for name in ("repository", "type", "tag")]
    named: JSON = list(names)
    ends = _parameter("expires", _NUMBER), _parameter("max-uses", _NUMBER)
    path = "{repository}/{type}/{tag}"
    return {
        f"{PREFIX}/resource": {
            "get": _operation("List resources", _answer("paths", "Names"), security=_ADMIN)
        },
        f"{PREFIX}/resource/{path}": {
            "parameters": named,
            "get": _operation(
                "Get a secret",
                _answer("the secret, sealed to the key that the evidence bound", "JWE"),
                security=_GUEST,
                parameters=(_parameter("image-digest", _DIGEST),),
            ),
            "post": _operation(
                "Store a secret under a free name",
                _NONE,
                security=_ADMIN,
                body=secret,
                parameters=(_parameter("replace", _FLAG), *ends),
            ),
            "put": _operation(
                "Store a secret", _NONE, security=_ADMIN, body=secret, parameters=ends
            ),
            "delete": _operation(
                "Serve a secret no more",
                _NONE,
                security=_ADMIN,
                parameters=(_parameter("permanently", _FLAG),),
            ),
        },
        f"{PREFIX}/imagers/undelete/{path}": {
            "parameters": named,
            "post": _operation(
                "Serve a former secret again",
                _NONE,
                security=_ADMIN,
                parameters=(_parameter("version", _NUMBER),),
            ),
        },
        f"{PREFIX}/imagers/metadata/{path}": {
            "parameters": named,
            "get": _operation(
                "What may be told of a secret",
                _answer("all but itself", "Metadata"),
                security=_ADMIN,
            ),
        },
        f"{PREFIX}/imagers/binding/{path}": {
            "parameters": named,
            "post": _operation(
                "Bind a secret to an image", _NONE, security=_ADMIN, body=_content("Binding")
            ),
        },
    }


def _release_path() -> JSONObject:
    return {
        "/imagers/v1/release": {
            "post": _operation(
                f"Several secrets of one image, all or none, together at most {MAX_RESOURCE_BYTES} "
                "bytes",
                _answer("a JWE for each", "Released"),
                security=_GUEST,
                body=_content("Asked"),
            )
        }
    }


def _trustee_paths() -> JSONObject:
    name = _parameter("name", {"type": "string", "minLength": 1}, "path")
    return {
        f"{PREFIX}/resource-policy": {
            "get": _operation("Ids of policies", _answer("one id", "Names"), security=_ADMIN),
            "post": _operation(
                "Put a resource policy in force, as Trustee's client sends it",
                _NONE,
                security=_ADMIN,
                body=_content("TrusteePolicy"),
            ),
        },
        f"{PREFIX}/attestation-policy": {
            "post": _operation(
                "Put an attestation policy in force, as Trustee's client sends it",
                _NONE,
                security=_ADMIN,
                body=_content("TrusteeAttestationPolicy"),
            )
        },
        f"{PREFIX}/reference-value": {
            "post": _operation(
                "Set reference values by a message of Trustee's",
                _NONE,
                security=_ADMIN,
                body=_content("TrusteeMessage"),
            )
        },
        f"{PREFIX}/reference-value/{{name}}": {
            "parameters": [name],
            "get": _operation(
                "The value of a name", _answer("as it was registered", "Value"), security=_ADMIN
            ),
        },
    }


def _admin_paths() -> JSONObject:
    filters = ("event", "outcome", "path", "image", "session", "since", "id")
    name = _parameter("name", {"type": "string", "minLength": 1}, "path")
    return {
        f"{PREFIX}/imagers/policy": {
            "get": _operation(
                "The policy in force",
                {
                    "description": "a table, or a text in Rego",
                    "content": {**_content("Policy"), **_REGO},
                },
                security=_ADMIN,
            ),
            "post": _operation(
                f"Put a policy of at most {MAX_POLICY_BYTES} bytes in force",
                _NONE,
                security=_ADMIN,
                body={**_content("Policy"), **_REGO},
            ),
        },
        f"{PREFIX}/imagers/attestation-policy/{{name}}": {
            "parameters": [_parameter("name", {"enum": list(CLASSES)}, "path")],
            "get": _operation(
                "An attestation policy",
                {"description": "a text in Rego", "content": _REGO},
                security=_ADMIN,
            ),
            "post": _operation(
                f"Put an attestation policy of at most {MAX_POLICY_BYTES} bytes in force",
                _NONE,
                security=_ADMIN,
                body=_REGO,
            ),
            "delete": _operation(
                "Let reference values alone say what evidence is worth", _NONE, security=_ADMIN
            ),
        },
        f"{PREFIX}/imagers/reference-value": {
            "get": _operation(
                "Reference values", _answer("all of them", "ReferenceValues"), security=_ADMIN
            ),
            "post": _operation(
                "Set reference values, all or none",
                _NONE,
                security=_ADMIN,
                body=_content("ReferenceValues"),
                parameters=(_parameter("add", _FLAG),),
            ),
        },
        f"{PREFIX}/imagers/reference-value/{{name}}": {
            "parameters": [name],
            "delete": _operation("Remove a reference value", _NONE, security=_ADMIN),
        },
        **_image_paths(),
        f"{PREFIX}/imagers/audit": {
            "get": _operation(
                "The newest rows of the audit log",
                _answer("rows", "Audit"),
                security=_ADMIN,
                parameters=(
                    _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 10_000}),
                    *(_parameter(one, _TEXT) for one in filters),
                ),
            )
        },
        f"{PREFIX}/imagers/audit/head": {
            "get": _operation(
                "Signed heads of the chains of the audit log",
                _answer("heads", "AuditHeads"),
                security=_ADMIN,
            )
        },
    }


def _image_paths() -> JSONObject:
    path = f"{PREFIX}/imagers/image/{{repository}}"
    changes = {
        "approval": ("Approve an image", "Approval"),
        "revocation": ("Serve an image nevermore", "Revocation"),
        "successor": ("Say what follows an image", "Succession"),
        "floor": ("Serve nothing older than an image", "Floor"),
    }
    named: JSON = [_parameter("repository", _SEGMENT, "path")]
    return {
        path: {
            "parameters": named,
            "get": _operation(
                "The images of a repository",
                _answer("the oldest first", "Images"),
                security=_ADMIN,
            ),
        },
        **{
            f"{path}/{name}": {
                "parameters": named,
                "post": _operation(summary, _NONE, security=_ADMIN, body=_content(schema)),
            }
            for name, (summary, schema) in changes.items()
        },
    }


def _tenant_paths() -> JSONObject:
    name = _parameter("name", {"type": "string", "minLength": 1}, "path")
    return {
        f"{PREFIX}/imagers/admin-key": {
            "get": _operation(
                "Admin keys of a tenant, one's own if no other is named",
                _answer("all of them", "AdminKeys"),
                security=_ADMIN,
                parameters=(_parameter("tenant", _TEXT),),
            ),
            "post": _operation(
                "Add an admin key",
                _answer("the key", "AdminKey"),
                security=_ADMIN,
                body=_content("NewAdminKey"),
            ),
        },
        f"{PREFIX}/imagers/admin-key/{{id}}": {
            "parameters": [_parameter("id", {"type": "string", "minLength": 1}, "path")],
            "delete": _operation("Remove an admin key", _NONE, security=_ADMIN),
        },
        f"{PREFIX}/imagers/tenant": {
            "get": _operation("Tenants", _answer("all of them", "Tenants"), security=_ADMIN)
        },
        f"{PREFIX}/imagers/tenant/{{name}}": {
            "parameters": [name],
            "post": _operation("Add a tenant", _NONE, security=_ADMIN),
            "delete": _operation("Remove a tenant that has no secrets", _NONE, security=_ADMIN),
        },
        f"{PREFIX}/imagers/repository/{{name}}": {
            "parameters": [name],
            "post": _operation(
                "Give a repository without secrets to a tenant",
                _NONE,
                security=_ADMIN,
                body=_content("Owner"),
            ),
        },
    }


def _public_paths() -> JSONObject:
    return {
        "/.well-known/jwks.json": {
            "get": _operation(
                "The keys that the broker's tokens are checked with", _answer("a JWKS", "JWKS")
            )
        },
        "/.well-known/openid-configuration": {
            "get": _operation(
                "Where the keys are, if the issuer is a URL", _answer("discovery", "Discovery")
            )
        },
        "/readyz": {
            "get": _operation(
                "Whether it can serve: 503 where it cannot",
                {"description": "ready", "content": {_TEXT_PLAIN: {"schema": _TEXT}}},
            )
        },
        "/metrics": {
            "get": _operation(
                "Figures for Prometheus",
                {"description": "text format", "content": {_TEXT_PLAIN: {"schema": _TEXT}}},
            )
        },
        "/openapi.json": {
            "get": _operation(
                "This document",
                {"description": "OpenAPI", "content": {_JSON: {"schema": {"type": "object"}}}},
            )
        },
        "/healthz": {
            "get": _operation(
                "Whether the broker runs",
                {"description": "it does", "content": {"text/plain": {"schema": _TEXT}}},
            )
        },
    }


def _schemas() -> JSONObject:
    return {
        **_wire_schemas(),
        **_admin_schemas(),
        **_image_schemas(),
        **_tenant_schemas(),
    }


def _wire_schemas() -> JSONObject:
    key: JSONObject = {
        "type": "object",
        "required": ["kty", "alg"],
        "properties": {
            "kty": {"enum": ["EC", "RSA", "AKP"]},
            "alg": {"enum": ["ECDH-ES+A256KW", "RSA-OAEP-256", "ML-KEM-768+A192KW"]},
            "crv": {"enum": ["P-256", "P-521"]},
            **dict.fromkeys(("x", "y", "n", "e", "pub"), _TEXT),
        },
    }
    evidence = _object({"primary_evidence": True, "additional_evidence": _TEXT})
    init_data: JSONObject = {
        "anyOf": [{"type": "null"}, _object({"format": {"const": "toml"}, "body": _TEXT})]
    }
    jwe = dict.fromkeys(("protected", "encrypted_key", "iv", "ciphertext", "tag"), _TEXT)
    names: JSON = [ERROR_TYPE_PREFIX + name for name in STATUS]
    return {
        "Error": _object({"type": {"enum": names}, "detail": _TEXT}),
        "Request": _object(
            {"version": {"const": PROTOCOL_VERSION}, "tee": _TEXT, "extra-params": True}
        ),
        "Challenge": _object({"nonce": _TEXT, "extra-params": True}),
        "Attestation": _object(
            {
                "runtime-data": _object({"nonce": _TEXT, "tee-pubkey": key}),
                "tee-evidence": evidence,
            },
            {"init-data": init_data},
        ),
        "Token": _object({"token": _TEXT}),
        "JWE": _object(dict(jwe)),
        "JWKS": _object({"keys": {"type": "array", "items": {"type": "object"}}}),
        "Discovery": _object({"issuer": _TEXT, "jwks_uri": _TEXT}),
    }


def _admin_schemas() -> JSONObject:
    base64url: JSONObject = {"type": "string", "pattern": "^[A-Za-z0-9_-]*$"}
    value: JSONObject = {"type": ["string", "integer", "boolean"]}
    values: JSONObject = {"type": "array", "items": value, "minItems": 1, "maxItems": 1000}
    texts: JSONObject = {"type": "array", "items": _TEXT, "minItems": 1}
    version: dict[str, JSON] = {
        "size": {"type": "integer"},
        "version": {"type": "integer"},
        "created_at": _TEXT,
        "expires": {"type": ["string", "null"]},
        "uses": {"type": "integer"},
        "max_uses": {"type": ["integer", "null"]},
        "manifest_digests": {"type": "array", "items": _DIGEST},
    }
    jwks: JSONObject = {"$ref": "#/components/schemas/JWKS"}
    return {
        "Names": {"type": "array", "items": _TEXT},
        "Value": {**values, "type": ["string", "integer", "boolean", "array"]},
        "Binding": _object({"manifest_digest": _DIGEST}),
        "Metadata": _object(
            {
                "path": _TEXT,
                **version,
                "former": {"type": "array", "items": _object(version)},
            }
        ),
        "Asked": _object(
            {"resources": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 128}},
            {"image-digest": _TEXT},
        ),
        "Released": _object(
            {
                "resources": {
                    "type": "object",
                    "additionalProperties": {"$ref": "#/components/schemas/JWE"},
                }
            }
        ),
        "Policy": _object({"rules": {"type": "array", "items": _rule_schema(texts)}}),
        "ReferenceValues": _object(
            {
                "reference_values": {
                    "type": "array",
                    "items": _object(
                        {
                            "name": {
                                "type": "string",
                                "pattern": "^[A-Za-z][A-Za-z0-9_.:/-]{0,127}$",
                            },
                            "values": values,
                        },
                        {
                            "expires": {"type": ["string", "null"], "format": "date-time"},
                            "source": {"type": "string", "maxLength": 1024},
                            "single": {"type": "boolean"},
                        },
                    ),
                }
            }
        ),
        "Audit": _object({"entries": {"type": "array", "items": {"type": "object"}}}),
        "AuditHeads": _object({"keys": jwks, "heads": {"type": "array", "items": _TEXT}}),
        "TrusteePolicy": _object({"policy": base64url}),
        "TrusteeAttestationPolicy": _object(
            {"policy_id": _TEXT, "policy": base64url}, {"type": _TEXT}
        ),
        "TrusteeMessage": _object(
            {
                "version": {"const": "0.1.0"},
                "type": {"enum": ["sample", "corim", "swid"]},
                "payload": {"type": "string", "contentEncoding": "base64"},
            }
        ),
    }


def _image_schemas() -> JSONObject:
    image: JSONObject = {"manifest_digest": _DIGEST}
    signature: JSONObject = {"type": "string", "contentEncoding": "base64"}
    approval = _object({"admin": _TEXT, "until": _TEXT})
    no_digest: JSONObject = {"anyOf": [{"type": "null"}, _DIGEST]}
    no_text: JSONObject = {"type": ["string", "null"]}
    known = _object(
        {
            **image,
            "state": {"enum": ["active", "proposed", "superseded", "too-old", "revoked"]},
            "successor": no_digest,
            "reason": no_text,
            "proposed_by": no_text,
            "proposed_at": no_text,
            "approvals": {"type": "array", "items": approval},
        }
    )
    return {
        "Images": _object(
            {
                "repository": _TEXT,
                "floor": no_digest,
                "images": {"type": "array", "items": known},
            }
        ),
        "Approval": _object({**image, "until": {"type": "integer"}, "signature": signature}),
        "Revocation": _object(
            {**image, "reason": {"type": "string", "minLength": 1, "maxLength": MAX_REASON}}
        ),
        "Succession": _object({**image, "successor": _DIGEST}),
        "Floor": _object({"manifest_digest": no_digest}),
    }


def _tenant_schemas() -> JSONObject:
    roles: JSONObject = {"type": "array", "items": {"enum": list(ROLES)}, "minItems": 1}
    key: dict[str, JSON] = {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"},
        "roles": roles,
        "public_key": {"type": "string", "contentEncoding": "base64"},
    }
    tenant = _object(
        {
            "name": _TEXT,
            "repositories": {"type": "array", "items": _TEXT},
            "admin_keys": {"type": "integer"},
        }
    )
    return {
        "NewAdminKey": _object(key, {"tenant": _TEXT}),
        "AdminKey": _object({"id": _TEXT, "tenant": _TEXT, **key}),
        "AdminKeys": _object(
            {"admin_keys": {"type": "array", "items": {"$ref": "#/components/schemas/AdminKey"}}}
        ),
        "Tenants": _object({"tenants": {"type": "array", "items": tenant}}),
        "Owner": _object({"tenant": _TEXT}),
    }


def _rule_schema(texts: JSONObject) -> JSONObject:
    rule = _object(
        {
            "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"},
            "effect": {"enum": ["allow", "deny"]},
            "resource": _TEXT,
            "image": {"enum": ["bound", "any"]},
        },
        {
            "trust": {"const": "affirming"},
            "tee": texts,
            "devices": texts,
            "approvals": {"type": "integer", "minimum": 1, "maximum": MAX_APPROVALS},
        },
    )
    return {**rule, "additionalProperties": False}
