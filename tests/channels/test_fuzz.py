"""Whatever anybody sends: no crash, no 5xx, and what is kept can be worked on."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from ocmt.channels.base import Endpoint, Incoming
from ocmt.channels.delivering import text_of
from ocmt.channels.model import clean, clean_json, code_of, pause, short_id
from ocmt.channels.signed import Signed
from tests.channels.conftest import House, call

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
bodies = st.binary(max_size=300) | st.builds(
    lambda data: json.dumps(data).encode(),
    anything
    | st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "thread", "text", "sender"), anything)),
)
names = st.sampled_from(
    ["content-length", "content-encoding", "x-signature", "webhook-id", "webhook-timestamp", "x-delivery-id"]
)
values = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40)


async def test_the_intake_answers_whatever_comes(house: House) -> None:
    signed = await house.room.channels.connect(house.anna, "signed", {"mode": "hmac"})
    assert signed.secret is not None
    secret = signed.secret.encode()
    loop = asyncio.get_running_loop()

    def on_the_loop(request: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(request(), loop).result(20)

    @settings(max_examples=150)
    @given(
        kind=st.sampled_from(["fake", "signed", "guess", "odd"]),
        genuine=st.booleans(),
        body=bodies,
        headers=st.dictionaries(names, values, max_size=4),
        odd=st.text(max_size=30),
        method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "\x00"]),
        cut=st.integers(0, 20),
    )
    def fuzz(
        kind: str, genuine: bool, body: bytes, headers: dict[str, str], odd: str, method: str, cut: int
    ) -> None:
        paths = {
            "fake": f"/webhooks/fake/{house.endpoint}",
            "signed": f"/webhooks/signed/{signed.connection.id}",
            "guess": f"/webhooks/fake/{uuid4()}",
            "odd": f"/webhooks/{odd}",
        }
        if genuine:
            headers = {
                **headers,
                "x-signature": house.fake.sign(body),
                "x-signature-256": "sha256=" + hmac.digest(secret, body, "sha256").hex(),
            }
        pieces: list[Message] = [
            {"type": "http.request", "body": body[:cut], "more_body": True},
            {"type": "http.request", "body": body[cut:]},
        ]
        answer = on_the_loop(lambda: call(house.room.intake, paths[kind], pieces, headers, method))
        assert 200 <= answer.status < 500

    await asyncio.to_thread(fuzz)
    async with house.at_work(outbox=False), house.agent_answers():
        for _ in range(600):
            open_ones = [
                state for state in (await house.states()).values() if state in ("accepted", "answering")
            ]
            if not open_ones:
                break
            await asyncio.sleep(0.05)
        assert open_ones == []


@given(bodies)
def test_signed_reads_whatever_it_received(body: bytes) -> None:
    endpoint = Endpoint(uuid4(), uuid4(), "signed", {"secret": "s"}, {"mode": "hmac"})
    message = Signed(lambda: None, local=True).read(body, endpoint)  # type: ignore[arg-type, return-value]
    assert message is not None
    text_of(message).encode()
    assert 0 < len(message.sender) <= 200
    assert Incoming({}, body).body == body


@given(anything)
def test_what_is_cleaned_can_be_kept(value: Any) -> None:
    text = json.dumps(clean_json(value), allow_nan=False, ensure_ascii=False)
    assert "\\u0000" not in text
    text.encode()


@given(st.text())
def test_ids_fit(text: str) -> None:
    assert 0 < len(short_id(text)) <= 200
    assert short_id(short_id(text)) == short_id(text)
    short_id(text).encode()
    clean(text).encode()


@given(st.integers(1, 100), st.floats(0, 1), st.none() | st.floats(0, 1e9))
def test_pauses_grow_and_end(failures: int, chance: float, asked: float | None) -> None:
    seconds = pause(failures, chance, asked).total_seconds()
    assert 3 <= seconds <= 24 * 3600
    assert seconds >= min(asked or 0, 24 * 3600)


@given(st.binary(min_size=8, max_size=8))
def test_codes_are_plain(numbers: bytes) -> None:
    assert len(code_of(numbers)) == 8
