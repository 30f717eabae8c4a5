"""A person's first visit in a real browser, with everything real behind it, as in the journey of a first day.

One installation and one agent serve the whole story, told in order: OpenClaw takes some ten seconds of
processor time for every start. OCMT_SCREENSHOTS=1 renews the pictures in docs/images.
"""

import re
from collections.abc import AsyncIterator

import anyio
import pytest
from playwright.async_api import Browser, expect

from ocmt.testing.installation import Installation
from tests.browser.visitor import Visitor

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.browser,
    pytest.mark.timeout(300),
]

HOSTILE = (
    """<img src=x onerror="document.title='taken'"> <svg onload="document.title='taken'"></svg>
<iframe srcdoc="<p>hi</p>"></iframe><style>body { display: none }</style><base href="//evil.example">
<form action="//evil.example"><button>Send</button></form>

```html
<img src=x onerror="document.title='taken'">
```""",
    """[one](java&#115;cript:document.title='taken') [two](vbscript:x) [three](data:text/html;base64,PGI+)
[four](//evil.example) ![a picture](https://evil.example/pixel.png)
[fine](https://example.org/ 'a title" onclick="x')""",
)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {"OCMT_TURN_CALL_LIMIT": "3"}


@pytest.fixture(scope="module")
async def anna(browser: Browser, installation: Installation) -> AsyncIterator[Visitor]:
    clipboard = ["clipboard-read", "clipboard-write"]
    async with Visitor.at_a_desk(browser, installation.url, permissions=clipboard) as visitor:
        yield visitor


async def test_the_printed_link_signs_in_and_its_token_leaves_the_address(
    anna: Visitor, installation: Installation
) -> None:
    assert "#token=" in installation.link
    await anna.page.goto(installation.link)
    await expect(anna.message).to_be_visible()
    assert anna.page.url == f"{installation.url}/"


async def test_a_newcomer_is_told_what_this_is_and_what_to_do(anna: Visitor) -> None:
    await expect(anna.page.get_by_role("heading", name="Meet your agent")).to_be_visible()
    await expect(anna.page.get_by_text("No conversations yet")).to_be_visible()
    for suggestion in ("hello", "write hello.txt", "what can you do?"):
        await expect(anna.button(suggestion)).to_be_visible()
    await expect(
        anna.page.get_by_role("link", name="demo model: add a key to talk to Claude")
    ).to_be_visible()
    await anna.expect_agent("Asleep")
    await anna.picture("welcome")


async def test_a_click_shows_at_once_that_the_agent_wakes_and_then_how_far_it_is(anna: Visitor) -> None:
    await anna.button("hello").click()
    await expect(anna.own_messages).to_have_text("hello")
    await expect(anna.page.get_by_text(re.compile("^Waking|sandbox|OpenClaw")).first).to_be_visible()
    took = await anna.seen("waking") - await anna.seen("clicked")
    print(f"from the click to the first sign of waking: {took:.0f} ms")  # `pytest -rP` shows it
    assert took < 1000, "the first progress is there before the server has said anything"
    await expect(anna.page.get_by_text("Starting OpenClaw")).to_be_visible()
    await anna.expect_agent("Waking")
    await anna.picture("waking")

    await anna.button("Agent: Waking").click()
    panel = anna.page.get_by_role("dialog", name="Your agent")
    steps = panel.get_by_role("list", name="Steps of waking").get_by_role("listitem")
    await expect(steps).to_have_count(3)
    await expect(steps.filter(has_text="Starting OpenClaw")).to_be_visible()
    await expect(panel.locator("[aria-current=step]")).to_have_count(1)
    await anna.page.keyboard.press("Escape")
    await expect(panel).to_be_hidden()


async def test_the_answer_streams_in_and_names_the_model(anna: Visitor) -> None:
    answer = await anna.answer(1)
    await expect(answer).to_contain_text("I am the demo model of this installation")
    await expect(answer).to_contain_text("1 model call")
    lengths = await anna.seen("lengths")
    assert len(lengths) > 1, "it grew piece by piece"
    assert lengths == sorted(lengths)
    lines = await anna.seen("lines")
    assert lines[0].startswith("Waking")
    assert "Starting OpenClaw" in lines
    await anna.expect_agent("Awake")
    assert re.fullmatch(r".*/chat/[0-9a-f-]{36}", anna.page.url)
    conversations = anna.page.get_by_role("navigation", name="Conversations")
    await expect(conversations.get_by_role("link", name="hello")).to_have_attribute("aria-current", "page")
    await expect(anna.button("Stop")).to_be_hidden()


