"""The features that both services open, over one platform."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ocmt.agents.holds import Holds
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import Transfers
from ocmt.bootstrap.platform import Platform
from ocmt.chat.service import Chat
from ocmt.groups.service import Groups
from ocmt.identity.accounts import Accounts
from ocmt.identity.oidc.clients import clients_of
from ocmt.identity.oidc.model import configure
from ocmt.platform.argon import ArgonGate
from ocmt.usage.model import Limits
from ocmt.usage.service import Ledger
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.service import Vault


@dataclass(frozen=True)
class Features:
    """Of one process. Nothing runs by itself here."""

    accounts: Accounts
    gate: ArgonGate
    vault: Vault
    groups: Groups
    group_keys: GroupKeys
    ledger: Ledger
    limits: Limits
    agents: Agents
    holds: Holds
    chat: Chat
    snapshots: Snapshots
    transfers: Transfers
    folder: Path
    """On a disk, for archives that are gone when they are closed."""

    @classmethod
    def over(cls, platform: Platform) -> Self:
        """Raises: SetupProblem, InvalidInput where the settings name something that can not be."""
        settings, clock, database = platform.settings, platform.clock, platform.database
        gate = ArgonGate()
        accounts = Accounts.over(
            database,
            platform.secrets,
            platform.mail,
            clock,
            public_url=settings.url,
            sign_up=settings.sign_up,
            allowed=settings.sign_up_allowed,
            mfa_for_admins=settings.mfa_for_admins,
            gate=gate,
            oidc=clients_of(
                [configure(name, **given.plain()) for name, given in settings.oidc.items()],
                platform.session,
                clock,
            ),
        )
        audit = accounts.identity.audit
        vault = Vault(database, platform.secrets, audit, clock)
        agents = Agents(database, clock, runtime=settings.runtime)
        holds = Holds(agents, clock)
        snapshots = Snapshots(database, platform.objects, clock)
        folder = settings.data_dir.resolve() / "transfers"
        return cls(
            accounts=accounts,
            gate=gate,
            vault=vault,
            groups=Groups(database, audit, clock, url=accounts.identity.address.url),
            group_keys=GroupKeys(database, vault.master, audit, clock),
            ledger=Ledger(database, clock),
            limits=Limits(turn_calls=settings.turn_call_limit, daily_tokens=settings.daily_token_limit),
            agents=agents,
            holds=holds,
            chat=Chat(database, clock, platform.objects),
            snapshots=snapshots,
            transfers=Transfers(snapshots, database, platform.objects, agents, holds, folder),
            folder=folder,
        )
