"""Our own words for programs never reach a person: one function makes the words, for every code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ocmt
from ocmt.channels.answering import answer_of
from ocmt.channels.wording import FALLBACK, WORDS, for_person, of_fault
from ocmt.errors import OcmtError

PROGRAMS_WORDS = [
    "OpenClaw refused this message: an unknown answer to a message: None",
    "KeyError: 'runId'",
    "agent_refused",
    "limit_reached: too many",
    'Traceback (most recent call last):\n  File "x.py"',
    '{"code": "INVALID_REQUEST"}',
    "UNAVAILABLE",
    "<html>502</html>",
    "null",
    "undefined is not a function",
    "asyncpg.exceptions.ConnectionDoesNotExistError: connection was closed",
    "run failed at chat-send-handler.mjs:4400",
    "connect ECONNREFUSED 127.0.0.1:5432",
    "send() failed",
    "std::bad_alloc",
    "0x7f00",
    "see https://internal.example/log",
    "x" * 5000,
    "",
]
LEAKS = re.compile(
    r"\w_\w|\bNone\b|Error\b|Exception|Traceback|[{}<>]|null|undefined|[A-Z]{4,}|://|0x|\(\)|::"
)


def all_errors(kind: type[OcmtError] = OcmtError) -> list[type[OcmtError]]:
    return [kind, *(inner for one in kind.__subclasses__() for inner in all_errors(one))]


def codes() -> set[str]:
    """Of all errors, and of all faults that the source writes down."""
    found = {kind.code for kind in all_errors()}
    for file in Path(ocmt.__file__).parent.rglob("*.py"):
        found |= set(re.findall(r'(?:[Ff]ault\(\s*|code(?::[^=\n]*)? = )"([a-z_]+)"', file.read_text()))
    return found


@pytest.mark.parametrize("code", [*sorted(codes()), "", "of_a_later_version"])
def test_whatever_is_in_it_a_person_reads_plain_words(code: str) -> None:
    for words in PROGRAMS_WORDS:
        line = for_person(code, words)
        assert not LEAKS.search(line), (code, words)
        assert line.endswith(".")
        assert len(line) < 200


def test_there_are_many_codes() -> None:
    assert {"agent_refused", "agent_crashed", "turn_timeout", "limit_reached", "internal"} <= codes()
    assert set(WORDS) - codes() == set()


def test_a_plain_sentence_is_kept() -> None:
    for line in (
        "Your agent has 20 messages waiting. Wait for an answer, or stop some.",
        "This message has 300 KB; at most 256 KB fit into one. Split it.",
        "The key was refused.",
        "You have reached your budget for this month: $5.00 of $5.00.",
        "Today's limit of 1,000 tokens is used up. It starts anew at 00:00 UTC.",
    ):
        assert for_person("limit_reached", line) == line


def test_a_failed_turn_is_told_in_these_words() -> None:
    row = {"status": "failed", "error": {"code": "agent_refused", "message": PROGRAMS_WORDS[0]}}
    assert answer_of(row) == "The agent did not take this message."
    assert answer_of({"status": "failed", "error": None}) == of_fault(None) == FALLBACK
