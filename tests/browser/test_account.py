"""An account in a real browser: a second factor is set up and asked for, a key is made, a browser is signed
out.

No agent is started in here, so that all of it takes some seconds.
"""

import re
import time
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect
from pyotp import TOTP

from ocmt.testing.installation import Installation
from tests.browser.visitor import Visitor

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.browser,
    pytest.mark.timeout(120),
]

STEP = 30


@pytest.fixture(scope="module")
async def anna(browser: Browser, installation: Installation) -> AsyncIterator[Visitor]:
    async with Visitor.at_a_desk(browser, installation.url) as visitor:
        yield visitor


secrets: dict[str, str] = {}


def next_code() -> str:
    """A code that was not used yet: the server takes those of half a minute to come as well."""
    used = int(secrets.get("step", "0"))
    step = max(int(time.time()) // STEP, used + 1)
    secrets["step"] = str(step)
    return TOTP(secrets["totp"]).generate_otp(step)


async def test_an_authenticator_app_is_set_up(anna: Visitor, installation: Installation) -> None:
    await anna.page.goto(installation.link)
    await expect(anna.message).to_be_visible()
    await anna.open("/settings")
    await anna.button("Set up an authenticator app").click()
    await expect(anna.page.get_by_role("img", name="QR code for your authenticator app")).to_be_visible()
    secrets["totp"] = await anna.page.locator(".totp-secret").inner_text()
    await anna.page.get_by_role("textbox", name="Code", exact=True).fill(next_code())
    await anna.button("Turn it on").click()
    codes = anna.page.get_by_role("status", name="Your backup codes")
    await expect(codes).to_have_text(re.compile(r"([2-9A-Z]{4}-[2-9A-Z]{4}\s*){8}"))
    secrets["backup"] = (await codes.locator("pre").inner_text()).splitlines()[0]
    await expect(anna.page.get_by_text("8 backup codes are left")).to_be_visible()


async def test_a_key_is_made_shown_once_and_revoked(anna: Visitor) -> None:
    await anna.page.get_by_role("textbox", name="Name of the new key").fill("backup script")
    await expect(anna.button("Make a key")).to_be_disabled()
    await anna.page.get_by_role("checkbox", name="agent:read").check()
    await anna.button("Make a key").click()
    await expect(anna.page.get_by_role("status", name="Your new key")).to_contain_text("ocmt_")
    await anna.page.reload()
    listed = anna.page.get_by_text("backup script", exact=False).first
    await expect(listed).to_contain_text("never used")
    assert await anna.page.get_by_text(re.compile(r"ocmt_[\w-]{20}")).count() == 0
    await anna.button("Revoke").click()
    await expect(anna.page.get_by_text("backup script", exact=False)).to_have_count(0)


async def test_from_now_on_the_link_alone_does_not_do(anna: Visitor, installation: Installation) -> None:
    anna.expected += ["status of 401", "status of 403"]
    who = await anna.page.locator(".who").inner_text()
    await anna.page.get_by_role("button", name="Sign out", exact=True).first.click()
    await expect(anna.page.get_by_role("heading", name="Sign in to OCMT")).to_be_visible()
    port = installation.url.rpartition(":")[2]
    await anna.page.goto((await installation.command("users", "login-link", who, "--port", port)).strip())
    code = anna.page.get_by_role("textbox", name="Code of your authenticator app, or a backup code")
    await code.fill("000000")
    await anna.button("Go on").click()
    await expect(anna.page.get_by_role("alert")).to_contain_text("This code is wrong")
    await code.fill(next_code())
    await anna.button("Go on").click()
    await expect(anna.message).to_be_visible()


async def test_the_account_tells_what_happened_and_signs_another_browser_out(
    anna: Visitor, browser: Browser, installation: Installation
) -> None:
    who = await anna.page.locator(".who").inner_text()
    context = await browser.new_context()
    other = await Visitor.arrive(context, installation.url)
    port = installation.url.rpartition(":")[2]
    await other.page.goto((await installation.command("users", "login-link", who, "--port", port)).strip())
    code = other.page.get_by_role("textbox", name="Code of your authenticator app, or a backup code")
    await code.fill(secrets["backup"].lower())
    await other.button("Go on").click()
    await expect(other.message).to_be_visible()

    await anna.open("/settings")
    trail = anna.page.get_by_role("region", name="What happened to your account")
    await expect(trail).to_contain_text("A backup code was used")
    sessions = anna.page.get_by_role("region", name="Where you are signed in")
    await expect(sessions.get_by_role("listitem")).to_have_count(2)
    await sessions.get_by_role("button", name="Sign out", exact=True).click()
    await expect(sessions.get_by_role("listitem")).to_have_count(1)
    await other.page.reload()
    await expect(other.page.get_by_role("heading", name="Sign in to OCMT")).to_be_visible()
    await context.close()


async def test_a_passkey_of_this_device_signs_in_by_itself(anna: Visitor) -> None:
    session = await anna.page.context.new_cdp_session(anna.page)
    await session.send("WebAuthn.enable")
    await session.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
                "automaticPresenceSimulation": True,
            }
        },
    )
    await anna.open("/settings")
    passkeys = anna.page.get_by_role("region", name="Passkeys")
    await passkeys.get_by_role("button", name="Add a passkey of this device").click()
    await expect(passkeys.get_by_role("listitem")).to_contain_text("never used")
    await anna.page.get_by_role("button", name="Sign out", exact=True).first.click()
    await anna.button("Use a passkey").click()
    await expect(anna.message).to_be_visible()
    await anna.open("/settings")
    await expect(passkeys.get_by_role("listitem")).to_contain_text("last used")
