"""Both services behind one port, composed as bootstrap does it, with agents that are doubles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp

from ocmt.agents.holds import Holds
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import Transfers
from ocmt.bootstrap_privacy import exports, quiet
from ocmt.broker.service import Broker
from ocmt.chat.answer import Answerer
from ocmt.chat.service import Chat
from ocmt.chat.stream import EventStream
from ocmt.chat.transcript import TranscriptWriter
from ocmt.chat.worker import TurnWorker
from ocmt.groups.service import Groups
from ocmt.identity.accounts import Accounts
from ocmt.identity.limits import KNOCKS_FROM
from ocmt.platform.argon import ArgonGate
from ocmt.platform.database import Database, Hints
from ocmt.platform.http import client_session
from ocmt.privacy.service import Privacy
from ocmt.services.all_in_one import all_in_one_app
from ocmt.services.management import Management
from ocmt.services.orchestrator import Orchestrator
from ocmt.testing.clock import VirtualClock
from ocmt.testing.mail import MemoryMail
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.runtimes import FakeRuntime
from ocmt.testing.secrets import MemorySecrets
from ocmt.usage.service import Ledger
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.imported.service import ImportedVaults
from ocmt.vault.service import ModelKeys, Vault
from ocmt.vault.trial import Trial
from tests.agents.conftest import gateways, hints, runtime
from tests.agents.replica import Gateways, Replica
from tests.identity.browser import Browser

__all__ = ["gateways", "hints", "runtime"]

URL = "http://localhost:8080"


@dataclass
class House:
    """All of it, and the way in."""

    app: ASGIApp
    api: FastAPI
    agents: Starlette
    management: Management
    orchestrator: Orchestrator
    database: Database

    async def sign_in(self, email: str) -> Browser:
        """A browser of a new user; the first one is the administrator."""
        browser = Browser(self.app)
        first = not await self.management.accounts.identity.users()
        await self.management.accounts.identity.add_user(email, "admin" if first else "user")
        link = await self.management.accounts.identity.make_link(email)
        # All of them come from one address here.
        await self.management.accounts.rates.forgive(KNOCKS_FROM, "127.0.0.1")
        token = link.split("#token=")[1]
        answer = await browser.call("POST", "/api/v1/auth/magic-link/verify", {"token": token})
        assert answer.status == 200, answer.body
        return browser


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """What Vite would have built."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>OCMT</title>")
    (tmp_path / "assets" / "app-1a2b3c.js").write_text("export {}")
    return tmp_path


@pytest.fixture
async def house(
    database: Database,
    hints: Hints,
    clock: VirtualClock,
    runtime: FakeRuntime,
    gateways: Gateways,
    pages: Path,
) -> AsyncIterator[House]:
    replica = Replica.build(clock=clock, database=database, hints=hints, runtime=runtime, gateways=gateways)
    objects = MemoryObjects()
    snapshots = Snapshots(database, objects, clock)
    chat = Chat(database, clock, objects)
    ledger = Ledger(database, clock)
    secrets = MemorySecrets()
    accounts = Accounts.over(database, secrets, MemoryMail(), clock, public_url=URL)
    audit = accounts.identity.audit
    vault = Vault(database, secrets, audit, clock)
    groups = Groups(database, audit, clock, url=URL)
    group_keys = GroupKeys(database, vault.master, audit, clock)
    session = client_session()

    async def nothing_runs(_user_id: UUID) -> list[object]:
        return []

    async def no_notice(_turn_id: UUID, _text: str) -> None:
        return None

    async def no_files(_user_id: UUID) -> None:
        return None

    async def no_usage(_user_id: UUID, _turn_id: UUID) -> None:
        return None

    broker = Broker(
        keys=ModelKeys(vault, group_keys, database, clock),
        ledger=ledger,
        clock=clock,
        authenticate=replica.agents.owner_of_token,
        running_turns=nothing_runs,  # type: ignore[arg-type]
        notice=no_notice,
        platform_key=None,
        anthropic_url="http://127.0.0.1:1",
        turn_call_limit=50,
        daily_token_limit=1000,
        demo_model=False,
        session=session,
    )
    answerer = Answerer(
        database,
        clock,
        replica.agents,
        usage_of=no_usage,
        explain=no_usage,
        turn_timeout=timedelta(minutes=1),
    )
    transfers = Transfers(
        snapshots, database, objects, replica.agents, Holds(replica.agents, clock), pages / "transfers"
    )
    privacy = Privacy(
        database,
        objects,
        accounts.identity,
        accounts.rates,
        clock,
        exports=exports(accounts, vault, groups, ledger, chat, snapshots, transfers),
        quiet=quiet(replica.agents, chat),
        forget=no_files,
        folder=pages / "exports",
    )
    management = Management(
        accounts=accounts,
        vault=vault,
        groups=groups,
        privacy=privacy,
        group_keys=group_keys,
        imported_vaults=ImportedVaults(database, vault, audit, clock, ArgonGate()),
        trial=Trial(session, "http://127.0.0.1:1", "http://127.0.0.1:1"),
        ledger=ledger,
        limits=broker.limits,
    )
    orchestrator = Orchestrator(
        agents=replica.agents,
        policy=replica.policy,
        runtime=runtime,
        reconciler=replica.reconciler,
        broker=broker,
        chat=chat,
        stream=EventStream(chat, database, hints, clock),
        worker=TurnWorker(database, clock, hints, replica.reconciler, answerer),
        transcripts=TranscriptWriter(database, objects, hints),
        snapshots=snapshots,
        transfers=transfers,
        privacy=privacy,
    )
    app = all_in_one_app(management, orchestrator, database, url=URL, ui_dir=pages)
    yield House(app, management.app(), orchestrator.app(), management, orchestrator, database)
    await session.close()
