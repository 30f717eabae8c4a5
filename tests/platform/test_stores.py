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

    @pytest.mark.parametrize(
        "key",
        [
            "",
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
