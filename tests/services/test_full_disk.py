"""What everybody hears while the server's disk is almost full, and that all goes on once it is not."""

from __future__ import annotations

import pytest

from ocmt.platform.free_space import FreeSpace, Space
from ocmt.services.full_disk import adds_to_disk

from .conftest import House

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("method", "path", "refused"),
    [
        ("POST", "/agent/conversations", True),
        ("POST", "/agent/conversations/1/turns", True),
        ("POST", "/agent/turns/1/retry", True),
        ("POST", "/agent/attachments", True),
        ("POST", "/agent/snapshots", True),
        ("POST", "/agent/snapshots/3/restore", True),
        ("POST", "/agent/wake", True),
        ("POST", "/agent/restart", True),
        ("POST", "/webhooks/telegram/1", True),
        ("GET", "/agent/conversations", False),
        ("DELETE", "/agent/conversations/1", False),
        ("POST", "/agent/turns/1/stop", False),
        ("POST", "/agent/hibernate", False),
        ("DELETE", "/agent/attachments/1", False),
        ("POST", "/api/v1/auth/magic-link/verify", False),
        ("DELETE", "/api/v1/me", False),
    ],
)
async def test_what_adds_to_the_disk_is_refused_and_nothing_else(
    method: str, path: str, refused: bool
) -> None:
    assert adds_to_disk(method, path) is refused


async def test_everybody_hears_it_and_it_passes(house: House) -> None:
    free = 1000
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += 1
        return now

    space = FreeSpace(lambda: [Space(free, 1000)], floor=100, monotonic=monotonic)
    full = house.with_space(space)
    browser = await full.sign_in("ada@example.org")
    made = await browser.call("POST", "/agent/conversations", {})
    assert made.status == 201
    free = 50
    refused = await browser.call("POST", "/agent/conversations", {})
    assert refused.status == 503
    assert refused.json()["code"] == "disk_full"
    assert "almost full" in refused.json()["detail"]
    assert (await browser.call("GET", "/readyz")).status == 503
    assert (await browser.call("GET", "/agent")).json()["error"]["code"] == "disk_full"
    assert (await browser.call("GET", "/agent/conversations")).status == 200
    free = 1000
    assert (await browser.call("POST", "/agent/conversations", {})).status == 201
    assert (await browser.call("GET", "/readyz")).status == 200
    assert (await browser.call("GET", "/agent")).json()["error"] is None
