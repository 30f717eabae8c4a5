"""The vault: what goes in comes out for its owner only, and never in the clear anywhere else."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from ocmt.errors import InvalidInput
from ocmt.platform.database import Database
from ocmt.platform.http import exception_handlers
from ocmt.platform.principal import Principal
from ocmt.testing.secrets import MemorySecrets
from ocmt.vault.model import VaultDamaged
from ocmt.vault.routes import routes
from ocmt.vault.service import MASTER_KEY, Vault
from tests.accounts import make_user
from tests.identity.browser import Browser

pytestmark = pytest.mark.anyio
NAME = "anthropic_api_key"
KEY = "sk-ant-api03-abcdefgh"


@pytest.fixture
def secrets() -> MemorySecrets:
    return MemorySecrets()


@pytest.fixture
def vault(database: Database, secrets: MemorySecrets) -> Vault:
    return Vault(database, secrets)


async def test_an_item_comes_back_to_its_owner_only(vault: Vault, database: Database) -> None:
    alice, bob = await make_user(database, "alice"), await make_user(database, "bob")
    await vault.put(alice, NAME, f"  {KEY}\n")
    assert await vault.get(alice, NAME) == KEY
    assert await vault.get(bob, NAME) is None
    (item,) = await vault.list(alice)
    assert (item.name, item.hint) == (NAME, "efgh")


async def test_nothing_stored_holds_the_value(vault: Vault, database: Database) -> None:
    await vault.put(await make_user(database, "alice"), NAME, KEY)
    async with database.connection() as connection:
        rows = await connection.fetch("select * from vault_items, vault_keys")
    assert KEY.encode() not in repr(rows).encode()
    assert KEY.encode() not in b"".join(row["ciphertext"] + row["wrapped"] for row in rows)


async def test_a_new_value_replaces_the_old_and_a_deleted_one_is_gone(
    vault: Vault, database: Database
) -> None:
    user_id = await make_user(database, "alice")
    await vault.put(user_id, NAME, KEY)
    await vault.put(user_id, NAME, KEY + "2")
    assert await vault.get(user_id, NAME) == KEY + "2"
    await vault.delete(user_id, NAME)
    await vault.delete(user_id, NAME)
    assert await vault.get(user_id, NAME) is None


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
        await vault.get(first, NAME)


async def test_another_master_key_opens_nothing_until_the_user_starts_anew(
    vault: Vault, database: Database, secrets: MemorySecrets
) -> None:
    user_id = await make_user(database, "alice")
    await vault.put(user_id, NAME, KEY)
    other = Vault(database, MemorySecrets())
    with pytest.raises(VaultDamaged, match="Delete it under Settings"):
        await other.put(user_id, NAME, KEY)
    await other.delete(user_id, NAME)
    await other.put(user_id, NAME, KEY)
    assert await other.get(user_id, NAME) == KEY
    assert len(secrets.kept[MASTER_KEY]) == 32


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (NAME, "hello", "starts with sk-ant-"),
        (NAME, "sk-ant-a b c d e", "no spaces"),
        (NAME, "sk-ant-oat01-abcdefgh", "not an API key"),
        ("other", KEY, "does not know"),
    ],
)
async def test_what_cannot_be_right_is_refused_in_plain_words(
    vault: Vault, database: Database, name: str, value: str, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        await vault.put(await make_user(database, "alice"), name, value)


async def test_the_routes_serve_the_signed_in_user_and_never_show_a_value(
    vault: Vault, database: Database
) -> None:
    user_id = await make_user(database, "alice")
    app = FastAPI(exception_handlers=exception_handlers())
    app.include_router(routes(vault), prefix="/api/v1")

    async def signed_in(scope, receive, send):  # type: ignore[no-untyped-def]
        scope["state"] = {"principal": Principal(user_id, None, "a@example.org")}
        await app(scope, receive, send)

    browser = Browser(signed_in)
    items = "/api/v1/vault/items"
    assert (await browser.call("PUT", f"{items}/{NAME}", {"value": KEY})).status == 204
    shown = await browser.call("GET", items)
    assert [(item["name"], item["hint"]) for item in shown.json()["items"]] == [(NAME, "efgh")]
    assert KEY.encode() not in shown.body
    for wrong in ({"value": "sk-nonsense"}, {}, {"value": "x" * 5000}):
        refused = await browser.call("PUT", f"{items}/{NAME}", wrong)
        assert (refused.status, refused.json()["code"]) == (400, "invalid_input")
        assert b"nonsense" not in refused.body
    assert (await browser.call("DELETE", f"{items}/{NAME}")).status == 204
    assert (await browser.call("GET", items)).json() == {"items": []}
