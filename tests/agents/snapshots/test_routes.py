"""The HTTP edge of snapshots: a user's own, newest first, and the wish to have one back."""

from __future__ import annotations

import hashlib
from uuid import UUID

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.agents.snapshots.keeping import Limits
from ocmt.agents.snapshots.routes import PAGE, routes
from ocmt.platform.database import Database
from ocmt.platform.http import exception_handlers
from ocmt.platform.principal import Principal
from tests.accounts import make_user
from tests.agents.snapshots.snapshotting import Bench
from tests.identity.browser import Browser

pytestmark = pytest.mark.anyio


def signed_in(bench: Bench, user_id: UUID) -> Browser:
    """A browser of that user, as the middleware would let it in."""
    app: ASGIApp = Starlette(
        routes=routes(bench.snapshots, bench.transfers), exception_handlers=exception_handlers()
    )

    async def as_user(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["state"] = {"principal": Principal(user_id, None, "someone@example.org")}
        await app(scope, receive, send)

    return Browser(as_user)


async def test_snapshots_are_listed_newest_first_and_paged(bench: Bench) -> None:
    for number in range(3):
        bench.write("workspace/a", f"{number}")
        snapshot = await bench.take(image="2026.9.6")
    async with bench.database.connection() as connection:
        await connection.execute(
            "insert into snapshots select user_id, number, now(), null, 1, 2, '', '' from agents, "
            "generate_series(4, $1) number",
            PAGE + 3,
        )
    anna = signed_in(bench, bench.user_id)
    page = (await anna.call("GET", "/agent/snapshots")).json()
    assert [item["generation"] for item in page["items"]] == list(range(PAGE + 3, 3, -1))
    rest = (await anna.call("GET", f"/agent/snapshots?cursor={page['next_cursor']}")).json()
    assert rest["next_cursor"] is None
    assert rest["items"][0] == {
        "generation": 3,
        "created_at": snapshot.created_at.isoformat(),
        "image": "2026.9.6",
        "files": 2,
        "bytes": 3,
    }
    assert (await anna.call("GET", "/agent/snapshots?cursor=nonsense")).status == 400


async def test_a_wish_to_restore_is_noted_for_whoever_drives_the_agent(bench: Bench) -> None:
    await bench.take()
    anna = signed_in(bench, bench.user_id)
    answer = await anna.call("POST", "/agent/snapshots/1/restore")
    assert (answer.status, answer.json()) == (202, {"restore_asked": 1})
    assert (await anna.call("GET", "/agent/snapshots")).json()["restore_asked"] == 1
    assert (await bench.row())["restore_asked"] == 1


@pytest.mark.parametrize("generation", ["2", "0", "-1", "x", "9" * 30, "1.0", "٣"])
async def test_what_is_no_generation_is_not_found(bench: Bench, generation: str) -> None:
    await bench.take()
    answer = await signed_in(bench, bench.user_id).call("POST", f"/agent/snapshots/{generation}/restore")
    assert (answer.status, answer.json()["code"]) == (404, "not_found")


async def test_another_users_snapshots_do_not_exist(bench: Bench, database: Database) -> None:
    await bench.take()
    bert = signed_in(bench, await make_user(database, "bert@example.org"))
    assert (await bert.call("GET", "/agent/snapshots")).json()["items"] == []
    assert (await bert.call("POST", "/agent/snapshots/1/restore")).status == 404
    assert (await bench.row())["restore_asked"] is None


ZIP = {"content-type": "application/zip"}


async def test_a_generation_is_taken_away_and_sent_in_again(bench: Bench) -> None:
    bench.write("workspace/a", "one")
    await bench.take()
    anna = signed_in(bench, bench.user_id)
    answer = await anna.call("GET", "/agent/snapshots/1/archive")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["content-disposition"] == 'attachment; filename="agent-files-1.zip"'
    assert int(answer.headers["content-length"]) == len(answer.body)
    bench.write("workspace/a", "two")
    sent = await anna.call("POST", "/agent/snapshots", answer.body, headers=ZIP)
    assert (sent.status, sent.json()) == (202, {"files": 2})
    assert (await anna.call("GET", "/agent/snapshots")).json()["import_asked"] is True
    await bench.transfers.carry_out(bench.lease, bench.files, Limits())
    assert bench.content()["workspace/a"] == b"one"
    assert (await bench.content_of(2))["workspace/a"] == b"two", "what it has replaced can come back"
    assert await bench.generations() == [3, 2, 1]
    assert (await anna.call("GET", "/agent/snapshots")).json()["import_asked"] is False
    assert bench.key(".imports/archive.zip") not in bench.objects.stored


async def test_what_is_not_there_or_is_another_users_cannot_be_taken_away(
    bench: Bench, database: Database
) -> None:
    await bench.take()
    bert = signed_in(bench, await make_user(database, "bert@example.org"))
    for browser, generation in ((bert, "1"), (signed_in(bench, bench.user_id), "2"), (bert, "x")):
        assert (await browser.call("GET", f"/agent/snapshots/{generation}/archive")).status == 404


async def test_a_damaged_generation_is_said_and_not_sent(bench: Bench) -> None:
    bench.write("workspace/a", "x")
    await bench.take()
    bench.objects.corrupt(bench.key(f".blobs/{hashlib.sha256(b'x').hexdigest()}"))
    answer = await signed_in(bench, bench.user_id).call("GET", "/agent/snapshots/1/archive")
    assert (answer.status, answer.json()["code"]) == (409, "snapshot_damaged")


async def test_only_archives_are_sent_in(bench: Bench) -> None:
    anna = signed_in(bench, bench.user_id)
    assert (await anna.call("POST", "/agent/snapshots", {})).status == 400
    answer = await anna.call("POST", "/agent/snapshots", b"no zip", headers=ZIP)
    assert (answer.status, answer.json()["detail"]) == (400, "This is no archive of an agent's files.")
    assert (await bench.row())["import_asked"] is None
