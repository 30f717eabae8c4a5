"""The demo model: answers where nobody has a key, so that everything else can be seen working without one.

It says what it is in every greeting, streams Markdown, and calls OpenClaw's own tools when asked to. One tool
call per message, with one exception made for testing the call limit: "loop forever". Phrases that it knows:
"tell me a long story", "count to 100", "show me code", "write NAME with TEXT", "read NAME", "run COMMAND".
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ocmt.broker.events import event
from ocmt.broker.request import (
    content_text,
    estimate_tokens,
    last_tool_calls,
    last_tool_results,
    sent_files,
    user_words,
)

_QUICK = 0.015
_UNHURRIED = 0.06
_SHOWN = 600
_LOOKED_AT = 1000
"""Where in a message a command is looked for. The pattern takes steps by the square of that: words are not
trusted, and everybody waits meanwhile."""
_FILE = r"[`\"']?(?P<name>(?:[\w.-]{1,100}/){0,10}[\w-][\w.-]{0,100}\.[A-Za-z]\w{0,9})[`\"']?"
_WRITE = re.compile(
    rf"\b(?:write|create|make)\b[^.\n]{{0,40}}?{_FILE}"
    r"(?:.*?\b(?:with|containing|saying)\b(?: the)?(?: contents?\b| text\b)?:?\s*(?P<content>.+))?",
    re.IGNORECASE | re.DOTALL,
)
_READ = re.compile(rf"^(?:please )?(?:read|show|open)\b[^.\n]{{0,40}}?{_FILE}", re.IGNORECASE)
_RUN = re.compile(
    r"^(?:please )?(?:run|execute)\b(?: the command)?:?\s+(?P<command>.+)", re.IGNORECASE | re.DOTALL
)
_COUNT = re.compile(r"\bcount (?:up )?to (\d{1,4})\b", re.IGNORECASE)

_INTERRUPTED = "[System] Your previous turn was interrupted"
"""How OpenClaw asks a model to go on after a restart in the middle of its turn."""
_GO_ON = (
    "Your agent was restarted while it worked on this, and I do not know how far it came: I am only the demo "
    "model. Send your message again if something is missing."
)

_WHO = "I am the **demo model** of this installation"
_KEY = "Add an Anthropic API key under **Settings** to talk to Claude."


@dataclass(frozen=True)
class ToolUse:
    """A tool that the answer asks for, under the name and with the parameters that the request offers."""

    name: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class DemoAnswer:
    """A scripted answer: text, then perhaps a tool. `pace` is the seconds between two pieces of it."""

    text: str
    tool: ToolUse | None = None
    pace: float = _QUICK


def answer(request: Mapping[str, Any]) -> DemoAnswer:
    """What the demo model says to a request of the Messages API."""
    words = user_words(request)
    if words.startswith(_INTERRUPTED):
        return DemoAnswer(_GO_ON)
    looping = "loop forever" in words.lower()
    if (results := last_tool_results(request)) and not looping:
        return DemoAnswer(_after_tool(last_tool_calls(request), results))
    if looping:
        return _using(request, _command_tool(request, "date"), "Once more.")
    if found := _WRITE.search(words[:_LOOKED_AT]):
        content = words[found.start("content") :] if found["content"] else "Hello from the demo model."
        content = content.strip().strip("\"'`") + "\n"
        return _using(request, _write_tool(request, found["name"], content), f"Writing `{found['name']}`.")
    if found := _READ.match(words):
        tool = _tool(request, "read", {"path": ("path", "file_path")}, {"path": found["name"]})
        command = f"cat -- {shlex.quote(found['name'])}"
        return _using(request, tool or _command_tool(request, command), f"Reading `{found['name']}`.")
    if found := _RUN.match(words):
        return _using(request, _command_tool(request, found["command"].strip().strip("`")), "Running it.")
    if sent_files(request):
        return _about_files(words)
    return _talk(words)


def message(answer: DemoAnswer, model: str, size: int) -> dict[str, Any]:
    """The answer as a whole message; `size` is the request's in bytes."""
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}]
    if answer.tool:
        content.append(_tool_block(answer.tool) | {"input": dict(answer.tool.input)})
    return _head(model) | {
        "content": content,
        "stop_reason": _stop_reason(answer),
        "usage": {"input_tokens": estimate_tokens(size), "output_tokens": _output_tokens(answer)},
    }


