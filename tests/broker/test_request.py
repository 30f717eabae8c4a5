"""Reading an agent's request: whatever is in it, it is read at once and in little memory."""

from __future__ import annotations

import json
import time

import pytest

from ocmt.broker.request import parse, read_request
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
