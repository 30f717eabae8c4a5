"""Changes below /agent have a rate for each user, as those below /api/v1 have."""

from __future__ import annotations

import pytest

from ocmt.identity.limits import WRITES_OF
from tests.services.conftest import House

pytestmark = pytest.mark.anyio


async def test_a_flood_of_changes_is_refused_and_neighbors_and_reading_go_on(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    bert = await house.sign_in("bert@example.org")
    said = [(await anna.call("POST", "/agent/conversations", {})).status for _ in range(WRITES_OF.burst + 40)]
    assert said.count(201) == WRITES_OF.burst
    assert set(said[WRITES_OF.burst :]) == {429}
    refused = await anna.call("POST", "/agent/wake", {})
    assert (refused.status, refused.json()["code"]) == (429, "limit_reached")
    assert int(refused.headers["retry-after"]) >= 1
    assert (await anna.call("GET", "/agent/conversations")).status == 200
    assert (await bert.call("POST", "/agent/conversations", {})).status == 201


async def test_what_is_kept_is_shown_with_its_limits(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    await anna.call("POST", "/agent/conversations", {})
    shown = {one["store"]: one for one in (await anna.call("GET", "/api/v1/usage")).json()["storage"]}
    assert set(shown) == {"conversations", "deliveries", "attachments", "snapshots"}
    assert (shown["conversations"]["count"], shown["conversations"]["most_count"]) == (1, 5000)


async def test_deliveries_that_have_ended_can_be_cleared_over_http(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    made = (await anna.call("POST", "/agent/channels", {"channel": "signed"})).json()["id"]
    answer = await anna.call("DELETE", f"/agent/channels/{made}/deliveries")
    assert (answer.status, answer.json()) == (200, {"count": 0})
