"""Completes the description of the Management API (OpenAPI 3.1): an example of every body, answer and
parameter, and how each operation refuses, by code. Pure; only who asks for the description pays for it.

Examples are built from the schemas by the names of the fields, so that a new field has one at once, and a
test holds each of them against its schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ocmt.errors import (
    Conflict,
    InvalidInput,
    LimitReached,
    NotFound,
    OcmtError,
    PreconditionFailed,
    Refused,
    Unauthenticated,
    Unavailable,
)
from ocmt.identity.entrance.model import SignInAgain
from ocmt.platform.http.problems import MEDIA_TYPE, problem_body

Json = dict[str, Any]

_TIME = "2026-11-27T09:30:00Z"
_ID = "019ac4f2-7c1e-7b3a-9d52-3f6a1c0be5d4"
_FIELDS: Mapping[str, Any] = {
    "access_token": "eyJhbGciOiJFZDI1NTE5In0.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl",
    "action": "vault.item_put",
    "address": "203.0.113.7",
    "code": "123456",
    "codes": "GSJD-32XC",
    "confirm": "ada@example.org",
    "credential": {"id": "AQID", "type": "public-key"},
    "description": "Who works on the new engine.",
    "detail": "The provider takes this key.",
    "email": "ada@example.org",
    "expires_in": 900,
    "from_settings": "example.org",
    "group_name": "Research",
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "hint": "x7Qd",
    "if-match": '"3"',
    "key": "ocmt_6gPzYq0rYkL2mV9sT4xWcB8nD1eF3hJ5aK7uM0pRqSt1B2c3D",
    "key_names": "anthropic_api_key",
    "label": "Google",
    "last_address": "203.0.113.7",
    "mode": "invitation",
    "names": "openai_api_key",
    "password": "the old vault's password",
    "phrase": "outside torch aim fault cluster deputy poem field guard ability monkey hybrid",
    "prefix": "ocmt_6gPzYq0",
    "provider": "google",
    "reason": "They asked me to look at a job that fails.",
    "scope": "agent:read agent:write",
    "scopes": "agent:read",
    "secret": "JBSWY3DPEHPK3PXP",
    "token": "x0bqnUy4mO8jZ1tFh2wRk5vLp7cSd9eA",
    "uri": "otpauth://totp/OCMT:ada@example.org?secret=JBSWY3DPEHPK3PXP",
    "used_by": "broker",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
    "value": "sk-ant-api03-…",
}
"""By the name of a field or of a parameter; of what a list of that name holds."""
_NAMES = {"ItemView": "anthropic_api_key", "StoredView": "anthropic_api_key", "GroupBody": "Research"}
"""What a `name` is, by the schema that has it; elsewhere it is a person's."""

PROBLEM: Json = {
    "title": "Problem",
    "description": "Why a request was refused, or failed (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "retryable"],
    "properties": {
        "type": {"type": "string", "description": "Always `about:blank`: the code says what it is."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence for people."},
        "code": {"type": "string", "description": "A word for programs; it stays."},
        "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
        "request_id": {"type": "string", "description": "Where the fault is ours: its number in the log."},
    },
}
_REFUSALS: Mapping[str, OcmtError] = {
    error.code: error
    for error in (
        InvalidInput("The field email is wrong: it is missing."),
        Unauthenticated("Sign in first."),
        Refused("Only administrators may do this."),
        SignInAgain("Prove once more that it is you: sign in again, then repeat this."),
        NotFound("There is no such page."),
        Conflict("This is the last administrator."),
        PreconditionFailed("It was changed meanwhile: read it again."),
        LimitReached("Too many attempts. Try again in 15 minutes."),
    )
}
_NOT_NOW: Json = {
    "description": "Not just now; `Retry-After` says when to try again.",
    "content": {
        MEDIA_TYPE: {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "example": problem_body(Unavailable("The database does not answer just now.")),
        }
    },
}


def complete(description: Json) -> Json:
    """That description, with examples and refusals; the one that is given is changed."""
    schemas: Json = description["components"]["schemas"]
    for path, method, operation in operations(description):
        for parameter in operation.get("parameters", ()):
            parameter["example"] = _example(parameter["schema"], parameter["name"], schemas)
        for content in _contents(operation):
            content["example"] = _example(content["schema"], "", schemas)
        operation["responses"]["4XX"] = _refusals(path, method, operation)
        operation["responses"]["503"] = _NOT_NOW
    schemas["Problem"] = PROBLEM
    return description


def operations(description: Json) -> Iterator[tuple[str, str, Json]]:
    """Path, method in capitals and operation, of all."""
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _contents(operation: Json) -> Iterator[Json]:
    """What it takes and what it gives where it succeeds, as far as that is JSON."""
    places = [operation.get("requestBody", {})]
    places += [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    for place in places:
        content = place.get("content", {}).get("application/json")
        if content and content.get("schema"):
            yield content


def _refusals(path: str, method: str, operation: Json) -> Json:
    reads = method == "GET"
    codes = {
        "invalid_input": bool(operation.get("requestBody") or operation.get("parameters")),
        "unauthenticated": not path.startswith(("/api/v1/auth/magic-link", "/.well-known")),
        "refused": "/admin" in path or "group" in path or not reads,
        "recent_sign_in_needed": "recent sign-in" in operation["description"],
        "not_found": "{" in path,
        "conflict": not reads and path.startswith(("/api/v1/admin", "/api/v1/groups", "/api/v1/me")),
        "precondition_failed": any(one["name"] == "if-match" for one in operation.get("parameters", ())),
        "limit_reached": not reads,
    }
    said = [code for code, given in codes.items() if given] or ["invalid_input"]
    return {
        "description": f"Refused. Its code is one of {', '.join(said)}; others may come.",
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {code: {"value": problem_body(_REFUSALS[code])} for code in said},
            }
        },
    }


def _example(schema: Json, name: str, schemas: Json, owner: str = "") -> Any:
    """Of a schema, for a field of that name in the schema `owner`."""
    if "$ref" in schema:
        owner = schema["$ref"].rpartition("/")[2]
        return _example(schemas[owner], name, schemas, owner)
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], name, schemas, owner)
    match schema.get("type"):
        case "object":
            return _object(schema, name, schemas, owner)
        case "array":
            return [_example(schema["items"], name, schemas, owner)]
        case "null":
            return None
        case "boolean":
            return bool(schema.get("default", False))
        case "integer":
            return _FIELDS.get(name, max(3, schema.get("minimum", 0)))
    return _text(schema, name, owner)


def _object(schema: Json, name: str, schemas: Json, owner: str) -> Json:
    if "properties" in schema:
        return {key: _example(value, key, schemas, owner) for key, value in schema["properties"].items()}
    if isinstance(schema.get("additionalProperties"), dict):
        return {"agent:read": "See the agent, its conversations and files."}
    known = _FIELDS.get(name)
    return dict(known) if isinstance(known, dict) else {}


def _text(schema: Json, name: str, owner: str) -> str:
    match schema.get("format"):
        case "uuid":
            return _ID
        case "date-time":
            return _TIME
    if "pattern" in schema:
        return "anthropic_api_key"
    if name == "name":
        return _NAMES.get(owner, "Ada Lovelace")
    known = _FIELDS.get(name)
    return known if isinstance(known, str) else name or "text"
