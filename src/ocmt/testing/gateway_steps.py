"""What a FakeGateway answers with: the steps of a script."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Say:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Retract:
    """What was said is void: the model's call failed and is repeated."""


@dataclass(frozen=True)
class Remark:
    """Something said by the way, that is not part of the answer."""

    text: str


@dataclass(frozen=True)
class UseTool:
    """A whole tool call."""

    name: str
    title: str
    error: str | None = None


@dataclass(frozen=True)
class Wait:
    """Seconds on the clock."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Until the test sets this event: for ever, with none."""

    until: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Fail:
    """The run ends without an answer."""

    message: str = "LLM request failed: provider rejected the request schema or tool payload."
    http_status: int | None = 400


@dataclass(frozen=True)
class Disconnect:
    """All connections break; the run goes on."""


@dataclass(frozen=True)
class Die:
    """The gateway dies as if killed; `restart` brings it back with what was in its database."""


@dataclass(frozen=True)
class SendRaw:
    """Lie: send this to everybody as it stands."""

    data: str | bytes


Step = Say | Retract | Remark | UseTool | Wait | Hold | Fail | Disconnect | Die | SendRaw
