"""Which bytes may become a header, and that there is no other way for them to become one."""

from __future__ import annotations

import ast
import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

import ocmt
from ocmt.platform.http import RequestLog, redirect, redirect_to
from ocmt.platform.http.headers import (
    DATA,
    MOST_VALUE,
    UnsafeHeader,
    checked,
    disposition,
    fields,
    media_type,
    retry_after,
    safe,
)
from ocmt.platform.http.upgrade import Upgrade
from ocmt.services.server import serve

HOSTILE = {
    "LF": "a\nSet-Cookie: ocmt=evil",
    "CR": "a\rSet-Cookie: ocmt=evil",
    "CRLF": "a\r\nSet-Cookie: ocmt=evil",
    "obs-fold": "a\r\n Set-Cookie: ocmt=evil",
    "a tab fold": "a\n\tSet-Cookie: ocmt=evil",
    "NUL": "a\0b",
    "the end of the head": "a\r\n\r\n<script>",
    "vertical tab": "a\x0bb",
    "form feed": "a\x0cb",
    "escape": "a\x1bb",
    "DEL": "a\x7fb",
    "NEL, a line's end in C1": "a\x85Set-Cookie: x",
    "Latin-1": "aé",
    "beyond Latin-1, whose low byte is LF": "a\u010aSet-Cookie: ocmt=evil",
    "a line separator": "a\u2028b",
    "a lone surrogate": "a\ud800b",
    "a very long value": "a" * (MOST_VALUE + 1),
}
hostile = pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())


@hostile
def test_no_such_value_is_safe(value: str) -> None:
    with pytest.raises(UnsafeHeader):
        safe(value)
    with pytest.raises(UnsafeHeader):
        fields({"x-a": value})
    with pytest.raises(UnsafeHeader):
        checked([(b"x-a", value.encode("utf-8", "surrogatepass"))])


@hostile
def test_no_such_value_is_a_name(value: str) -> None:
    with pytest.raises(UnsafeHeader):
        fields({value: "1"})
    with pytest.raises(UnsafeHeader):
        checked([(value.encode("utf-8", "surrogatepass"), b"1")])


@pytest.mark.parametrize("name", ["Transfer-Encoding", "connection", "Upgrade", "", "a b", "a:", "x" * 101])
def test_names_about_the_connection_and_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(UnsafeHeader):
        checked([(name.encode(), b"1")])


@hostile
def test_what_somebody_else_wrote_is_read_into_something_harmless(value: str) -> None:
    assert media_type(value) == DATA
    assert media_type(f"text/html; charset={value}") == DATA
    assert retry_after(value) is None
    safe(disposition(value))
    for target in (f"/{value}", f"https://issuer.example/{value}"):
        with pytest.raises(UnsafeHeader):
            redirect(target) if target.startswith("/") else redirect_to(target)


@given(st.text(), st.booleans())
def test_any_file_name_is_a_safe_header(name: str, inline: bool) -> None:
    assert safe(disposition(name, inline=inline)).count(";") == 1


@pytest.mark.parametrize(
    "path", ["//evil.example/", "/\\evil.example", "https://evil.example", "", "evil", "\\\\evil"]
)
def test_a_redirect_stays_at_our_address(path: str) -> None:
    with pytest.raises(UnsafeHeader):
        redirect(path)


def test_what_is_well_formed_comes_through() -> None:
    assert media_type("Text/Event-Stream; charset=UTF-8") == "text/event-stream; charset=utf-8"
    assert media_type(b"image/png") == "image/png"
    assert media_type("text/html", among=frozenset({"text/plain"})) == DATA
    assert retry_after(b"30") == "30"
    assert retry_after("9999999999") == "86400"
    assert disposition("grüße.txt") == "attachment; filename*=UTF-8''gr%C3%BC%C3%9Fe.txt"
    assert checked([(b"x", b"a" * 5000), (b"y", b"a" * 5000)])


