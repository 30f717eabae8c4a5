"""A real Chromium, without a display; skipped, with what to install, where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright, expect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 20_000
"""How long an expectation may take to come true on a busy machine; waking an agent is given longer."""


@pytest.fixture(scope="session")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("needs Chromium or Google Chrome: `sudo apt install chromium`, or run `make test`")
    return found


@pytest.fixture(scope="module")
async def browser(anyio_backend: str, chromium: str) -> AsyncIterator[Browser]:
    # Chromium's own sandbox does not work for root; the only pages that it opens are ours.
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else list(FLAGS)
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=chromium, args=flags, chromium_sandbox=os.geteuid() != 0
        )
        yield started
        await started.close()