async def test_code_is_coloured_and_can_be_copied(anna: Visitor) -> None:
    answer = await anna.ask("show me code")
    await expect(answer.locator("pre .hljs-keyword").first).to_have_text("def")
    await answer.get_by_role("button", name="Copy", exact=True).click()
    await expect(answer.get_by_role("button", name="Copied")).to_be_visible()
    copied = await anna.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("def fibonacci(count: int)")


async def test_the_agent_uses_its_tools_and_the_row_says_so(anna: Visitor) -> None:
    answer = await anna.ask("write hello.txt")
    tools = answer.get_by_role("list", name="Tools used").get_by_role("listitem")
    await expect(tools).to_have_count(1)
    await expect(tools).to_contain_text("write")
    await expect(tools).to_contain_text("done")
    await expect(answer).to_contain_text("Done: I wrote hello.txt in your workspace.")
    await anna.picture("chat-dark")
    await anna.page.emulate_media(color_scheme="light")
    await anna.picture("chat-light")
    await anna.page.emulate_media(color_scheme="dark")


async def test_an_answer_reloaded_half_way_completes_with_nothing_doubled(anna: Visitor) -> None:
    before = await anna.answers.count()
    await anna.write("count to 200")
    await expect(anna.answers.last).to_contain_text(" 21,")
    await anna.page.reload()
    await expect(anna.answers).to_have_count(before + 1)
    assert await anna.answers.last.get_attribute("aria-busy") == "true", "it was reloaded while it streamed"
    answer = await anna.answer(before + 1)
    assert len(await anna.seen("lengths")) > 3, "it went on streaming"
    numbers = ", ".join(str(number) for number in range(1, 201))
    await expect(answer.locator(".markdown > .block").first).to_have_text(f"{numbers}.")
    await expect(anna.own_messages.filter(has_text="count to 200")).to_have_count(1)
    await anna.page.reload()
    await expect(answer.locator(".markdown > .block").first).to_have_text(f"{numbers}.")
    await expect(anna.answers).to_have_count(before + 1)


async def test_an_answer_can_be_stopped_and_asked_for_again(anna: Visitor) -> None:
    async def stop() -> None:
        await expect(anna.answers.last).to_contain_text("keeper")
        await anna.button("Stop").click()
        await expect(anna.answers.last).to_contain_text("Stopped.")
        await expect(anna.answers.last).to_have_attribute("aria-busy", "false")
        await expect(anna.button("Stop")).to_be_hidden()

    await anna.write("tell me a long story")
    await stop()
    await anna.try_again()
    await stop()


async def test_a_failure_is_said_in_plain_words_and_can_be_tried_again(anna: Visitor) -> None:
    answer = await anna.ask("loop forever")
    await expect(answer).to_contain_text("3")
    await expect(answer.get_by_role("button", name="Try again")).to_be_visible()
    await anna.page.reload()
    await expect(anna.answers.last.get_by_role("button", name="Try again")).to_be_visible()


async def test_twelve_tabs_of_one_browser_all_work(anna: Visitor, installation: Installation) -> None:
    """Over HTTP/1.1, as here, a browser has six connections for all of its tabs together."""
    tabs = [await Visitor.arrive(anna.page.context, installation.url) for _ in range(11)]
    for tab in tabs:
        await tab.page.goto(anna.page.url)
        await expect(tab.answers.first).to_be_visible()
    count = await anna.answers.count()
    for asker in (tabs[-1], anna, tabs[0]):
        await asker.ask("hello")
        count += 1
        for tab in (anna, *tabs):
            await expect(tab.answers).to_have_count(count)
            await expect(tab.answers.last).to_have_attribute("aria-busy", "false")
            assert await tab.page.evaluate("fetch('/api/v1/me').then((answer) => answer.status)") == 200
    for tab in tabs:
        assert tab.unexpected() == []
        await tab.page.close()


async def test_everything_needed_works_by_keyboard_alone(anna: Visitor) -> None:
    await anna.page.reload()
    await expect(anna.answers.last).to_be_visible()
    before = await anna.answers.count()
    await anna.page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        await anna.page.keyboard.press("Tab")
        if await anna.message.evaluate("box => box === document.activeElement"):
            break
    await expect(anna.message).to_be_focused()
    await anna.page.keyboard.type("hello")
    await anna.page.keyboard.press("Shift+Enter")
    await anna.page.keyboard.type("from the keyboard")
    await expect(anna.message).to_have_value("hello\nfrom the keyboard")
    await anna.page.keyboard.press("Tab")
    await expect(anna.button("Send")).to_be_focused()
    await anna.page.keyboard.press("Enter")
    await expect(anna.own_messages.last).to_have_text("hello\nfrom the keyboard")
    await anna.answer(before + 1)
    await expect(anna.message).to_be_focused()