# On the wire


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[tuple[str, int]]:
    """A server with this application; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    answers, stop = asyncio.Event(), asyncio.Event()

    async def ready() -> None:
        answers.set()

    serving = asyncio.create_task(serve(app, listener, stop=stop, ready=ready))
    try:
        await answers.wait()
        yield address
    finally:
        stop.set()
        await serving


@asynccontextmanager
async def on_the_wire(app: ASGIApp) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """A server with this application; gives a function: all that it sends when it is sent these bytes."""
    async with served(app) as address:

        async def ask(request: bytes) -> bytes:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request)
            async with asyncio.timeout(10):
                sent = await reader.read()
            writer.close()
            await writer.wait_closed()
            return sent

        yield ask


@pytest.mark.anyio
async def test_a_room_that_forgets_it_is_stopped_at_the_door() -> None:
    """Whatever sets a header in whatever way: the bytes that go out have none that was injected."""
    injected: list[tuple[bytes, bytes]] = []

    async def careless(scope: Scope, receive: Receive, send: Send) -> None:
        response = Response("body")
        response.raw_headers.extend(injected)
        await response(scope, receive, send)

    async with on_the_wire(RequestLog(careless)) as ask:
        for name, value in HOSTILE.items():
            raw = value.encode("utf-8", "surrogatepass")
            for injected in ([(raw, b"1")], [(b"x-a", raw)]):  # noqa: B007
                sent = await ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert sent.startswith(b"HTTP/1.1 500 "), name
                assert b"evil" not in sent, name
                assert b"\nset-cookie" not in sent.lower(), name
                assert b"internal" in sent, name


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.anyio
async def test_the_refusal_of_an_upgrade_is_stopped_there_as_well() -> None:
    value = ""

    async def careless(scope: Scope, receive: Receive, send: Send) -> None:
        assert isinstance(scope["extensions"]["ocmt.splice"], Upgrade)
        headers = [(b"x-a", value.encode("utf-8", "surrogatepass"))]
        await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async with on_the_wire(careless) as ask:
        for name, value in HOSTILE.items():  # noqa: B007
            sent = await ask(UPGRADE)
            assert sent.startswith(b"HTTP/1.1 500 "), name
            assert b"evil" not in sent, name


@pytest.mark.anyio
async def test_only_a_refusal_refuses_an_upgrade() -> None:
    status = 0

    async def strange(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": status, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async with on_the_wire(strange) as ask:
        for status in (101, 200, 204, 999, 0):  # noqa: B007
            sent = await ask(UPGRADE + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sent.startswith(b"HTTP/1.1 500 ")
            assert b"connection: close" in sent
            assert sent.count(b"HTTP/1.1") == 1


# In the sources

SOURCES = Path(ocmt.__file__).parent
NOT_SERVED = ("testing/", "setup/", "supervisor/", "cli/")
MAKES_SAFE = {"safe", "fields", "raw_fields", "checked", "disposition", "media_type", "retry_after"}
WRITES_HEADS = {
    "platform/http/handshake.py",
    "platform/http/upgrade.py",
    "runtimes/egress.py",
}
"""The last one answers agents, in words of its own, on their own listener: no browser reads it."""
REDIRECTS = {"platform/http/redirects.py"}
COOKIES = {"identity/browsers.py", "identity/visits/routes.py"}
"""Values of our own making only; see `test_cookies_are_tokens_of_ours`."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(SOURCES.rglob("*.py")):
        name = file.relative_to(SOURCES).as_posix()
        if not name.startswith(NOT_SERVED):
            yield name, ast.parse(file.read_text())


