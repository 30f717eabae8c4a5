"""The features of agents, over one platform: what they say and have. The Management API opens them for an
export only, and imports them no sooner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ocmt.agents.holds import Holds
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.keeping import Limits
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import Transfers
from ocmt.bootstrap.features import budgets_of
from ocmt.bootstrap.platform import Platform
from ocmt.channels.history import Deliveries
from ocmt.chat.service import Chat


@dataclass(frozen=True)
class AgentFeatures:
    """Of one process. Nothing runs by itself here."""

    agents: Agents
    holds: Holds
    chat: Chat
    snapshots: Snapshots
    transfers: Transfers
    deliveries: Deliveries

    @classmethod
    def over(cls, platform: Platform) -> Self:
        """Wire them."""
        clock, database, objects = platform.clock, platform.database, platform.objects
        agents = Agents(database, clock, runtime=platform.settings.runtime)
        holds = Holds(agents, clock)
        budgets = budgets_of(platform.settings)
        snapshots = Snapshots(database, objects, clock, limits=Limits(kept_bytes=budgets.snapshot_bytes))
        return cls(
            agents=agents,
            holds=holds,
            chat=Chat(database, clock, objects, budgets),
            snapshots=snapshots,
            deliveries=Deliveries(database, clock, budgets),
            transfers=Transfers(
                snapshots, database, objects, agents, holds, platform.scratch, space=platform.space
            ),
        )
