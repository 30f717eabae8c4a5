"""Channels in a real browser, with all of it real but Telegram: a bot is connected, a stranger let in, an
answer sent.

Told in order; slow, for an agent is started.
"""

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Locator, expect

from ocmt.testing.installation import Installation
from ocmt.testing.telegram import TelegramApi
from tests.agents.replica import until
from tests.browser.visitor import WAKING_MS, Visitor
from tests.channels.stand_in import environment, telegram

__all__ = ["environment", "telegram"]

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.browser,
    pytest.mark.timeout(300),
]

SOON = 20
"""Seconds within which what the platform does by itself is done."""


@pytest.fixture(scope="module")
async def anna(browser: Browser, installation: Installation) -> AsyncIterator[Visitor]:
    clipboard = ["clipboard-read", "clipboard-write"]
    async with Visitor.at_a_desk(browser, installation.url, permissions=clipboard) as visitor:
        await visitor.sign_in(installation.link)
        yield visitor


def what_came_in(visitor: Visitor) -> Locator:
    return visitor.page.get_by_role("region", name="What came in")


def senders(visitor: Visitor) -> Locator:
    return visitor.page.get_by_role("region", name="Who may write")


async def test_what_telegram_refuses_is_said_and_what_was_filled_in_stays(
    anna: Visitor, telegram: TelegramApi
) -> None:
    anna.expected.append("status of 400")
    await anna.open("/settings")
    await anna.page.get_by_role("link", name="Channels").click()
    connect = anna.page.get_by_role("region", name="Connect a channel")
    await connect.get_by_role("radio", name="Telegram").check()
    await expect(connect.get_by_role("link", name="t.me/BotFather")).to_have_attribute(
        "rel", re.compile("noopener")
    )
    wrong = telegram.token[:-3] + "AAA"
    token = connect.get_by_label("The bot's token")
    await expect(token).to_have_attribute("type", "password")
    await token.fill(wrong)
    await connect.get_by_role("button", name="Connect Telegram").click()
    await expect(connect.get_by_role("alert")).to_contain_text("Telegram")
    await expect(token).to_have_value(wrong)
    assert telegram.webhook is None


async def test_a_bots_token_connects_it_and_tells_what_comes_next(
    anna: Visitor, telegram: TelegramApi
) -> None:
    await anna.page.get_by_label("The bot's token").fill(telegram.token)
    await anna.button("Connect Telegram").click()
    opened = anna.page.get_by_role("region", name="Connected as @ocmt_bot")
    await expect(opened.get_by_role("heading", name="Connected as")).to_be_focused()
    assert telegram.webhook is not None
    await expect(opened).to_contain_text(telegram.webhook["url"])
    await opened.get_by_role("button", name="Copy: the webhook's address").click()
    assert await anna.page.evaluate("navigator.clipboard.readText()") == telegram.webhook["url"]
    await expect(senders(anna)).to_contain_text("Write to @ocmt_bot: you are told a code.")
    await expect(what_came_in(anna)).to_contain_text("Nothing yet")


async def test_a_stranger_is_let_in_by_their_code_and_answered(anna: Visitor, telegram: TelegramApi) -> None:
    await telegram.deliver(telegram.say("hello"))
    await expect(what_came_in(anna).get_by_role("listitem")).to_contain_text("Sender not let in")
    await expect(senders(anna).get_by_role("listitem", name="Ada Lovelace")).to_contain_text("waits")
    code = re.search(r"\b[A-Z0-9]{4}-[A-Z0-9]{4}\b", telegram.sent[0].text)
    assert code is not None
    anna.expected.append("status of 404")
    await senders(anna).get_by_label("Code").fill("AAAA-AAAA")
    await anna.button("Let them in").click()
    await expect(senders(anna).get_by_role("alert")).to_contain_text("Nobody was told this code")
    await senders(anna).get_by_label("Code").fill(code[0].lower())
    await anna.button("Let them in").click()
    await expect(senders(anna).get_by_role("status")).to_have_text("Ada Lovelace may write from now on.")
    delivery = what_came_in(anna).get_by_role("listitem")
    await expect(delivery.get_by_text("Answered", exact=True)).to_be_visible(timeout=WAKING_MS)
    beside = anna.page.get_by_role("navigation", name="Conversations")
    await expect(beside.get_by_role("link", name="Telegram: Ada")).to_be_visible()
    await expect(delivery).to_contain_text("from Ada Lovelace")
    assert "demo model" in telegram.sent[1].text


async def test_one_is_run_again_or_all_of_a_time(anna: Visitor, telegram: TelegramApi) -> None:
    delivery = what_came_in(anna).get_by_role("listitem")
    await delivery.get_by_role("button", name=re.compile("^Run the message")).click()
    told = what_came_in(anna).get_by_role("status")
    await expect(told).to_have_text("1 message runs again.")
    await until(lambda: len(telegram.sent) == 3, timeout=SOON)
    await expect(delivery).to_contain_text("run again once")
    await expect(delivery.get_by_text("Answered", exact=True)).to_be_visible()
    await what_came_in(anna).get_by_text("Run a whole time again").click()
    form = what_came_in(anna).get_by_role("group").filter(has_text="Those in the state").last
    await what_came_in(anna).get_by_label("From").fill("2020-01-01T00:00")
    await anna.button("Run them again").click()
    await expect(told).to_have_text("There was nothing to run again.")
    await form.get_by_label("Answered").check()
    await anna.button("Run them again").click()
    await expect(told).to_have_text("1 message runs again.")
    await until(lambda: len(telegram.sent) == 4, timeout=SOON)


