"""What those who run the platform see of everybody's deliveries, and how they have them run again."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from tests.channels.conftest import call
from tests.channels.test_signed import own_signature
from tests.identity.browser import Browser
from tests.services.conftest import URL, House, egress_policy, gateways, hints, house, pages, runtime

__all__ = ["egress_policy", "gateways", "hints", "house", "pages", "runtime"]

pytestmark = pytest.mark.anyio

SHOWN = {
    "body_dropped",
    "id",
    "email",
    "channel",
    "endpoint_id",
    "state",
    "attempts",
    "replays",
    "received_at",
    "finished_at",
    "error",
    "sent",
    "pending",
    "dead",
    "may_be_double",
}


class Somebody:
    """A user with a signed channel."""

    def __init__(self, house: House, browser: Browser, endpoint: dict[str, Any]) -> None:
        self.house, self.browser, self.endpoint = house, browser, endpoint

    @classmethod
    async def arrive(cls, house: House, email: str) -> Somebody:
        browser = await house.sign_in(email)
        made = await browser.call("POST", "/agent/channels", {"channel": "signed"})
        return cls(house, browser, made.json())

    async def hear(self, name: str, state: str = "dead") -> None:
        """A webhook comes in, and ends so."""
        body = json.dumps({"text": f"the secret of {name}", "sender": "eve", "thread": "a thread"}).encode()
        moment = str(int(self.house.orchestrator.channels.channels._clock.now().timestamp()))
        headers = {
            "webhook-id": name,
            "webhook-timestamp": moment,
            "webhook-signature": own_signature(self.endpoint["secret"], name, moment, body),
        }
        path = self.endpoint["webhook_url"].removeprefix(URL)
        assert (await call(self.house.app, path, body, headers)).status == 200
        async with self.house.database.connection() as connection:
            await connection.execute(
                "update deliveries set state = $2, sender = 'eve', attempts = 8, finished_at = received_at, "
                "error = $3, conversation_id = $4 where external_id = $1",
                name,
                state,
                {"code": "agent_failed", "message": "It failed."} if state == "dead" else None,
                UUID(int=1),
            )

    async def states(self) -> dict[str, str]:
        found = await self.browser.call("GET", f"/agent/channels/{self.endpoint['id']}/deliveries")
        return {one["external_id"]: one["state"] for one in found.json()["items"]}


@pytest.fixture
async def root(house: House) -> Browser:
    return await house.sign_in("root@example.org")


async def seen(browser: Browser, query: str = "") -> list[dict[str, Any]]:
    answer = await browser.call("GET", f"/api/v1/admin/deliveries{query}")
    assert answer.status == 200, answer.body
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def replay(browser: Browser, body: dict[str, Any]) -> int:
    answer = await browser.call("POST", "/api/v1/admin/deliveries/replay", body)
    assert answer.status == 202, answer.body
    return int(answer.json()["count"])


async def test_administrators_and_auditors_look_and_administrators_alone_replay(
    house: House, root: Browser
) -> None:
    anna = await Somebody.arrive(house, "anna@example.org")
    await anna.hear("m1")
    identity = house.management.accounts.identity
    auditor = await house.sign_in("audit@example.org")
    await identity.administer((await identity.user_by_email("audit@example.org")).id, role="auditor")
    (one,) = await seen(root)
    assert await seen(auditor) == [one]
    assert (await anna.browser.call("GET", "/api/v1/admin/deliveries")).status == 403
    body = {"ids": [one["id"]]}
    for browser in (auditor, anna.browser):
        assert (await browser.call("POST", "/api/v1/admin/deliveries/replay", body)).status == 403
    assert await anna.states() == {"m1": "dead"}
    assert await replay(root, body) == 1
    assert await anna.states() == {"m1": "accepted"}


async def test_what_was_said_and_by_whom_is_not_shown(house: House, root: Browser) -> None:
    anna = await Somebody.arrive(house, "anna@example.org")
    await anna.hear("m1")
    answer = await root.call("GET", "/api/v1/admin/deliveries")
    (one,) = answer.json()["items"]
    assert one.keys() == SHOWN
    assert (
        one["email"],
        one["channel"],
        one["endpoint_id"],
        one["state"],
        one["attempts"],
        one["error"],
    ) == (
        "anna@example.org",
        "signed",
        anna.endpoint["id"],
        "dead",
        8,
        {"code": "agent_failed", "message": "It failed."},
    )
    for hidden in (b"secret of", b"eve", b"a thread", b"m1", str(UUID(int=1)).encode()):
        assert hidden not in answer.body


async def test_they_are_filtered_by_state_and_address_the_latest_first(house: House, root: Browser) -> None:
    anna = await Somebody.arrive(house, "anna@example.org")
    bert = await Somebody.arrive(house, "bert@example.org")
    await anna.hear("m1")
    await anna.hear("m2", "done")
    await bert.hear("m3")
    assert [one["email"][:4] for one in await seen(root)] == ["bert", "anna", "anna"]
    assert [one["email"][:4] for one in await seen(root, "?state=dead")] == ["bert", "anna"]
    assert [one["state"] for one in await seen(root, "?email=Anna@example.org")] == ["done", "dead"]
    assert await seen(root, "?email=nobody@example.org") == []
    assert (await root.call("GET", "/api/v1/admin/deliveries?state=lost")).status == 400


async def test_they_come_in_pages_of_fifty(house: House, root: Browser) -> None:
    anna = await Somebody.arrive(house, "anna@example.org")
    for number in range(51):
        await anna.hear(f"m{number}")
    first = (await root.call("GET", "/api/v1/admin/deliveries")).json()
    assert len(first["items"]) == 50
    rest = (await root.call("GET", f"/api/v1/admin/deliveries?cursor={first['next']}")).json()
    assert (len(rest["items"]), rest["next"]) == (1, None)
    assert rest["items"][0]["id"] < first["items"][-1]["id"]


async def test_those_of_a_time_run_again_the_dead_ones_if_nothing_else_is_said(
    house: House, root: Browser
) -> None:
    anna = await Somebody.arrive(house, "anna@example.org")
    bert = await Somebody.arrive(house, "bert@example.org")
    await anna.hear("m1")
    await anna.hear("m2", "done")
    await bert.hear("m3")
    assert await replay(root, {"from": "2100-01-01T00:00:00Z"}) == 0
    assert await replay(root, {"from": "2000-01-01T00:00:00Z", "to": "2001-01-01T00:00:00Z"}) == 0
    assert await replay(root, {"from": "2000-01-01T00:00:00Z", "email": "bert@example.org"}) == 1
    assert (await anna.states(), await bert.states()) == ({"m1": "dead", "m2": "done"}, {"m3": "accepted"})
    assert await replay(root, {"from": "2000-01-01T00:00:00Z", "states": ["dead", "done"]}) == 2
    assert await anna.states() == {"m1": "accepted", "m2": "accepted"}
    assert await replay(root, {"from": "2000-01-01T00:00:00Z", "states": ["dead", "done"]}) == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": [str(UUID(int=1))], "from": "2000-01-01T00:00:00Z"},
        {"to": "2000-01-01T00:00:00Z"},
        {"from": "2000-01-01T00:00:00"},
        {"from": "2000-01-01T00:00:00Z", "states": ["accepted"]},
    ],
)
async def test_what_makes_no_sense_is_refused(root: Browser, body: dict[str, Any]) -> None:
    assert (await root.call("POST", "/api/v1/admin/deliveries/replay", body)).status == 400


async def test_a_replay_is_in_the_audit_log_and_its_user_reads_of_it(house: House, root: Browser) -> None:
    anna = await Somebody.arrive(house, "anna@example.org")
    bert = await Somebody.arrive(house, "bert@example.org")
    await anna.hear("m1")
    (one,) = await seen(root)
    assert await replay(root, {"ids": [one["id"], str(UUID(int=7))]}) == 1
    assert await replay(root, {"ids": [one["id"]]}) == 0, "it is open: nothing was done, nothing is noted"
    await anna.hear("m2")
    await bert.hear("m3")
    assert await replay(root, {"from": "2000-01-01T00:00:00Z"}) == 2

    rows = (await root.call("GET", "/api/v1/admin/audit")).json()["items"]
    of_both, of_anna = (row for row in rows if row["action"] == "deliveries.replayed")
    assert (of_anna["actor_email"], of_anna["subject_email"]) == ("root@example.org", "anna@example.org")
    assert of_anna["details"]["count"] == 1
    assert one["id"] in of_anna["details"]["ids"]
    assert (of_both["subject_email"], of_both["details"]["count"]) == (None, 2)
    assert (of_both["details"]["from"], of_both["details"]["states"]) == ("2000-01-01T00:00:00Z", ["dead"])
    own = (await anna.browser.call("GET", "/api/v1/audit")).json()["items"]
    assert [row["id"] for row in own if row["action"] == "deliveries.replayed"] == [of_anna["id"]]
