"""One hostile user of the whole server; another one's turn, vault write, and page take their usual time.

The server is a process of its own, as `ocmt up` runs it, with doubles for agents. What looking at files costs
others is measured in `test_neighbour.py`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import aiohttp
import pytest

from ocmt.testing.installation import Person
from tests.hostile.neighbour import Operation, assert_neighbour_is_fine
from tests.hostile.server import FLOOD
from tests.hostile.stage import Stage
from tests.hostile.wire import ask

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

_neighbours = itertools.cycle((1, 2, 3))
"""Each test has its own, for a person's own rate of writes counts as well."""


@pytest.fixture
async def operations(stage: Stage) -> AsyncIterator[dict[str, Operation]]:
    """What the neighbour does."""
    async with somebody(stage, next(_neighbours)) as person:
        conversation = await person.conversation()
        seen = 0

        async def turn() -> None:
            nonlocal seen
            asked = await person.post(conversation, "hello")
            events = await person.answer(conversation, asked["id"], seen)
            assert events[-1].type == "turn.completed", events[-1]
            seen = events[-1].seq

        async def write_to_the_vault() -> None:
            await person.call("PUT", "/api/v1/vault/items/note", {"kind": "note", "value": "x" * 100})

        async def load_a_page() -> None:
            await person.call("GET", "/api/v1/me")
            await person.call("GET", "/agent/conversations")

        yield {"turn": turn, "vault": write_to_the_vault, "page": load_a_page}


@contextlib.asynccontextmanager
async def somebody(stage: Stage, number: int) -> AsyncIterator[Person]:
    async with Person(f"http://{stage.host}") as person:
        person.http.headers["Cookie"] = stage.cookies[number]
        yield person


async def asked_for(person: Person, method: str, path: str, body: object, **headers: str) -> None:
    """Whatever comes of it: a refusal is what the server should say."""
    with contextlib.suppress(aiohttp.ClientError):
        async with person.http.request(method, person.url + path, json=body, headers=headers) as answer:
            await answer.read()
            assert answer.status < 500 or answer.status == 503, (method, path, answer.status)


async def test_an_agent_that_reports_steps_without_end(
    stage: Stage, operations: dict[str, Operation]
) -> None:
    async with somebody(stage, 0) as hostile:
        conversation = await hostile.conversation()

        async def flood() -> None:
            path = f"/agent/conversations/{conversation}/turns"
            key = uuid4().hex
            await asked_for(hostile, "POST", path, {"text": FLOOD}, **{"Idempotency-Key": key})

        await assert_neighbour_is_fine(operations, flood)


async def test_messages_and_conversations_without_end(stage: Stage, operations: dict[str, Operation]) -> None:
    async with somebody(stage, 0) as hostile:
        conversation = await hostile.conversation()

        async def flood() -> None:
            await asked_for(hostile, "POST", "/agent/conversations", {})
            path = f"/agent/conversations/{conversation}/turns"
            headers = {"Idempotency-Key": uuid4().hex}
            await asked_for(hostile, "POST", path, {"text": "x" * 250_000}, **headers)
            await asked_for(hostile, "POST", path, {"text": "stop"}, **{"Idempotency-Key": uuid4().hex})

        await assert_neighbour_is_fine(operations, flood)


async def test_webhooks_of_a_megabyte(stage: Stage, operations: dict[str, Operation]) -> None:
    door = stage.doors[-1]

    async def flood() -> None:
        body = json.dumps({"text": uuid4().hex, "padding": "x" * 900_000}).encode()
        request = door.request(stage.host)
        headers = door.prove(body, request.external_id, 0)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"POST /webhooks/{door.channel}/{door.endpoint} HTTP/1.1\r\nHost: {stage.host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        )
        answer = await ask(stage.port, head.encode() + body)
        assert answer.status in (200, 413, 429, 503), answer

    await assert_neighbour_is_fine(operations, flood)


@pytest.mark.parametrize("bomb", ["[" * 400_000, '{"text": ' + "1" * 1_000_000 + "}", '{"a":' * 100_000])
async def test_bodies_that_are_hard_to_read(
    stage: Stage, operations: dict[str, Operation], bomb: str
) -> None:
    async with somebody(stage, 0) as hostile:
        conversation = await hostile.conversation()
        path = f"{hostile.url}/agent/conversations/{conversation}/turns"
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}

        async def flood() -> None:
            async with hostile.http.post(path, data=bomb, headers=headers) as answer:
                await answer.read()
                assert answer.status in (400, 413, 422, 429), answer.status

        await assert_neighbour_is_fine(operations, flood)
