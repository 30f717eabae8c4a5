"""The features of people, over one platform: both services open them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ocmt.bootstrap.platform import Platform
from ocmt.groups.service import Groups
from ocmt.identity.accounts import Accounts
from ocmt.identity.oidc.clients import clients_of
from ocmt.identity.oidc.model import configure
from ocmt.platform.argon import ArgonGate
from ocmt.platform.storage import Budgets
from ocmt.settings import Settings
from ocmt.usage.model import Limits
from ocmt.usage.service import Ledger
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.service import Vault


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
            public_url=settings.url,
            sign_up=settings.sign_up,
            allowed=settings.sign_up_allowed,
            mfa_for_admins=settings.mfa_for_admins,
            gate=gate,
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
            groups=Groups(database, audit, clock, url=accounts.identity.address.url),
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
