"""The event stream as browsers get it: replay, resume, ping, and an end that leaves nothing behind."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.types import Message

from ocmt.chat import log
from ocmt.chat.model import Event, EventType, Turn
from ocmt.chat.service import Chat
from ocmt.chat.stream import CHECK_EVERY, PING_INTERVAL, EventStream
from ocmt.errors import InvalidInput, NotFound, Unauthenticated, Unavailable
from ocmt.platform.database import Database, Hints
from ocmt.platform.principal import Principal
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import MemoryObjects
from tests.accounts import make_user
from tests.agents.replica import until

pytestmark = pytest.mark.anyio


@dataclass
class Browser:
    """Reads one stream."""

    text: str = ""
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    ended: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.text += message["body"].decode()
            self.ended = not message["more_body"]

    def events(self) -> list[tuple[int, str, dict[str, Any]]]:
        found = []
        for frame in self.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
            if "data" in fields:
                found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
        return found

    def numbers(self) -> list[int]:
        return [number for number, _, _ in self.events()]


@pytest.fixture
def chat(database: Database, clock: VirtualClock) -> Chat:
    return Chat(database, clock, MemoryObjects())


@pytest.fixture
def stream(chat: Chat, database: Database, hints: Hints, clock: VirtualClock) -> EventStream:
    return EventStream(chat, database, hints, clock)


@pytest.fixture
async def turn(chat: Chat, anna: UUID, database: Database, clock: VirtualClock) -> Turn:
    """With five events."""
    turn = await chat.post(anna, (await chat.create_conversation(anna)).id, "hello", key="k")
    for number in range(4):
        await say(database, clock, turn, f"{number}\n")
    return turn


async def say(database: Database, clock: VirtualClock, turn: Turn, text: str) -> None:
    async with database.connection() as connection:
        await log.append(
            connection,
            clock,
            user_id=turn.user_id,
            conversation_id=turn.conversation_id,
            events=[Event(EventType.DELTA, turn.id, {"text": text})],
            lease_token=None,
        )


def scope(user_id: UUID | None, conversation_id: object, query: str = "", last: str = "") -> dict[str, Any]:
    principal = Principal(user_id, None, "anna@example.org") if user_id else None
    return {
        "type": "http",
        "method": "GET",
        "path": f"/agent/conversations/{conversation_id}/events",
        "query_string": query.encode(),
        "headers": [(b"last-event-id", last.encode())] if last else [],
        "path_params": {"conversation_id": str(conversation_id)},
        "state": {"principal": principal} if principal else {},
    }


@asynccontextmanager
async def reading_at_once(stream: EventStream, asked: dict[str, Any]) -> AsyncIterator[Browser]:
    """Open one, beside others; at the end the browser goes away."""
    browser = Browser()
    serving = asyncio.create_task(stream(asked, browser.receive, browser.send))
    try:
        yield browser
    finally:
        browser.gone.set()
        await asyncio.wait_for(serving, 5)


@asynccontextmanager
async def reading(stream: EventStream, asked: dict[str, Any]) -> AsyncIterator[Browser]:
    """Open the only one; with it goes every task that served it."""
    async with reading_at_once(stream, asked) as browser:
        yield browser
    names = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
    assert not {name for name in names if name.startswith(("EventStream.", "disconnected"))}
    assert log.CHANNEL not in stream._feeds._hints._subscriptions


async def test_it_replays_and_then_follows(
    stream: EventStream, anna: UUID, turn: Turn, database: Database, clock: VirtualClock
) -> None:
    async with reading(stream, scope(anna, turn.conversation_id)) as browser:
        await until(lambda: browser.numbers() == [1, 2, 3, 4, 5])
        await say(database, clock, turn, "later")
        await until(lambda: browser.numbers() == [1, 2, 3, 4, 5, 6])
    assert browser.status == 200
    assert browser.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert browser.headers[b"cache-control"] == b"no-store"
    assert browser.events()[0][1:] == (
        "turn.accepted",
        {"turn_id": str(turn.id), "text": "hello", "attempt": 1},
    )
    assert browser.events()[1][2]["text"] == "0\n", "a line's end does not break the frame"


async def test_without_following_it_ends_once_everything_was_sent(
    stream: EventStream, anna: UUID, turn: Turn
) -> None:
    """For a browser that has no connection to spare: it comes back later with the last number that it saw."""
    for after, expected in ((0, [1, 2, 3, 4, 5]), (3, [4, 5]), (5, [])):
        browser = Browser()
        asked = scope(anna, turn.conversation_id, f"after={after}&follow=0")
        await asyncio.wait_for(stream(asked, browser.receive, browser.send), 10)
        assert (browser.ended, browser.numbers()) == (True, expected)


async def test_without_following_it_ends_with_its_browser_and_its_session_too(
    stream: EventStream, anna: UUID, turn: Turn, clock: VirtualClock
) -> None:
    class Stuck(Browser):
        """Takes nothing of the first piece."""

        async def send(self, message: Message) -> None:
            await super().send(message)
            if self.events() and message.get("more_body"):
                await asyncio.Event().wait()

    asked = scope(anna, turn.conversation_id, "after=0&follow=0")
    browser = Stuck()
    task = asyncio.create_task(stream(asked, browser.receive, browser.send))
    await until(lambda: bool(browser.events()))
    browser.gone.set()
    await asyncio.wait_for(task, 5)

    async def nobody() -> None:
        return None

    asked["state"]["still"] = nobody
    browser = Stuck()
    task = asyncio.create_task(stream(asked, browser.receive, browser.send))
    await until(lambda: bool(browser.events()))
    await clock.advance(CHECK_EVERY)
    await asyncio.wait_for(task, 5)
    assert browser.ended


@pytest.mark.parametrize(
    ("query", "last", "expected"),
    [
        ("after=3", "", [4, 5]),
        ("", "4", [5]),
        ("after=1", "4", [5]),
        ("after=0", "", [1, 2, 3, 4, 5]),
    ],
    ids=["after", "Last-Event-ID", "the header knows more than the address", "from the beginning"],
)
async def test_it_resumes_where_the_browser_left(
    stream: EventStream, anna: UUID, turn: Turn, query: str, last: str, expected: list[int]
) -> None:
    async with reading(stream, scope(anna, turn.conversation_id, query, last)) as browser:
        await until(lambda: browser.numbers() == expected)


async def test_a_quiet_stream_is_kept_open_by_pings(
    stream: EventStream, anna: UUID, turn: Turn, clock: VirtualClock
) -> None:
    async with reading(stream, scope(anna, turn.conversation_id, "after=5")) as browser:
        await clock.wait_for_sleepers(2)  # this stream, and the connection that listens
        await until(lambda: browser.status == 200)
        for _ in range(3):
            await clock.advance(PING_INTERVAL)
            await asyncio.sleep(0.05)
        assert browser.text.count(": ping\n\n") >= 2
    assert browser.events() == []


async def test_it_ends_when_the_process_does(stream: EventStream, anna: UUID, turn: Turn) -> None:
    async with reading(stream, scope(anna, turn.conversation_id)) as browser:
        await until(lambda: browser.numbers() != [])
        stream.closing.set()
        await until(lambda: browser.ended)


class Failing(Database):
    """Answers no question that the stream asks."""

    def __init__(self, real: Database) -> None:
        super().__init__(real._pool)

    def connection(self) -> Any:
        raise Unavailable("The database does not answer just now.")


async def test_a_database_that_goes_away_ends_it_and_the_browser_comes_back(
    chat: Chat, database: Database, hints: Hints, clock: VirtualClock, anna: UUID, turn: Turn
) -> None:
    stream = EventStream(chat, Failing(database), hints, clock)
    async with reading(stream, scope(anna, turn.conversation_id)) as browser:
        await until(lambda: browser.ended)
    assert browser.text == "retry: 500\n\n"


async def test_unknown_and_others_conversations_do_not_exist(
    stream: EventStream, anna: UUID, turn: Turn, database: Database
) -> None:
    bert = await make_user(database, "bert@example.org")
    browser = Browser()
    for asked in (scope(bert, turn.conversation_id), scope(anna, uuid4()), scope(anna, "nonsense")):
        with pytest.raises(NotFound):
            await stream(asked, browser.receive, browser.send)
    with pytest.raises(Unauthenticated):
        await stream(scope(None, turn.conversation_id), browser.receive, browser.send)
    assert browser.status == 0


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "9" * 30, "%D9%A1"])
async def test_a_number_that_is_none_is_refused(
    stream: EventStream, anna: UUID, turn: Turn, after: str
) -> None:
    browser = Browser()
    with pytest.raises(InvalidInput, match="last event"):
        await stream(scope(anna, turn.conversation_id, f"after={after}"), browser.receive, browser.send)


def whole_events(body: bytes) -> list[tuple[int, str]]:
    """As a browser reads them (WHATWG HTML 9.2.6): what its blank line has not come for does not count."""
    found = []
    for block in body.decode("utf-8", "ignore").split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields["id"]), fields["data"]))
    return found


async def test_a_cut_at_any_byte_loses_nothing_and_doubles_nothing(
    stream: EventStream, anna: UUID, turn: Turn, database: Database, clock: VirtualClock
) -> None:
    """Every byte of it, on two replicas in turn, while the agent goes on talking."""
    other = EventStream(stream._chat, database, stream._feeds._hints, clock)
    await say(database, clock, turn, "grüße ✓")
    async with reading(stream, scope(anna, turn.conversation_id)) as browser:
        await until(lambda: len(browser.numbers()) == 6)
        body = browser.text.encode()
    everything = whole_events(body)
    for cut in range(len(body) + 1):
        before = whole_events(body[:cut])
        last = before[-1][0] if before else 0
        resumed = (stream, other)[cut % 2]
        async with reading(resumed, scope(anna, turn.conversation_id, last=str(last))) as browser:
            await until(lambda: len(browser.numbers()) >= len(everything) - last)  # noqa: B023
        assert before + whole_events(browser.text.encode()) == everything


async def test_many_windows_of_one_conversation_ask_the_database_once(
    chat: Chat, database: Database, hints: Hints, clock: VirtualClock, anna: UUID, turn: Turn
) -> None:
    counting = Counting(database)
    stream = EventStream(chat, counting, hints, clock)  # type: ignore[arg-type]
    asked = scope(anna, turn.conversation_id, last="5")
    async with (
        reading_at_once(stream, asked) as first,
        reading_at_once(stream, asked) as second,
        reading_at_once(stream, asked) as third,
    ):
        windows = (first, second, third)
        await until(lambda: all("retry" in each.text for each in windows))
        await say(database, clock, turn, "one")
        await until(lambda: all(each.numbers() == [6] for each in windows))
        before = counting.asked
        await say(database, clock, turn, "two")
        await until(lambda: all(each.numbers() == [6, 7] for each in windows))
        assert counting.asked - before <= 2


async def test_a_window_that_does_not_read_is_let_go_and_comes_back_complete(
    stream: EventStream,
    anna: UUID,
    turn: Turn,
    database: Database,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ocmt.chat.feed.MAX_QUEUED", 1000)
    slow = Stuck()
    serving = asyncio.create_task(
        stream(scope(anna, turn.conversation_id, last="5"), slow.receive, slow.send)
    )
    await until(lambda: slow.stuck)
    for number in range(10):
        await say(database, clock, turn, f"{number} " * 100)
    await asyncio.wait_for(serving, 5)
    assert slow.ended
    async with reading(stream, scope(anna, turn.conversation_id, last="5")) as browser:
        await until(lambda: browser.numbers() == list(range(6, 16)))


class Counting:
    """A database that counts how often it is asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.asked = 0

    def connection(self) -> Any:
        self.asked += 1
        return self._database.connection()


class Stuck(Browser):
    """Takes the head and the first piece, and then reads no more."""

    stuck = False

    async def send(self, message: Message) -> None:
        if self.text and message.get("more_body"):
            await asyncio.Event().wait()
        await super().send(message)
        self.stuck = bool(self.text)


@pytest.mark.parametrize("refusal", [None, Unauthenticated("This token is not valid, or not any more.")])
async def test_it_ends_when_whoever_reads_is_signed_out(
    stream: EventStream, anna: UUID, turn: Turn, clock: VirtualClock, refusal: Unauthenticated | None
) -> None:
    answers: list[object] = [anna, Unavailable("The database does not answer."), refusal]

    async def still() -> object | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    asked = scope(anna, turn.conversation_id)
    asked["state"]["still"] = still
    async with reading_at_once(stream, asked) as browser:
        await until(lambda: len(browser.numbers()) == 5)
        for left in (2, 1):
            await clock.advance(CHECK_EVERY)
            await until(lambda left=left: len(answers) == left)
            assert not browser.ended
        await clock.advance(CHECK_EVERY)
        await until(lambda: browser.ended)
