"""Reads one webhook event of GitHub's: what was said, where, and what stands beside it. Pure.

What is done with each event stands in `schema.GITHUB`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ocmt.channels.model import KEEP
from ocmt.channels.quoting import quoted, remark
from ocmt.channels.wire import part, words

EVENTS = ("issues", "issue_comment", "pull_request", "pull_request_review", "pull_request_review_comment")
OLDEST = KEEP - timedelta(days=1)
"""What was written longer ago is no news: the delivery that brought it may be forgotten by now, so that a
copy of it would count as new. GitHub itself delivers again for three days."""
_LONGEST_HUNK = 2_000
_VERDICTS = {
    "approved": "approved", "changes_requested": "asks for changes", "commented": "comment",
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """Something that somebody has just written."""

    kind: str
    """comment, review, review_comment, issue, pull_request."""
    what: Mapping[str, Any]
    """The object that has its text, its author and its id."""
    subject: Mapping[str, Any]
    """The issue or the pull request that it is in."""

    @property
    def text(self) -> str:
        """What was written; of a new issue or pull request with its title."""
        body = words(self.what, "body")
        return f"{words(self.what, 'title')}\n\n{body}" if self.what is self.subject else body

    @property
    def context(self) -> list[str]:
        """What the agent reads beside it."""
        if self.kind == "review":
            verdict = _VERDICTS.get(words(self.what, "state").lower())
            return [remark(f"A review of this pull request: {verdict}")] if verdict else []
        if self.kind != "review_comment":
            return []
        line = number(self.what, "line") or number(self.what, "original_line")
        where = words(self.what, "path") + (f", line {line}" if line else "")
        hunk = words(self.what, "diff_hunk")
        # The end of a hunk is the line that is commented on.
        return [
            remark(f"A comment in a review of this pull request, on {where}"),
            *([quoted("the part of the diff that it is about", hunk[-_LONGEST_HUNK:])] if hunk else []),
        ]

    @property
    def reply(self) -> dict[str, Any]:
        """What it takes to answer it."""
        where: dict[str, Any] = {"number": number(self.subject, "number")}
        if self.kind == "review_comment":
            where["review_comment"] = number(self.what, "in_reply_to_id") or number(self.what, "id")
        login = words(part(self.what, "user"), "login")
        return where | ({"calls": login} if login else {})


def said_in(data: Mapping[str, Any]) -> Said | None:
    """What an event says; None: nothing that somebody has just written.

    Told by its shape, for the event's name stands in a header and is not signed.
    """
    action = data.get("action")
    comment, review = part(data, "comment"), part(data, "review")
    issue, pull_request = part(data, "issue"), part(data, "pull_request")
    if comment and issue:
        return Said("comment", comment, issue) if action == "created" else None
    if comment and pull_request:
        return Said("review_comment", comment, pull_request) if action == "created" else None
    if comment:
        return None
    if review:
        return Said("review", review, pull_request) if action == "submitted" and pull_request else None
    if issue or pull_request:
        kind = "issue" if issue else "pull_request"
        return Said(kind, issue or pull_request, issue or pull_request) if action == "opened" else None
    return None


def is_old(said: Said, now: datetime) -> bool:
    """Whether it was written so long ago that a copy of its delivery may have been forgotten."""
    written = words(said.what, "submitted_at") or words(said.what, "created_at")
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return False  # an event of GitHub's has a time; what is not understood is not refused
    return now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) > OLDEST


def number(data: Mapping[str, Any], key: str) -> int | None:
    """A positive number of 64 bits."""
    value = data.get(key)
    return value if type(value) is int and 0 < value < 2**63 else None