def stream(answer: DemoAnswer, model: str, size: int) -> Iterator[tuple[float, bytes]]:
    """The answer as Anthropic's events, each with the seconds to wait before it; the first text at once."""
    usage = {"input_tokens": estimate_tokens(size), "output_tokens": 1}
    yield 0, event("message_start", {"message": _head(model) | {"usage": usage}})
    yield 0, event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
    yield 0, event("ping", {})
    for number, piece in enumerate(_pieces(answer.text)):
        delta = {"index": 0, "delta": {"type": "text_delta", "text": piece}}
        yield answer.pace if number else 0, event("content_block_delta", delta)
    yield 0, event("content_block_stop", {"index": 0})
    if answer.tool:
        block = _tool_block(answer.tool) | {"input": {}}
        yield answer.pace, event("content_block_start", {"index": 1, "content_block": block})
        for part in ("", json.dumps(answer.tool.input)):
            delta = {"index": 1, "delta": {"type": "input_json_delta", "partial_json": part}}
            yield 0, event("content_block_delta", delta)
        yield 0, event("content_block_stop", {"index": 1})
    final = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    yield 0, event("message_delta", {"delta": final, "usage": {"output_tokens": _output_tokens(answer)}})
    yield 0, event("message_stop", {})


def _about_files(words: str) -> DemoAnswer:
    said = f"\n\nYou wrote:\n\n{_quoted(words)}" if words else ""
    return DemoAnswer(f"Your files have arrived. {_WHO}, so I cannot look at them. {_KEY}{said}")


def _talk(words: str) -> DemoAnswer:
    asked = words.lower()
    if found := _COUNT.search(words):
        numbers = ", ".join(str(number) for number in range(1, min(int(found[1]), 500) + 1))
        return DemoAnswer(f"{numbers}.\n\nThere you are, counted by the demo model.", pace=_UNHURRIED)
    if "long story" in asked:
        return DemoAnswer(_STORY, pace=_UNHURRIED)
    if re.search(r"\b(code|script|function|program|python|javascript)\b", asked):
        return DemoAnswer(_CODE)
    if not asked or re.match(r"(hi|hello|hey|help|good (morning|day|evening)|what can you)\b", asked):
        return DemoAnswer(
            f"Hello! {_WHO}: your agent runs, but no language model stands behind it yet. {_KEY}\n\n{_CAN}"
        )
    return DemoAnswer(
        f"You wrote:\n\n{_quoted(words)}\n\n{_WHO}, so I cannot think about it. {_KEY}\n\n{_CAN}"
    )


def _after_tool(calls: list[dict[str, Any]], results: list[dict[str, Any]]) -> str:
    name = str(calls[-1].get("name", "")) if calls else ""
    given = calls[-1].get("input") if calls else None
    given = given if isinstance(given, dict) else {}
    said = content_text(results[-1].get("content")).strip()
    path = given.get("path") or given.get("file_path")
    if results[-1].get("is_error"):
        return f"That did not work. The `{name}` tool said:\n\n{_fenced(said)}"
    if name.lower().startswith("write") and path:
        return f"Done: I wrote `{path}` in your workspace."
    if name.lower().startswith("read") and path:
        return f"This is `{path}`:\n\n{_fenced(said)}"
    return f"Done. The `{name}` tool said:\n\n{_fenced(said or '(nothing)')}"


def _using(request: Mapping[str, Any], tool: ToolUse | None, text: str) -> DemoAnswer:
    if tool:
        return DemoAnswer(text, tool)
    offered = ", ".join(f"`{name}`" for name in list(_tools(request))[:20]) or "none"
    return DemoAnswer(
        f"I would need a tool for that, and the right one was not offered to me (offered: {offered})."
    )


def _write_tool(request: Mapping[str, Any], name: str, content: str) -> ToolUse | None:
    wanted = {"path": ("path", "file_path"), "content": ("content", "text")}
    tool = _tool(request, "write", wanted, {"path": name, "content": content})
    return tool or _command_tool(request, f"printf %s {shlex.quote(content)} > {shlex.quote(name)}")


