"""Wires the Management API, and runs it by itself, as in a container. Imports nothing that runs agents."""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ocmt.bootstrap.exports import exports
from ocmt.bootstrap.features import Features
from ocmt.bootstrap.platform import Announce, Platform, open_shared_platform
from ocmt.channels.admin import DeliveriesOfAll
from ocmt.platform import storage
from ocmt.platform.http.addresses import parse_networks
from ocmt.privacy.service import Privacy
from ocmt.services.management import Management, management_app
from ocmt.services.server import serve, stop_signal
from ocmt.settings import Settings
from ocmt.vault.imported.service import ImportedVaults
from ocmt.vault.trial import Trial

if TYPE_CHECKING:
    from ocmt.bootstrap.agent_features import AgentFeatures


def compose_management(
    platform: Platform, features: Features, agent_features: Callable[[], AgentFeatures]
) -> Management:
    """The rooms that it opens, wired. `agent_features` is called when somebody asks for an export."""
    settings, clock, database = platform.settings, platform.clock, platform.database
    accounts, vault = features.accounts, features.vault
    return Management(
        accounts=accounts,
        vault=vault,
        groups=features.groups,
        group_keys=features.group_keys,
        privacy=Privacy(
            database,
            accounts.identity,
            accounts.rates,
            clock,
            exports=exports(features, agent_features),
            folder=platform.scratch,
            space=platform.space,
        ),
        deliveries=DeliveriesOfAll(database, clock),
        imported_vaults=ImportedVaults(database, vault, accounts.identity.audit, clock, features.gate),
        trial=Trial(platform.http, settings.anthropic_url, settings.openai_url),
        ledger=features.ledger,
        limits=features.limits,
        storage=functools.partial(storage.used, database, budgets=features.budgets),
    )


async def run_management(
    settings: Settings, listener: socket.socket, *, announce: Announce, ready: Callable[[], Awaitable[None]]
) -> None:
    """The Management API in this process, until SIGINT or SIGTERM. `ready` is awaited once it answers.

    Raises: SetupProblem where something is missing, Unavailable where the database does not answer.
    """
    stop = stop_signal()
    async with open_shared_platform(settings, announce) as platform:

        @functools.cache
        def agent_features() -> AgentFeatures:
            from ocmt.bootstrap.agent_features import AgentFeatures  # late, for it is a tenth of the start

            return AgentFeatures.over(platform)

        app = management_app(
            compose_management(platform, Features.over(platform), agent_features),
            platform.database,
            url=settings.url,
            proxies=parse_networks(settings.trusted_proxies),
        )
        await serve(app, listener, stop=stop, ready=ready)
