"""The vault: what goes in comes out for its owner only, and never in the clear anywhere else."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from uuid import UUID

import pytest

import ocmt
from ocmt.errors import InvalidInput, LimitReached, NotFound, PreconditionFailed
from ocmt.identity.audit.service import Audit
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock
from ocmt.testing.secrets import MemorySecrets
from ocmt.vault import model
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.keys import MASTER_KEY
from ocmt.vault.model import VaultDamaged
from ocmt.vault.service import ModelKeys, Vault
from tests.accounts import make_user

pytestmark = pytest.mark.anyio
NAME = "anthropic_api_key"
KEY = "sk-ant-api03-abcdefgh"


async def test_an_item_comes_back_to_its_owner_only(vault: Vault, database: Database) -> None:
    alice, bob = await make_user(database, "alice"), await make_user(database, "bob")
    await vault.put(alice, NAME, f"  {KEY}\n")
    assert await vault.reveal(alice, NAME) == KEY
    with pytest.raises(NotFound):
        await vault.reveal(bob, NAME)
    (item,) = await vault.list(alice)
    assert (item.name, item.kind, item.version, item.hint) == (NAME, "provider_key", 1, "efgh")


async def test_nothing_stored_holds_the_value(vault: Vault, database: Database, alice: UUID) -> None:
    await vault.put(alice, NAME, KEY)
    await vault.put(alice, NAME, KEY + "2")
    await vault.reveal(alice, NAME)
    async with database.connection() as connection:
        rows = [
            *await connection.fetch("select * from vault_items, vault_keys"),
            *await connection.fetch("select * from vault_item_versions"),
            *await connection.fetch("select * from audit_log"),
        ]
    assert len(rows) == 5
    assert KEY not in repr(rows)
    assert KEY.encode() not in b"".join(
        value for row in rows for value in row.values() if isinstance(value, bytes)
    )


@pytest.mark.parametrize(
    "tampering",
    [
        "update vault_items set version = version + 1",
        "update vault_items set ciphertext = set_byte(ciphertext, 20, get_byte(ciphertext, 20) # 1)",
        "update vault_items set ciphertext = ''",
        "update vault_items i set ciphertext = o.ciphertext from vault_items o where o.user_id > i.user_id",
        "update vault_keys k set wrapped = o.wrapped from vault_keys o where o.user_id > k.user_id",
    ],
)
async def test_what_was_changed_or_moved_does_not_open(
    vault: Vault, database: Database, tampering: str
) -> None:
    first, second = sorted([await make_user(database, "a"), await make_user(database, "b")])
    await vault.put(first, NAME, KEY)
    await vault.put(second, NAME, KEY)
    async with database.connection() as connection:
        await connection.execute(tampering)
    with pytest.raises(VaultDamaged):
        await vault.reveal(first, NAME)


async def test_another_master_key_opens_nothing_until_the_user_starts_anew(
    vault: Vault, database: Database, clock: VirtualClock, alice: UUID, secrets: MemorySecrets
) -> None:
    await vault.put(alice, NAME, KEY)
    other = Vault(database, MemorySecrets(), Audit(database, clock), clock)
    with pytest.raises(VaultDamaged, match="still stored: do not delete it"):
        await other.put(alice, NAME, KEY)
    await other.delete(alice, NAME)
    await other.put(alice, NAME, KEY)
    assert await other.reveal(alice, NAME) == KEY
    assert len(secrets.kept[MASTER_KEY]) == 32


class TestValues:
    @pytest.mark.parametrize(
        ("name", "kind", "value", "words"),
        [
            (NAME, None, "hello", "starts with sk-ant-"),
            (NAME, None, "sk-ant-a b c d e", "no spaces"),
            (NAME, None, "sk-ant-oat01-abcdefgh", "not an API key"),
            (NAME, "note", KEY, "provider's key"),
            ("openai_api_key", None, KEY, "store it as anthropic_api_key"),
            ("openai_api_key", None, "hello", "starts with sk-"),
            ("other", "provider_key", KEY, "knows the provider keys"),
            ("other", None, "  ", "nothing to store"),
            ("other", "token", "x" * 20_000, "too long"),
        ],
    )
    async def test_what_cannot_be_right_is_refused_in_plain_words(
        self, vault: Vault, alice: UUID, name: str, kind: model.Kind | None, value: str, words: str
    ) -> None:
        with pytest.raises(InvalidInput, match=words):
            await vault.put(alice, name, value, kind=kind)

    async def test_tokens_and_notes_are_kept_too(self, vault: Vault, alice: UUID) -> None:
        await vault.put(alice, "github", "ghp_0123456789abcdef")
        await vault.put(alice, "diary", "line one\nline two", kind="note")
        assert await vault.reveal(alice, "diary") == "line one\nline two"
        shown = {item.name: (item.kind, item.hint) for item in await vault.list(alice)}
        assert shown == {"diary": ("note", None), "github": ("token", "cdef")}

    async def test_a_vault_is_full_one_day(
        self, vault: Vault, alice: UUID, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model, "MOST_ITEMS", 2)
        await vault.put(alice, "one", "1")
        await vault.put(alice, "two", "2")
        await vault.put(alice, "two", "2 again")
        with pytest.raises(LimitReached):
            await vault.put(alice, "three", "3")


class TestVersions:
    async def test_the_last_ten_are_kept_and_can_be_brought_back(self, vault: Vault, alice: UUID) -> None:
        for number in range(13):
            assert await vault.put(alice, "token", f"value {number}") == number + 1
        kept = [one.version for one in await vault.versions(alice, "token")]
        assert kept == list(range(12, 2, -1))
        assert await vault.restore(alice, "token", 5) == 14
        assert await vault.reveal(alice, "token") == "value 4"
        with pytest.raises(NotFound):
            await vault.restore(alice, "token", 1)
        await vault.delete(alice, "token")
        assert await vault.versions(alice, "token") == []

    async def test_who_has_not_seen_the_present_one_changes_nothing(self, vault: Vault, alice: UUID) -> None:
        await vault.put(alice, "token", "one", expected=0)
        for expected in (0, 2):
            with pytest.raises(PreconditionFailed):
                await vault.put(alice, "token", "two", expected=expected)
        with pytest.raises(PreconditionFailed):
            await vault.delete(alice, "token", expected=2)
        assert await vault.reveal(alice, "token") == "one"
        await vault.put(alice, "token", "two", expected=1)

    async def test_of_two_who_write_at_once_nothing_is_lost(self, vault: Vault, alice: UUID) -> None:
        versions = await asyncio.gather(*(vault.put(alice, "token", f"value {n}") for n in range(6)))
        assert sorted(versions) == [1, 2, 3, 4, 5, 6]
        assert len(await vault.versions(alice, "token")) == 5


class TestRotation:
    async def test_the_master_key_changes_under_readers_and_writers(
        self, vault: Vault, database: Database, clock: VirtualClock, secrets: MemorySecrets
    ) -> None:
        users = [await make_user(database, f"user{number}") for number in range(8)]
        for user in users:
            await vault.put(user, "token", f"value of {user}")
        replicas = [Vault(database, secrets, Audit(database, clock), clock) for _ in range(3)]
        ended = asyncio.Event()

        async def work(replica: Vault) -> int:
            count = 0
            while not ended.is_set():
                for user in users:
                    assert await replica.reveal(user, "token") == f"value of {user}"
                    await replica.put(user, "other", f"{count}")
                    count += 1
            return count

        working = [asyncio.create_task(work(replica)) for replica in replicas]
        for version in (2, 3, 4):
            assert await vault.master.rotate() == (version, len(users))
        ended.set()
        assert all(await asyncio.gather(*working))
        assert [name for name in await secrets.names() if name.startswith(MASTER_KEY)] == [f"{MASTER_KEY}-4"]
        newcomer = await make_user(database, "newcomer")
        await replicas[0].put(newcomer, "token", "x")
        assert await replicas[1].reveal(newcomer, "token") == "x"

    async def test_killed_in_the_middle_it_is_begun_again(
        self, vault: Vault, database: Database, secrets: MemorySecrets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        users = [await make_user(database, f"user{number}") for number in range(3)]
        for user in users:
            await vault.put(user, "token", "value")

        async def dies(version: int) -> int:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(vault.master, "_rewrap", dies)
            with pytest.raises(KeyboardInterrupt):
                await vault.master.rotate()
        for user in users:
            assert await vault.reveal(user, "token") == "value"
        await vault.put(await make_user(database, "newcomer"), "token", "value")
        assert await vault.master.rotate() == (3, 4)
        assert f"{MASTER_KEY}-2" not in secrets.kept
        for user in users:
            assert await vault.reveal(user, "token") == "value"

    async def test_a_users_own_key_changes_with_all_that_it_seals(
        self, vault: Vault, database: Database, alice: UUID
    ) -> None:
        await vault.put(alice, NAME, KEY)
        await vault.put(alice, NAME, KEY + "2")
        async with database.connection() as connection:
            before = await connection.fetchval("select wrapped from vault_keys")
        assert await vault.rotate_data_key(alice) == 2
        async with database.connection() as connection:
            assert await connection.fetchval("select wrapped from vault_keys") != before
            assert await connection.fetchval("select key_version from vault_items") == 2
        assert await vault.reveal(alice, NAME) == KEY + "2"
        await vault.restore(alice, NAME, 1)
        assert await vault.reveal(alice, NAME) == KEY


class TestWhoMayDecrypt:
    async def test_the_broker_gets_model_keys_and_nothing_else(
        self, vault: Vault, group_keys: GroupKeys, database: Database, clock: VirtualClock, alice: UUID
    ) -> None:
        keys = ModelKeys(vault, group_keys, database, clock)
        await vault.put(alice, NAME, KEY)
        await vault.put(alice, "diary", "secret", kind="note")
        found = await keys.find(alice, NAME)
        assert found is not None
        assert (found.source, found.value) == ("user", KEY)
        assert KEY not in repr(found)
        assert await keys.find(alice, "diary") is None
        assert await keys.find(await make_user(database, "bob"), NAME) is None
        await keys.used(found)
        await keys.used(found)
        used = {item.name: (item.uses, item.used_by) for item in await vault.list(alice)}
        assert used == {NAME: (2, "broker"), "diary": (0, None)}

    def test_no_other_room_asks_for_plain_values(self) -> None:
        """By the names of what gives them out: who adds a place adds it here, with a reason."""
        root = Path(ocmt.__file__).parent
        asking = {
            str(path.relative_to(root))
            for path in root.rglob("*.py")
            if not path.is_relative_to(root / "vault")
            and re.search(r"ModelKeys|\bvault\.(reveal|tried|_open)\b", path.read_text())
        }
        assert asking == {"bootstrap/orchestrator.py", "broker/service.py"}
