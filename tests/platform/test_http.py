"""The HTTP edge on a real server: problems, limits, headers, the request log, streams not held up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID

import aiohttp
import pytest
import structlog
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from ocmt.errors import LimitReached, NotFound, Refused, SetupProblem, Unavailable
from ocmt.platform.http import (
    RequestLimits,
    RequestLog,
    SecurityHeaders,
    client_session,
    exception_handlers,
    json_body,
    principal,
    serve_on,
)
from ocmt.platform.principal import Principal
from ocmt.platform.telemetry import metrics

pytestmark = pytest.mark.anyio

LIMIT = 256 * 1024


class Thing(BaseModel):
    name: str
    size: int = 0


def tcp_listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.listen(64)
    return listener


@dataclass
class Served:
    session: aiohttp.ClientSession
    url: str

    async def problem(
        self, path: str, method: str = "GET", **given: object
    ) -> tuple[dict[str, object], aiohttp.ClientResponse]:
        async with self.session.request(method, self.url + path, **given) as response:  # type: ignore[arg-type]
            assert response.content_type == "application/problem+json"
            body = await response.json(content_type=None)
            assert {"type", "title", "status", "detail", "code", "retryable"} <= body.keys()
            assert body["status"] == response.status
            return body, response


Serve = Callable[[ASGIApp], Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(client_session(total=10))

        async def serve(app: ASGIApp) -> Served:
            listener = tcp_listener()
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            closer = await serve_on(listener, app)
            stack.push_async_callback(closer.close)
            return Served(session, address)

        yield serve


def raising(error: Exception) -> Route:
    async def endpoint(_request: Request) -> Response:
        raise error

    return Route("/", endpoint)


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


def application(*routes: Route) -> Starlette:
    return Starlette(routes=list(routes), exception_handlers=exception_handlers())


class TestProblems:
    """Every error is an RFC 9457 problem with a code to match on and a sentence to show."""

    @pytest.mark.parametrize(
        ("error", "status", "code", "retryable", "after"),
        [
            (NotFound("There is no such conversation."), 404, "not_found", False, None),
            (Refused("Not from here."), 403, "refused", False, None),
            (LimitReached("Enough for today.", retry_after=59.2), 429, "limit_reached", False, "60"),
            (
                Unavailable("Not just now.", retry_after=0.2, detail="inner words"),
                503,
                "unavailable",
                True,
                "1",
            ),
            (SetupProblem("/var/lib/x is odd."), 500, "setup", False, None),
            (HTTPException(415, "Not this type."), 415, "invalid_input", False, None),
        ],
    )
    async def test_an_error_tells_its_code_and_whether_to_retry(
        self, serve: Serve, error: Exception, status: int, code: str, retryable: bool, after: str | None
    ) -> None:
        served = await serve(application(raising(error)))
        body, response = await served.problem("/")
        assert (body["status"], body["code"], body["retryable"]) == (status, code, retryable)
        if isinstance(error, SetupProblem):
            assert body["detail"] == "This installation has a fault that its administrator has to mend."
        else:
            assert body["detail"] == getattr(error, "message", "Not this type.")
        assert response.headers.get("retry-after") == after

    async def test_what_nobody_foresaw_says_nothing_of_itself(self, serve: Serve) -> None:
        app = RequestLog(application(raising(RuntimeError("password=hunter2"))))
        with structlog.testing.capture_logs() as lines:
            body, response = await (await serve(app)).problem("/")
        assert body["code"] == "internal"
        assert "hunter2" not in await response.text()
        assert response.headers["x-request-id"] in str(body["detail"])
        assert [line["event"] for line in lines].count("request_failed") == 1

    async def test_an_unknown_page_a_wrong_method_and_nobody_signed_in(self, serve: Serve) -> None:
        async def me(request: Request) -> Response:
            return PlainTextResponse(principal(request).email)

        served = await serve(application(Route("/me", me)))
        assert (await served.problem("/nothing"))[0]["code"] == "not_found"
        body, response = await served.problem("/me", "DELETE")
        assert body["code"] == "method_not_allowed"
        assert "GET" in response.headers["allow"]
        body, response = await served.problem("/me")
        assert (body["code"], response.headers["www-authenticate"]) == ("unauthenticated", "Bearer")

    async def test_a_wrong_body_names_the_field_and_never_repeats_it(self, serve: Serve) -> None:
        async def starlette_endpoint(request: Request) -> Response:
            return JSONResponse((await json_body(request, Thing)).model_dump())

        api = FastAPI(exception_handlers=exception_handlers())

        @api.post("/")
        async def fastapi_endpoint(thing: Thing) -> Thing:
            return thing

        for app in (application(Route("/", starlette_endpoint, methods=["POST"])), api):
            served = await serve(app)
            body, _ = await served.problem("/", "POST", json={"name": "x", "size": "s3cret"})
            assert body["code"] == "invalid_input"
            assert str(body["detail"]).startswith("The field size is wrong: ")
            assert "s3cret" not in str(body)
            body, _ = await served.problem(
                "/", "POST", data=b"{", headers={"content-type": "application/json"}
            )
            assert body["detail"] == "The body of the request is not valid JSON."


async def test_the_signed_in_user_is_what_the_middleware_put_there(serve: Serve) -> None:
    someone = Principal(UUID(int=1), None, "a@example.org")

    async def me(request: Request) -> Response:
        return PlainTextResponse(principal(request).email)

    app = application(Route("/", me))

    async def signed_in(scope: dict[str, object], receive: object, send: object) -> None:
        scope["state"] = {"principal": someone}
        await app(scope, receive, send)  # type: ignore[arg-type]

    served = await serve(signed_in)  # type: ignore[arg-type]
    async with served.session.get(served.url) as response:
        assert await response.text() == "a@example.org"


class TestLimits:
    """A body that is too large is refused in plain words, announced or not."""

    @pytest.fixture
    async def served(self, serve: Serve) -> Served:
        app = application(Route("/", echo, methods=["POST"]))
        return await serve(RequestLimits(app, max_body=LIMIT))

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_a_body_up_to_the_limit_passes_and_one_byte_more_does_not(
        self, served: Served, chunked: bool
    ) -> None:
        async def pieces(size: int) -> AsyncIterator[bytes]:
            for begin in range(0, size, 65536):
                yield bytes(min(65536, size - begin))

        def body(size: int) -> object:
            return pieces(size) if chunked else bytes(size)

        async with served.session.post(served.url, data=body(LIMIT)) as response:
            assert await response.text() == str(LIMIT)
        problem, _ = await served.problem("/", "POST", data=body(LIMIT + 1))
        assert problem["code"] == "too_large"
        assert problem["detail"] == "This is too large: at most 256 KB can be sent at once."

    async def test_an_application_without_handlers_of_its_own_is_protected_as_well(
        self, serve: Serve
    ) -> None:
        async def bare(
            scope: object, receive: Callable[[], Awaitable[dict[str, object]]], send: object
        ) -> None:
            while (await receive()).get("more_body"):
                pass

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"12345678"

        served = await serve(RequestLimits(bare, max_body=10))  # type: ignore[arg-type]
        problem, _ = await served.problem("/", "POST", data=pieces())
        assert problem["detail"] == "This is too large: at most 10 bytes can be sent at once."


async def test_the_browser_is_told_to_be_strict_unless_the_page_says_otherwise(serve: Serve) -> None:
    async def page(_request: Request) -> Response:
        return PlainTextResponse("", headers={"Referrer-Policy": "origin"})

    app = SecurityHeaders(application(Route("/", page)), content_security_policy="default-src 'none'")
    served = await serve(app)
    async with served.session.get(served.url) as response:
        headers = response.headers
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert headers.getall("referrer-policy") == ["origin"]


async def test_the_log_has_every_request_with_its_number_and_never_its_query(serve: Serve) -> None:
    served = await serve(RequestLog(application(Route("/agent/x", echo))))
    with structlog.testing.capture_logs() as lines:
        async with served.session.get(served.url + "/agent/x?token=s3cret") as response:
            number = response.headers["x-request-id"]
            await response.read()
    line = next(line for line in lines if line["event"] == "request")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/agent/x", 200)
    assert "s3cret" not in str(lines)
    assert len(number) == 32
    assert b'ocmt_http_requests_total{area="agent",method="GET",status="200"}' in metrics()


async def test_a_stream_passes_all_middlewares_piece_by_piece(serve: Serve) -> None:
    more = asyncio.Event()

    async def events(_request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            await more.wait()  # the second piece comes only after the client saw the first
            yield b"data: 2\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    app: ASGIApp = application(Route("/", events))
    app = RequestLog(SecurityHeaders(RequestLimits(app, max_body=10), content_security_policy="x"))
    served = await serve(app)
    async with served.session.get(served.url) as response:
        assert await response.content.readuntil(b"\n\n") == b"data: 1\n\n"
        more.set()
        assert await response.content.read() == b"data: 2\n\n"