async def test_a_message_of_a_megabyte_is_refused_in_plain_words_and_kept(anna: Visitor) -> None:
    anna.expected.append("status of 413")
    before = await anna.own_messages.count()
    text = "a long day " * 100_000
    await anna.write(text)
    alert = anna.page.get_by_role("alert")
    await expect(alert).to_contain_text("at most 256 KB fit into one")
    await expect(anna.message).to_have_value(text)
    await expect(anna.own_messages).to_have_count(before)
    await anna.ask("hello")
    await expect(alert).to_have_count(0)


async def test_an_answer_cannot_bring_anything_into_the_page_but_text(anna: Visitor) -> None:
    title = await anna.page.title()
    foreign = (
        "img, svg:not(.icon), iframe, style, base, form, script, [onerror], [onload], [onclick], [style]"
    )
    for text in HOSTILE:
        answer = await anna.ask(text)
        await expect(answer).to_contain_text("You wrote:")
        await expect(answer.locator(foreign)).to_have_count(0)
    markup = anna.answers.nth(-2)
    await expect(markup).to_contain_text("<img src=x onerror=")
    await expect(markup.locator("pre .hljs-tag").first).to_be_visible()
    links = answer.get_by_role("link")
    addresses = await links.evaluate_all("links => links.map(link => link.href)")
    assert addresses == ["https://evil.example/pixel.png", "https://example.org/"]
    await expect(links.last).to_have_attribute("title", 'a title" onclick="x')
    for link in await links.all():
        assert await link.get_attribute("rel") == "noopener noreferrer"
    assert await anna.page.title() == title


async def test_a_message_sent_without_a_connection_waits_to_be_sent_again(
    anna: Visitor,
) -> None:
    anna.expected += ["ERR_INTERNET_DISCONNECTED", "ERR_NETWORK_CHANGED"]
    before = await anna.answers.count()
    await anna.page.context.set_offline(True)
    await anna.write("hello, is anybody there?")
    await expect(anna.page.get_by_role("alert")).to_contain_text("Not sent. The server does not answer.")
    await anna.page.context.set_offline(False)
    await anna.button("Send again").click()
    await anna.answer(before + 1)
    await expect(anna.own_messages.filter(has_text="is anybody there?")).to_have_count(1)


async def test_conversations_are_kept_apart_renamed_and_deleted(anna: Visitor) -> None:
    first = anna.page.url
    await anna.button("New conversation").click()
    await expect(anna.page.get_by_role("heading", name="What shall we do?")).to_be_visible()
    await anna.ask("what can you do?")
    assert anna.page.url != first
    await expect(anna.answers).to_have_count(1)
    conversations = anna.page.get_by_role("navigation", name="Conversations")
    await expect(conversations.get_by_role("link")).to_have_text(["what can you do?", "hello"])

    await anna.button("Rename what can you do?").click()
    await anna.page.get_by_role("textbox", name="Title").fill("Abilities")
    await anna.page.keyboard.press("Enter")
    await expect(conversations.get_by_role("link", name="Abilities")).to_be_visible()
    await expect(anna.page.get_by_role("heading", name="Abilities")).to_be_visible()

    second = anna.page.url
    await anna.button("Delete Abilities").click()
    await anna.page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    await expect(conversations.get_by_role("link")).to_have_text(["hello"])
    assert anna.page.url == f"{anna.base}/"

    anna.expected.append("status of 404")
    await anna.page.goto(second)
    await expect(anna.page.get_by_role("heading", name="This conversation is not here")).to_be_visible()
    await anna.page.goto(first)
    await expect(anna.answers.first).to_contain_text("Hello!")


async def test_it_is_usable_on_a_phone(anna: Visitor, browser: Browser) -> None:
    async with anna.on_a_phone(browser) as phone:
        await phone.open("/")
        await expect(phone.page.get_by_role("heading", name="What shall we do?")).to_be_visible()
        await phone.button("Menu").tap()
        drawer = phone.page.get_by_role("dialog", name="OCMT")
        await drawer.get_by_role("link", name="hello").tap()
        await expect(drawer).to_be_hidden()
        await expect(phone.answers.first).to_contain_text("Hello!")
        before = await phone.answers.count()
        await phone.message.fill("show me code")
        await phone.button("Send").tap()
        await phone.answer(before + 1)
        await expect(phone.message).to_be_in_viewport(ratio=1)
        await expect(phone.button("Send")).to_be_in_viewport(ratio=1)
        sizes = await phone.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert sizes[0] <= sizes[1], "nothing is wider than the phone"
        await phone.picture("chat-phone")
        await phone.button("Agent: Awake").tap()
        panel = phone.page.get_by_role("dialog", name="Your agent")
        await expect(panel).to_be_visible()
        await expect(panel).to_contain_text("Your agent cannot reach the internet. The operator")
        await expect(panel.get_by_role("switch")).to_have_count(0)
        assert phone.unexpected() == []
        # What is written in one window is seen in the other.
        await expect(anna.own_messages.last).to_have_text("show me code")


