"""Middlewares for every request, as bare ASGI: headers for the browser, limits, a line in the log."""

from __future__ import annotations

import functools
import time

import structlog
from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from ocmt.errors import TooLarge
from ocmt.platform import telemetry
from ocmt.platform.http.headers import checked
from ocmt.platform.http.problems import internal_problem, problem

log = structlog.get_logger(__name__)

_AREAS = frozenset({"api", "agent", "webhooks", "assets"})


class SecurityHeaders:
    """Adds what a browser must be told; a header that the application set itself stays as it is."""

    def __init__(self, app: ASGIApp, *, content_security_policy: str, https: bool = False) -> None:
        self._app = app
        headers = {
            "cache-control": "no-store",
            "content-security-policy": content_security_policy,
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        }
        if "frame-ancestors" not in content_security_policy:
            headers["content-security-policy"] += "; frame-ancestors 'none'"
        if https:
            headers["strict-transport-security"] = "max-age=31536000"
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                given = {bytes(name).lower() for name, _ in own}
                own += [header for header in self._headers if header[0] not in given]
                message = {**message, "headers": own}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class RequestLimits:
    """Refuses a body of more than `max_body` bytes with 413, whether its length is announced or not."""

    def __init__(self, app: ASGIApp, *, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if announced.isdigit() and int(announced) > self._max_body:
            await problem(self._refusal())(scope, receive, send)
            return
        received = 0
        started = False

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_body:
                    raise self._refusal()
            return message

        async def noticing_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, counting_receive, noticing_send)
        except TooLarge as error:
            if started:
                raise
            await problem(error)(scope, receive, send)

    def _refusal(self) -> TooLarge:
        return TooLarge(f"This is too large: at most {_in_words(self._max_body)} can be sent at once.")


def _in_words(size: int) -> str:
    for unit, factor in (("MB", 1024**2), ("KB", 1024)):
        if size >= factor:
            return f"{size / factor:g} {unit}" if size % factor == 0 else f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


class RequestLog:
    """Outermost: numbers every request, counts and times it, logs it (never its query), answers the rest.

    The number is in `scope["state"]["request_id"]`, in every log line on the way, and in `X-Request-ID`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = uuid7().hex
        scope.setdefault("state", {})["request_id"] = request_id
        begun = time.perf_counter()
        status = 0
        complete = False

        async def noticing_send(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                # Before the status is noted: an answer that may not go out is answered for below.
                message = {**message, "headers": checked(headers)}
                status = message["status"]
                _observe(scope, status, time.perf_counter() - begun)
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            elif message["type"] == "websocket.http.response.start":
                status = message["status"]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, noticing_send)
            except ClientDisconnect:
                log.debug("client_gone", path=scope["path"])
                return
            except Exception:
                log.exception("request_failed", method=scope.get("method"), path=scope["path"])
                if status == 0 and scope["type"] == "http":
                    await internal_problem(request_id)(scope, receive, noticing_send)
                elif not complete:
                    raise  # the server has to cut off an answer that stays incomplete
            level = "debug" if status < 400 else "info" if status < 500 else "warning"
            getattr(log, level)(
                "request",
                method=scope.get("method", "WEBSOCKET"),
                path=scope["path"],
                status=status,
                milliseconds=round((time.perf_counter() - begun) * 1000, 1),
                **(_who(scope) if status >= 400 else {}),
            )


def _who(scope: Scope) -> dict[str, str]:
    """Who was refused, as far as the authentication behind us found out: for whoever looks into it."""
    state = scope["state"]
    principal, address = state.get("principal"), state.get("address")
    found = {"address": address, "user_id": str(principal.user_id) if principal else None}
    return {name: value for name, value in found.items() if value is not None}


def _observe(scope: Scope, status: int, seconds: float) -> None:
    """Time until the answer began: event streams stay open for hours."""
    first = scope["path"].split("/", 2)[1] if scope["path"].startswith("/") else ""
    area = first if first in _AREAS else "ui"
    counted, timed = _series(scope["method"], area, status)
    counted.inc()
    timed.observe(seconds)


@functools.lru_cache(maxsize=1024)
def _series(method: str, area: str, status: int) -> tuple[Counter, Histogram]:
    """Looking them up costs more than counting."""
    return telemetry.REQUESTS.labels(method, area, str(status)), telemetry.REQUEST_SECONDS.labels(area)