async def test_an_answer_that_could_not_be_sent_is_sent_again(anna: Visitor, telegram: TelegramApi) -> None:
    telegram.fail(1, 403, description="Forbidden: bot was blocked by the user")
    await telegram.deliver(telegram.say("hello again"))
    delivery = what_came_in(anna).get_by_role("listitem", name=re.compile("not sent"))
    await expect(delivery).to_contain_text("blocked by the user", timeout=WAKING_MS)
    await delivery.get_by_role("button", name="Send the answer again").click()
    await expect(what_came_in(anna).get_by_role("status")).to_have_text("1 message is sent again.")
    await until(lambda: len(telegram.sent) == 5, timeout=SOON)
    await expect(delivery).to_have_count(0)
    await what_came_in(anna).get_by_label("Show").select_option("Given up")
    await expect(what_came_in(anna)).to_contain_text("There is nothing in this state.")
    await what_came_in(anna).get_by_label("Show").select_option("All")
    await anna.page.get_by_label("Select all of these").check()
    await anna.button("Run 2 again").click()
    await until(lambda: len(telegram.sent) == 7, timeout=SOON)


async def test_an_administrator_sees_facts_alone_and_has_them_run_again(
    anna: Visitor, telegram: TelegramApi
) -> None:
    here = anna.page.url
    who = await anna.page.locator(".who").inner_text()
    await anna.open("/admin")
    of_all = anna.page.get_by_role("region", name="What came in over channels")
    await expect(of_all).to_contain_text("There is nothing in this state.")
    await of_all.get_by_label("Of whom").fill("nobody@example.org")
    await of_all.get_by_label("Show").select_option("Answered")
    await expect(of_all).to_contain_text("There is nothing in this state.")
    await of_all.get_by_label("Of whom").fill(who)
    await of_all.get_by_label("Of whom").press("Enter")
    await expect(of_all.get_by_role("listitem")).to_have_count(2)
    await expect(of_all).to_contain_text(f"telegram of {who}")
    await expect(of_all).not_to_contain_text("Ada")
    await of_all.get_by_role("button", name=re.compile("^Run the message")).first.click()
    await expect(of_all.get_by_role("status")).to_have_text("1 message runs again.")
    await until(lambda: len(telegram.sent) == 8, timeout=SOON)
    await anna.page.reload()
    log = anna.page.get_by_role("region", name="What was done")
    await expect(log).to_contain_text("Messages that had come in over channels were run again")
    await anna.page.goto(here)


async def test_a_message_leads_to_its_conversation(anna: Visitor) -> None:
    await what_came_in(anna).get_by_role("link", name="Conversation").first.click()
    await expect(anna.own_messages.first).to_contain_text("hello")
    await anna.page.go_back()
    await expect(what_came_in(anna)).to_be_visible()
    await expect(anna.page.get_by_text("Connected as")).to_have_count(0)


async def test_a_sender_is_blocked_and_forgotten(anna: Visitor) -> None:
    await anna.button("Block Ada Lovelace").click()
    await expect(senders(anna).get_by_role("listitem")).to_contain_text("blocked")
    await anna.button("Forget Ada Lovelace").click()
    await expect(senders(anna).get_by_role("listitem")).to_have_count(0)
    await expect(senders(anna)).to_contain_text("Nobody yet")


async def test_it_is_renamed_reconnected_and_disconnected(anna: Visitor, telegram: TelegramApi) -> None:
    page = anna.page
    await anna.button("Rename").click()
    await page.get_by_role("dialog").get_by_label("Its name here").fill("My bot")
    await page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    await expect(page.get_by_role("heading", name="My bot")).to_be_visible()
    telegram.webhook = None
    await anna.button("Reconnect").click()
    await page.get_by_role("dialog").get_by_role("button", name="Reconnect").click()
    await expect(page.get_by_role("region", name="Connected as My bot")).to_be_visible()
    assert telegram.webhook is not None
    await anna.button("Disconnect").click()
    question = page.get_by_role("dialog", name="Disconnect My bot?")
    await expect(question).to_contain_text("The conversations stay.")
    await question.get_by_role("button", name="Disconnect").click()
    await expect(page.get_by_role("region", name="Connect a channel")).to_be_visible()
    await expect(page.get_by_role("region", name="Connected")).to_have_count(0)
    assert telegram.webhook is None
    await page.go_back()
    await expect(page.get_by_text("There is no such channel.")).to_be_visible()


async def test_the_secret_of_a_signed_webhook_is_shown_once(anna: Visitor) -> None:
    await anna.open("/channels")
    await anna.page.get_by_role("radio", name="Signed webhook").check()
    await anna.button("Connect Signed webhook").click()
    secret = anna.page.get_by_role("status", name="The secret")
    await expect(secret).to_contain_text("whsec_")
    await expect(anna.page.get_by_text("No answer goes back over it.")).to_be_visible()
    await expect(senders(anna)).to_have_count(0)
    await anna.page.get_by_role("link", name="All channels").click()
    await anna.page.get_by_role("region", name="Connected").get_by_role("link").click()
    await expect(what_came_in(anna)).to_be_visible()
    await expect(secret).to_have_count(0)
    assert await anna.page.get_by_text(re.compile(r"whsec_[\w+/]{20}")).count() == 0
