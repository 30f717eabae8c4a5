"""Objects and secrets: one contract for the real store and its double, and what only the files can show."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ocmt.errors import InvalidInput, NotFound, SetupProblem
from ocmt.platform.objects import LocalObjects, Objects
from ocmt.platform.secrets import LocalSecrets, Secrets
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.secrets import MemorySecrets

pytestmark = pytest.mark.anyio


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


class TestObjects:
    """The same for every object store."""

    @pytest.fixture(params=["local", "memory"])
    def objects(self, request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
        return LocalObjects(tmp_path / "objects") if request.param == "local" else MemoryObjects()

    async def test_what_is_put_is_got_until_it_is_deleted(self, objects: Objects) -> None:
        key = "users/1/workspace/ü ñ/a%20b?.txt"
        await objects.put(key, b"one")
        await objects.put(key, b"two")
        assert await objects.get(key) == b"two"
        await objects.delete(key)
        await objects.delete(key)
        with pytest.raises(NotFound):
            await objects.get(key)

    async def test_what_is_put_in_pieces_is_got_in_pieces(self, objects: Objects) -> None:
        data = os.urandom(5_000_001)
        for whole in (data, b""):
            await objects.put_pieces("large", in_pieces(whole, 700_000))
            assert await objects.get("large") == whole
            assert b"".join([piece async for piece in objects.get_pieces("large")]) == whole
        with pytest.raises(NotFound):
            await anext(objects.get_pieces("nothing"))

    async def test_pieces_that_end_in_an_error_leave_what_was_there(self, objects: Objects) -> None:
        await objects.put("old", b"old")

        async def broken() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield bytes(1_500_000)
            raise NotFound("There is no more.")

        for key in ("old", "new"):
            with pytest.raises(NotFound):
                await objects.put_pieces(key, broken())
        assert await objects.get("old") == b"old"
        assert await objects.list("") == ["old"]

    async def test_a_folder_is_listed_with_all_below_it_and_nothing_beside_it(self, objects: Objects) -> None:
        for key in ("users/1/b", "users/1/.blobs/a", "users/10/c", "other"):
            await objects.put(key, b"")
        assert await objects.list("users/1/") == ["users/1/.blobs/a", "users/1/b"]
        assert await objects.list("users/1") == ["users/1/.blobs/a", "users/1/b"]
        assert await objects.list("nothing/") == []
        assert len(await objects.list("")) == 4

    async def test_of_many_that_create_one_object_exactly_one_does(self, objects: Objects) -> None:
        tried = await asyncio.gather(*(objects.put_if_absent("once", bytes([n])) for n in range(8)))
        assert tried.count(True) == 1
        assert await objects.get("once") == bytes([tried.index(True)])

    async def test_a_large_object_comes_and_goes_in_pieces(self, objects: Objects) -> None:
        pieces = [bytes([number]) * 3_000_000 for number in range(5)]
        await objects.put_pieces("large", aiter_of(pieces))
        assert await objects.get("large") == b"".join(pieces)
        assert b"".join([piece async for piece in objects.get_pieces("large")]) == b"".join(pieces)
        with pytest.raises(NotFound):
            await anext(objects.get_pieces("missing"))

    async def test_an_object_whose_pieces_fail_is_not_written(self, objects: Objects) -> None:
        async def torn() -> AsyncIterator[bytes]:
            yield b"x" * 6_000_000
            raise OSError("the file is gone")

        with pytest.raises(OSError, match="gone"):
            await objects.put_pieces("torn", torn())
        with pytest.raises(NotFound):
            await objects.get("torn")

    async def test_sizes_are_told_without_reading(self, objects: Objects) -> None:
        await objects.put("users/1/a", b"four")
        await objects.put("users/1/b/c", b"")
        await objects.put("users/2/d", b"other")
        assert await objects.sizes("users/1/") == {"users/1/a": 4, "users/1/b/c": 0}

    @pytest.mark.parametrize("count", [1, 40])
    async def test_what_is_to_persist_must_be_there(self, objects: Objects, count: int) -> None:
        keys = [f"users/ü ñ/{number}%20?" for number in range(count)]
        for key in keys:
            await objects.put(key, b"data")
        await objects.persist(keys)
        await objects.persist([])
        if count == 1:
            with pytest.raises(OSError):  # noqa: PT011 - any
                await objects.persist(["missing"])

    async def test_an_object_takes_the_place_of_a_folder_that_became_empty(self, objects: Objects) -> None:
        await objects.put("a/b/c", b"")
        await objects.delete("a/b/c")
        await objects.put("a", b"now a file")
        await objects.delete("a")
        await objects.put("a/b", b"and back")
        assert await objects.list("") == ["a/b"]

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "a\udcff",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            "a\\b",
            "a\x00b",
            "a\nb",
            "x" * 2000,
            "a#1",
        ],
    )
    async def test_no_key_leads_out_of_the_store(self, objects: Objects, key: str) -> None:
        with pytest.raises(InvalidInput):
            await objects.put(key, b"")
        with pytest.raises(InvalidInput):
            await objects.get(key)
        with pytest.raises(InvalidInput):
            await objects.delete(key)


async def aiter_of(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


class TestSecrets:
    """The same for every secret store."""

    @pytest.fixture(params=["local", "memory"])
    def secrets(self, request: pytest.FixtureRequest, tmp_path: Path) -> Secrets:
        return LocalSecrets(tmp_path / "secrets") if request.param == "local" else MemorySecrets()

    async def test_what_is_put_is_got_until_it_is_deleted(self, secrets: Secrets) -> None:
        assert await secrets.get("key") is None
        await secrets.put("key", b"\x00one")
        await secrets.put("key", b"two")
        assert await secrets.get("key") == b"two"
        await secrets.delete("key")
        await secrets.delete("key")
        assert await secrets.get("key") is None

    async def test_the_names_are_told_sorted(self, secrets: Secrets) -> None:
        assert await secrets.names() == []
        for name in ("b", "a.sealed", "c-1"):
            await secrets.put(name, b"x")
        await secrets.delete("c-1")
        assert await secrets.names() == ["a.sealed", "b"]

    async def test_all_who_ensure_a_secret_at_once_get_the_same(self, secrets: Secrets) -> None:
        made = iter(range(100))
        got = await asyncio.gather(*(secrets.ensure("key", lambda: bytes([next(made)])) for _ in range(8)))
        assert len(set(got)) == 1

    @pytest.mark.parametrize("name", ["", "../master", "a/b", ".hidden", "x" * 200])
    async def test_a_name_is_no_path(self, secrets: Secrets, name: str) -> None:
        with pytest.raises(InvalidInput):
            await secrets.get(name)


class TestSealedFiles:
    """What lies on the disk is of no use without the master key, and cannot be exchanged."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "secrets"

    async def test_files_are_private_and_tell_nothing(self, folder: Path) -> None:
        await LocalSecrets(folder).put("key", b"very secret")
        assert folder.stat().st_mode & 0o777 == 0o700
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o777 == 0o600
            assert b"secret" not in path.read_bytes()
        assert await LocalSecrets(folder).get("key") == b"very secret"

    @pytest.mark.parametrize("position", [0, 1, 13, -1])
    async def test_a_changed_byte_anywhere_is_noticed(self, folder: Path, position: int) -> None:
        await LocalSecrets(folder).put("key", b"value")
        sealed = bytearray((folder / "key.sealed").read_bytes())
        sealed[position] ^= 1
        (folder / "key.sealed").write_bytes(sealed)
        with pytest.raises(SetupProblem, match="cannot be opened"):
            await LocalSecrets(folder).get("key")

    async def test_one_secret_does_not_open_under_the_name_of_another(self, folder: Path) -> None:
        secrets = LocalSecrets(folder)
        await secrets.put("a", b"value of a")
        shutil.copy(folder / "a.sealed", folder / "b.sealed")
        with pytest.raises(SetupProblem, match="cannot be opened"):
            await secrets.get("b")

    async def test_a_master_key_that_others_can_read_is_refused(self, folder: Path) -> None:
        await LocalSecrets(folder).put("key", b"value")
        (folder / "master.key").chmod(0o640)
        with pytest.raises(SetupProblem, match=r"open to other users \(mode 0640\): chmod 600"):
            await LocalSecrets(folder).get("key")

    async def test_a_lost_master_key_is_not_silently_replaced(self, folder: Path) -> None:
        await LocalSecrets(folder).put("key", b"value")
        (folder / "master.key").unlink()
        with pytest.raises(SetupProblem, match="is missing: put it back"):
            await LocalSecrets(folder).put("other", b"value")
