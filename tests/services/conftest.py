"""Both services behind one port, composed as bootstrap does it, with agents that are doubles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp

from ocmt.agents.egress import Egress
from ocmt.agents.model import EgressPolicy
from ocmt.agents.revisions.service import Revisions
from ocmt.bootstrap.agent_features import AgentFeatures
from ocmt.bootstrap.channels import ChannelSeal
from ocmt.bootstrap.features import Features
from ocmt.bootstrap.management import compose_management
from ocmt.bootstrap.orchestrator import quiet
from ocmt.bootstrap.platform import Platform
from ocmt.broker.service import Broker
from ocmt.channels.room import ChannelRoom
from ocmt.channels.signed import Signed
from ocmt.chat.answer import Answerer
from ocmt.chat.stream import EventStream
from ocmt.chat.transcript import TranscriptWriter
from ocmt.chat.worker import TurnWorker
from ocmt.gateway.pages import ControlUi
from ocmt.gateway.service import Sockets
from ocmt.identity.audit.retention import Retention
from ocmt.identity.limits import KNOCKS_FROM
from ocmt.platform.database import Database, Hints
from ocmt.platform.free_space import FreeSpace
from ocmt.platform.http import HttpClient
from ocmt.platform.reachable import ReachablePaths
from ocmt.privacy.eraser import Eraser
from ocmt.services.all_in_one import all_in_one_app
from ocmt.services.floods import Floods
from ocmt.services.management import Management
from ocmt.services.orchestrator import Orchestrator
from ocmt.settings import load_settings
from ocmt.testing.clock import VirtualClock
from ocmt.testing.mail import MemoryMail
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.runtimes import FakeRuntime
from ocmt.testing.secrets import MemorySecrets
from ocmt.vault.service import ModelKeys
from tests.agents.conftest import gateways, hints, runtime
from tests.agents.replica import Gateways, Replica
from tests.identity.browser import Browser

__all__ = ["gateways", "hints", "runtime"]

URL = "http://localhost:8080"
NOBODY = "http://127.0.0.1:1"
"""Where no model provider answers."""


@dataclass
class House:
    """All of it, and the way in."""

    app: ASGIApp
    api: FastAPI
    agents: Starlette
    management: Management
    orchestrator: Orchestrator
    database: Database
    pages: Path

    def with_space(self, space: FreeSpace) -> House:
        """The same with another reading of the disk below it."""
        orchestrator = replace(self.orchestrator, space=space)
        app = all_in_one_app(self.management, orchestrator, self.database, url=URL, ui_dir=self.pages)
        return replace(self, app=app, agents=orchestrator.app(), orchestrator=orchestrator)

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
def egress_policy() -> EgressPolicy:
    """What the operator says of the internet; a test can say otherwise by its parameter of that name."""
    return "opt-in"


@pytest.fixture
async def house(
    database: Database,
    hints: Hints,
    clock: VirtualClock,
    runtime: FakeRuntime,
    gateways: Gateways,
    pages: Path,
    egress_policy: EgressPolicy,
    public_url: str,
) -> AsyncIterator[House]:
    replica = Replica.build(clock=clock, database=database, hints=hints, runtime=runtime, gateways=gateways)
    policy = replace(replica.policy, egress=egress_policy)
    settings = load_settings(
        data_dir=pages / "data",
        public_url=public_url,
        anthropic_url=NOBODY,
        openai_url=NOBODY,
        turn_call_limit=50,
        daily_token_limit=1000,
    )
    http = HttpClient()
    platform = Platform(
        settings=settings,
        clock=clock,
        database=database,
        hints=hints,
        objects=MemoryObjects(),
        secrets=MemorySecrets(),
        mail=MemoryMail(),
        http=http,
        paths=ReachablePaths(),
        scratch=pages / "transfers",
        alone=False,
    )
    features, agent_features = Features.over(platform), AgentFeatures.over(platform)
    agents, chat = agent_features.agents, agent_features.chat

    async def nothing_runs(_user_id: UUID) -> list[object]:
        return []

    async def no_notice(_turn_id: UUID, _text: str) -> None:
        return None

    async def no_files(_user_id: UUID) -> None:
        return None

    async def nothing_left() -> list[UUID]:
        return []

    async def no_usage(_user_id: UUID, _turn_id: UUID) -> None:
        return None

    egress = Egress(database, clock, agents, policy, daily_bytes=1000)
    broker = Broker(
        keys=ModelKeys(features.vault, features.group_keys, database, clock),
        ledger=features.ledger,
        clock=clock,
        authenticate=agents.owner_of_token,
        running_turns=nothing_runs,  # type: ignore[arg-type]
        notice=no_notice,
        reaches_internet=egress.allows,
        models=("claude-sonnet-4-6",),
        platform_key=None,
        anthropic_url=NOBODY,
        limits=features.limits,
        demo_model=False,
        session=http.session_for_model_calls(),
    )
    answerer = Answerer(
        database,
        clock,
        agents,
        usage_of=no_usage,
        explain=no_usage,
        turn_timeout=timedelta(minutes=1),
        attachments=chat.attachments,
    )
    management = compose_management(platform, features, lambda: agent_features)
    orchestrator = Orchestrator(
        agents=agents,
        policy=policy,
        egress=egress,
        runtime=runtime,
        revisions=Revisions(database, agents, clock),
        reconciler=replica.reconciler,
        broker=broker,
        chat=chat,
        stream=EventStream(chat, database, hints, clock),
        worker=TurnWorker(database, clock, hints, replica.reconciler, answerer),
        sockets=Sockets(agents, replica.reconciler.drive, clock, owner="test"),
        pages=ControlUi(None),
        transcripts=TranscriptWriter(database, platform.objects, hints),
        snapshots=agent_features.snapshots,
        transfers=agent_features.transfers,
        eraser=Eraser(
            database,
            platform.objects,
            features.accounts.identity.audit,
            clock,
            quiet=quiet(agents, chat),
            forget=no_files,
            remembered=nothing_left,
        ),
        audit=features.accounts.identity.audit,
        retention=Retention(features.accounts.identity.audit, clock, None),
        channels=ChannelRoom.over(
            database,
            clock,
            hints,
            chat,
            kinds={"signed": Signed(http.session, clock.now, local=True)},
            seal=ChannelSeal(platform.secrets),
            url=public_url,
        ),
        floods=Floods(clock),
    )
    app = all_in_one_app(management, orchestrator, database, url=public_url, ui_dir=pages)
    yield House(app, management.app(), orchestrator.app(), management, orchestrator, database, pages)
    await http.__aexit__()
