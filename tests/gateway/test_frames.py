"""Frames are followed rightly however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from ocmt.platform.http.frames import FrameMeter, FrameTooLarge, close_frame

frames = st.lists(
    st.tuples(
        st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.PONG]),
        st.sampled_from([0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000]),
    ),
    max_size=6,
)


@given(frames, st.booleans(), st.lists(st.integers(1, 400), min_size=1), st.randoms(use_true_random=False))
def test_any_cut_gives_the_same_count_and_the_same_boundaries(
    told: list[tuple[Opcode, int]], mask: bool, cuts: list[int], random: object
) -> None:
    wire = b"".join(
        Frame(code, b"x" * min(size, 125 if code > 8 else size)).serialize(mask=mask) for code, size in told
    )
    ends = set()
    at = 0
    for code, size in told:
        at += len(Frame(code, b"x" * min(size, 125 if code > 8 else size)).serialize(mask=mask))
        ends.add(at)
    meter = FrameMeter(1 << 20)
    position = number = 0
    while position < len(wire):
        step = cuts[number % len(cuts)]
        meter.feed(wire[position : position + step])
        position = min(len(wire), position + step)
        number += 1
        assert meter.between == (position in ends)
    assert meter.data_frames == sum(code < 8 for code, _ in told)


def test_a_frame_that_announces_too_much_is_refused_by_its_head_alone() -> None:
    meter = FrameMeter(1000)
    meter.feed(Frame(Opcode.TEXT, b"x" * 1000).serialize(mask=True))
    with pytest.raises(FrameTooLarge):
        meter.feed(Frame(Opcode.TEXT, b"x" * 1001).serialize(mask=True)[:8])


def test_a_close_frame_of_ours_is_one() -> None:
    meter = FrameMeter(1000)
    meter.feed(close_frame(1012, "The server restarts."))
    assert meter.between
    assert meter.closing
