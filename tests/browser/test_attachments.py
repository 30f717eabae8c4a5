"""Files that are sent with messages, in a real browser: chosen, dropped, pasted, removed, sent and seen.

One installation and one agent serve the whole story, told in order. The agent is the real OpenClaw, which
takes the files; the demo model behind it does not look at them.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, FilePayload, Locator, expect

from ocmt.testing.installation import Installation
from tests.browser.visitor import Visitor
from tests.pictures import png

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.browser,
    pytest.mark.timeout(300),
]


def text_file(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "text/plain", "buffer": content}


def picture(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": content}


PHOTO = png(800, 600)
NOTES = "Milk, eggs and a Käsekuchen.\n".encode()


@pytest.fixture(scope="module")
async def anna(browser: Browser, installation: Installation) -> AsyncIterator[Visitor]:
    async with Visitor.at_a_desk(browser, installation.url) as visitor:
        await visitor.sign_in(installation.link)
        yield visitor


async def expect_picture(image: Locator) -> None:
    """It is there, it is seen, and it is not the sign of a broken one."""
    await expect(image).to_be_visible()
    await expect(image).to_have_js_property("complete", True)
    assert await image.evaluate("image => image.naturalWidth") > 0


async def test_chosen_files_are_uploaded_and_can_be_removed(anna: Visitor) -> None:
    await expect(anna.button("Send")).to_be_disabled()
    await anna.attach(
        picture("beach.png", PHOTO), text_file("notes.txt", NOTES), text_file("old.txt", b"no longer")
    )
    await expect(anna.to_send).to_have_count(3)
    await expect(anna.to_send.nth(0)).to_contain_text("KB")
    await expect(anna.to_send.nth(1)).to_contain_text(f"{len(NOTES)} bytes")
    await expect(anna.to_send.nth(0).locator("img")).to_have_attribute("src", re.compile("^data:image/"))
    await expect(anna.button("Send")).to_be_enabled()
    async with anna.page.expect_request(lambda request: request.method == "DELETE") as removal:
        await anna.button("Remove old.txt").click()
    response = await (await removal.value).response()
    assert response is not None
    assert response.status == 204
    await expect(anna.to_send).to_have_count(2)
    await expect(anna.message).to_be_focused()


async def test_an_empty_file_is_refused_in_plain_words_and_the_others_stay(anna: Visitor) -> None:
    await anna.attach(text_file("nothing.txt", b""))
    await expect(anna.page.get_by_role("alert")).to_have_text("The file nothing.txt is empty.")
    await expect(anna.to_send).to_have_count(2)


async def test_they_outlive_a_look_at_another_page(anna: Visitor) -> None:
    await anna.page.get_by_role("link", name="Settings", exact=True).click()
    await expect(anna.message).to_have_count(0)
    await anna.button("New conversation").click()
    await expect(anna.to_send).to_have_count(2)


async def test_a_message_shows_its_files_at_once_and_the_agent_answers(anna: Visitor) -> None:
    await anna.write("hello, what is in these?")
    await expect(anna.to_send).to_have_count(0)
    message = anna.own_messages.last
    await expect(message).to_contain_text("hello, what is in these?", timeout=1000)
    await expect_picture(message.get_by_role("img", name="beach.png"))
    await expect(message.get_by_role("link", name=f"Download notes.txt, {len(NOTES)} bytes")).to_be_visible()
    await expect(await anna.answer(1)).to_contain_text("demo model")


async def test_after_a_reload_they_are_there_to_be_seen_and_downloaded(anna: Visitor, tmp_path: Path) -> None:
    await anna.page.reload()
    message = anna.own_messages.last
    image = message.get_by_role("img", name="beach.png")
    await expect_picture(image)
    async with anna.page.expect_download() as downloading:
        await message.get_by_role("link", name="Download notes.txt").click()
    download = await downloading.value
    assert download.suggested_filename == "notes.txt"
    await download.save_as(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_bytes() == NOTES
    async with anna.page.context.expect_page() as opening:
        await image.click()
    opened = await opening.value
    await opened.wait_for_load_state()
    assert await opened.evaluate("document.images[0].naturalWidth") == 800
    await opened.close()


async def test_files_can_be_sent_without_a_word_and_another_window_sees_them(anna: Visitor) -> None:
    other = await Visitor.arrive(anna.page.context, anna.base)
    await other.page.goto(anna.page.url)
    await expect(other.own_messages).to_have_count(1)
    await anna.attach(picture("a.png", PHOTO), picture("b.png", png(40, 30)))
    await expect(anna.button("Send")).to_be_enabled()
    await anna.button("Send").click()
    await anna.answer(2)
    for visitor in (anna, other):
        await expect(visitor.own_messages).to_have_count(2)
        await expect_picture(visitor.own_messages.last.get_by_role("img", name="a.png"))
        await expect_picture(visitor.own_messages.last.get_by_role("img", name="b.png"))
    assert other.unexpected() == []
    await other.page.close()


GIVE = """([kind, name, type, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name, { type }));
  const what = document.getElementById("message");
  if (kind === "paste")
    what.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
  else what.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


