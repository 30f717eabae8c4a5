"""From nothing to an answering Telegram bot, all real but Telegram: across sleep, wake and a kill.

Slow, for it starts the real OpenClaw, three times; told in order.
"""

import base64
import re

import pytest

from ocmt.testing.installation import Installation, Person
from ocmt.testing.telegram import TelegramApi
from tests.agents.replica import until
from tests.channels.stand_in import environment, telegram
from tests.journey.conftest import anna, data, installation

__all__ = ["anna", "data", "environment", "installation", "telegram"]

pytestmark = [pytest.mark.anyio, pytest.mark.journey, pytest.mark.timeout(240)]


PHOTO = base64.b64decode(
    "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////////////////////////"
    "////////////wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAA//EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AN//Z"
)
"""One white dot, as JPEG."""


async def connected(anna: Person) -> str:
    """The id of the one channel."""
    told = await anna.call("GET", "/agent/channels")
    (endpoint,) = told["items"]
    return str(endpoint["id"])


async def test_a_bots_token_is_all_it_takes(anna: Person, telegram: TelegramApi) -> None:
    made = await anna.call(
        "POST",
        "/agent/channels",
        {"channel": "telegram", "fields": {"bot_token": telegram.token}},
        status=201,
    )
    assert telegram.webhook is not None
    assert telegram.webhook["url"] == made["webhook_url"]
    assert telegram.token not in str(made)


async def test_a_stranger_gets_a_code_and_wakes_nobody(anna: Person, telegram: TelegramApi) -> None:
    assert await telegram.deliver(telegram.say("hello")) == 1
    await until(lambda: len(telegram.sent) == 1, timeout=20)
    code = re.search(r"\b[A-Z0-9]{4}-[A-Z0-9]{4}\b", telegram.sent[0].text)
    assert code is not None
    assert (await anna.call("GET", "/agent"))["state"] == "stopped"
    await anna.call("POST", f"/agent/channels/{await connected(anna)}/senders/approve", {"code": code[0]})


async def test_what_the_stranger_said_is_answered_once_they_are_let_in(
    anna: Person, telegram: TelegramApi
) -> None:
    await until(lambda: len(telegram.sent) == 2, timeout=90)
    assert "demo model" in telegram.sent[1].text
    assert telegram.actions, "they see that an answer is on its way"


async def test_a_message_wakes_the_sleeping_agent(anna: Person, telegram: TelegramApi) -> None:
    await anna.call("POST", "/agent/hibernate")
    await anna.wait_for_state("stopped")
    assert await telegram.deliver(telegram.say("hello again")) == 1
    await until(lambda: len(telegram.sent) == 3, timeout=90)


async def test_a_photo_reaches_the_agent_and_the_chats_history(anna: Person, telegram: TelegramApi) -> None:
    photo = {"file_id": telegram.add_file(PHOTO, "photos/file_0.jpg"), "file_size": len(PHOTO)}
    assert await telegram.deliver(telegram.say(None, photo=[photo], caption="Who is this?")) == 1
    await until(lambda: len(telegram.sent) == 4, timeout=60)
    assert "Your files have arrived" in telegram.sent[3].text
    (conversation,) = (await anna.call("GET", "/agent/conversations"))["items"]
    told = await anna.call("GET", f"/agent/conversations/{conversation['id']}/turns")
    (shown,) = told["items"][-1]["attachments"]
    assert (shown["name"], shown["media_type"], shown["size"]) == ("photo.jpg", "image/jpeg", len(PHOTO))


async def test_a_message_taken_by_a_replica_that_dies_is_answered_once_by_the_next(
    installation: Installation, telegram: TelegramApi, anna: Person
) -> None:
    update = telegram.say("hello once more")
    assert await telegram.deliver(update) == 1
    await installation.kill()
    await installation.start()
    assert telegram.webhook is not None
    path = telegram.webhook["url"].partition("/webhooks/")[2]
    telegram.webhook["url"] = f"{installation.url}/webhooks/{path}"
    assert await telegram.deliver(update) == 1, "Telegram asks again, and is told yes"
    await until(lambda: len(telegram.sent) == 5, timeout=120)
    assert await telegram.deliver(telegram.say("and now?")) == 1
    await until(lambda: len(telegram.sent) == 6, timeout=60)
    assert [each.body.get("chat_id") for each in telegram.sent] == [telegram.sent[0].chat_id] * 6
