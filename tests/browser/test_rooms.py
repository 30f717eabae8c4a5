"""Vault, groups and administration in a real browser: what is stored, shared, approved, looked at for others.

No agent is started in here.
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Browser, expect

from ocmt.cli.database import dsn_of_running
from ocmt.testing.installation import Installation
from tests.browser.visitor import Visitor

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.browser,
    pytest.mark.timeout(120),
]

SAMPLE: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vault" / "imported" / "vaults.json").read_text()
)[0]
BERT = "bert@example.org"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Nobody answers where the provider would be."""
    return {"OCMT_ANTHROPIC_URL": "http://127.0.0.1:1"}


@pytest.fixture(scope="module")
async def anna(browser: Browser, installation: Installation) -> AsyncIterator[Visitor]:
    """The first one, who administers."""
    async with Visitor.at_a_desk(browser, installation.url, color_scheme="light") as visitor:
        await visitor.sign_in(installation.link)
        yield visitor


@asynccontextmanager
async def signed_in(browser: Browser, installation: Installation, email: str) -> AsyncIterator[Visitor]:
    context = await browser.new_context(viewport={"width": 390, "height": 800})
    visitor = await Visitor.arrive(context, installation.url)
    port = installation.url.rpartition(":")[2]
    await visitor.page.goto(
        (await installation.command("users", "login-link", email, "--port", port)).strip()
    )
    await expect(visitor.message).to_be_visible()
    yield visitor
    assert visitor.unexpected() == []
    await context.close()


async def test_a_key_is_stored_tested_replaced_and_brought_back(anna: Visitor) -> None:
    await anna.open("/settings")
    await anna.page.get_by_role("link", name="Vault").click()
    items = anna.page.get_by_role("region", name="What is stored")
    await expect(items).to_contain_text("Nothing yet")
    for value in ("sk-ant-first-one", "sk-ant-second-1"):
        await anna.page.get_by_label("Value").fill(value)
        await anna.button("Store").click()
        await expect(items.get_by_role("listitem")).to_contain_text(f"…{value[-4:]}")
    await anna.button("Test Anthropic API key").click()
    said = anna.page.get_by_role("status", name="What the provider says of Anthropic API key")
    await expect(said).to_contain_text("does not answer just now")
    await anna.button("Former values of Anthropic API key").click()
    await anna.button("Bring back").click()
    await expect(items.get_by_role("listitem")).to_contain_text("…-one")
    await expect(items.get_by_role("listitem")).to_contain_text("version 3")


async def test_a_value_is_shown_to_who_has_just_signed_in_and_to_nobody_else(anna: Visitor) -> None:
    anna.expected.append("status of 403")
    await anna.open("/vault")
    await anna.button("Show Anthropic API key").click()
    shown = anna.page.get_by_role("status", name="Anthropic API key", exact=True)
    await expect(shown).to_contain_text("sk-ant-first-one")
    await anna.button("Lock").click()
    await expect(shown).to_have_count(0)
    await anna.button("Show Anthropic API key").click()
    question = anna.page.get_by_role("dialog", name="Confirm it's you")
    await expect(question).to_be_visible()
    await question.get_by_role("button", name="Close").click()
    await expect(anna.page.get_by_role("region", name="What is stored").get_by_role("alert")).to_contain_text(
        "Prove once more"
    )
    await expect(shown).to_have_count(0)


async def test_without_a_second_factor_a_link_by_mail_is_the_proof_and_nothing_typed_is_lost(
    anna: Visitor, installation: Installation
) -> None:
    await anna.open("/vault")
    await anna.page.locator("#vault-value").fill("half written")
    await anna.button("Show Anthropic API key").click()
    question = anna.page.get_by_role("dialog", name="Confirm it's you")
    await expect(question.get_by_role("textbox")).to_have_count(0)
    await question.get_by_role("button", name="E-mail me a link").click()
    await expect(question.get_by_role("status")).to_contain_text("We sent a link to")
    mails = [line for line in installation.output if line.startswith("mail for ") and "#token=" in line]
    tab = await anna.page.context.new_page()
    await tab.goto(mails[-1][mails[-1].index("http") :].strip())
    await expect(tab).to_have_url(re.compile("/vault$"))
    await expect(question).to_have_count(0)
    shown = anna.page.get_by_role("status", name="Anthropic API key", exact=True)
    await expect(shown).to_contain_text("sk-ant-first-one")
    await expect(anna.page.locator("#vault-value")).to_have_value("half written")
    await tab.close()


async def test_a_sign_in_returns_to_the_page_that_was_asked_for(
    browser: Browser, installation: Installation
) -> None:
    context = await browser.new_context()
    visitor = await Visitor.arrive(context, installation.url)
    visitor.expected.append("status of 401")
    await visitor.page.goto(f"{installation.url}/groups")
    await expect(visitor.button("Send me a link")).to_be_visible()
    who = "admin@localhost"
    await visitor.page.goto((await installation.command("users", "login-link", who)).strip())
    await expect(visitor.page).to_have_url(re.compile("/groups$"))
    await context.close()


