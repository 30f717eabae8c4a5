"""The demo model: what it says, when it calls a tool, and that it comes over the wire as Claude would."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ocmt.broker import demo
from ocmt.broker.model import RunningTurn
from ocmt.testing.clock import VirtualClock
from tests.broker.conftest import Serve, World

CONTEXT = {
    "role": "user",
    "content": [
        {
            "type": "text",
            "text": "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nnone\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>",
        }
    ],
}


def tool(name: str, *parameters: str) -> dict[str, Any]:
    return {"name": name, "input_schema": {"type": "object", "properties": {one: {} for one in parameters}}}


TOOLS = [tool("exec", "title", "command"), tool("read", "path", "limit"), tool("write", "path", "content")]


def request(*messages: Any, tools: Any = TOOLS) -> dict[str, Any]:
    """A request as OpenClaw sends it: its own context comes last."""
    return {"model": "m", "tools": tools, "messages": [*messages, CONTEXT]}


def user(words: str) -> dict[str, Any]:
    return {"role": "user", "content": f"[Mon 2026-11-23 15:22 UTC] {words}"}


def used(
    name: str, given: dict[str, Any], result: str, *, is_error: bool = False
) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": name, "input": given}]}
    block = {"type": "tool_result", "tool_use_id": "a", "content": result, "is_error": is_error}
    yield {"role": "user", "content": [block]}


def test_it_says_what_it_is_and_how_to_talk_to_claude() -> None:
    for words in ("hello", "", "What is the meaning of life?"):
        text = demo.answer(request(user(words))).text
        assert "demo model" in text
        assert "Add an Anthropic API key" in text
    assert "> What is the meaning of life?" in text
    assert "Mon 2026" not in text


@pytest.mark.parametrize(
    ("words", "name", "given"),
    [
        ("write hello.txt", "write", {"path": "hello.txt", "content": "Hello from the demo model.\n"}),
        (
            "Please write notes/a.md with Hello, world",
            "write",
            {"path": "notes/a.md", "content": "Hello, world\n"},
        ),
        ('create a file called `x.py` containing "1"', "write", {"path": "x.py", "content": "1\n"}),
        ("read hello.txt", "read", {"path": "hello.txt"}),
        ("run `ls -l; id`", "exec", {"command": "ls -l; id"}),
    ],
)
def test_it_calls_the_tool_that_was_asked_for(words: str, name: str, given: dict[str, str]) -> None:
    assert demo.answer(request(user(words))).tool == demo.ToolUse(name, given)


@pytest.mark.parametrize(
    "words", ["write me a poem.", "tell me a long story", "how do I run a marathon?", "hi"]
)
def test_other_words_call_no_tool(words: str) -> None:
    assert demo.answer(request(user(words))).tool is None


def test_without_a_tool_for_writing_the_shell_writes_and_without_any_it_says_so() -> None:
    answer = demo.answer(request(user("write a.txt with it's"), tools=TOOLS[:1]))
    assert answer.tool is not None
    assert answer.tool.input == {"command": "printf %s 'it'\"'\"'s\n' > a.txt"}
    assert "not offered" in demo.answer(request(user("write a.txt"), tools=None)).text


def test_after_the_tool_it_says_what_was_done_and_asks_for_no_other() -> None:
    written = used("write", {"path": "hello.txt", "content": "x"}, "Successfully wrote 1 bytes")
    answer = demo.answer(request(user("write hello.txt"), *written))
    assert answer.tool is None
    assert "wrote `hello.txt`" in answer.text
    failed = demo.answer(
        request(user("run x"), *used("exec", {"command": "x"}, "x: not found", is_error=True))
    )
    assert "did not work" in failed.text
    assert "x: not found" in failed.text
    again = demo.answer(
        request(user("read a.txt"), *used("read", {"path": "a.txt"}, "old"), user("run date"))
    )
    assert again.tool == demo.ToolUse("exec", {"command": "date"})


def test_only_loop_forever_never_ends() -> None:
    looping = request(user("loop forever"), *used("exec", {"command": "date"}, "now"))
    assert demo.answer(looping).tool is not None


@pytest.mark.parametrize("words", ["write-" * 40_000, "a/write/" * 30_000, "read " + "a." * 100_000 + "!"])
def test_no_words_keep_everybody_waiting(words: str) -> None:
    began = time.process_time()
    demo.answer(request(user(words)))
    assert time.process_time() - began < 1  # it took hours


def test_a_long_text_is_written_whole() -> None:
    text = "word " * 10_000
    answer = demo.answer(request(user(f"write long.txt with {text}")))
    assert answer.tool is not None
    assert answer.tool.input == {"path": "long.txt", "content": text.strip() + "\n"}


def test_a_turn_that_openclaw_tries_again_is_understood() -> None:
    words = (
        "[Queued user message from a previous active turn; preserved as context only. "
        "Continue with the active prompt below.]\nread a.txt\n\n"
        "Continue the current task from the existing transcript, and so on."
    )
    assert demo.answer(request(user(words))).tool == demo.ToolUse("read", {"path": "a.txt"})


def test_asked_to_go_on_after_a_restart_it_says_so_and_repeats_neither_tool_nor_openclaws_words() -> None:
    resume = "[System] Your previous turn was interrupted by a gateway restart. Continue where you left off."
    said = demo.answer(request(user("run date >> effects.txt"), user(resume)))
    assert said.tool is None
    assert "restarted" in said.text
    assert "[System]" not in said.text


def test_a_long_story_takes_several_seconds_and_a_greeting_does_not() -> None:
    def seconds(words: str) -> float:
        return sum(wait for wait, _ in demo.stream(demo.answer(request(user(words))), "m", 4000))

    assert 5 < seconds("tell me a long story") < 60
    assert 2 < seconds("count to 100") < 30
    assert seconds("hello") < 2


@pytest.mark.anyio
async def test_it_streams_like_claude_and_is_booked_as_demo(
    world: World, serve: Serve, turn: RunningTurn, clock: VirtualClock
) -> None:
    await serve()
    user_id, token = await world.add_user(key=None)
    async with world.ask(token, "write a.txt", tools=TOOLS) as response:
        reading = asyncio.create_task(response.text())
        while not reading.done():
            await clock.advance(1)
        body = await reading
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ")]
    assert [one["type"] for one in events if "delta" not in one["type"]] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_stop",
        "content_block_start",
        "content_block_stop",
        "message_stop",
    ]
    parts = [one["delta"].get("partial_json", "") for one in events if one["type"] == "content_block_delta"]
    assert json.loads("".join(parts))["path"] == "a.txt"
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    (row,) = await world.rows(user_id)
    assert (row["provider"], row["key_source"], row["status"]) == ("demo", "demo", 200)
    assert row["output_tokens"] == events[-2]["usage"]["output_tokens"] > 0


@pytest.mark.anyio
async def test_its_first_word_comes_at_once_and_a_hang_up_ends_it(
    world: World, serve: Serve, clock: VirtualClock
) -> None:
    broker = await serve()
    user_id, token = await world.add_user(key=None)
    async with world.ask(token, "tell me a long story") as response:
        seen = b""
        while b"lighthouse" not in seen and b"text_delta" not in seen:
            seen += await response.content.readany()
    async with asyncio.timeout(5):
        while not (await world.rows(user_id))[0]["finished_at"]:
            await broker.drain()
    assert (await world.rows(user_id))[0]["error_code"] == "client_gone"
