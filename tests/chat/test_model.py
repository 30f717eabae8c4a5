"""Rules of messages, titles and event batches."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.chat.model import (
    MAX_MESSAGE_BYTES,
    TITLE_LENGTH,
    Event,
    EventType,
    check_idempotency_key,
    check_message,
    merge_deltas,
    title_of,
)
from ocmt.errors import InvalidInput, TooLarge

TURNS = [UUID(int=1), UUID(int=2)]


def test_a_message_of_a_megabyte_is_refused_in_words_that_name_the_limit() -> None:
    with pytest.raises(TooLarge, match="1024 KB; at most 256 KB"):
        check_message("x" * 1024 * 1024)


def test_the_limit_counts_bytes_not_characters() -> None:
    check_message("x" * MAX_MESSAGE_BYTES)
    with pytest.raises(TooLarge):
        check_message("ä" * (MAX_MESSAGE_BYTES // 2 + 1))


@pytest.mark.parametrize("text", ["", "  \n\t ", "a\x00b", "\ud800"])
def test_what_no_agent_can_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        check_message(text)


@pytest.mark.parametrize("key", [None, "", "x" * 201, "a\nb"])
def test_a_message_needs_an_idempotency_key(key: str | None) -> None:
    with pytest.raises(InvalidInput, match="Idempotency-Key"):
        check_idempotency_key(key)


@given(st.text(max_size=300))
def test_a_title_is_one_short_line(text: str) -> None:
    title = title_of(text)
    assert len(title.splitlines()) <= 1
    assert len(title) <= TITLE_LENGTH + 1


events = st.lists(
    st.builds(
        lambda kind, turn, text, anew: Event(
            kind, turn, {"text": text} | ({"replace": True} if anew else {})
        ),
        st.sampled_from([EventType.DELTA, EventType.TOOL, EventType.COMPLETED]),
        st.sampled_from(TURNS),
        st.text(max_size=5),
        st.booleans(),
    )
)


@given(events)
def test_joining_pieces_loses_and_reorders_nothing(batch: list[Event]) -> None:
    def answers(log: list[Event]) -> dict[UUID, str]:
        told = dict.fromkeys(TURNS, "")
        for event in log:
            if event.type is EventType.DELTA:
                before = "" if event.data.get("replace") else told[event.turn_id]
                told[event.turn_id] = before + event.data["text"]
        return told

    merged = merge_deltas(batch)
    assert answers(merged) == answers(batch)
    assert [e for e in merged if e.type is not EventType.DELTA] == [
        e for e in batch if e.type is not EventType.DELTA
    ]
    assert merge_deltas(merged) == merged