async def test_a_key_is_stored_without_coming_back_and_can_be_removed(anna: Visitor) -> None:
    banner = anna.page.get_by_role("link", name="demo model: add a key to talk to Claude")
    await banner.click()
    await expect(anna.page).to_have_url(f"{anna.base}/settings")
    usage = anna.page.get_by_role("region", name="Usage")
    await expect(usage).to_contain_text("The demo model has no limit of tokens.")
    await expect(usage.get_by_role("progressbar")).to_have_count(0)
    await anna.page.get_by_label("Anthropic API key").fill("sk-ant-not-a-real-key-wxyz")
    await anna.button("Save").click()
    await expect(anna.page.get_by_role("status", name="Key")).to_contain_text("Saved")
    await expect(anna.page.get_by_text("wxyz")).to_be_visible()
    await expect(anna.page.get_by_label("Anthropic API key")).to_have_value("")
    assert "not-a-real-key" not in await anna.page.content()
    await expect(anna.page.get_by_text("Your agent uses")).not_to_contain_text("demo model")
    await expect(usage).to_contain_text("0 of 5,000,000 tokens used today")
    await anna.button("Remove").click()
    await anna.page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    await expect(anna.page.get_by_text("Your agent uses")).to_contain_text("demo model")


async def test_the_look_follows_the_system_or_the_choice_and_the_choice_is_kept(anna: Visitor) -> None:
    async def background() -> object:
        return await anna.page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = await background()
    await anna.picture("settings", anna.page.get_by_role("region", name="Model"))
    await anna.page.emulate_media(color_scheme="light")
    light = await background()
    assert light != dark
    await anna.page.get_by_role("radio", name="Dark").check()
    assert await background() == dark
    await anna.page.reload()
    assert await background() == dark
    await anna.page.get_by_role("radio", name="Light").check()
    await anna.page.emulate_media(color_scheme="dark")
    assert await background() == light
    await anna.page.get_by_role("radio", name="As the system").check()
    assert await background() == dark


async def test_put_to_sleep_it_wakes_with_the_next_message_and_remembers(anna: Visitor) -> None:
    await anna.page.get_by_role("navigation", name="Conversations").get_by_role("link", name="hello").click()
    await expect(anna.answers.last).to_be_visible()
    before = await anna.answers.count()
    await anna.button("Agent: Awake").click()
    panel = anna.page.get_by_role("dialog", name="Your agent")
    await expect(panel.get_by_text("demo model", exact=False).first).to_be_visible()
    await anna.picture("agent", panel)
    await panel.get_by_role("button", name="Put to sleep").click()
    await anna.expect_agent("Asleep")
    await expect(panel.get_by_role("button", name="Wake")).to_be_visible()
    await panel.get_by_role("button", name="Close").click()

    await anna.message.press_sequentially("read hello", delay=200)  # as a person types: each key tries
    await anna.expect_agent("Waking")  # who begins to write is expected
    await anna.write("read hello.txt")
    await expect(anna.answers).to_have_count(before + 1)
    await anna.expect_agent("Waking")
    await anna.button("Stop").click()
    await expect(anna.answers.last).to_contain_text("Stopped.")
    await anna.try_again()
    answer = await anna.answer(before + 1)
    await expect(answer).to_contain_text("Hello from the demo model.")
    await anna.expect_agent("Awake")


async def test_signed_out_a_mailed_link_signs_in_again(anna: Visitor, installation: Installation) -> None:
    anna.expected.append("status of 401")
    who = await anna.page.locator(".who").inner_text()
    await anna.page.get_by_role("button", name="Sign out").click()
    await expect(anna.page.get_by_role("heading", name="Sign in to OCMT")).to_be_visible()
    printed = len(installation.output)
    await anna.page.get_by_role("textbox", name="E-mail").fill(who)
    await anna.picture("sign-in")
    await anna.button("Send me a link").click()
    await expect(anna.page.get_by_text("we sent you a link")).to_be_visible()
    with anyio.fail_after(10):
        while not (mails := [line for line in installation.output[printed:] if "#token=" in line]):
            await anyio.sleep(0.05)
    assert mails[0].startswith(f"mail for {who}:")
    await anna.page.goto(mails[0][mails[0].index("http") :])
    await expect(anna.page.get_by_role("link", name="hello")).to_be_visible()
    assert "#" not in anna.page.url
    await anna.open("/sign-in")
    await expect(anna.message).to_be_visible()
