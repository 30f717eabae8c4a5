"""A person at a browser: finds things by what they are called on the screen, notes the page's complaints.

Nothing here knows a CSS class where an accessible name says it: what these tests reach, a screen reader does.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    FilePayload,
    Locator,
    Page,
    ViewportSize,
    expect,
)

WAKING_MS = 180_000
IMAGES = Path(__file__).parents[2] / "docs" / "images"
WANTS_IMAGES = bool(os.environ.get("OCMT_SCREENSHOTS"))

# Runs before the page's own scripts. It keeps what passes by too quickly to be asked for: every line of
# waiting, and how an answer grew.
WATCH = """
const seen = (window.seen = { violations: [], clicked: null, waking: null, lines: [], lengths: [] });
addEventListener("securitypolicyviolation", (event) => {
  seen.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
addEventListener("click", (event) => { seen.clicked = event.timeStamp; }, true);
new MutationObserver(() => {
  const line = document.querySelector(".wait-line > span:not(.spinner)")?.textContent;
  if (line && seen.lines.at(-1) !== line) seen.lines.push(line);
  if (line?.startsWith("Waking") && seen.waking === null) {
    seen.waking = 0;
    requestAnimationFrame(() => setTimeout(() => { seen.waking = performance.now(); }));
  }
  const answers = document.querySelectorAll('article[aria-label="Answer"][aria-busy="true"] .markdown');
  const length = [...answers].at(-1)?.textContent.length;
  if (length && seen.lengths.at(-1) !== length) seen.lengths.push(length);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


DESK: ViewportSize = {"width": 1200, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}


@dataclass
class Visitor:
    """One tab."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)
    """What the console and the page's scripts said: errors and warnings."""
    expected: list[str] = field(default_factory=list)
    """Parts of complaints that a test caused on purpose: each may come any number of times."""

    @classmethod
    async def arrive(cls, context: BrowserContext, base: str) -> Visitor:
        """A new tab of this browser, at nothing yet."""
        page = await context.new_page()
        visitor = cls(page, base)
        page.on("console", visitor._on_console)
        page.on("pageerror", lambda error: visitor.complaints.append(f"error: {error}"))
        await page.add_init_script(WATCH)
        return visitor

    @classmethod
    @asynccontextmanager
    async def at_a_desk(cls, browser: Browser, base: str, **options: Any) -> AsyncIterator[Visitor]:
        """A browser of their own, closed at the end. `options`: of Playwright's context."""
        context = await browser.new_context(viewport=DESK, **{"color_scheme": "dark", **options})
        yield await cls.arrive(context, base)
        await context.close()

    @asynccontextmanager
    async def on_a_phone(self, browser: Browser, **options: Any) -> AsyncIterator[Visitor]:
        """The same person with a telephone, signed in as here."""
        context = await browser.new_context(
            viewport=PHONE,
            has_touch=True,
            is_mobile=True,
            storage_state=await self.page.context.storage_state(),
            **{"color_scheme": "dark", **options},
        )
        yield await Visitor.arrive(context, self.base)
        await context.close()

    async def sign_in(self, link: str) -> None:
        """By a link that was handed over."""
        await self.page.goto(link)
        await expect(self.message).to_be_visible()

    def unexpected(self) -> list[str]:
        """The complaints that nobody asked for."""
        return [
            complaint
            for complaint in self.complaints
            if not any(expected in complaint for expected in self.expected)
        ]

    async def seen(self, name: str) -> Any:
        """What the page has kept under this name: see WATCH."""
        return await self.page.evaluate(f"() => window.seen.{name}")

    @property
    def message(self) -> Locator:
        """The box in which one writes."""
        return self.page.get_by_role("textbox", name="Message")

    @property
    def to_send(self) -> Locator:
        """The files that go with the next message."""
        return self.page.get_by_role("list", name="Files to send").get_by_role("listitem")

    @property
    def answers(self) -> Locator:
        """All answers of the conversation."""
        return self.page.get_by_role("article", name="Answer", exact=True)

    @property
    def own_messages(self) -> Locator:
        """All messages of the user."""
        return self.page.get_by_role("article", name="Your message")

    def button(self, name: str) -> Locator:
        """A button by its exact name."""
        return self.page.get_by_role("button", name=name, exact=True)

    async def open(self, path: str) -> None:
        """Type an address."""
        await self.page.goto(self.base + path)

    async def write(self, text: str) -> None:
        """Write a message and press Enter."""
        await self.message.fill(text)
        await self.message.press("Enter")

    async def attach(self, *files: FilePayload) -> None:
        """Choose files from the disk for the next message."""
        async with self.page.expect_file_chooser() as chooser:
            await self.button("Attach files").click()
        await (await chooser.value).set_files(files)

    async def answer(self, count: int) -> Locator:
        """The last answer, once it is whole and there are `count` of them."""
        await expect(self.answers).to_have_count(count, timeout=WAKING_MS)
        last = self.answers.last
        await expect(last).to_have_attribute("aria-busy", "false", timeout=WAKING_MS)
        return last

    async def ask(self, text: str) -> Locator:
        """Write a message; its answer, once it is whole."""
        before = await self.answers.count()
        await self.write(text)
        return await self.answer(before + 1)

    async def try_again(self) -> None:
        """Ask once more for the last answer; returns when it is on its way."""
        await self.answers.last.get_by_role("button", name="Try again").click()
        await expect(self.answers.last).to_have_attribute("aria-busy", "true")

    async def expect_agent(self, word: str) -> None:
        """Wait until the agent is said to be in this state."""
        state = self.page.get_by_role("status", name="Agent state")
        await expect(state).to_have_text(word, timeout=WAKING_MS)

    async def picture(self, name: str, part: Locator | None = None) -> None:
        """A screenshot for the documentation, where OCMT_SCREENSHOTS asks for them."""
        if WANTS_IMAGES:
            IMAGES.mkdir(parents=True, exist_ok=True)
            what = part or self.page
            await what.screenshot(path=IMAGES / f"{name}.png", animations="disabled", caret="hide")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")
