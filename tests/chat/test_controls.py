"""Control words: what stops, in every form that people type, and what each command does over a channel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.chat.controls import COMMANDS, STOP_PHRASES, Does, asks_to_stop, command_in, may_be_urgent
from ocmt.settings import Settings


def installed(pattern: str) -> str:
    """A file of the OpenClaw that this machine has; skips where it has none."""
    found = sorted(Path(Settings().cache_dir).glob(f"openclaw/*/node_modules/openclaw/dist/{pattern}"))
    if not found:
        pytest.skip("OpenClaw is not installed on this machine")
    return found[-1].read_text()


def test_every_stop_phrase_of_the_installed_openclaw_is_known() -> None:
    source = installed("abort-trigger-text-*.mjs")
    listed = re.search(r"new Set\(\[(.*?)\]\)", source, re.DOTALL)
    assert listed is not None
    phrases = re.findall(r'"((?:[^"\\]|\\.)*)"', listed[1])
    assert len(phrases) > 30
    assert [phrase for phrase in phrases if not asks_to_stop(phrase)] == []
    punctuation = re.search(r"_RE = /\[(.*?)\]\+\$/u", source)
    assert punctuation is not None
    for mark in punctuation[1].replace("\\", ""):
        assert asks_to_stop(f"stop{mark}"), mark


def test_every_command_of_the_installed_openclaw_is_decided() -> None:
    source = installed("commands-registry.data-*.mjs")
    keys = re.findall(r'defineBuiltinCommand\("([a-z-]+)"', source)
    aliases = [name for listed in re.findall(r"textAliases: \[(.*?)\]", source, re.DOTALL)
               for name in re.findall(r'"/([a-z-]+)"', listed)]  # fmt: skip
    assert len(keys) > 30
    assert sorted({*keys, *aliases} - set(COMMANDS)) == []


@pytest.mark.parametrize("phrase", sorted(STOP_PHRASES))
def test_a_stop_phrase_stops_in_any_case_and_with_punctuation(phrase: str) -> None:
    for said in (phrase, phrase.upper(), phrase.title(), f"  {phrase}!!\n", f"“{phrase}.”", f"**{phrase}**"):
        assert asks_to_stop(said), said
        assert may_be_urgent(said), said
        assert may_be_urgent(f"@some_bot {said}"), said
        assert may_be_urgent(f"<@U123> {said}"), said


@pytest.mark.parametrize(
    "said",
    ["/stop", "/STOP", " /stop ", "/stop@my_bot", "/Stop@My_Bot.", "\uff0fstop", "/abort", "/st\u200bop",
     "/ stop", "/stop:", "/cancel", "STO\uff30", "\uff53\uff54\uff4f\uff50"],
)  # fmt: skip
def test_a_command_stops_in_any_form(said: str) -> None:
    assert asks_to_stop(said)


@pytest.mark.parametrize(
    "said",
    ["stop the music", "/stop the music", "do not stop", "stop\nand now something else", "non-stop",
     "stopping",
     "", " ", "/", "!stop", "x" * 300, "stop " * 100, "/stopwatch", "exit code 3", "cancel"],
)  # fmt: skip
def test_what_is_more_than_a_stop_phrase_is_a_message(said: str) -> None:
    assert not asks_to_stop(said)


@pytest.mark.parametrize(
    "said",
    ["/restart", " /restart", "/RESTART", "/restart@ocmt_bot", "/restart now", "/restart: now",
     "\uff0frestart",
     "/restart\nand more", "/ restart", "/restart!", "\u200b/restart"],
)  # fmt: skip
def test_an_owner_command_is_known_in_any_form(said: str) -> None:
    assert command_in(said) == ("/restart", Does.OWNER)


@pytest.mark.parametrize(
    "said",
    ["/etc/hosts is wrong", "/unknown", "/ask why", "5/10", "//restart", "a /restart", "and/or", "/42"],
)
def test_what_is_no_command_of_ours_is_text(said: str) -> None:
    assert command_in(said) is None


def test_whatever_openclaw_does_not_do_for_everybody_is_for_the_owner() -> None:
    for name in (
        "exec",
        "elevated",
        "export-session",
        "config",
        "debug",
        "bash",
        "mcp",
        "plugins",
        "approve",
        "model",
    ):
        assert COMMANDS[name] is Does.OWNER
    assert command_in("/export_session x") == ("/export_session", Does.OWNER)


@given(st.text(max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    if asks_to_stop(text) and "@" not in text and "<" not in text:
        assert may_be_urgent(text)
    command_in(text)
