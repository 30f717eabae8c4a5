"""The features of agents, over one platform: what they say and have. The Management API opens them for an
export only, and imports them no sooner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ocmt.agents.holds import Holds
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import Transfers
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
        snapshots = Snapshots(database, objects, clock)
        return cls(
            agents=agents,
            holds=holds,
            chat=Chat(database, clock, objects),
            snapshots=snapshots,
            deliveries=Deliveries(database, clock),
            transfers=Transfers(snapshots, database, objects, agents, holds, platform.scratch),
        )
