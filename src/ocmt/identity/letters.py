"""Every mail that the platform sends, in words, and how many of each kind may go out. Pure.

A mail carries nothing that a user chose but an address: no name of a group, no name of a person, no text. So
nobody can have the platform say their words to a stranger. `Letter` is made here and nowhere else, and leaves
through `post.py`, which holds each to its bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from ocmt.platform.rate import Rate

Kind = Literal["sign_in", "notice", "approval", "invitation", "group_invitation"]
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Bounds:
    """How many letters of a kind may go out."""

    to: Rate | None
    """To one address, whoever is behind them."""
    by: Rate | None
    """By one user; None: no user has them sent."""
    once: bool = False
    """Whether the same thing is told to one address once a day only."""


BOUNDS: Mapping[Kind, Bounds] = {
    # Counted where a link is asked for, by `limits.LINKS_TO` and the purses: see `Identity.prepare_link`.
    "sign_in": Bounds(to=None, by=None),
    "notice": Bounds(to=Rate("notices to", count=100, period=_DAY, burst=50), by=None),
    "approval": Bounds(to=Rate("approvals to", count=5, period=_DAY, burst=5), by=None),
    "invitation": Bounds(
        to=Rate("invitations to", count=3, period=_DAY, burst=3),
        by=Rate("invitations by", count=500, period=_DAY, burst=500),
        once=True,
    ),
    "group_invitation": Bounds(
        to=Rate("group invitations to", count=5, period=_DAY, burst=5),
        by=Rate("group invitations by", count=20, period=_DAY, burst=20),
        once=True,
    ),
}
ONCE = Rate("once to", count=1, period=_DAY, burst=1)

# What no mail program makes a link or a sentence of. An address may hold much else.
_PLAIN = re.compile(r"[a-z0-9]+(?:[._+-][a-z0-9]+)*@[a-z0-9.-]+")


@dataclass(frozen=True)
class Letter:
    """A mail that is ready to go."""

    kind: Kind
    to: str
    subject: str
    text: str = field(repr=False)
    about: str = ""
    """Which thing it tells of, where that is told once a day only."""


def sign_in(to: str, link: str, *, minutes: int) -> Letter:
    """Return the mail that carries a sign-in link."""
    return Letter(
        "sign_in",
        to,
        "Your sign-in link",
        "Open this link to sign in to your agent:\n\n"
        f"{link}\n\n"
        f"It works once, and for {minutes} minutes. If you did not ask for it, do nothing.\n",
    )


def notice(to: str, what: str, url: str) -> Letter:
    """Return the mail about something that was done in a user's name: `A passkey was added`."""
    return Letter(
        "notice",
        to,
        f"Your account: {what[0].lower()}{what[1:]}",
        f"{what}. If that was you, there is nothing to do.\n\n"
        "If it was not, sign in and look under Settings: end the sessions that are not yours, take away\n"
        f"what you do not know, and tell your administrator.\n\n{url}/settings\n",
    )


def approval(to: str, url: str) -> Letter:
    """Return the mail for somebody who has waited for an administrator's approval."""
    return Letter(
        "approval", to, "You may sign in now", f"Your account was approved. Sign in here:\n\n{url}/sign-in\n"
    )


def invitation(to: str, url: str, *, days: int) -> Letter:
    """Return the mail by which an administrator invites somebody into the installation."""
    return Letter(
        "invitation",
        to,
        "You are invited",
        "You are invited to an agent of your own. Ask for a sign-in link under this address here:\n\n"
        f"{url}/sign-in\n\nThe invitation is good for {days} days.\n",
        about="installation",
    )


def group_invitation(to: str, by: str, url: str, *, group_id: str, days: int) -> Letter:
    """Return the mail by which a user invites somebody into a group. `by`: the user's verified address."""
    who = by if _PLAIN.fullmatch(by) else "Another user"
    return Letter(
        "group_invitation",
        to,
        "You are invited to a group",
        f"{who} invites you to a group. Sign in with this address to accept or decline:\n\n"
        f"{url}/groups\n\nThe invitation is good for {days} days. If you do not expect it, do nothing.\n",
        about=group_id,
    )
