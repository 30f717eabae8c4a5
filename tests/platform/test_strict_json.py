"""JSON of an agent's: read at once or in steps, with the same result, and the same refusals."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.errors import LimitReached
from ocmt.platform.strict_json import MOST_DEPTH, CutText, NotJson, read_at_once, read_in_steps
from ocmt.platform.work import Abandoned, Effort

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=30,
)


def effort(steps: int = 100_000) -> Effort:
    return Effort(steps=steps, message="too much")


def in_steps(data: bytes, **options: Any) -> Any:
    return read_in_steps(data, effort(), longest=10**9, **options)


@given(TREES, st.booleans(), st.sampled_from([None, 2]))
def test_what_json_says_is_read(tree: Any, ascii_only: bool, indent: int | None) -> None:
    data = json.dumps(tree, ensure_ascii=ascii_only, indent=indent).encode()
    assert read_at_once(data) == in_steps(data) == in_steps(data, strict=False) == tree


@given(st.one_of(st.binary(max_size=60), TREES.map(lambda tree: json.dumps(tree).encode())), st.data())
def test_both_ways_agree_on_every_text(data: bytes, draw: st.DataObject) -> None:
    if data:
        at = draw.draw(st.integers(0, len(data) - 1))
        data = (
            data[:at]
            + draw.draw(st.sampled_from([b"", b'"', b"\\", b"{", b"]", b",", b"\\u", b"0", b"\xc3"]))
            + data[at:]
        )

    def read(way: Any) -> Any:
        try:
            return way(data)
        except NotJson:
            return NotJson

    assert read(read_at_once) == read(in_steps)


@given(TEXT, st.integers(1, 200))
def test_a_long_text_is_put_together_from_pieces(piece: str, times: int) -> None:
    text = (piece + '\u00e9\U0001f600"\\\n') * times * 40
    for ascii_only in (True, False):
        assert in_steps(json.dumps(text, ensure_ascii=ascii_only).encode()) == text


@given(st.integers(0, 300), st.booleans())
def test_a_text_that_is_too_long_is_cut_at_a_whole_character(longest: int, ascii_only: bool) -> None:
    text = 'a\u00e9\U0001f600"\\\n' * 30
    data = json.dumps(text, ensure_ascii=ascii_only).encode()
    found = read_in_steps(data, effort(), longest=longest)
    assert isinstance(found, CutText)
    assert found.size == len(data) - 2
    assert text.startswith(found)
    assert len(json.dumps(found, ensure_ascii=ascii_only).encode()) >= longest - 12


def test_depth() -> None:
    for way in (read_at_once, in_steps):
        assert way(b"[" * MOST_DEPTH + b"]" * MOST_DEPTH)
        for deep in (b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1), b"[" * 100_000, b'{"a":' * 100_000):
            with pytest.raises(NotJson):
                way(deep)


def test_not_so_strict_where_the_writer_is_javascript() -> None:
    data = b'{"a": 1, "a": "\\ud800"}'
    for way in (read_at_once, in_steps):
        assert way(data, strict=False) == {"a": "\ud800"}
        with pytest.raises(NotJson):
            way(data)


@pytest.mark.parametrize("size", [10_000, 1_000_000])
@pytest.mark.parametrize(
    "bomb", [b"[],", b"{},", b"1,", b'"",', b'{"a":[1]},', b'"\\""  ,'], ids=lambda bomb: bomb.decode()
)
def test_the_work_is_bounded_by_steps_whatever_the_text_is_made_of(bomb: bytes, size: int) -> None:
    text = b"[" + bomb * (size // len(bomb)) + b"0]"
    with pytest.raises(LimitReached):
        read_in_steps(text, effort(500), longest=10**9)


def test_work_that_nobody_waits_for_ends() -> None:
    given_up = effort()
    given_up.abandon()
    with pytest.raises(Abandoned):
        read_in_steps(b"[1, 2, 3]", given_up, longest=10)


def test_numbers() -> None:
    for way in (read_at_once, in_steps):
        assert way(b"[0, -0, 1.5, -2e3, 1E-2]") == [0, 0, 1.5, -2000.0, 0.01]
        assert math.copysign(1, way(b"-0.0")) == -1
        for wrong in (
            b"01",
            b"+1",
            b".5",
            b"1.",
            b"1e",
            b"0x1",
            b"1e400",
            b"9" * 200,
            b"--1",
            b"1_0",
            b"NaN",
        ):
            with pytest.raises(NotJson):
                way(wrong)