async def test_the_former_vault_opens_by_its_old_password(
    anna: Visitor, installation: Installation, data: Path
) -> None:
    anna.expected.append("status of 400")
    database = await asyncpg.connect(dsn_of_running(data / "postgres"))
    await database.execute(
        "insert into imported_vaults (user_id, document, imported_at) "
        "select id, $1, now() from users order by created_at limit 1",
        json.dumps(SAMPLE["document"]),
    )
    await anna.open("/vault")
    vault = anna.page.get_by_role("region", name="Your former vault")
    await vault.get_by_label("Old password").fill("not it")
    await vault.get_by_role("button", name="Unlock").click()
    await expect(vault.get_by_role("alert")).to_be_visible()
    await database.execute("update imported_vaults set retry_at = null")
    await database.close()
    await vault.get_by_label("Old password").fill(SAMPLE["password"])
    await vault.get_by_role("button", name="Unlock").click()
    await expect(anna.page.get_by_text("Your former vault was unlocked")).to_be_visible()
    items = anna.page.get_by_role("region", name="What is stored").get_by_role("listitem")
    await expect(items.nth(1)).to_be_visible()  # beside the key that was there before


async def test_a_group_is_made_and_somebody_joins_and_leaves_it(
    anna: Visitor, browser: Browser, installation: Installation
) -> None:
    await anna.open("/admin")
    await anna.page.get_by_label("Let somebody in").fill(BERT)
    await anna.button("Add").click()
    await expect(anna.page.get_by_role("listitem", name=BERT)).to_be_visible()
    await anna.open("/groups")
    await anna.page.get_by_label("Name of the new group").fill("Research")
    await anna.button("Make it").click()
    group = anna.page.get_by_role("region", name="Research")
    await group.get_by_label("The key").fill("sk-ant-shared-by-all")
    await group.get_by_role("button", name="Share", exact=True).click()
    await expect(group.get_by_role("button", name="Stop sharing the Anthropic API key")).to_be_visible()
    await group.get_by_label("Invite by e-mail").fill(BERT)
    await group.get_by_role("button", name="Invite", exact=True).click()
    await expect(group.get_by_role("button", name=f"Withdraw the invitation of {BERT}")).to_be_visible()

    async with signed_in(browser, installation, BERT) as bert:
        await bert.open("/groups")
        await bert.button("Join Research").click()
        his = bert.page.get_by_role("region", name="Research")
        await expect(his.get_by_text("Anthropic API key")).to_be_visible()
        await expect(his.get_by_role("button", name="Invite", exact=True)).to_have_count(0)
        await his.get_by_role("button", name="Leave").click()
        await bert.page.get_by_role("dialog").get_by_role("button", name="Leave").click()
        await expect(his).to_have_count(0)
    await anna.page.reload()
    await expect(group.get_by_text(BERT)).to_have_count(0)


async def test_an_administrator_suspends_somebody_and_lets_them_in_again(
    anna: Visitor, browser: Browser, installation: Installation
) -> None:
    await anna.open("/admin")
    person = anna.page.get_by_role("listitem", name=BERT)
    async with signed_in(browser, installation, BERT) as bert:
        await expect(bert.page.get_by_role("link", name="Administration")).to_have_count(0)
        await person.get_by_role("button", name="Suspend").click()
        await expect(person).to_contain_text("suspended")
        bert.expected.append("status of 401")
        await bert.page.reload()
        await expect(bert.page.get_by_role("heading", name="Sign in to OCMT")).to_be_visible()
    await person.get_by_role("button", name="Let in again").click()
    await expect(person.get_by_role("button", name="Suspend")).to_be_visible()
    await anna.page.get_by_label("List an address or a domain").fill("example.net")
    await anna.button("List").click()
    await expect(anna.button("Take example.net off the list")).to_be_visible()


async def test_an_administrator_sees_what_a_user_sees_under_a_banner(
    anna: Visitor, installation: Installation
) -> None:
    anna.expected.append("status of 401")
    who = await anna.page.locator(".who").inner_text()
    port = installation.url.rpartition(":")[2]
    # The vault was locked above, and with it the proof of who she is.
    await anna.page.goto((await installation.command("users", "login-link", who, "--port", port)).strip())
    await expect(anna.message).to_be_visible()
    await anna.open("/admin")
    person = anna.page.get_by_role("listitem", name=BERT)
    await person.get_by_role("button", name="See what they see").click()
    await anna.page.get_by_label("Reason").fill("He asked me to look.")
    await anna.button("Begin").click()
    banner = anna.page.get_by_role("alert").filter(has_text="You see what")
    await expect(banner).to_contain_text(BERT)
    await expect(anna.message).to_be_disabled()
    await anna.open("/vault")
    await expect(banner).to_be_visible()
    await banner.get_by_role("button", name="Back to yourself").click()
    await expect(anna.page.locator(".who")).to_have_text(who)
    await expect(banner).to_have_count(0)
    await anna.open("/admin")
    log = anna.page.get_by_role("region", name="What was done")
    await expect(log).to_contain_text("He asked me to look.")
    await expect(log).to_contain_text(f"by {who}, of {BERT}")
    await anna.page.get_by_label("Find somebody").fill("BERT")
    people = anna.page.get_by_role("region", name="People").get_by_role("listitem")
    await expect(people).to_have_count(1)
