"""Errors as RFC 9457 problems: `type, title, status, detail, code, retryable`, and Retry-After where known.

`detail` is our sentence for the user. What an unexpected error says inside never leaves the log.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ocmt.errors import OcmtError, SetupProblem
from ocmt.platform.http.headers import fields
from ocmt.platform.http.requests import first_fault

MEDIA_TYPE = "application/problem+json"

log = structlog.get_logger(__name__)

Handler = Callable[[Request, Any], Awaitable[Response]]

_CODES = {
    400: "invalid_input",
    401: "unauthenticated",
    403: "refused",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    429: "limit_reached",
    503: "unavailable",
}
_FOR_ADMINISTRATORS = "This installation has a fault that its administrator has to mend."
_SENTENCES = {404: "There is no such page.", 405: "This address does not take that method."}


def problem(error: OcmtError) -> Response:
    """The response for an error of ours."""
    headers: dict[str, str] = {"Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(0, math.ceil(error.retry_after)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem_body(error), error.status, fields(headers), MEDIA_TYPE)


def problem_body(error: OcmtError) -> dict[str, Any]:
    """What its response says, as JSON."""
    # What is wrong with the machine is the administrator's to read, in the log.
    sentence = _FOR_ADMINISTRATORS if isinstance(error, SetupProblem) else error.message
    return _body(error.status, error.code, sentence, retryable=error.retryable)


def internal_problem(request_id: str | None) -> Response:
    """The response for an error that nobody foresaw: it names the line in the log, nothing else."""
    detail = "Something went wrong on our side."
    if request_id:
        detail += f" Tell your administrator the number {request_id}."
    return _response(500, "internal", detail, request_id=request_id)


def exception_handlers() -> dict[int | type[Exception], Any]:
    """For `Starlette(exception_handlers=…)` and `FastAPI(exception_handlers=…)`."""
    handlers: dict[int | type[Exception], Handler] = {
        OcmtError: _ours,
        HTTPException: _http_exception,
        Exception: _unexpected,
    }
    if "fastapi" in sys.modules:  # who does not use it need not pay for its import
        from fastapi.exceptions import RequestValidationError

        handlers[RequestValidationError] = _validation
    return handlers


def _response(
    status: int,
    code: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    request_id: str | None = None,
) -> Response:
    body = _body(status, code, detail, request_id=request_id)
    return JSONResponse(body, status, fields(headers or {"Cache-Control": "no-store"}), MEDIA_TYPE)


def _body(
    status: int, code: str, detail: str, *, retryable: bool = False, request_id: str | None = None
) -> dict[str, Any]:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": retryable,
    }
    return body | {"request_id": request_id} if request_id else body


async def _ours(_request: Request, error: OcmtError) -> Response:
    if error.detail or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request_refused", code=error.code, message=error.message, detail=error.detail)
    return problem(error)


async def _http_exception(_request: Request, error: HTTPException) -> Response:
    code = _CODES.get(error.status_code, "invalid_input" if error.status_code < 500 else "internal")
    detail = _SENTENCES.get(error.status_code, error.detail)
    headers = {"Cache-Control": "no-store", **(error.headers or {})}
    return _response(error.status_code, code, detail, headers=headers)


async def _validation(_request: Request, error: Any) -> Response:
    return _response(400, "invalid_input", first_fault(error.errors()))


async def _unexpected(request: Request, _error: Exception) -> Response:
    # Starlette raises the error once more after this answer, and RequestLog writes it down.
    return internal_problem(request.scope.get("state", {}).get("request_id"))
