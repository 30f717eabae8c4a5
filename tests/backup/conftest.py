"""Installations to back up and to restore into: a database, a folder of objects and one of secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from ocmt.agents.service import Agents
from ocmt.backup.database import NeededObjects
from ocmt.backup.model import Cost
from ocmt.backup.service import Backups
from ocmt.chat.service import Chat
from ocmt.identity.audit.service import Audit
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database
from ocmt.platform.objects import LocalObjects, Objects
from ocmt.platform.secrets import LocalSecrets
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.model import ANTHROPIC_API_KEY
from ocmt.vault.service import ModelKeys, Vault
from tests.accounts import make_user

CHEAP = Cost(log2_n=4)
PASSPHRASE = "correct horse battery"
KEY = "sk-ant-api03-abcdefgh"


@dataclass
class Installation:
    """What `ocmt up` would work on, without anything that runs."""

    dsn: str
    objects: Objects
    secrets: LocalSecrets

    def backups(self, needed_objects: NeededObjects | None = None) -> Backups:
        return Backups(
            self.dsn,
            self.objects,
            self.secrets,
            SystemClock(),
            program="0.1.0",
            cost=CHEAP,
            **({"needed_objects": needed_objects} if needed_objects else {}),
        )


@dataclass
class Rooms:
    """The services over an installation."""

    database: Database
    chat: Chat
    vault: Vault
    keys: ModelKeys
    agents: Agents

    @classmethod
    async def open(cls, installation: Installation) -> Rooms:
        database, clock = await Database.open(installation.dsn, pool_size=4), SystemClock()
        vault = Vault(database, installation.secrets, Audit(database, clock), clock)
        shared = GroupKeys(database, vault.master, Audit(database, clock), clock)
        return cls(
            database,
            Chat(database, clock, installation.objects),
            vault,
            ModelKeys(vault, shared, database, clock),
            Agents(database, clock, runtime="fake"),
        )

    async def move_in(self, email: str, text: str) -> UUID:
        """A user with an agent, a message, and a key in the vault."""
        user_id = await make_user(self.database, email)
        await self.agents.find(user_id)
        conversation = await self.chat.create_conversation(user_id)
        await self.chat.post(user_id, conversation.id, text, key="first")
        await self.vault.put(user_id, ANTHROPIC_API_KEY, KEY)
        return user_id


@pytest.fixture
async def empty_dsn(anyio_backend: str, postgres: str) -> AsyncIterator[str]:
    """A database without any schema."""
    name = f"empty_{uuid4().hex}"
    admin = await asyncpg.connect(postgres)
    await admin.execute(f"create database {name} template template0")
    yield postgres.replace("@/ocmt?", f"@/{name}?")
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture
def source(dsn: str, tmp_path: Path) -> Installation:
    """A migrated one."""
    return Installation(
        dsn, LocalObjects(tmp_path / "source" / "objects"), LocalSecrets(tmp_path / "source" / "secrets")
    )


@pytest.fixture
async def rooms(source: Installation) -> AsyncIterator[Rooms]:
    rooms = await Rooms.open(source)
    yield rooms
    await rooms.database.close()


@pytest.fixture
def target(empty_dsn: str, tmp_path: Path) -> Installation:
    """One that holds nothing, not even a schema."""
    return Installation(
        empty_dsn,
        LocalObjects(tmp_path / "target" / "objects"),
        LocalSecrets(tmp_path / "target" / "secrets"),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "monday.ocmt"


@pytest.fixture(autouse=True)
def folder(file: Path) -> None:
    file.parent.mkdir()