async def test_files_can_be_dropped_and_pasted(anna: Visitor) -> None:
    zone = anna.page.get_by_text("Drop files to send them with your message")
    await anna.page.evaluate(GIVE, ["dragover", "dropped.txt", "text/plain", "a"])
    await expect(zone).to_be_visible()
    await anna.page.evaluate(GIVE, ["drop", "dropped.txt", "text/plain", "a"])
    await expect(zone).to_have_count(0)
    await anna.page.evaluate(GIVE, ["paste", "pasted.txt", "text/plain", "b"])
    await expect(anna.to_send).to_contain_text(["dropped.txt", "pasted.txt"])
    for name in ("dropped.txt", "pasted.txt"):
        await anna.button(f"Remove {name}").click()
    await expect(anna.to_send).to_have_count(0)


async def test_an_upload_that_fails_says_so_and_goes_on_trying_again(anna: Visitor) -> None:
    anna.expected += ["ERR_INTERNET_DISCONNECTED", "ERR_NETWORK_CHANGED"]
    before = await anna.answers.count()
    await anna.page.context.set_offline(True)
    await anna.attach(text_file("late.txt", b"better than never"))
    await expect(anna.to_send.get_by_role("alert")).to_contain_text("The server does not answer.")
    await anna.message.fill("hello, it comes late")
    await expect(anna.button("Send")).to_be_disabled()
    await anna.message.press("Enter")
    await expect(anna.page.get_by_role("alert").filter(has_text="could not be uploaded")).to_be_visible()
    await anna.page.context.set_offline(False)
    await anna.button("Try again: late.txt").click()
    await expect(anna.to_send).to_contain_text("17 bytes")
    await expect(anna.page.get_by_role("alert")).to_have_count(0)
    await anna.message.press("Enter")
    await anna.answer(before + 1)
    await expect(anna.own_messages.last.get_by_role("link", name="Download late.txt")).to_be_visible()


async def test_a_refused_message_comes_back_with_its_files(anna: Visitor) -> None:
    anna.expected.append("status of 413")
    before = await anna.own_messages.count()
    await anna.attach(text_file("kept.txt", b"kept"))
    await expect(anna.button("Send")).to_be_enabled()
    text = "a long day " * 30_000
    await anna.write(text)
    await expect(anna.page.get_by_role("alert")).to_contain_text("at most 256 KB fit into one")
    await expect(anna.message).to_have_value(text)
    await expect(anna.to_send).to_contain_text(["kept.txt"])
    await expect(anna.own_messages).to_have_count(before)
    await anna.ask("hello, kept")
    await expect(anna.own_messages.last.get_by_role("link", name="Download kept.txt")).to_be_visible()


async def test_a_picture_that_is_too_large_for_the_agent_goes_as_a_smaller_copy(anna: Visitor) -> None:
    large = png(2800, 900, noise=True)
    assert len(large) > 6 * 1024**2
    before = await anna.answers.count()
    await anna.attach(picture("noise.png", large))
    await expect(anna.to_send).to_contain_text("noise.webp")
    await expect(anna.button("Send")).to_be_enabled()
    await anna.button("Send").click()
    await anna.answer(before + 1)
    await expect_picture(anna.own_messages.last.get_by_role("img", name="noise.webp"))


async def test_as_much_goes_as_a_message_takes_and_no_more(anna: Visitor) -> None:
    before = await anna.answers.count()
    await anna.attach(text_file("large.txt", b"x" * 15 * 1024**2), text_file("more.txt", b"x" * 2 * 1024**2))
    await expect(anna.page.get_by_role("alert")).to_contain_text("one message takes 16 MB at most")
    await expect(anna.to_send).to_have_count(1)
    await expect(anna.to_send).to_contain_text("15 MB")
    await anna.write("hello, read this")
    await anna.answer(before + 1)


async def test_a_picture_that_is_gone_is_shown_as_a_file(anna: Visitor) -> None:
    anna.expected.append("status of 404")
    await anna.page.route("**/agent/attachments/*", lambda route: route.fulfill(status=404))
    await anna.page.reload()
    await anna.own_messages.first.scroll_into_view_if_needed()
    await expect(anna.own_messages.first.get_by_role("link", name="Download beach.png")).to_be_visible()
    await anna.page.unroute_all()


async def test_it_is_usable_on_a_phone(anna: Visitor, browser: Browser) -> None:
    async with anna.on_a_phone(browser, color_scheme="light") as phone:
        await phone.page.goto(anna.page.url)
        await expect(phone.own_messages.first).to_be_visible()
        await phone.attach(picture("a-picture-with-quite-a-long-name-of-a-holiday.png", PHOTO))
        await expect(phone.to_send).to_have_count(1)
        await expect(phone.button("Send")).to_be_in_viewport(ratio=1)
        sizes = await phone.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert sizes[0] <= sizes[1], "nothing is wider than the phone"
        assert phone.unexpected() == []
