"""The features of people, over one platform: both services open them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from uuid import UUID

from ocmt.bootstrap.platform import Platform
from ocmt.groups.service import Groups
from ocmt.identity.accounts import Accounts
from ocmt.identity.oidc.clients import clients_of
from ocmt.identity.oidc.model import configure
from ocmt.identity.origin import PublicAddress
from ocmt.platform.argon import ArgonGate
from ocmt.platform.database import Connection
from ocmt.platform.storage import Budgets
from ocmt.settings import Settings
from ocmt.usage.model import Limits
from ocmt.usage.service import Ledger
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.service import Vault


def public_address(settings: Settings) -> PublicAddress:
    """Return where users reach this process. Raises: SetupProblem where that could not be safe."""
    return PublicAddress.parse(settings.url, listener=settings.host, behind_proxy=settings.behind_proxy)


async def stop_agent(connection: Connection, user_id: UUID) -> None:
    """Stop the agent of a user who is shut out, in the transaction that says so."""
    from ocmt.agents.service import shut_out  # late: the Management API starts without the agents' room

    await shut_out(connection, user_id)


@dataclass(frozen=True)
class Features:
    """Of people: who they are, and what they keep and use. Nothing runs by itself here."""

    accounts: Accounts
    gate: ArgonGate
    vault: Vault
    groups: Groups
    group_keys: GroupKeys
    ledger: Ledger
    limits: Limits
    budgets: Budgets

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
            public_url=public_address(settings),
            sign_up=settings.sign_up,
            allowed=settings.sign_up_allowed,
            mfa_for_admins=settings.mfa_for_admins,
            gate=gate,
            shut_out=stop_agent,
            oidc=clients_of(
                [configure(name, **given.plain()) for name, given in settings.oidc.items()],
                platform.http,
                clock,
            ),
        )
        audit = accounts.identity.audit
        vault = Vault(database, platform.secrets, audit, clock)
        return cls(
            accounts=accounts,
            gate=gate,
            vault=vault,
            groups=Groups(
                database,
                audit,
                clock,
                url=accounts.identity.address.url,
                post=accounts.identity.post,
                admits=accounts.identity.entrance.would_admit,
            ),
            group_keys=GroupKeys(database, vault.master, audit, clock),
            ledger=Ledger(database, clock),
            limits=Limits(turn_calls=settings.turn_call_limit, daily_tokens=settings.daily_token_limit),
            budgets=budgets_of(settings),
        )


def budgets_of(settings: Settings) -> Budgets:
    """Return what each user may keep where the plan does not say."""
    return Budgets(
        conversations=settings.keep_conversations,
        conversation_bytes=settings.keep_conversation_bytes,
        delivery_bytes=settings.keep_delivery_bytes,
        attachment_bytes=settings.keep_attachment_bytes,
        snapshot_bytes=settings.keep_snapshot_bytes,
    )