def _command_tool(request: Mapping[str, Any], command: str) -> ToolUse | None:
    wanted = {"command": ("command", "cmd")}
    return _tool(request, "exec", wanted, {"command": command}) or _tool(
        request, "bash", wanted, {"command": command}
    )


def _tool(
    request: Mapping[str, Any], name: str, wanted: Mapping[str, tuple[str, ...]], values: Mapping[str, str]
) -> ToolUse | None:
    """The tool of that name, parameters named as the request's schema names them; None if it lacks one."""
    schema = _tools(request).get(name)
    if schema is None:
        return None
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    names = {key: next((one for one in choices if one in known), None) for key, choices in wanted.items()}
    if None in names.values():
        return None
    return ToolUse(name, {str(names[key]): value for key, value in values.items()})


def _tools(request: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    tools = request.get("tools")
    found = (tool for tool in (tools if isinstance(tools, list) else []) if isinstance(tool, dict))
    return {
        str(tool.get("name")): schema if isinstance(schema := tool.get("input_schema"), dict) else {}
        for tool in found
    }


def _head(model: str) -> dict[str, Any]:
    return {
        "id": f"msg_demo{secrets.token_hex(10)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _tool_block(tool: ToolUse) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{secrets.token_hex(12)}", "name": tool.name}


def _stop_reason(answer: DemoAnswer) -> str:
    return "tool_use" if answer.tool else "end_turn"


def _output_tokens(answer: DemoAnswer) -> int:
    return estimate_tokens(len(answer.text) + (len(json.dumps(answer.tool.input)) if answer.tool else 0))


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*\S*", text) or [text]


def _quoted(words: str) -> str:
    shown = words[:_SHOWN] + (" …" if len(words) > _SHOWN else "")
    return "\n".join(f"> {line}" for line in shown.splitlines())


def _fenced(text: str) -> str:
    shown = text[: 4 * _SHOWN]
    fence = "`" * max(3, max((len(run) for run in re.findall(r"`+", shown)), default=0) + 1)
    return f"{fence}\n{shown}\n{fence}"


_CAN = """What I can do meanwhile:

- `write hello.txt with Hello, world` writes a file with your agent's own tool
- `read hello.txt` and `run ls -l` use its other tools
- `show me code`, `count to 100` and `tell me a long story` show how answers stream"""

_CODE = '''Here is a little Python, written by the demo model:

```python
def fibonacci(count: int) -> list[int]:
    """The first `count` numbers of the sequence."""
    numbers = [0, 1]
    while len(numbers) < count:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers[:count]


print(fibonacci(10))  # [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]
```

Ask for `run python3 -c "print(1 + 1)"` and your agent runs something for real.'''

_STORY = """## The lighthouse that slept

*A story by the demo model, long enough to watch it stream.*

Once there was a lighthouse at the end of a long coast, and it had a keeper who was very careful
with oil. "A light that nobody sees," she used to say, "is only a warm room." So when no ship was
near she turned the flame down until it was a blue bead, wrote in her book what the sea had said
that day, and slept.

The fishermen did not like it at first. "What if we come at night?" they asked. "Then you will
call," said the keeper, "and I will hear you." And she strung a bell on a rope across the bay, thin
as a hair and a mile long, so that the first boat to pass would ring it.

The first winter the bell rang eleven times. Each time the flame stood tall before the boat had
reached the rocks, because the keeper had left everything in its place: the matches to the left, the
oil to the right, and the book open at the page where she had stopped. She never had to ask what day
it was. She read the last line, and went on from it.

In spring a stranger came to count the barrels. He had seen a hundred lighthouses, and every one of
them burned all night for an empty sea. He counted twice. "You have used a tenth," he said, "and
lost no ship." The keeper shrugged. "I did not save the oil," she said. "I only did not burn it
while nobody was there."

Later the coast had many lighthouses, one for each village, and every one had its own keeper, its
own book and its own bell. None could read in another's book, and none needed to. On quiet nights
the whole coast was dark, and from the hill you could hear a thousand people sleeping soundly. And
then, somewhere, a bell; and one light, and only one, stood up out of the dark.

That is the end of the story. It was written beforehand, as everything that I say."""
