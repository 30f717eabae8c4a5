"""Names in an answer call nobody but whom it answers; code, links and e-mail addresses stay as they are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.channels.github import PIECE as GITHUB_PIECE
from ocmt.channels.github import GitHub
from ocmt.channels.pings import BREAK, for_github, for_telegram, longest
from ocmt.channels.telegram import PIECE as TELEGRAM_PIECE
from ocmt.channels.telegram import Telegram, utf16_units
from tests.channels.vendors import nowhere


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("Ask @octocat.", f"Ask @{BREAK}octocat."),
        ("@org/team, look", f"@{BREAK}org/team, look"),
        ("(@a) .@b -@c /@d\n@e", f"(@{BREAK}a) .@{BREAK}b -@{BREAK}c /@{BREAK}d\n@{BREAK}e"),
        ("&#64;octocat &#x40;b &commat;c &#0064;d", f"@{BREAK}octocat @{BREAK}b @{BREAK}c @{BREAK}d"),
        ("\\@octocat", f"\\@{BREAK}octocat"),
        ("mail ada@example.org", "mail ada@example.org"),
        ("a @ b, @, @-", "a @ b, @, @-"),
        ("https://example.org/@ada/1 www.example.org/@b", "https://example.org/@ada/1 www.example.org/@b"),
        ("use `@app.route` here, @x", f"use `@app.route` here, @{BREAK}x"),
        ("```py\n@app.route\n```\n@x", f"```py\n@app.route\n```\n@{BREAK}x"),
        ("~~~\n@a\n~~~~\n", "~~~\n@a\n~~~~\n"),
        ("```\n@a never closed", f"```\n@{BREAK}a never closed"),
        ("` @a\n`", f"` @{BREAK}a\n`"),
        ("<div>\n```\n@a\n```\n</div>", f"<div>\n```\n@{BREAK}a\n```\n</div>"),
        ("\\`@a`", f"\\`@{BREAK}a`"),
        ("    @indented", f"    @{BREAK}indented"),
        # What looks like code or a link, and is none by CommonMark and GitHub's extensions to it.
        ("1. x\n   ```\n@a\n   ```", f"1. x\n   ```\n@{BREAK}a\n   ```"),
        ("- ```\n  ```\n  @a\n  ```", f"- ```\n  ```\n  @{BREAK}a\n  ```"),
        ("- x\n  ```\n  @a\n  ```", "- x\n  ```\n  @a\n  ```"),
        ("x\u2028```\n@a\n```", f"x\u2028```\n@{BREAK}a\n```"),
        ("```\nx\n```\u00a0\n```\n@a\n```", f"```\nx\n```\u00a0\n```\n@{BREAK}a\n```"),
        ("`\n`@a`", f"`\n`@{BREAK}a`"),
        ("`x\r\r@a`", f"`x\r\r@{BREAK}a`"),
        ("don`t\n\nuse `@a`", "don`t\n\nuse `@a`"),
        ("| x | y |\n|-|-|\n| `x | @a` |", f"| x | y |\n|-|-|\n| `x | @{BREAK}a` |"),
        ("www.@a https://@a http://a/@a", f"www.@{BREAK}a https://@{BREAK}a http://a/@{BREAK}a"),
        ("xhttps://a.b/@a x.www.a.b/@a", f"xhttps://a.b/@{BREAK}a x.www.a.b/@{BREAK}a"),
        ("https://a.b/|@a https://a.b/\\@a", f"https://a.b/|@{BREAK}a https://a.b/\\@{BREAK}a"),
    ],
)  # fmt: skip
def test_github(text: str, safe: str) -> None:
    assert for_github(text) == safe


def test_whom_it_answers_may_be_called_and_their_team_may_not() -> None:
    assert for_github("@Ada, @ADA/team, @adamant", "ada") == f"@Ada, @{BREAK}ADA/team, @{BREAK}adamant"
    assert for_telegram("@ada_l and @adam", "Ada_L") == (f"@ada_l and @{BREAK}adam", [])


def test_telegram() -> None:
    assert for_telegram("Ask @somebody, mail a@b.org, see https://t.me/@x") == (
        f"Ask @{BREAK}somebody, mail a@b.org, see https://t.me/@x",
        [],
    )
    text, entities = for_telegram("😀 `@app` and\n```py\n@route\n```\n@x")
    assert text == f"😀 `@app` and\n```py\n@route\n```\n@{BREAK}x"
    assert entities == [
        {"type": "code", "offset": 3, "length": 6},
        {"type": "pre", "offset": 14, "length": 16},
    ]


words = st.sampled_from(
    ["@a", "@org/t", " ", "\n", "`", "```", "~~~", "&#64;b", "x", "<b>", "\\", "https://a.b/@c", "a@b.c",
     "😀", "@", "&commat;d"]
)  # fmt: skip
texts = st.lists(words, max_size=40).map("".join) | st.text(max_size=200)


@given(texts)
def test_nothing_but_breaks_is_added_and_outside_of_code_nobody_is_named(text: str) -> None:
    safe = for_github(text)
    plain = re.sub(r"&#0{0,9}64;|&#[xX]0{0,9}40;|&commat;", "@", text)
    assert re.sub(r"&#0{0,9}64;|&#[xX]0{0,9}40;|&commat;", "@", safe).replace(BREAK, "") == plain.replace(
        BREAK, ""
    )
    without = re.sub(r"(?:https?://|www\.)\S*|`[^`\n]*`", "", safe) if "`" in safe else safe
    if "`" not in safe and "~" not in safe and "://" not in safe and "www." not in safe.lower():
        assert not re.search(r"(?<![A-Za-z0-9_])@[A-Za-z0-9]", without)
    assert for_github(safe) == safe
    assert len(safe) <= longest(text) + len(text)


@given(texts)
def test_telegrams_entities_fit_into_the_text(text: str) -> None:
    safe, entities = for_telegram(text)
    assert safe.replace(BREAK, "") == text.replace(BREAK, "")
    end = 0
    for one in entities:
        assert one["offset"] >= end
        assert one["length"] > 0
        end = one["offset"] + one["length"]
    assert end <= utf16_units(safe)
    units = safe.encode("utf-16-le", "surrogatepass")
    for one in reversed(entities):
        units = units[: 2 * one["offset"]] + units[2 * (one["offset"] + one["length"]) :]
    rest = units.decode("utf-16-le", "surrogatepass")
    if "://" not in rest:
        assert not re.search(r"(?<!\w)@\w", rest)


@given(st.lists(words, min_size=1, max_size=60).map("".join).map(lambda text: text * 120))
def test_a_piece_fits_also_with_its_breaks(text: str) -> None:
    for piece in Telegram(nowhere, "https://t.invalid").split(text):
        assert utf16_units(for_telegram(piece)[0]) <= TELEGRAM_PIECE
    for piece in GitHub(nowhere, "https://g.invalid").split(text):
        assert len(for_github(piece)) <= GITHUB_PIECE
