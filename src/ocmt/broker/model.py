"""Who a model call is made for, which key pays, and what a provider's failure means in plain words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from ocmt.usage.model import Fault, KeySource

DEMO_LABEL = "demo model: add a key to talk to Claude"


@dataclass(frozen=True)
class RunningTurn:
    """A turn that the user's agent works on right now; `text` is what the user wrote."""

    turn_id: UUID
    text: str
    conversation_id: UUID | None = None
    """Where given, a call that names the conversation's session is known to be for this turn."""
    started_at: datetime | None = None
    """When its present attempt began: only calls since then count against the limit. None: all calls do."""


@dataclass(frozen=True)
class ModelInfo:
    """What answers a user: whose key, and how to say so."""

    kind: KeySource
    label: str


@dataclass(frozen=True)
class Timeouts:
    """Seconds that each part of a call may take."""

    connect: float = 10
    body: float = 60
    """For the agent to hand over its request."""
    grace: float = 10
    """After so long the request must have come at a least rate."""
    taking: float = 60
    """For the agent to take the next piece of its answer."""
    first_byte: float = 120
    idle: float = 120
    """Between two pieces of a stream."""
    total: float = 15 * 60
    booking: float = 1
    """How long the end of an answer may wait for the ledger."""


MODEL_INFO: dict[KeySource, ModelInfo] = {
    "user": ModelInfo("user", "Claude (your key)"),
    "group": ModelInfo("group", "Claude (your group's key)"),
    "platform": ModelInfo("platform", "Claude (your organisation's key)"),
    "demo": ModelInfo("demo", DEMO_LABEL),
}


def turn_of(turns: Sequence[RunningTurn], *, session_key: str | None, words: str) -> RunningTurn | None:
    """The turn that a call is made for. `turns` oldest first; `words` is the request's last user message.

    With several at once: the conversation that the request names, else the turn whose text it carries, else
    the oldest. What the request says is the agent's word, so it only chooses among its own user's turns.
    """
    if len(turns) < 2:
        return turns[0] if turns else None
    for turn in turns:
        if session_key and turn.conversation_id and session_key.endswith(f":{turn.conversation_id}"):
            return turn
    said = _plain(words)
    for turn in turns:
        if (text := _plain(turn.text)) and text in said:
            return turn
    return turns[0]


def _plain(text: str) -> str:
    return " ".join(text.split())


Trouble = Literal["timeout", "unreachable", "broke_off"]

_TROUBLE: dict[Trouble, Fault] = {
    "timeout": Fault("provider_timeout", "Anthropic did not answer in time. Try again in a moment."),
    "unreachable": Fault(
        "provider_unreachable", "Anthropic could not be reached. Check the server's connection and try again."
    ),
    "broke_off": Fault("provider_broke_off", "Anthropic's answer broke off. Try again."),
}
_NOTICES = {
    "provider_rate_limited": "Anthropic asks us to slow down; trying again …",
    "provider_overloaded": "Anthropic is overloaded; trying again …",
    "provider_failed": "Anthropic had an error; trying again …",
    "provider_timeout": "Anthropic does not answer; trying again …",
    "provider_unreachable": "Anthropic cannot be reached; trying again …",
    "provider_broke_off": "Anthropic's answer broke off; trying again …",
}
_BY_TYPE = {
    "authentication_error": 401,
    "permission_error": 403,
    "billing_error": 402,
    "rate_limit_error": 429,
    "overloaded_error": 529,
    "timeout_error": 504,
    "invalid_request_error": 400,
}
_ABOUT_MONEY = re.compile(
    r"credit balance|billing|purchase credits|usage limit|spend(ing)? limit", re.IGNORECASE
)


def trouble(kind: Trouble) -> Fault:
    """The fault of a call that got no whole answer."""
    return _TROUBLE[kind]


def not_served(names: Sequence[str]) -> Fault:
    """The fault of a call that asks the provider for more than it may."""
    return Fault(
        "not_served",
        f"Your agent asked the model's provider for {', '.join(names)}. That would reach beyond its sandbox, "
        "so it was refused.",
    )


def model_not_served(model: str, models: Sequence[str]) -> Fault:
    """The fault of a call for a model that the installation's key is not for."""
    return Fault(
        "model_not_served",
        f"This installation's API key is not for the model {model}. It is for {', '.join(models)}. "
        "Choose one of these, or add an API key of your own under Settings.",
    )


def unsendable(source: KeySource) -> Fault:
    """The fault of a call whose key is not one."""
    whose = {
        "user": "Your API key contains a character that no key has. Enter it again under Settings.",
        "group": "Your group's API key contains a character that no key has. Its admins must enter it again.",
    }
    return Fault(
        "provider_key_refused",
        whose.get(
            source,
            "This installation's API key contains a character that no key has. Its operator must mend it.",
        ),
    )


def fault_of(status: int, error_type: str, message: str, source: KeySource) -> Fault:
    """What an error answer of the provider means (https://docs.anthropic.com/en/api/errors).

    An `error` event inside a stream comes with status 200; then its type decides.
    """
    if status < 400:
        status = _BY_TYPE.get(error_type, 500)
    if status == 402 or (status in (400, 403) and _ABOUT_MONEY.search(message)):
        return Fault("provider_credit", f"Anthropic does not serve this key for now: {_sentence(message)}")
    if status in (401, 403):
        if source == "user":
            return Fault("provider_key_refused", "Anthropic refused the API key. Check it under Settings.")
        if source == "group":
            return Fault(
                "provider_key_refused", "Anthropic refused your group's API key. Its admins must check it."
            )
        return Fault(
            "provider_key_refused",
            "Anthropic refused this installation's API key. Its operator must check it.",
        )
    if status == 429:
        return Fault(
            "provider_rate_limited", "Anthropic limits how fast this key may ask. Try again in a minute."
        )
    if status in (503, 529):
        return Fault("provider_overloaded", "Anthropic is overloaded. Try again in a moment.")
    if status in (408, 504):
        return _TROUBLE["timeout"]
    if status >= 500:
        return Fault("provider_failed", "Anthropic had an internal error. Try again in a moment.")
    return Fault("provider_refused_request", f"Anthropic refused the request: {_sentence(message)}")


def _sentence(message: str) -> str:
    return message.rstrip(". ") + "." if message else "it did not say why."


def notice_of(fault: Fault) -> str | None:
    """What to tell the user while the agent tries again by itself; None where it will not."""
    return _NOTICES.get(fault.code)


STOPS_THE_AGENT = frozenset({"provider_key_refused", "provider_credit"})
"""Provider faults that must not reach OpenClaw as they are: it would switch its own token off for minutes."""
