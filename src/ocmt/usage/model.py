"""What a model call used, what went wrong with it, and how many may be made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from ocmt.errors import LimitReached

KeySource = Literal["user", "group", "platform", "demo"]
"""Whose key paid for a call; `demo`: nobody's, the built-in demo model answered."""

REFUSALS = frozenset(
    {"turn_call_limit", "hourly_call_limit", "daily_token_limit", "not_served", "model_not_served"}
)
"""Codes of our own refusals: such a row records that a call was not made."""

RETRYABLE = frozenset(
    {
        "provider_rate_limited",
        "provider_overloaded",
        "provider_failed",
        "provider_timeout",
        "provider_unreachable",
        "provider_broke_off",
        "interrupted",
    }
)
"""Codes of faults that pass by themselves."""

CLIENT_GONE = "client_gone"
"""The agent hung up (a stopped turn, a stopped agent). Recorded, but nothing that a user must be told."""

OPEN_AT_MOST = timedelta(minutes=20)
"""No call lasts that long (the broker ends it sooner): an older open row is a killed process's."""

UNATTRIBUTED_WINDOW = timedelta(hours=1)
"""Calls outside any turn share one allowance per rolling window of this length."""


@dataclass(frozen=True)
class Tokens:
    """What one call used, as the provider counts it: `input` excludes what came from or went to its cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True)
class Usage:
    """What one turn used. `input_tokens` is all that the model read, cached or not."""

    input_tokens: int
    output_tokens: int
    calls: int


@dataclass(frozen=True)
class Fault:
    """Why a call failed: a code to match on and a plain sentence for the user."""

    code: str
    message: str

    @property
    def retryable(self) -> bool:
        """Whether the same call can succeed later without anybody changing anything."""
        return self.code in RETRYABLE


@dataclass(frozen=True)
class Limits:
    """How much may be used: calls per turn, and tokens per user and UTC day (0 allows none).

    The tokens are those of a provider. The demo model's cost nothing, so only its calls are limited.
    """

    turn_calls: int
    daily_tokens: int


class CallRefused(LimitReached):
    """A limit forbids this call; it was not made. `fault` says which limit, in plain words."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True)
class NewCall:
    """A model call that is about to be made."""

    user_id: UUID
    turn_id: UUID | None
    provider: str
    model: str
    key_source: KeySource
    estimated_tokens: int
    """What it will use at least; booked until the provider says better, and kept if it never does."""
    counted_from: datetime | None = None
    """Where a turn is tried again: calls before this time no longer count against its limit."""


@dataclass(frozen=True)
class PeriodUsage:
    """Totals of one user since some moment. `tokens` is the number that the daily limit is about."""

    calls: int
    unfinished: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    tokens: int


def refusal(*, calls: int, tokens: int, limits: Limits, in_turn: bool) -> Fault:
    """The limit that forbids one more call after so many calls and tokens; `open_call` keeps the same."""
    if calls >= limits.turn_calls:
        if in_turn:
            return Fault(
                "turn_call_limit",
                f"The agent made {calls} model calls for this message, which is the limit. It was stopped.",
            )
        return Fault(
            "hourly_call_limit",
            f"The agent made {calls} model calls on its own within an hour, which is the limit.",
        )
    return Fault(
        "daily_token_limit",
        f"Today's limit of {limits.daily_tokens:,} tokens is used up. It starts anew at 00:00 UTC.",
    )
