"""The words for a person from an error: the one place that decides what of a fault is said over a channel.

Whoever reads it need not be the owner, and cannot mend anything but their message. So a few faults keep their
own words, which say what to do. Every other one, and whatever looks like a program's words, becomes one plain
line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

FALLBACK = "The agent could not answer. Its owner can see why in the web chat."
TRY_AGAIN = "The agent could not answer just now. Try again in a few minutes."
LONGEST = 400
WORDS: Mapping[str, str] = {
    "internal": TRY_AGAIN,
    "setup": FALLBACK,
    "unavailable": TRY_AGAIN,
    "not_yet": TRY_AGAIN,
    "lease_lost": TRY_AGAIN,
    "conflict": FALLBACK,
    "not_found": FALLBACK,
    "agent_refused": "The agent did not take this message.",
    "agent_error": FALLBACK,
    "agent_crashed": "The agent stopped several times while it worked on this. Try again in a few minutes.",
    "agent_aborted": "The agent broke off its work on this. Send the message again.",
    "agent_busy": "The agent does not take messages just now. Try again in a few minutes.",
}
"""By code, instead of the fault's own words."""

_PROGRAMS_WORDS = re.compile(
    r"""
    \b\w+_\w+\b                                    # identifiers and codes
    | \b[A-Za-z]*(?:Error|Exception|Traceback)\b   # names of exceptions
    | \b(?:None|null|undefined|NaN|nil)\b
    | [{}<>\\|=`]                                  # markup, JSON, templates
    | \b0x[0-9a-fA-F]+
    | \b(?:[A-Z]{5,}|NULL|EOF|ENOENT)\b              # codes in capitals
    | \b\w+\.(?:py|ts|mjs|js|sql):?\d*\b           # files of programs
    | \b\w+\(\)
    | ::
    | https?://
    """,
    re.VERBOSE,
)


def for_person(code: str, message: str) -> str:
    """One plain line for somebody who wrote over a channel."""
    known = WORDS.get(code)
    if known is not None:
        return known
    line = " ".join(message.split())
    if not line or len(line) > LONGEST or _PROGRAMS_WORDS.search(line):
        return FALLBACK
    return line


def of_fault(error: Mapping[str, Any] | None) -> str:
    """The same of what stands in a turn's `error`."""
    given = error or {}
    return for_person(str(given.get("code") or ""), str(given.get("message") or ""))
