"""Fixtures: a stand-in for Telegram's API, and an installation that takes it for the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ocmt.testing.telegram import TelegramApi


@pytest.fixture(scope="module")
async def telegram(anyio_backend: str) -> AsyncIterator[TelegramApi]:
    async with TelegramApi() as api:
        yield api


@pytest.fixture(scope="module")
def environment(telegram: TelegramApi) -> dict[str, str]:
    return {"OCMT_TELEGRAM_URL": telegram.url}
