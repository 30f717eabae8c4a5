"""What one agent does to the broker with hostile requests, and what its neighbor notices of that: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import ClassVar

import aiohttp
import pytest
from yarl import URL

from ocmt.broker.admission import Bounds
from ocmt.broker.model import RunningTurn, Timeouts
from ocmt.broker.wire import ClientGone, Reply
from ocmt.platform.http.client import HttpClient
from ocmt.testing.anthropic import Raw, Seen, Streamed
from tests.broker.conftest import PLATFORM_KEY, QUICK, Serve, World

pytestmark = pytest.mark.anyio

MB = 1_000_000
PATIENT = Timeouts(connect=2, body=30, grace=20, first_byte=5, idle=5, total=60)


def head(token: str, length: int) -> bytes:
    lines = ["POST /v1/messages HTTP/1.1", "host: broker", f"x-api-key: {token}", f"content-length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Sender:
    """Sends one request from a thread, as a program of the agent would, and reads the first line back."""

    def __init__(self, url: str, token: str, body: bytes, *, length: int | None = None) -> None:
        where = URL(url)
        assert where.host
        assert where.port
        self.answer = b""
        self._connection = socket.create_connection((where.host, where.port))
        self._data = head(token, len(body) if length is None else length) + body
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # the broker has answered and hung up: what it said is there
            self._connection.sendall(self._data)
        with contextlib.suppress(OSError):
            while b"\r\n" not in self.answer and (piece := self._connection.recv(65536)):
                self.answer += piece

    @property
    def status(self) -> int:
        return int(self.answer.split(b" ")[1]) if self.answer else 0

    async def over(self) -> int:
        while self._thread.is_alive():
            await asyncio.sleep(0.02)
        self._connection.close()
        return self.status

    def give_up(self) -> None:
        self._connection.close()


@contextmanager
def senders(*many: Sender) -> Iterator[tuple[Sender, ...]]:
    yield many
    for one in many:
        one.give_up()


@asynccontextmanager
async def stalls() -> AsyncIterator[list[float]]:
    """How long the event loop did not come around, each time."""
    found: list[float] = []

    async def look() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            found.append(now - last)
            last = now

    looking = asyncio.create_task(look())
    yield found
    looking.cancel()


async def calls(world: World, token: str, times: int) -> float:
    """The seconds that each call takes; each of them must succeed."""
    begun = time.perf_counter()
    for _ in range(times):
        async with world.ask(token) as response:
            assert response.status == 200
            assert b"message_stop" in await response.read()
    return (time.perf_counter() - begun) / times


async def test_unfinished_bodies_of_one_agent_do_not_stop_anothers_calls(world: World, serve: Serve) -> None:
    """Once eight of them took all the room that there was for everybody."""
    await serve(timeouts=PATIENT)
    _, alice = await world.add_user()
    bob_id, bob = await world.add_user()
    alone = await calls(world, alice, 5)
    body = b'{"model": "m", "messages": "' + b"x" * (32 * MB)
    with senders(*(Sender(world.urls[bob_id], bob, body, length=33_400_000) for _ in range(8))) as sent:
        async with asyncio.timeout(30):
            while sum(bool(one.answer) for one in sent) < 6:
                await asyncio.sleep(0.02)
        assert {one.status for one in sent if one.answer} == {529}, "two of them are what a user may hold"
        beside = await calls(world, alice, 5)
    assert beside < 10 * alone + 0.5


async def test_bodies_that_stop_coming_are_given_up(world: World, serve: Serve) -> None:
    await serve(timeouts=Timeouts(body=30, grace=0.3), bounds=Bounds(calls=2))
    bob_id, bob = await world.add_user()
    begun = time.perf_counter()
    with senders(
        *(Sender(world.urls[bob_id], bob, b"{" * 100_000, length=33_000_000) for _ in range(2))
    ) as sent:
        assert [await one.over() for one in sent] == [408, 408]
    assert time.perf_counter() - begun < 20, "not after the time that a whole body of 32 MB may take"
    async with world.ask(bob) as response:
        assert response.status == 200


async def test_large_bodies_of_many_parts_do_not_hold_the_event_loop(world: World, serve: Serve) -> None:
    """The longest standstill against the time that reading one such body takes in one go."""
    await serve(timeouts=PATIENT, bounds=Bounds(burst=100_000), turn_call_limit=100_000)
    _, alice = await world.add_user()
    bob_id, bob = await world.add_user()
    parts = ",".join(f'{{"k{number % 977}": [{number}, "{"x" * 20}"]}}' for number in range(480_000))
    body = f'{{"model": "m", "messages": [{parts}]}}'.encode()
    assert len(body) > 20 * MB
    begun = time.perf_counter()
    json.loads(body)
    in_one_go = time.perf_counter() - begun
    await calls(world, alice, 1)
    async with stalls() as found:
        with senders(*(Sender(world.urls[bob_id], bob, body) for _ in range(12))) as sent:
            working = asyncio.gather(*(one.over() for one in sent))
            while not working.done():
                await calls(world, alice, 1)
            assert set(await working) <= {400, 529}
    assert max(found) < in_one_go / 2


def nested(depth: int) -> bytes:
    return b'{"model": "m", "messages": ' + b"[" * depth + b"]" * depth + b"}"


BOMBS = {
    "deep": nested(101),
    "very deep": nested(50_000),
    "deep objects": b'{"model": "m", "a": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001,
    "a huge whole number": b'{"model": "m", "max_tokens": ' + b"9" * 5_000 + b"}",
    "a huge real number": b'{"model": "m", "temperature": 1e999}',
    "a huge exponent": b'{"model": "m", "temperature": 1e99999999999}',
    "a key that stands twice": b'{"model": "m", "messages": [], "model": "n"}',
    "a key that stands twice, spelled in two ways": b'{"model": "m", "tools": [], "t\\u006fols": []}',
    "a key that stands twice, deep inside": b'{"model": "m", "messages": [{"a": 1, "a": 2}]}',
    "NaN": b'{"model": "m", "temperature": NaN}',
    "Infinity": b'{"model": "m", "temperature": -Infinity}',
    "half of a surrogate pair": b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "two first halves": b'{"model": "m", "x": "\\ud83d\\ud83d"}',
    "half of a pair as a key": b'{"model": "m", "\\udc00": 1}',
    "half of a pair as bytes": b'{"model": "m", "x": "\xed\xa0\x80"}',
    "not UTF-8": b'{"model": "m", "x": "\xff"}',
    "UTF-16": '{"model": "m"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + b'{"model": "m"}',
    "something behind its end": b'{"model": "m"} {"model": "n"}',
    "a comma too many": b'{"model": "m", "messages": [1,]}',
    "a control character": b'{"model": "m", "x": "\x01"}',
    "a number with a leading zero": b'{"model": "m", "x": 01}',
    "no end": b'{"model": "m", "x": "',
    "a string that ends with its escape": b'{"model": "m", "x": "\\',
}


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
async def test_json_that_can_be_read_in_two_ways_or_not_at_all_is_refused(
    world: World, serve: Serve, bomb: bytes, large: bool
) -> None:
    """Small texts are read at once and large ones in steps: both must refuse the same."""
    await serve()
    user_id, token = await world.add_user()
    at = bomb.index(b"{") + 1
    body = bomb[:at] + b" " * 300_000 + bomb[at:] if large and b"\x00" not in bomb else bomb
    async with world.send(token, body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"
    assert not world.anthropic.seen
    assert await world.rows(user_id) == []


async def test_a_large_body_passes_as_it_is(world: World, serve: Serve) -> None:
    await serve()
    _, token = await world.add_user()
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO" * MB}}
    text = {"type": "text", "text": 'look: "\\" \u00e9 \U0001f600 ' * 20_000}
    async with world.ask(token, messages=[{"role": "user", "content": [picture, text]}]) as response:
        assert response.status == 200
        await response.read()
    (seen,) = world.anthropic.seen
    assert seen.body["messages"][0]["content"] == [picture, text]


async def test_calls_have_a_rate_before_their_bodies_are_looked_at(world: World, serve: Serve) -> None:
    await serve(bounds=Bounds(calls_per_second=0.001, burst=3))
    _, bob = await world.add_user()
    _, alice = await world.add_user()
    statuses = []
    for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/messages", "/v1/messages", "/v1/messages"):
        async with world.send(bob, b"nonsense", path=path) as response:
            statuses.append(response.status)
    assert statuses == [400, 400, 400, 429, 429]
    async with world.ask(alice) as response:
        assert response.status == 200


async def test_who_knocks_without_a_token_is_counted_before_anybody_is_asked(
    world: World, serve: Serve
) -> None:
    await serve(bounds=Bounds(calls_per_second=0.001, burst=2))
    bob_id, _ = await world.add_user()
    statuses = []
    for path in ("/v1/messages", "/elsewhere", "/v1/messages"):
        async with world.http.post(world.urls[bob_id] + path, headers={"x-api-key": "wrong"}) as response:
            statuses.append(response.status)
    assert statuses == [401, 404, 429]


async def test_the_body_is_not_kept_while_the_answer_streams(world: World, serve: Serve) -> None:
    """A user may hold 64 MiB of requests; three calls of 30 MB stream at once all the same."""
    await serve(timeouts=PATIENT, daily_token_limit=100 * MB)
    _, token = await world.add_user()
    rest = asyncio.Event()
    answers = []
    for _ in range(3):
        world.anthropic.script(Streamed("One two", hold=rest))
        response = await world.ask(token, "x" * 30 * MB)
        assert response.status == 200
        await response.content.readany()
        answers.append(response)
    rest.set()
    for response in answers:
        assert b"message_stop" in await response.read()


async def test_open_calls_of_many_users_leave_a_connection_for_one_more(world: World, serve: Serve) -> None:
    """Once all users together had two hundred connections to everything outside."""
    async with HttpClient() as http:
        await serve(timeouts=PATIENT, session=http.session_for_model_calls())
        rest, answers = asyncio.Event(), []
        for _ in range(14):
            _, token = await world.add_user()
            for _ in range(16):
                world.anthropic.script(Streamed("One two", hold=rest))
                answers.append(asyncio.create_task(world.ask(token).__aenter__()))
            await asyncio.wait(answers)
        _, alice = await world.add_user()
        await calls(world, alice, 1)
        rest.set()
        for answer in answers:
            assert b"message_stop" in await (await answer).read()


async def test_answers_that_are_not_streamed_have_a_budget_for_each_user(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve(bounds=Bounds(bytes=5 * MB))
    user_id, token = await world.add_user()
    world.anthropic.script(Raw((b"x" * (6 * MB),), headers={"content-type": "application/json"}))
    async with world.ask(token, stream=False) as response:
        assert response.status == 529
    fault = await world.ledger.last_fault(user_id, turn.turn_id)
    assert fault is not None
    assert fault.code == "too_much_at_once"
    async with world.ask(token, stream=False) as response:
        assert response.status == 200, "it is all given back"


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_agent_that_does_not_read_its_answer_is_hung_up_on(
    world: World, serve: Serve, streamed: bool
) -> None:
    await serve(timeouts=Timeouts(taking=0.3, idle=5, first_byte=5), bounds=Bounds(calls=1))
    bob_id, bob = await world.add_user()

    class Flood(Raw):
        async def play(self, request: aiohttp.web.Request, seen: Seen) -> aiohttp.web.StreamResponse:
            kind = "text/event-stream" if streamed else "application/json"
            response = aiohttp.web.StreamResponse(headers={"content-type": kind})
            await response.prepare(request)
            for _ in range(400):
                await response.write(b": " + b"x" * 65533 + b"\n")
            return response

    world.anthropic.script(Flood(()))
    where = URL(world.urls[bob_id])
    reader, writer = await asyncio.open_connection(where.host, where.port, limit=1024)
    body = json.dumps({"model": "m", "stream": streamed, "messages": []}).encode()
    writer.write(head(bob, len(body)) + body)
    await reader.readexactly(12)
    async with asyncio.timeout(20):
        while True:
            async with world.ask(bob) as response:
                if response.status == 200:
                    break
            await asyncio.sleep(0.1)
    writer.close()


async def test_a_piece_that_nobody_takes_ends_the_call() -> None:
    async def never(message: object) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ClientGone):
        await Reply(never, patience=0.01).piece(b"x")


async def test_what_is_written_is_written_in_slices() -> None:
    written: list[int] = []

    async def send(message: dict[str, object]) -> None:
        body = message.get("body", b"")
        assert isinstance(body, bytes)
        written.append(len(body))

    await Reply(send).whole(200, b"x" * 1_000_000)  # type: ignore[arg-type]
    assert max(written) <= 64 * 1024
    assert sum(written) == 1_000_000


class TestWhatReachesBeyond:
    """Requests by which the provider would reach the internet, or run something, for an agent."""

    REACHING: ClassVar[dict[str, dict[str, object]]] = {
        "mcp_servers": {"mcp_servers": [{"type": "url", "url": "https://evil.example", "name": "x"}]},
        "container": {"container": "container_x"},
        "a container of skills": {"container": {"skills": [{"type": "anthropic", "skill_id": "pdf"}]}},
        "web_search": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "web_fetch": {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
        "code_execution": {"tools": [{"name": "x"}, {"type": "code_execution_20250825", "name": "y"}]},
        "mcp_toolset": {"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]},
        "a tool that is not known": {"tools": [{"type": "telepathy_20300101", "name": "x"}]},
        "a client's tool with another name": {"tools": [{"type": "bash_20250124_remote", "name": "x"}]},
        "a tool whose type is no word": {"tools": [{"type": ["web_search_20250305"], "name": "x"}]},
        "a block whose type is no word": {
            "messages": [{"role": "user", "content": [{"type": ["text"], "text": "x"}]}]
        },
        "a source whose type is no word": {
            "system": [{"type": "document", "source": {"type": {"base64": 1}, "url": "https://e.example"}}]
        },
        "an image by its address": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "url", "url": "https://evil.example/x"}}
                    ],
                }
            ]
        },
        "a document by its address": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "document", "source": {"type": "url", "url": "https://evil.example"}}
                    ],
                }
            ]
        },
        "a file of whoever has the key": {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}],
                }
            ]
        },
        "an address in a tool's result": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t",
                            "content": [
                                {"type": "image", "source": {"type": "url", "url": "https://e.example"}}
                            ],
                        }
                    ],
                }
            ]
        },
        "an address in a document of parts": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {
                                "type": "content",
                                "content": [
                                    {"type": "image", "source": {"type": "url", "url": "https://e.example"}}
                                ],
                            },
                        }
                    ],
                }
            ]
        },
        "a file for a container": {
            "messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]
        },
        "a server's tool in the history": {
            "messages": [
                {
                    "role": "assistant",
                    "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}],
                }
            ]
        },
    }

    @pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
    @pytest.mark.parametrize("asked", REACHING.values(), ids=REACHING.keys())
    async def test_it_is_refused_while_the_internet_is_off(
        self, world: World, serve: Serve, turn: RunningTurn, asked: dict[str, object], path: str
    ) -> None:
        await serve()
        user_id, token = await world.add_user()
        for _ in range(2):
            async with world.ask(token, path=path, more=asked) as response:
                assert response.status == 400
                assert (await response.json())["error"]["message"] == "The platform ended this call."
        assert not world.anthropic.seen
        fault = await world.ledger.last_fault(user_id, turn.turn_id)
        assert fault is not None
        assert fault.code == "not_served"
        assert fault.message.startswith("Your agent asked the model's provider for ")
        assert len(await world.rows(user_id)) == 1, "once for a turn, however often it is asked"
        assert (await world.ledger.used_today(user_id)).calls == 0

    @pytest.mark.parametrize("asked", REACHING.values(), ids=REACHING.keys())
    async def test_it_is_passed_on_where_the_agent_has_the_internet(
        self, world: World, serve: Serve, asked: dict[str, object]
    ) -> None:
        await serve()
        user_id, token = await world.add_user()
        world.internet.add(user_id)
        async with world.ask(token, more=asked) as response:
            assert response.status == 200

    async def test_what_a_client_runs_itself_and_what_openclaw_sends_is_served(
        self, world: World, serve: Serve
    ) -> None:
        await serve()
        _, token = await world.add_user()
        content = [
            {"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            {
                "type": "tool_use",
                "id": "t",
                "name": "fetch",
                "input": {
                    "type": "image",
                    "content": {"type": "x"},
                    "source": {"type": "url", "url": "https://a"},
                },
            },
            {"type": "tool_result", "tool_use_id": "t", "content": "https://example.org"},
            {"type": "thinking", "thinking": "hm", "signature": "s"},
        ]
        async with world.ask(
            token,
            messages=[{"role": "user", "content": "hi"}, {"role": "user", "content": content}],
            system=[{"type": "text", "text": "You are …", "cache_control": {"type": "ephemeral"}}],
            tools=[
                {"name": "exec", "description": "…", "input_schema": {"type": "web_search_20250305"}},
                {"type": "custom", "name": "read", "input_schema": {}},
                {"type": None, "name": "write", "input_schema": {}},
                {"type": "bash_20250124", "name": "bash"},
                {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
                {"type": "computer_20250124", "name": "computer"},
                {"type": "memory_20250818", "name": "memory"},
            ],
            thinking={"type": "adaptive", "display": "summarized"},
            output_config={"effort": "high"},
            tool_choice={"type": "auto"},
            temperature=1,
            metadata={"user_id": "x"},
            service_tier="auto",
        ) as response:
            assert response.status == 200

    async def test_a_field_that_is_not_known_is_for_own_keys_with_the_internet_only(
        self, world: World, serve: Serve
    ) -> None:
        await serve(platform_key=PLATFORM_KEY)
        own_id, own = await world.add_user()
        without_id, without = await world.add_user(key=None)

        async def status(token: str, **body: object) -> int:
            async with world.ask(token, more=body) as response:
                return int(response.status)

        assert [await status(token, speed="fast") for token in (own, without)] == [400, 400]
        world.internet |= {own_id, without_id}
        assert [await status(token, speed="fast") for token in (own, without)] == [200, 400]
        assert await status(without, **{'fallbacks\n"x': []}) == 400
        async with world.database.connection() as connection:
            told = await connection.fetchval(
                "select string_agg(error_message, ' ') from model_calls where user_id = $1", without_id
            )
        assert "speed" in told
        assert "\n" not in told

    async def test_beta_headers_pass_by_a_list(self, world: World, serve: Serve) -> None:
        await serve(platform_key=PLATFORM_KEY)
        own_id, own = await world.add_user()
        without_id, without = await world.add_user(key=None)
        asked = (
            "interleaved-thinking-2025-05-14, mcp-client-2025-04-04,fine-grained-tool-streaming-2025-05-14,"
            "code-execution-2025-08-25,files-api-2025-04-14,fast-mode-2026-02-01,new-thing-2030-01-01,b@d"
        )

        async def passed(token: str) -> str | None:
            async with world.ask(token) as response:
                await response.read()
            body = json.dumps({"model": "claude-sonnet-4-6", "messages": []})
            async with world.send(token, body, anthropic_beta=asked) as response:
                await response.read()
            assert "anthropic-beta" not in world.anthropic.seen[-2].headers
            return world.anthropic.seen[-1].headers.get("anthropic-beta")

        plain = "interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14"
        assert await passed(own) == plain
        world.internet |= {own_id, without_id}
        reaching = await passed(without)
        assert reaching is not None
        assert "mcp-client-2025-04-04" in reaching
        assert "fast-mode" not in reaching
        assert "new-thing" not in reaching
        everything = await passed(own)
        assert everything is not None
        assert "new-thing-2030-01-01" in everything
        assert "b@d" not in everything

    async def test_only_the_query_that_there_is_passes(self, world: World, serve: Serve) -> None:
        await serve()
        _, token = await world.add_user()
        for query in ("beta=true", "beta=true&x=https://evil.example", "x"):
            async with world.ask(token, path=f"/v1/messages?{query}") as response:
                await response.read()
        assert [seen.query for seen in world.anthropic.seen] == ["beta=true", "", ""]


async def test_the_platforms_key_is_for_the_models_of_the_settings(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve(platform_key=PLATFORM_KEY, models=("claude-sonnet-4-6", "claude-haiku-4-5"))
    _, own = await world.add_user()
    user_id, without = await world.add_user(key=None)

    async def status(token: str, model: str) -> int:
        async with world.ask(token, model=model) as response:
            return int(response.status)

    assert await status(without, "claude-haiku-4-5") == 200
    assert await status(without, "claude-opus-4-7") == 400
    fault = await world.ledger.last_fault(user_id, turn.turn_id)
    assert fault is not None
    assert fault.code == "model_not_served"
    assert (
        "not for the model claude-opus-4-7. It is for claude-sonnet-4-6, claude-haiku-4-5." in fault.message
    )
    assert await status(own, "claude-opus-4-7") == 200, "whose key it is decides"


@pytest.mark.parametrize(
    ("found", "sent"),
    [
        (f"{PLATFORM_KEY}\n", PLATFORM_KEY),
        (f" {PLATFORM_KEY}\r\n", PLATFORM_KEY),
        (f'"{PLATFORM_KEY}"', PLATFORM_KEY),
        (f"'{PLATFORM_KEY}'\n", PLATFORM_KEY),
        (f"\ufeff{PLATFORM_KEY}\u200b", PLATFORM_KEY),
        (f"{PLATFORM_KEY}\nx", None),
        (f"{PLATFORM_KEY} x", None),
        ("schlüssel", None),
        ("sk\x00key", None),
    ],
)
async def test_a_key_with_blanks_works_and_one_that_is_none_is_said_at_once(
    world: World, serve: Serve, turn: RunningTurn, found: str, sent: str | None
) -> None:
    await serve(platform_key=found)
    user_id, token = await world.add_user(key=None)
    async with world.ask(token) as response:
        assert response.status == (200 if sent else 400)
        await response.read()
    assert [seen.headers["x-api-key"] for seen in world.anthropic.seen] == ([sent] if sent else [])
    fault = await world.ledger.last_fault(user_id, turn.turn_id)
    assert (fault is None) == (sent is not None)
    if fault:
        assert (fault.code, fault.retryable) == ("provider_key_refused", False)
        assert "a character that no key has" in fault.message


async def test_what_the_http_client_can_not_send_is_a_fault_in_words_and_not_a_crash(
    world: World, serve: Serve, turn: RunningTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocmt.broker.service.is_key", lambda _: True)
    await serve(platform_key="sk\nkey", timeouts=QUICK)
    user_id, token = await world.add_user(key=None)
    async with world.ask(token) as response:
        assert response.status == 400
    fault = await world.ledger.last_fault(user_id, turn.turn_id)
    assert fault is not None
    assert (fault.code, fault.retryable) == ("provider_key_refused", False)


async def test_the_demo_model_has_no_limit_of_tokens(world: World, serve: Serve, turn: RunningTurn) -> None:
    """Settings say that its tokens do not count."""
    await serve(demo_model=True, daily_token_limit=10)
    user_id, token = await world.add_user()
    for _ in range(5):
        async with world.ask(token, "hello " * 100, stream=False) as response:
            assert response.status == 200
    assert await world.ledger.last_fault(user_id, turn.turn_id) is None
    assert await world.ledger.tokens_today(user_id) == 0


async def test_the_demo_model_has_a_limit_of_calls(world: World, serve: Serve, turn: RunningTurn) -> None:
    await serve(demo_model=True, turn_call_limit=2)
    _, token = await world.add_user()
    statuses = []
    for _ in range(3):
        async with world.ask(token, stream=False) as response:
            statuses.append(response.status)
    assert statuses == [200, 200, 400]
