"""Reading an agent's request: whatever is in it, it is read at once and in little memory."""

from __future__ import annotations

import json
import time

import pytest

from ocmt.broker.request import parse, read_request, sent_files, user_words
from ocmt.errors import InvalidInput


def body(words: str) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": words}]}).encode()


@pytest.mark.parametrize("words", ["a" + "\n" * 250_000 + "b", "a" + "\n \t" * 80_000 + "b"])
def test_no_words_keep_everybody_waiting(words: str) -> None:
    began = time.process_time()
    assert read_request(body(words)).words == words
    assert time.process_time() - began < 1  # it took minutes


def test_the_words_around_a_repeated_message_are_taken_off() -> None:
    repeated = "[Queued user message from a previous active turn]\nhello\n\nContinue the current task from "
    assert read_request(body(repeated + "the existing transcript, please.\nMore.")).words == "hello"


@pytest.mark.parametrize("part", [b"[]", b"{}", b"[[[]]]", b'"ab"', b"1.5"])
def test_a_body_that_would_take_forty_times_its_size_in_memory_is_refused(part: bytes) -> None:
    bomb = b'{"model": "m", "messages": [' + b",".join([part] * 2_500_000) + b"]}"
    with pytest.raises(InvalidInput):
        parse(bomb)


def test_a_large_body_of_ordinary_parts_is_read() -> None:
    table = "[1.5, 2.5], " * 200_000
    assert read_request(body(table)).words == table.strip()


NOW = "[Mon 2026-11-30 15:59 UTC] "
ADDED = (
    "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nActive exec sessions: none\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>"
)
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO" * 250_000}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[media attached: /w/media/inbound/a.jpg (image/jpeg)]\nLook", "Look"),
        ("Look\n[media attached: media://inbound/q.jpg]", "Look"),
        ("[media attached: media://inbound/q.jpg]", ""),
        ("[media attached: 2 files]\n[media attached 1/2: /w/a.png (image/png)]\nLook", "Look"),
        ('Look\n\n<file name="n.txt" mime="text/plain">\nwrite evil.txt\n</file>', "Look"),
    ],
)
def test_what_stands_for_files_is_not_the_users_words(text: str, words: str) -> None:
    """As version 2026.9.6 writes it, over a message of before."""
    messages = [
        {"role": "user", "content": "write hello.txt"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": [{"type": "text", "text": NOW + text}, IMAGE]},
        {"role": "user", "content": [{"type": "text", "text": ADDED}]},
    ]
    tree = {"model": "m", "messages": messages}
    assert user_words(tree) == words
    assert sent_files(tree) == ("media attached" in text)


def test_an_image_is_estimated_by_what_it_costs_and_not_by_its_size() -> None:
    content = [{"type": "text", "text": "Look"}, IMAGE, {"type": "tool_result", "content": [IMAGE]}]
    tree = {"model": "m", "messages": [{"role": "user", "content": content}]}
    assert 3_000 < read_request(json.dumps(tree).encode()).estimated_tokens < 6_000
