"""OpenClaw's own pages, for real: they talk to the agent, and reach nothing else of the platform."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from ocmt.testing.installation import Installation
from tests.browser.visitor import WAKING_MS, Visitor

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

REACHES = """async (path) => {
  try { return (await fetch(path)).status; } catch (error) { return String(error); }
}"""


@pytest.fixture(scope="module")
async def anna(browser: Browser, installation: Installation) -> AsyncIterator[Visitor]:
    async with Visitor.at_a_desk(browser, installation.url) as visitor:
        await visitor.sign_in(installation.link)
        yield visitor


@pytest.fixture(autouse=True)
def no_complaints() -> None:
    """There are: its service worker is stopped, and what the second test tries."""


async def test_the_control_ui_talks_to_the_agent(anna: Visitor) -> None:
    await anna.open("/agent/gateway/")
    box = anna.page.locator("textarea, [contenteditable=true]").first
    await expect(box).to_be_visible(timeout=WAKING_MS)
    await box.fill("hello")
    await box.press("Enter")
    await expect(anna.page.get_by_text("demo model").first).to_be_visible(timeout=WAKING_MS)


async def test_what_runs_there_reaches_the_gateway_and_no_other_address_of_ours(anna: Visitor) -> None:
    assert await anna.page.evaluate(REACHES, "/agent/gateway/healthz") == 200
    for path in ("/api/v1/me", "/agent", "/agent/conversations", "/agent/attachments", "/"):
        assert "Failed to fetch" in str(await anna.page.evaluate(REACHES, path)), path
    assert await anna.page.evaluate("window.open('/settings')") is None
    framed = """() => new Promise((resolve) => {
      const frame = document.createElement('iframe');
      document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
      frame.src = '/settings';
      document.body.append(frame);
    })"""
    assert await anna.page.evaluate(framed) == "frame-src"
