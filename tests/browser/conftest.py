"""A real Chromium, without a display, and a whole installation for each file; skipped, with what to install,
where something is missing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright, expect

from ocmt.settings import load_settings
from ocmt.testing.installation import Installation
from tests.browser.visitor import Visitor

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


@pytest.fixture(autouse=True)
async def no_complaints(anna: Visitor) -> AsyncIterator[None]:
    """Through all of it: no error in the console, nothing that the content security policy had to stop.

    `anna`: each file's first visitor.
    """
    yield
    assert anna.unexpected() == []
    assert await anna.seen("violations") == []


@pytest.fixture(scope="module")
def data(chromium: str) -> Iterator[Path]:
    if not (load_settings().cache_dir / "tools.json").is_file():
        pytest.skip("needs what `make setup` fetches: OpenClaw")
    folder = Path(tempfile.mkdtemp(prefix="ocmt-browser-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Settings of the installation; a file may have its own."""
    return {}


@pytest.fixture(scope="module")
async def installation(
    anyio_backend: str, data: Path, environment: dict[str, str]
) -> AsyncIterator[Installation]:
    async with Installation(data, environment) as running:
        yield running
        print("\n".join(running.output))  # shown where a test failed
