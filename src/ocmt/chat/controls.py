"""Control words: short messages that steer the conversation instead of being a request to the agent. Pure.

Stop phrases are OpenClaw's (`auto-reply/reply/abort-trigger-text`) and a few more that people expect. A test
compares the table with the OpenClaw that is installed. What each slash command does over a channel stands in
docs/reference/channels.md, which a test compares with `COMMANDS`.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum

STOPPED = "Stopped."
NOTHING_RUNS = "Nothing is running."
"""What a person reads after a stop phrase: something was stopped, or there was nothing to stop."""
_LONGEST = 200
"""Characters of a message that can be a control word: longer ones are not looked at."""

STOP_PHRASES = frozenset({
    # English
    "stop", "stopp", "esc", "abort", "exit", "interrupt", "halt", "please stop", "stop please",
    "stop openclaw", "openclaw stop", "stop action", "stop current action", "stop run", "stop current run",
    "stop agent", "stop the agent", "stop don't do anything", "stop dont do anything",
    "stop do not do anything", "stop doing anything", "do not do that", "don't do that", "stop it",
    "stop that", "stop now", "stop everything",
    # Spanish, Portuguese, French, German
    "detente", "detén", "deten", "pare", "arrête", "arrete", "anhalten", "aufhören", "hoer auf", "hör auf",
    # Chinese, Japanese, Hindi, Arabic, Russian
    "停止", "停下来", "暂停", "やめて", "止めて", "रुको", "توقف",
    "стоп", "остановись", "останови", "остановить", "прекрати",
})  # fmt: skip


class Does(StrEnum):
    """What a slash command does when it arrives over a channel."""

    STOP = "stop"
    """Stops the running answer of the conversation and what waits behind it."""
    NEW = "new"
    """Stops as well, and the next message begins a new conversation."""
    STATUS = "status"
    HELP = "help"
    WHOAMI = "whoami"
    START = "start"
    MESSAGE = "message"
    """Passed on as text: the agent reads it, and OpenClaw does not interpret it."""
    OWNER = "owner"
    """Refused in one line: only the owner can use it, in the web chat."""


COMMANDS: dict[str, Does] = {
    **dict.fromkeys(("stop", "abort", "cancel", "esc", "exit", "halt", "interrupt"), Does.STOP),
    **dict.fromkeys(("new", "reset"), Does.NEW),
    "status": Does.STATUS,
    **dict.fromkeys(("help", "commands"), Does.HELP),
    **dict.fromkeys(("whoami", "id"), Does.WHOAMI),
    "start": Does.START,
    **dict.fromkeys(("btw", "side", "skill"), Does.MESSAGE),
    # OpenClaw's own commands: they change or reveal the state of the agent or its configuration.
    **dict.fromkeys((
        "acp", "activation", "agents", "allowlist", "approve", "bash", "compact", "config", "context",
        "dashboard", "debug", "diagnostics", "elev", "elevated", "exec", "export", "export-session",
        "export-trajectory", "fast", "goal", "learn", "login", "loop", "mcp", "model", "models", "name",
        "openclaw", "plugin", "plugins", "queue", "reason", "reasoning", "restart", "send",
        "session", "steer", "subagents", "t", "tasks", "tell", "think", "thinking", "tools", "trace",
        "trajectory", "tts", "update", "usage", "v", "verbose",
    ), Does.OWNER),
    # Commands of plugins that come with OpenClaw, and native names of its commands.
    **dict.fromkeys((
        "dreaming", "pair", "voice", "talkvoice", "codex", "card", "agentstatus", "unfocus", "focus", "kill",
        "bot-ping", "bot-version", "bot-help", "bot-upgrade", "bot-logs",
    ), Does.OWNER),
}  # fmt: skip
"""By name, without the slash. A name that is not here is no command: the agent reads it as text."""

# Quotation marks and punctuation of many scripts are meant here.
# ruff: noqa: RUF001
_OPENING = " \t\r\n\"'“”‘«»‹›„([{¡¿*_~`<"
_CLOSING = " \t\r\n\"'“”’«»‹›)]}.!?…,;:*_~`>。、，！？：；؟۔।॥"
_COMMAND = re.compile(r"/\s*([a-z][a-z0-9_-]{0,40})(?:@(\w{1,64}))?(?=$|[\s:]|[.!?…,;'\")\]}]+$)")
_NO_ARGUMENTS = re.compile(r"[\s:.!?…,;'\")\]}]*")


def asks_to_stop(text: str) -> bool:
    """Whether the whole message is a stop phrase, with any case and punctuation, or a stop command."""
    if len(text) > _LONGEST:
        return False
    said = _plain(text)
    if said.startswith("/"):
        return _stops(said)
    return _core(said) in STOP_PHRASES


def may_be_urgent(text: str) -> bool:
    """Whether a message that mentions somebody may be a control word: a cheap look, and not the last word.

    Whether it is one is decided where it is read, with the mention's meaning known.
    """
    if not text or len(text) > _LONGEST:
        return False
    said = " ".join(word for word in text.split() if word[0] not in "@<")
    if not said:
        return False
    if said[0] in "/／":
        does = command_in(said)
        return does is not None and does[1] not in (Does.MESSAGE, Does.OWNER)
    return len(said) <= 60 and asks_to_stop(said)  # the longest phrase has 24 characters


def command_in(text: str) -> tuple[str, Does] | None:
    """The slash command that the message begins with, as a person typed it, and what it does.

    None where there is none that we know: such a message is text. A command is recognized in any case, with a
    full-width slash, and with the bot's name behind it.
    """
    head = _plain(text[:_LONGEST]).lstrip()
    found = _COMMAND.match(head) or _COMMAND.match(head.split("\n", 1)[0])
    if found is None:
        return None
    name = found[1]
    does = COMMANDS.get(name) or COMMANDS.get(name.replace("_", "-"))
    if does is None:
        return None
    if does is Does.STOP and not _stops(_plain(text)):
        # "/stop the music" is a request; OpenClaw's own command takes no arguments either.
        return f"/{name}", Does.MESSAGE
    return f"/{name}", does


def _stops(said: str) -> bool:
    found = _COMMAND.match(said)
    if found is None or COMMANDS.get(found[1]) is not Does.STOP:
        return False
    return _NO_ARGUMENTS.fullmatch(said, found.end()) is not None


def _plain(text: str) -> str:
    """Lower case, in one normal form, without what cannot be seen."""
    normal = unicodedata.normalize("NFKC", text)
    if not normal.isascii():
        normal = "".join(letter for letter in normal if unicodedata.category(letter) != "Cf")
    return normal.lower().replace("’", "'").replace("`", "'").strip()


def _core(said: str) -> str:
    return " ".join(said.lstrip(_OPENING).rstrip(_CLOSING).split())
