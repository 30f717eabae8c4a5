"""Reading usage off a stream that may be cut anywhere."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ocmt.broker.events import UsageReader, error_event, event, split_events
from ocmt.usage.model import Tokens

START = event(
    "message_start",
    {"message": {"usage": {"input_tokens": 9, "cache_read_input_tokens": 5, "output_tokens": 1}}},
)
TEXT = event(
    "content_block_delta", {"delta": {"type": "text_delta", "text": 'say "usage" and "error": \n\n data: é'}}
)
END = event("message_delta", {"delta": {}, "usage": {"output_tokens": 40}}) + event("message_stop", {})
STREAM = START + event("ping", {}) + TEXT * 3 + END


def read(*pieces: bytes) -> UsageReader:
    reader = UsageReader()
    for piece in pieces:
        reader.feed(piece)
    return reader


@given(st.lists(st.integers(0, len(STREAM))), st.booleans())
def test_any_cut_of_a_stream_gives_the_same_usage(cuts: list[int], carriage_returns: bool) -> None:
    stream = STREAM.replace(b"\n", b"\r\n") if carriage_returns else STREAM
    bounds = [0, *sorted(cuts), len(stream)]
    reader = read(*(stream[start:end] for start, end in pairwise(bounds)))
    assert reader.tokens == Tokens(9, 40, 5, 0)
    assert reader.complete
    assert reader.error is None


@given(st.lists(st.integers(0, len(STREAM))), st.booleans())
def test_any_cut_is_passed_on_in_whole_events_and_loses_nothing(
    cuts: list[int], carriage_returns: bool
) -> None:
    blank = b"\r\n\r\n" if carriage_returns else b"\n\n"
    stream = STREAM.replace(b"\n", b"\r\n") if carriage_returns else STREAM
    passed, held = [], b""
    for start, end in pairwise([0, *sorted(cuts), len(stream)]):
        events, held = split_events(held + stream[start:end])
        passed.append(events)
    assert b"".join(passed) + held == stream
    assert held == b""
    assert all(events.endswith(blank) for events in passed if events)


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_no_bytes_upset_it(first: bytes, second: bytes) -> None:
    read(first, second, b"\n", b"data: " + first + b"\n\n")


def test_a_stream_that_broke_off_counts_a_token_for_each_piece_of_text() -> None:
    reader = read(START + TEXT * 3)
    assert reader.tokens == Tokens(9, 3, 5, 0)
    assert not reader.complete


def test_nothing_seen_is_not_the_same_as_nothing_used() -> None:
    assert read(event("ping", {})).tokens is None


def test_an_error_event_is_seen() -> None:
    assert read(START, error_event("overloaded_error", "Overloaded")).error == (
        "overloaded_error",
        "Overloaded",
    )


def test_an_error_is_kept_as_words_that_any_database_takes() -> None:
    reader = UsageReader()
    reader.feed(b'data: {"type": "error", "error": {"type": "api_error", "message": "a\\u0000b\\ud800"}}\n\n')
    assert reader.error == ("api_error", "a b ")


def test_a_line_without_end_is_dropped_and_the_next_is_read() -> None:
    reader = read(START, *([b"x" * 65536] * 40), b"\n", END)
    assert reader.tokens == Tokens(9, 40, 5, 0)


def test_counts_that_make_no_sense_are_ignored() -> None:
    odd = event("message_delta", {"usage": {"output_tokens": -5, "input_tokens": "9", "x": 1}})
    assert read(START, odd).tokens == Tokens(9, 1, 5, 0)


_COUNTS = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(st.integers(0, 10**9), st.none(), st.just("9"), st.just(-1), st.just(True))
        for name in (
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
        )
    },
)


@given(_COUNTS, st.lists(_COUNTS, max_size=5))
def test_no_later_count_takes_anything_back(first: dict[str, object], later: list[dict[str, object]]) -> None:
    """Gateways on the way to the provider repeat `input_tokens: 0` in each `message_delta`."""
    reader = read(event("message_start", {"message": {"usage": first}}))
    seen = [reader.tokens or Tokens()]
    for usage in later:
        reader.feed(event("message_delta", {"delta": {}, "usage": usage}))
        seen.append(reader.tokens or Tokens())
    reader.feed(event("message_stop", {}))
    for before, after in pairwise([*seen, reader.tokens or Tokens()]):
        assert after.input >= before.input
        assert after.output >= before.output
        assert after.cache_read >= before.cache_read
        assert after.cache_write >= before.cache_write
    told = [usage["input_tokens"] for usage in (first, *later) if type(usage.get("input_tokens")) is int]
    most = max((count for count in told if isinstance(count, int) and count >= 0), default=0)
    assert (reader.tokens or Tokens()).input == most