def called(node: ast.AST) -> str:
    """The last name of what is called; empty for what is no call."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def is_fixed(node: ast.AST | None) -> bool:
    """Whether it is written out in the source, or comes from what makes it safe."""
    match node:
        case None:
            return True
        case ast.Constant():
            return True
        case ast.IfExp():
            return is_fixed(node.body) and is_fixed(node.orelse)
        case ast.Dict():
            return all(map(is_fixed, node.keys)) and all(map(is_fixed, node.values))
        case ast.List() | ast.Tuple():
            return all(map(is_fixed, node.elts))
        case ast.Name():
            return node.id.isupper()
        case ast.Call():
            return called(node) in MAKES_SAFE
        case _:
            return False


def faults(name: str, module: ast.Module) -> Iterator[str]:
    """Where a header is set from something that is neither fixed nor made safe."""
    for node in ast.walk(module):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Assign):
            for target in node.targets:
                match target:
                    case ast.Subscript(value=ast.Attribute(attr="headers"), slice=key):
                        if not is_fixed(node.value) or not is_fixed(key):
                            yield f"{where} sets a header"
        elif isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            values = dict(zip(keys, node.values, strict=True))
            kind = values.get("type")
            starts = isinstance(kind, ast.Constant) and str(kind.value).endswith("http.response.start")
            if starts and not is_fixed(values.get("headers")):
                yield f"{where} begins a response"
        elif isinstance(node, ast.Constant):
            text = node.value.encode("utf-8", "replace") if isinstance(node.value, str) else node.value
            is_head = isinstance(text, bytes) and text.startswith(b"HTTP/1.") and len(text) > 8
            if is_head and name not in WRITES_HEADS:
                yield f"{where} writes a head by itself"
        elif isinstance(node, ast.Call):
            yield from _faults_of_call(name, where, node)


def _faults_of_call(name: str, where: str, node: ast.Call) -> Iterator[str]:
    what = called(node)
    match node.func:
        case ast.Attribute(value=ast.Attribute(attr="headers" | "raw_headers")):
            adds = what in ("update", "append", "setdefault", "add", "extend", "raw")
            if adds and not all(map(is_fixed, node.args)):
                yield f"{where} adds headers"
    if what == "RedirectResponse" and name not in REDIRECTS:
        yield f"{where} redirects by itself"
    if what in ("set_cookie", "delete_cookie") and name not in COOKIES:
        yield f"{where} sets a cookie"
    if what.endswith(("Response", "HTTPException")) and what != "RedirectResponse":
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        third = node.args[2] if len(node.args) > 2 else None
        for value in (given.get("headers"), given.get("media_type"), third):
            if not is_fixed(value):
                yield f"{where} gives a response headers"


def test_no_header_is_set_but_from_what_is_fixed_or_made_safe() -> None:
    assert [fault for name, module in sources() for fault in faults(name, module)] == []


@pytest.mark.parametrize(
    "line",
    [
        "response.headers['x'] = value",
        "response.headers[name] = '1'",
        "response.headers.update(found)",
        "response.headers.append('x', f'{value}')",
        "response.raw_headers.append((b'x', value))",
        "Response(body, headers=headers)",
        "Response(body, headers={'x': value})",
        "JSONResponse(body, 200, headers)",
        "StreamingResponse(pieces, media_type=kind)",
        "HTTPException(401, headers={'WWW-Authenticate': text})",
        "RedirectResponse(url)",
        "response.set_cookie('a', value)",
        "send({'type': 'http.response.start', 'status': 200, 'headers': headers})",
        "send({'type': 'websocket.http.response.start', 'headers': [(b'x', value)]})",
        "writer.write(b'HTTP/1.1 200 OK')",
        "writer.write(f'HTTP/1.1 {status}')",
    ],
)
def test_the_search_finds_each_way(line: str) -> None:
    assert list(faults("somewhere.py", ast.parse(line)))


def test_cookies_are_tokens_of_ours() -> None:
    """The values that `identity.browsers` is given: never what a request, an agent or a vendor said."""
    from ocmt.identity.model import new_token

    check: Callable[[str], str] = safe
    for _ in range(100):
        assert check(new_token()).isascii()
