"""A backup of one moment, while everything goes on; and an installation made of it, or nothing at all."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import tracemalloc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from ocmt.backup.model import About, BackupDamaged, Part, PartEnd, Writer, read_backup
from ocmt.backup.service import open_backup, verify
from ocmt.chat.model import transcript_key
from ocmt.errors import Conflict, InvalidInput, NotFound, SetupProblem, Unavailable
from ocmt.platform.database import Connection
from ocmt.platform.migrations import migrate, migrate_within, revisions, target_revision
from ocmt.testing.objects import MemoryObjects
from ocmt.vault.model import ANTHROPIC_API_KEY
from tests.accounts import make_user

from .conftest import KEY, PASSPHRASE, Installation, Rooms

pytestmark = pytest.mark.anyio


async def restore(file: Path, target: Installation, *, force: bool = False) -> None:
    async with open_backup(file, PASSPHRASE) as backup:
        await target.backups().restore(backup, force=force)


async def rows(dsn: str, query: str, *given: object) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query, *given)]
    finally:
        await connection.close()


async def everything(dsn: str) -> dict[str, list[Any]]:
    """Every row of every table, as text."""
    names = await rows(
        dsn, "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    )
    return {name: sorted(await rows(dsn, f"select t::text from {name} t")) for (name,) in names}


async def rows_of_users(dsn: str) -> list[Any]:
    return await rows(dsn, "select id, email from users order by id")


class TestThereAndBack:
    async def test_what_was_backed_up_is_there_again(
        self, source: Installation, rooms: Rooms, target: Installation, file: Path
    ) -> None:
        anna, bob = await rooms.move_in("anna", "grüße\t\\N\n"), await rooms.move_in("bob", "hello")
        notes, data = f"users/{anna}/workspace/notes ü.md", os.urandom(3_000_000)
        await source.objects.put(notes, data)
        await source.objects.put(f"users/{bob}/workspace/empty", b"")
        await source.secrets.put("signing-key", b"\x00secret")
        before = await everything(source.dsn)

        report = await source.backups().create(file, PASSPHRASE)
        assert (report.objects, report.secrets, report.size) == (2, 2, file.stat().st_size)
        assert report == await verify(file, PASSPHRASE)
        assert file.stat().st_mode & 0o777 == 0o600
        assert list(file.parent.iterdir()) == [file]
        assert await everything(source.dsn) == before

        await restore(file, target)
        there = await Rooms.open(target)
        for user, text in ((anna, "grüße\t\\N\n"), (bob, "hello")):
            (conversation,) = await there.chat.conversations(user)
            page = await there.chat.history(user, conversation.id)
            assert [turn.text for turn in page.turns] == [text]
            assert getattr(await there.keys.find(user, ANTHROPIC_API_KEY), "value", None) == KEY
        await there.database.close()
        assert await target.objects.get(notes) == data
        assert await target.objects.get(f"users/{bob}/workspace/empty") == b""
        assert await target.secrets.get("signing-key") == b"\x00secret"
        restored = await everything(target.dsn)
        # Of users the moment from which on their tokens count is another one.
        for table in before.keys() - {"agents", "conversations", "users", "installation"}:
            assert restored[table] == before[table]
        assert restored["installation"] != before["installation"]  # the copy is an installation of its own

    async def test_nobody_is_signed_in_and_what_was_revoked_since_stays_so(
        self, source: Installation, rooms: Rooms, target: Installation, file: Path
    ) -> None:
        people = [await rooms.move_in(name, "hello") for name in ("anna", "bob", "cleo")]
        anna, bob, cleo = people
        key, session = uuid4(), uuid4()
        async with rooms.database.connection() as connection:
            await connection.execute(
                "insert into api_keys (id, user_id, name, prefix, key_hash, scopes, created_at)"
                " values ($1, $2, 'k', 'p', 'h', '{}', now())",
                key,
                anna,
            )
            await connection.execute(
                "insert into login_sessions (id, user_id, token_hash, created_at, last_seen_at, expires_at)"
                " values ($1, $2, 't', now(), now(), now() + interval '1 day')",
                session,
                anna,
            )
            await connection.execute(
                "insert into sign_in_links (token_hash, email, created_at, expires_at)"
                " values ('l', 'anna', now(), now() + interval '1 day')"
            )
        await source.backups().create(file, PASSPHRASE)
        await restore(file, target)
        alive = "select count(*) from login_sessions where revoked_at is null"
        assert await rows(target.dsn, alive) == [(0,)]
        assert await rows(target.dsn, "select count(*) from sign_in_links") == [(0,)]
        moved = "select bool_and(tokens_valid_from > now() - interval '1 hour') from users"
        assert await rows(target.dsn, moved) == [(True,)]
        for statement in (
            f"update api_keys set revoked_at = now() where id = '{key}'",
            f"update users set status = 'suspended' where id = '{bob}'",
            f"insert into account_deletions (id, user_id, asked_at, finished_at)"
            f" values (gen_random_uuid(), '{cleo}', now(), now())",
            f"delete from users where id = '{cleo}'",
        ):
            await rows(target.dsn, statement)
        await restore(file, target, force=True)
        assert await rows(target.dsn, "select id, revoked_at is null from api_keys") == [(key, False)]
        found = dict(await rows(target.dsn, "select id, status from users"))
        assert found == {anna: "active", bob: "suspended", cleo: "deleting"}
        assert await rows(target.dsn, "select user_id, finished_at from account_deletions") == [(cleo, None)]

    async def test_numbers_that_were_given_are_not_given_again(
        self, source: Installation, rooms: Rooms, target: Installation, file: Path
    ) -> None:
        await rooms.move_in("anna", "hello")
        gone = await rooms.move_in("bob", "hello")
        async with rooms.database.connection() as connection:
            await connection.execute("delete from users where id = $1", gone)
        await source.backups().create(file, PASSPHRASE)
        await restore(file, target)
        there = await Rooms.open(target)
        eve = await make_user(there.database, "eve")
        assert (await there.agents.find(eve)).slot == 3
        await there.database.close()

    async def test_nothing_runs_on_the_restored_machine_and_no_lease_of_the_other_counts(
        self, source: Installation, rooms: Rooms, target: Installation, file: Path
    ) -> None:
        anna = await rooms.move_in("anna", "hello")
        async with rooms.database.connection() as connection:
            await connection.execute(
                "update agents set state = 'awake', desired = 'awake', lease_owner = 'a', lease_token = 7, "
                "lease_expires_at = now() + interval '1 hour', runtime_state = '{\"pid\": 1}'"
            )
        for reason in ("socket", "operator"):
            await rooms.agents.hold(anna, reason, "x", ttl=timedelta(hours=1))
        await source.backups().create(file, PASSPHRASE)
        await restore(file, target)
        found = await rows(
            target.dsn,
            "select state, desired, lease_owner, lease_token, lease_expires_at, runtime_state::text "
            "from agents",
        )
        assert found == [("stopped", "stopped", None, 8, None, "{}")]
        assert await rows(target.dsn, "select reason from holds") == [("operator",)]

    async def test_an_older_schema_is_brought_up_to_date(
        self, source: Installation, target: Installation, file: Path
    ) -> None:
        connection = await asyncpg.connect(source.dsn)
        await connection.execute("drop schema public cascade; create schema public")
        async with connection.transaction():
            await migrate_within(connection, revisions()[0][0])
        await connection.execute("insert into users (id, email) values (gen_random_uuid(), 'anna')")
        await connection.close()
        report = await source.backups().create(file, PASSPHRASE)
        assert report.revision == "0001"
        await restore(file, target)
        assert await rows(target.dsn, "select email from users") == [("anna",)]
        assert await rows(target.dsn, "select version_num from alembic_version") == [(target_revision(),)]

    async def test_a_newer_schema_is_refused_by_name(self, source: Installation, file: Path) -> None:
        connection = await asyncpg.connect(source.dsn)
        await connection.execute("update alembic_version set version_num = '9999'")
        await connection.close()
        await source.backups().create(file, PASSPHRASE)
        assert (await verify(file, PASSPHRASE)).revision == "9999"
        with pytest.raises(
            SetupProblem, match=r"made by a newer OCMT \(schema 9999\): update this one first"
        ):
            async with open_backup(file, PASSPHRASE):
                pass


class TestOneMoment:
    async def test_while_writes_go_on_the_rows_are_those_of_one_moment(
        self, source: Installation, rooms: Rooms, target: Installation, file: Path
    ) -> None:
        """A turn, its event and its conversation's number are one transaction: they are there together. What
        a row needs was in the store before it, and so it is in the backup."""
        stop = asyncio.Event()

        async def write() -> int:
            for number in range(100_000):
                if stop.is_set():
                    return number
                await source.objects.put(f"needed/{number}", b"x" * 1000)
                user = await rooms.move_in(f"user {number}", "hello")
                (conversation,) = await rooms.chat.conversations(user)
                await source.objects.put(transcript_key(user, conversation.id), b"{}\n")
                await source.objects.put(f"passing/{number}", b"x" * 1000)
                await source.objects.delete(f"passing/{number - 3}")
            raise AssertionError("nobody stopped us")

        writing = asyncio.create_task(write())
        while not await source.objects.list("passing"):
            await asyncio.sleep(0)
        report = await source.backups().create(file, PASSPHRASE)
        stop.set()
        assert await writing > 1
        assert report.objects > 1

        await restore(file, target)
        torn = await rows(
            target.dsn,
            "select id from conversations c "
            "where last_seq <> (select count(*) from events e where e.conversation_id = c.id) "
            "or last_seq <> (select count(*) from turns t where t.conversation_id = c.id)",
        )
        assert torn == []
        there = await Rooms.open(target)
        known = set()
        for (user,) in await rows(target.dsn, "select user_id from vault_items"):
            assert getattr(await there.keys.find(user, ANTHROPIC_API_KEY), "value", None) == KEY
        for user, conversation in await rows(target.dsn, "select user_id, id from conversations"):
            known.add(transcript_key(user, conversation))
        await there.database.close()
        transcripts = {key for key in await target.objects.list("") if key.endswith(".jsonl")}
        assert transcripts <= known, "no transcript without its conversation"
        kept = {key.removeprefix("needed/") for key in await target.objects.list("needed")}
        users = {email.split()[1] for (email,) in await rows(target.dsn, "select email from users")}
        assert users <= kept

    async def test_the_objects_are_listed_only_once_the_moment_of_the_rows_is_fixed(
        self, source: Installation, rooms: Rooms, file: Path
    ) -> None:
        """Else one that came between, with a row that needs it, would be missing."""

        async def one_comes(snapshot: Connection) -> set[str]:
            await source.objects.put("late", b"")
            await make_user(rooms.database, "late")
            assert await snapshot.fetchval("select count(*) from users") == 0
            return {"late"}

        assert (await source.backups(one_comes).create(file, PASSPHRASE)).objects == 1

    async def test_transcripts_are_written_again_because_they_may_be_of_a_later_moment(
        self, source: Installation, rooms: Rooms, target: Installation, file: Path
    ) -> None:
        await rooms.move_in("anna", "hello")
        async with rooms.database.connection() as connection:
            await connection.execute("update conversations set written_seq = last_seq")
        await source.backups().create(file, PASSPHRASE)
        await restore(file, target)
        assert await rows(target.dsn, "select written_seq, last_seq > 0 from conversations") == [(0, True)]

    async def test_an_object_that_vanishes_meanwhile_is_left_out(
        self, source: Installation, file: Path
    ) -> None:
        source.objects = Vanishing("b")
        for key in "abc":
            await source.objects.put(key, key.encode())
        assert (await source.backups().create(file, PASSPHRASE)).objects == 2

    async def test_but_not_where_a_row_needs_it(self, source: Installation, rooms: Rooms, file: Path) -> None:
        source.objects = Vanishing("b")
        await source.objects.put("a", b"")
        await source.objects.put("b", b"")

        async def needed(snapshot: Connection) -> set[str]:
            assert await snapshot.fetchval("select count(*) from users") == 0
            return {"a", "b"}

        with pytest.raises(Conflict, match="The object b is needed, and is not in the store"):
            await source.backups(needed).create(file, PASSPHRASE)
        assert list(file.parent.iterdir()) == []

    async def test_another_folder_than_the_installations_own_is_noticed_by_its_lack_of_secrets(
        self, source: Installation, rooms: Rooms, target: Installation, file: Path
    ) -> None:
        await rooms.move_in("anna", "hello")
        mixed = Installation(source.dsn, target.objects, target.secrets)
        with pytest.raises(SetupProblem, match=r"there are no secrets here: name .* by --data"):
            await mixed.backups().create(file, PASSPHRASE)
        assert list(file.parent.iterdir()) == []

    async def test_a_database_that_goes_away_in_the_middle_leaves_no_file(
        self, source: Installation, rooms: Rooms, file: Path
    ) -> None:
        async def cut_off(snapshot: Connection) -> set[str]:
            own = await snapshot.fetchval("select pg_backend_pid()")
            await rows(source.dsn, "select pg_terminate_backend($1, 5000)", own)
            await snapshot.fetchval("select 1")
            raise AssertionError("it still answers")

        with pytest.raises(Unavailable, match="The database failed meanwhile; nothing was changed"):
            await source.backups(cut_off).create(file, PASSPHRASE)
        assert list(file.parent.iterdir()) == []

    async def test_an_object_is_never_held_whole(self, source: Installation, file: Path) -> None:
        source.objects = Large()
        await source.objects.put("large", b"")
        tracemalloc.start()
        try:
            report = await source.backups().create(file, PASSPHRASE)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert report.size > 100_000_000
        assert peak < 20_000_000


class TestTheFile:
    async def test_one_that_is_there_is_replaced_only_when_asked(
        self, source: Installation, file: Path
    ) -> None:
        file.write_bytes(b"precious")
        with pytest.raises(Conflict, match=r"There is a file .* already: .*--force"):
            await source.backups().create(file, PASSPHRASE)
        assert file.read_bytes() == b"precious"
        await source.backups().create(file, PASSPHRASE, replace=True)
        await verify(file, PASSPHRASE)

    async def test_what_a_killed_one_left_is_overwritten(self, source: Installation, file: Path) -> None:
        partial = file.with_name("monday.ocmt.partial")
        partial.write_bytes(bytes(1_000_000))
        partial.chmod(0o644)
        await source.backups().create(file, PASSPHRASE)
        assert list(file.parent.iterdir()) == [file]
        assert file.stat().st_mode & 0o777 == 0o600
        await verify(file, PASSPHRASE)

    async def test_two_do_not_write_one_file(self, source: Installation, file: Path) -> None:
        partial = file.with_name("monday.ocmt.partial")
        with partial.open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(Conflict, match="Another process is writing"):
                await source.backups().create(file, PASSPHRASE)
        assert partial.exists()

    async def test_a_disk_that_gets_full_leaves_no_half_file(
        self, source: Installation, rooms: Rooms, file: Path
    ) -> None:
        """The limit on a file's size stands for the disk: the system refuses to write in the same way."""
        await source.objects.put("large", os.urandom(3_000_000))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
        try:
            with pytest.raises(
                SetupProblem, match=r"cannot be written: File too large\. Nothing is left of it"
            ):
                await source.backups().create(file, PASSPHRASE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(file.parent.iterdir()) == []

    async def test_a_folder_that_is_not_there_is_said(self, source: Installation, tmp_path: Path) -> None:
        with pytest.raises(SetupProblem, match="cannot be written: No such file or directory"):
            await source.backups().create(tmp_path / "nowhere" / "file", PASSPHRASE)
        with pytest.raises(SetupProblem, match="is a folder: name a file in it"):
            await source.backups().create(tmp_path, PASSPHRASE)

    async def test_a_weak_passphrase_makes_none(self, source: Installation, file: Path) -> None:
        with pytest.raises(InvalidInput, match="at least 12 characters"):
            await source.backups().create(file, "hunter2")
        assert list(file.parent.iterdir()) == []

    async def test_a_file_that_reads_back_otherwise_gets_no_name(
        self, source: Installation, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            Writer, "end_part", lambda self: self._tally.end()
        )  # a part's end is never written
        with pytest.raises(BackupDamaged):
            await source.backups().create(file, PASSPHRASE)
        assert list(file.parent.iterdir()) == []

    async def test_one_without_a_schema_holds_nothing_to_back_up(
        self, target: Installation, file: Path
    ) -> None:
        with pytest.raises(SetupProblem, match="nothing to back up yet"):
            await target.backups().create(file, PASSPHRASE)


class TestNothingIsRestoredByHalves:
    @pytest.fixture
    async def backup(self, source: Installation, rooms: Rooms, file: Path) -> Path:
        anna = await rooms.move_in("anna", "hello")
        for number in range(3):
            await source.objects.put(f"users/{anna}/workspace/{number}", b"x")
        await source.backups().create(file, PASSPHRASE)
        return file

    async def test_a_file_that_is_not_there(self, target: Installation, file: Path) -> None:
        with pytest.raises(NotFound, match=r"There is no file"):
            await restore(file, target)

    @pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.999])
    async def test_a_damaged_file_changes_nothing(
        self, backup: Path, target: Installation, where: float
    ) -> None:
        content = bytearray(backup.read_bytes())
        content[int(len(content) * where)] ^= 1
        backup.write_bytes(content)
        with pytest.raises(BackupDamaged):
            await restore(backup, target)
        await self.nothing_is_in(target)

    async def test_what_is_there_is_replaced_only_when_asked(
        self, backup: Path, source: Installation, rooms: Rooms
    ) -> None:
        people = await rows_of_users(source.dsn)
        eve = await rooms.move_in("eve", "new")
        await source.objects.put(f"users/{eve}/workspace/new", b"x")
        await source.secrets.put("new", b"x")
        with pytest.raises(Conflict, match="OCMT runs on this database"):
            await restore(backup, source)
        await rooms.database.close()
        with pytest.raises(Conflict, match=r"not empty\. Restore into an empty .* --force"):
            await restore(backup, source)
        await restore(backup, source, force=True)
        assert await rows_of_users(source.dsn) == people
        assert [key.rpartition("/")[2] for key in await source.objects.list("")] == ["0", "1", "2"]
        assert await source.secrets.names() == ["vault-master-key"]

    async def test_a_schema_without_users_is_as_empty_as_none(
        self, backup: Path, source: Installation, rooms: Rooms, target: Installation
    ) -> None:
        await migrate(target.dsn)
        await restore(backup, target)
        assert await rows_of_users(target.dsn) == await rows_of_users(source.dsn)

    async def test_the_tables_of_another_program_are_not_touched_even_when_asked(
        self, backup: Path, target: Installation
    ) -> None:
        await rows(target.dsn, "create table users (name text)")
        with pytest.raises(Conflict, match="another program's tables"):
            await restore(backup, target, force=True)
        assert list(await everything(target.dsn)) == ["users"]

    @pytest.mark.parametrize("left", ["object", "secret"])
    async def test_stores_that_are_not_empty_are_seen_as_well(
        self, backup: Path, target: Installation, left: str
    ) -> None:
        await (target.objects if left == "object" else target.secrets).put("left", b"x")
        with pytest.raises(Conflict, match="not empty"):
            await restore(backup, target)
        assert await rows(target.dsn, "select relname from pg_class where relname = 'users'") == []

    async def test_a_store_that_breaks_in_the_middle_takes_the_database_back(
        self, backup: Path, target: Installation
    ) -> None:
        whole, target.objects = target.objects, Full(room=2)
        with pytest.raises(
            SetupProblem, match=r"cannot be written: No space left on device\. The database was"
        ):
            await restore(backup, target)
        await self.nothing_is_in(target)
        target.objects = whole
        await restore(backup, target)
        assert len(await target.objects.list("")) == 3

    async def test_rows_that_the_schema_refuses_take_everything_back(
        self, source: Installation, target: Installation, file: Path, backup: Path
    ) -> None:
        forged = file.with_name("forged")
        with backup.open("rb") as read, forged.open("wb") as write:
            writer = Writer(write.write, PASSPHRASE, source.backups().cost)
            for item in read_backup(read.read, PASSPHRASE):
                if isinstance(item, Part):
                    writer.part(item)
                    if item == Part("table", "users", item.columns):
                        writer.data(b"no\trow\n")
                elif isinstance(item, bytes):
                    writer.data(item)
                elif isinstance(item, PartEnd):
                    writer.end_part()
                elif isinstance(item, About):
                    writer.begin(item)
            writer.finish()
        with pytest.raises(SetupProblem, match=r"The database refuses this: .* Nothing was changed"):
            await restore(forged, target)
        await self.nothing_is_in(target)

    async def nothing_is_in(self, target: Installation) -> None:
        assert await everything(target.dsn) == {}
        assert await target.objects.list("") == []
        assert await target.secrets.names() == []


class Vanishing(MemoryObjects):
    """One object is listed, and gone when it is asked for."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    async def get(self, key: str) -> bytes:
        if key == self._key:
            raise NotFound("There is no such file.")
        return await super().get(key)


class Large(MemoryObjects):
    """Every object is 100 MiB, and nowhere."""

    async def get_pieces(self, key: str) -> AsyncIterator[bytes]:
        piece = bytes(1024 * 1024)
        for _ in range(100):
            yield piece


class Full(MemoryObjects):
    """A disk with room for a few objects."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    async def put(self, key: str, data: bytes) -> None:
        if len(self.stored) == self._room:
            raise OSError(28, os.strerror(28))
        await super().put(key, data)

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        await self.put(key, b"".join([piece async for piece in pieces]))
