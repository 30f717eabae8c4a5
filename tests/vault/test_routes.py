"""The vault over HTTP: values go in, and one comes out only to who has proved a moment ago who they are."""

from __future__ import annotations

from uuid import UUID

import pytest

from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock
from tests.accounts import make_user

from .conftest import Open, Provider

pytestmark = pytest.mark.anyio

ITEMS = "/api/v1/vault/items"
NAME = "anthropic_api_key"
KEY = "sk-ant-api03-abcdefgh"


async def test_values_go_in_and_are_not_shown(open_browser: Open, alice: UUID) -> None:
    browser = await open_browser(alice)
    put = await browser.call("PUT", f"{ITEMS}/{NAME}", {"value": KEY})
    assert (put.status, put.headers["etag"], put.json()["version"]) == (200, '"1"', 1)
    shown = await browser.call("GET", ITEMS)
    assert [(item["name"], item["hint"]) for item in shown.json()["items"]] == [(NAME, "efgh")]
    assert KEY.encode() not in shown.body
    for wrong in ({"value": "sk-nonsense"}, {}, {"value": "x" * 70_000}, {"value": KEY, "kind": "cheese"}):
        refused = await browser.call("PUT", f"{ITEMS}/{NAME}", wrong)
        assert (refused.status, refused.json()["code"]) == (400, "invalid_input")
        assert b"nonsense" not in refused.body
    assert (await browser.call("DELETE", f"{ITEMS}/{NAME}")).status == 204
    assert (await browser.call("GET", ITEMS)).json()["items"] == []


async def test_to_reveal_one_takes_a_recent_sign_in_and_is_audited(
    open_browser: Open, alice: UUID, clock: VirtualClock, database: Database
) -> None:
    browser = await open_browser(alice)
    await browser.call("PUT", f"{ITEMS}/{NAME}", {"value": KEY})
    revealed = await browser.call("POST", f"{ITEMS}/{NAME}/reveal")
    assert (revealed.status, revealed.json(), revealed.headers["cache-control"]) == (
        200,
        {"value": KEY},
        "no-store",
    )
    await clock.advance(601)
    refused = await browser.call("POST", f"{ITEMS}/{NAME}/reveal")
    assert (refused.status, refused.json()["code"]) == (403, "recent_sign_in_needed")
    async with database.connection() as connection:
        actions = await connection.fetch("select action from audit_log order by id")
    assert [row["action"] for row in actions] == ["vault.item_put", "vault.item_revealed"]


async def test_an_etag_guards_against_changes_unseen(open_browser: Open, alice: UUID) -> None:
    browser = await open_browser(alice)
    first = await browser.call("PUT", f"{ITEMS}/token", {"value": "one"}, headers={"if-match": '"0"'})
    assert first.status == 200
    stale = await browser.call("PUT", f"{ITEMS}/token", {"value": "two"}, headers={"if-match": '"0"'})
    assert (stale.status, stale.json()["code"]) == (412, "precondition_failed")
    etag = {"if-match": first.headers["etag"]}
    assert (await browser.call("PUT", f"{ITEMS}/token", {"value": "two"}, headers=etag)).status == 200
    assert (await browser.call("DELETE", f"{ITEMS}/token", headers={"if-match": "3"})).status == 400


async def test_a_kept_version_comes_back(open_browser: Open, alice: UUID) -> None:
    browser = await open_browser(alice)
    for value in ("one", "two"):
        await browser.call("PUT", f"{ITEMS}/token", {"value": value})
    versions = (await browser.call("GET", f"{ITEMS}/token/versions")).json()["items"]
    assert [one["version"] for one in versions] == [1]
    restored = await browser.call("POST", f"{ITEMS}/token/versions/1/restore")
    assert (restored.status, restored.json()["version"]) == (200, 3)
    assert (await browser.call("POST", f"{ITEMS}/token/reveal")).json() == {"value": "one"}
    assert (await browser.call("POST", f"{ITEMS}/token/versions/9/restore")).status == 404


@pytest.mark.parametrize(
    ("status", "keys", "verdict"),
    [
        (200, (KEY,), "works"),
        (200, (), "refused"),
        (403, (), "no_permission"),
        (429, (), "limited"),
        (500, (), "unreachable"),
    ],
)
async def test_a_key_is_tried_at_its_provider(
    open_browser: Open, alice: UUID, provider: Provider, status: int, keys: tuple[str, ...], verdict: str
) -> None:
    provider.status, provider.keys = status, keys
    browser = await open_browser(alice)
    await browser.call("PUT", f"{ITEMS}/{NAME}", {"value": KEY})
    answer = await browser.call("POST", f"{ITEMS}/{NAME}/test")
    assert (answer.status, answer.json()["verdict"]) == (200, verdict)
    assert KEY.encode() not in answer.body


async def test_only_providers_keys_are_tried_and_not_without_end(open_browser: Open, alice: UUID) -> None:
    browser = await open_browser(alice)
    assert (await browser.call("POST", f"{ITEMS}/token/test")).status == 400
    tried = [(await browser.call("POST", f"{ITEMS}/{NAME}/test")).status for _ in range(7)]
    assert tried == [404] * 5 + [429] * 2


async def test_of_anothers_vault_there_is_nothing(
    open_browser: Open, alice: UUID, database: Database
) -> None:
    await (await open_browser(alice)).call("PUT", f"{ITEMS}/{NAME}", {"value": KEY})
    bob = await open_browser(await make_user(database, "bob@example.org"))
    assert (await bob.call("GET", ITEMS)).json()["items"] == []
    for method, path in (("POST", "reveal"), ("POST", "test"), ("POST", "versions/1/restore")):
        assert (await bob.call(method, f"{ITEMS}/{NAME}/{path}")).status == 404
    assert (await bob.call("GET", f"{ITEMS}/{NAME}/versions")).json()["items"] == []
