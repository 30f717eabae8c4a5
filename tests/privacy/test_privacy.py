"""A copy of all that is one's own, and a deletion that leaves nothing and proves it, through any crash."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from ocmt.bootstrap.agent_features import AgentFeatures
from ocmt.bootstrap.channels import ChannelSeal, kinds_of_channels
from ocmt.bootstrap.features import Features
from ocmt.bootstrap.management import compose_management
from ocmt.bootstrap.orchestrator import quiet
from ocmt.bootstrap.platform import Platform
from ocmt.channels.service import Channels
from ocmt.identity.audit.model import Actor
from ocmt.identity.middleware import Authentication
from ocmt.platform.database import Database, Hints
from ocmt.platform.http import HttpClient, exception_handlers
from ocmt.platform.reachable import ReachablePaths
from ocmt.privacy.eraser import Eraser
from ocmt.privacy.routes import routes
from ocmt.settings import load_settings
from ocmt.testing.clock import VirtualClock
from ocmt.testing.mail import MemoryMail
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.secrets import MemorySecrets
from tests.identity.browser import Browser
from tests.identity.conftest import let_in

pytestmark = pytest.mark.anyio


class Crash(BaseException):
    """The process is killed."""


class House:
    """All rooms that have something of a user, over doubles of what is outside."""

    def __init__(self, database: Database, clock: VirtualClock, folder: Path, http: HttpClient) -> None:
        self.database, self.clock = database, clock
        self.objects = MemoryObjects()
        platform = Platform(
            settings=load_settings(data_dir=folder, public_url="http://localhost:8080", sign_up="allowlist"),
            clock=clock,
            database=database,
            hints=Hints("", clock),
            objects=self.objects,
            secrets=MemorySecrets(),
            mail=MemoryMail(),
            http=http,
            paths=ReachablePaths(),
            scratch=folder / "transfers",
            alone=False,
        )
        features, agent_features = Features.over(platform), AgentFeatures.over(platform)
        self.accounts, self.vault, self.groups = features.accounts, features.vault, features.groups
        self.agents, self.chat = agent_features.agents, agent_features.chat
        self.channels = Channels(
            database,
            clock,
            kinds_of_channels(platform.settings, http, clock),
            ChannelSeal(platform.secrets),
            url="https://ocmt.example.org",
        )
        self.forgotten: list[UUID] = []
        self.left_here: list[UUID] = []
        self.crash_at = ""
        privacy = compose_management(platform, features, lambda: agent_features).privacy
        self.eraser = Eraser(
            database,
            self.objects,
            self.accounts.identity.audit,
            clock,
            quiet=quiet(self.agents, self.chat),
            forget=self._forget,
            remembered=self._remembered,
        )
        api = FastAPI(exception_handlers=exception_handlers())
        # As in the process: the more particular path first.
        api.include_router(routes(privacy, self.accounts.identity, clock), prefix="/api/v1")
        api.include_router(self.accounts.routes(), prefix="/api/v1")
        identity = self.accounts.identity
        self.front: ASGIApp = Authentication(api, identity.entrance, identity.address)

    async def _remembered(self) -> list[UUID]:
        return self.left_here

    async def _forget(self, user_id: UUID) -> None:
        self.forgotten.append(user_id)
        await self.groups.give_up(user_id)
        if self.crash_at == "forget":
            raise Crash

    async def move_in(self, name: str) -> tuple[UUID, Browser]:
        """Somebody who has something in every room."""
        email = f"{name}@example.org"
        browser = await let_in(self.front, self.accounts, email)
        user = await self.accounts.identity.user_by_email(email)
        actor = Actor.oneself(user.id, "203.0.113.7")
        await self.agents.find(user.id)
        conversation = await self.chat.create_conversation(user.id, f"About {name}")
        file = await self.chat.attachments.keep(user.id, f"{name}.txt", "text/plain", one_piece(b"hello"))
        await self.chat.post(user.id, conversation.id, f"I am {name}", key="k", attachments=[file.id])
        await self.channels.connect(user.id, "signed", {}, f"For {name}")
        await self.vault.put(user.id, "token", f"secret of {name}", actor=actor)
        await self.groups.make(actor, f"Friends of {name}", None)
        await self.accounts.identity.request_link(email)
        await self.objects.put(f"users/{user.id}/workspace/a.txt", b"hello")
        await self.objects.put(f"users/{user.id}/.blobs/aa", b"hello")
        session = (await browser.call("GET", "/api/v1/sessions")).json()["items"][0]
        assert session["current"]
        await browser.call("POST", "/api/v1/api-keys", {"name": "k", "scopes": ["agent:read"]})
        return user.id, browser

    async def left_of(self, user_id: UUID, name: str) -> list[str]:
        """Tables in which that user, or their name, can still be found."""
        found = []
        async with self.database.connection() as connection:
            tables = await connection.fetch(
                "select table_name from information_schema.tables where table_schema = 'public'"
            )
            for (table,) in tables:
                rows = repr([dict(row) for row in await connection.fetch(f'select * from "{table}"')])
                if name in rows or (str(user_id) in rows and table not in ("audit_log", "account_deletions")):
                    found.append(table)
        return found


async def one_piece(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.fixture
async def house(database: Database, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[House]:
    async with HttpClient() as http:
        house = House(database, clock, tmp_path, http)
        await let_in(house.front, house.accounts, "root@example.org")
        yield house


class TestExport:
    async def test_it_holds_all_that_is_ones_own_and_no_secret(self, house: House) -> None:
        await house.move_in("berta")
        _, browser = await house.move_in("anselm")
        answer = await browser.call("GET", "/api/v1/me/export")
        assert answer.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.testzip() is None
            parts = {name: archive.read(name).decode() for name in archive.namelist()}
        assert json.loads(parts["account.json"])["email"] == "anselm@example.org"
        (conversation,) = [text for name, text in parts.items() if name.startswith("conversations/")]
        assert "I am anselm" in conversation
        assert json.loads(parts["vault-items.json"])[0]["name"] == "token"
        (file,) = [text for name, text in parts.items() if name.startswith("attachments/")]
        assert file == "hello"
        (channel,) = json.loads(parts["channels.json"])
        assert channel["name"] == "For anselm"
        assert channel["senders"] == channel["deliveries"] == []
        assert json.loads(parts["groups.json"])[0]["name"] == "Friends of anselm"
        assert any(
            json.loads(line)["action"] == "vault.item_put" for line in parts["audit.jsonl"].splitlines()
        )
        whole = "".join(parts.values())
        assert "secret of" not in whole
        assert "berta" not in whole
        assert "hash" not in parts["api-keys.json"]

    async def test_a_file_that_is_lost_is_named_and_keeps_nothing_else_back(self, house: House) -> None:
        user_id, browser = await house.move_in("anselm")
        for key in await house.objects.list(f"users/{user_id}/attachments/"):
            await house.objects.delete(key)
        answer = await browser.call("GET", "/api/v1/me/export")
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            (lost,) = json.loads(archive.read("attachments/missing.json"))
            assert lost["name"] == "anselm.txt"
            assert "channels.json" in archive.namelist()

    async def test_it_takes_a_recent_sign_in_and_is_not_made_without_end(self, house: House) -> None:
        _, browser = await house.move_in("anselm")
        statuses = [(await browser.call("GET", "/api/v1/me/export")).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        await house.clock.advance(601)
        assert (await browser.call("GET", "/api/v1/me/export")).json()["code"] == "recent_sign_in_needed"


class TestDeletion:
    async def test_of_who_asks_nothing_is_left_and_of_others_nothing_is_gone(self, house: House) -> None:
        other, others = await house.move_in("berta")
        gone, browser = await house.move_in("anselm")
        before = await house.left_of(other, "berta")
        wrong = await browser.call("DELETE", "/api/v1/me", {"confirm": "berta@example.org"})
        assert wrong.status == 400
        assert (await browser.call("DELETE", "/api/v1/me", {"confirm": "Anselm@example.org"})).status == 202
        assert (await browser.call("GET", "/api/v1/me")).status == 401, "at once"
        assert await house.eraser.carry_out() == 1
        assert await house.left_of(gone, "anselm") == []
        assert await house.objects.list(f"users/{gone}/") == []
        assert house.forgotten == [gone]
        assert await house.left_of(other, "berta") == before
        assert len(await house.objects.list(f"users/{other}/")) == 3
        assert (await others.call("GET", "/api/v1/me")).status == 200
        assert (await house.accounts.identity.audit.verify()).fault is None

    async def test_its_report_proves_it_and_names_nobody(self, house: House) -> None:
        _, browser = await house.move_in("anselm")
        await browser.call("DELETE", "/api/v1/me", {"confirm": "anselm@example.org"})
        await house.eraser.carry_out()
        root = await let_in(house.front, house.accounts, "root@example.org")
        answer = await root.call("GET", "/api/v1/admin/deletions")
        (proof,) = answer.json()["items"]
        assert proof["finished_at"] is not None
        assert proof["report"]["before"]["objects"] == 3
        assert proof["report"]["before"]["rows"]["conversations.user_id"] == 1
        assert proof["report"]["after"] == {"rows": {}, "objects": 0}
        assert b"anselm" not in answer.body

    @pytest.mark.parametrize("place", ["_count", "forget", "delete", "list"])
    async def test_killed_at_any_line_it_goes_on(
        self, house: House, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone, browser = await house.move_in("anselm")
        await browser.call("DELETE", "/api/v1/me", {"confirm": "anselm@example.org"})

        async def killed(*_: object, **__: object) -> None:
            raise Crash

        for _ in range(2):
            with monkeypatch.context() as patched:
                house.crash_at = place
                if place == "_count":
                    patched.setattr(house.eraser, place, killed)
                elif place != "forget":
                    patched.setattr(house.objects, place, killed)
                with pytest.raises(Crash):
                    await house.eraser.carry_out()
            house.crash_at = ""
        assert await house.eraser.carry_out() == 1
        assert await house.left_of(gone, "anselm") == []
        assert await house.eraser.carry_out() == 0

    async def test_what_another_machine_has_deleted_leaves_no_files_on_this_one(self, house: House) -> None:
        gone, browser = await house.move_in("anselm")
        stays, _ = await house.move_in("berta")
        stranger = uuid4()  # of another database's, perhaps: nobody has deleted it
        house.left_here = [gone, stays, stranger]
        await browser.call("DELETE", "/api/v1/me", {"confirm": "anselm@example.org"})
        assert await house.eraser.clear_leftovers() == 0, "it is not deleted yet"
        assert await house.eraser.carry_out() == 1
        house.forgotten.clear()
        assert await house.eraser.clear_leftovers() == 1
        assert house.forgotten == [gone]

    async def test_the_agent_is_stopped_first(self, house: House) -> None:
        gone, browser = await house.move_in("anselm")
        async with house.database.connection() as connection:
            await connection.execute("update agents set state = 'awake' where user_id = $1", gone)
        await browser.call("DELETE", "/api/v1/me", {"confirm": "anselm@example.org"})
        assert await house.eraser.carry_out() == 0
        assert house.forgotten == []
        async with house.database.connection() as connection:
            await connection.execute("update agents set state = 'stopped' where user_id = $1", gone)
        assert await house.eraser.carry_out() == 1

    async def test_an_administrator_deletes_others_and_never_the_last_of_them(self, house: House) -> None:
        root = await let_in(house.front, house.accounts, "root@example.org")
        own = await house.accounts.identity.user_by_email("root@example.org")
        gone, browser = await house.move_in("anselm")
        assert (await browser.call("DELETE", f"/api/v1/admin/users/{own.id}")).status == 403
        assert (await root.call("DELETE", f"/api/v1/admin/users/{own.id}")).status == 409
        assert (await root.call("DELETE", f"/api/v1/admin/users/{gone}")).status == 202
        assert await house.eraser.carry_out() == 1
        assert await house.left_of(gone, "anselm") == []

    async def test_a_group_that_loses_its_only_admin_gets_another(self, house: House) -> None:
        gone, browser = await house.move_in("anselm")
        heir, _ = await house.move_in("berta")
        (group,) = await house.groups.list(gone)
        actor = Actor.oneself(gone)
        number, _ = await house.groups.invite(actor, group.id, "berta@example.org", "member")
        await house.groups.decide(Actor.oneself(heir), number, accept=True)
        await browser.call("DELETE", "/api/v1/me", {"confirm": "anselm@example.org"})
        assert await house.eraser.carry_out() == 1
        assert (await house.groups.find(heir, group.id)).role == "admin"
