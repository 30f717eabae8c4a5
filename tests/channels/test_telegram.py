"""Telegram: what counts as said to the bot, what fits into a message, and that the token stays inside."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import ocmt.channels.telegram as module
from ocmt.channels.base import Accepted, Attachment, Endpoint, Ignored, Message, SendFailed
from ocmt.channels.splitting import in_pieces
from ocmt.channels.telegram import PIECE, Telegram, utf16_units
from ocmt.errors import InvalidInput, OcmtError, TooLarge, Unauthenticated, Unavailable
from ocmt.testing.telegram import ADA, GROUP, TOKEN, TelegramApi
from tests.channels.vendors import JSON, Served, calling, connected, incoming, nowhere, raw

pytestmark = pytest.mark.anyio

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECRET = "s3cret_of-the-webhook"
ME = {"bot_id": 123456, "username": "ocmt_bot"}


URL = "https://ocmt.example.org/"
DOUBLE = TelegramApi()
PURE = Telegram(nowhere, "https://api.telegram.invalid")


def endpoint() -> Endpoint:
    secrets = {"bot_token": TOKEN, "webhook_secret": SECRET}
    return Endpoint(uuid4(), uuid4(), "telegram", secrets, ME)


def received(body: object, secret: str = SECRET) -> object:
    given = {"x-telegram-bot-api-secret-token": secret}
    return PURE.receive(incoming(raw(body), given), endpoint(), NOW)


def read(update: object) -> Message | None:
    return PURE.read(raw(update), endpoint())


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramApi]:
    async with TelegramApi() as api:
        yield api


@pytest.fixture
async def channel(telegram: TelegramApi) -> AsyncIterator[Telegram]:
    async with calling(Telegram, telegram.url) as channel:
        yield channel


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.3)
    return


async def failure(channel: Telegram, text: str = "Hi", chat_id: int = 1001) -> SendFailed:
    with pytest.raises(SendFailed) as failed:
        await channel.send(endpoint(), {"chat_id": chat_id}, text, key="k")
    return failed.value


# Receiving


def test_an_update_is_known_by_its_id_and_belongs_to_its_chat() -> None:
    # As https://core.telegram.org/bots/webhooks#testing-your-bot-with-updates shows one.
    update = {
        "update_id": 10000,
        "message": {
            "date": 1441645532,
            "chat": {"last_name": "Test Lastname", "id": 1111111, "type": "private", "first_name": "Test"},
            "message_id": 1365,
            "from": {"last_name": "Test Lastname", "id": 1111111, "is_bot": False, "first_name": "Test"},
            "text": "/start",
        },
    }
    assert received(update) == Accepted("10000", "1111111")
    message = read(update)
    assert message is not None
    assert (message.sender, message.sender_name, message.text) == ("1111111", "Test Test Lastname", "/start")
    assert (message.title, message.private) == ("Telegram: Test Test Lastname", True)
    assert message.reply == {"chat_id": 1111111}


@pytest.mark.parametrize("secret", ["", "wrong", SECRET + "x", "ünï"])
def test_another_secret_is_refused(secret: str) -> None:
    with pytest.raises(Unauthenticated):
        received(DOUBLE.say("Hi"), secret)


def test_a_topic_is_a_thread_of_its_own_and_a_chain_of_replies_is_not() -> None:
    topic = DOUBLE.say("@ocmt_bot hi", chat=GROUP, message_thread_id=7, is_topic_message=True)
    assert received(topic) == Accepted(str(topic["update_id"]), "-1001234567890:7")
    message = read(topic)
    assert message is not None
    assert message.reply["message_thread_id"] == 7
    replies = DOUBLE.say("@ocmt_bot hi", chat=GROUP, message_thread_id=7)
    assert received(replies) == Accepted(str(replies["update_id"]), "-1001234567890")


def test_what_is_not_a_message_is_acknowledged_and_not_kept() -> None:
    edited = {"update_id": 5, "edited_message": DOUBLE.say("Hi")["message"]}
    assert received(edited) == Ignored()
    assert read(edited) is None
    assert received({"update_id": 6, "callback_query": {}}) == Ignored()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", b"[" * 100_000, {"message": {}}, {"update_id": True}, {"update_id": 2**70}],
)
def test_a_body_that_makes_no_sense_is_said_to(body: object) -> None:
    with pytest.raises(InvalidInput):
        received(body)


# Reading


def test_in_a_group_only_what_is_said_to_the_bot_is_heard() -> None:
    def heard(text: str, **more: Any) -> str | None:
        message = read(DOUBLE.say(text, chat=GROUP, **more))
        return None if message is None else message.text

    mine = {"message_id": 1, "from": {"id": 123456, "is_bot": True}}
    assert heard("What a day") is None
    assert heard("@ocmt_bot2 hello") is None
    assert heard("/start") is None
    assert heard("/start@other_bot") is None
    assert heard("@OCMT_bot what is up?") == "what is up?"
    assert heard("/ask@ocmt_bot why") == "/ask why"
    assert heard("and now?", reply_to_message=mine) == "and now?"
    assert heard("and now?", reply_to_message={**mine, "from": {"id": 9}}) is None
    assert heard("and now?", reply_to_message={**mine, "forum_topic_created": {"name": "x"}}) is None
    by_id = [{"type": "text_mention", "offset": 0, "length": 3, "user": {"id": 123456}}]
    assert heard("Bot hello", entities=by_id) == "hello"


def test_offsets_are_counted_in_utf_16() -> None:
    message = read(DOUBLE.say("👋🏽 @ocmt_bot 🎉 go", chat=GROUP))
    assert message is not None
    assert message.text == "👋🏽  🎉 go"
    assert message.private is False
    assert message.title == "Telegram: Engines"
    assert message.reply["message_id"] > 0


@pytest.mark.parametrize(
    ("offset", "length"), [(-1, 5), (0, 0), (0, 99), ("0", 9), (1, 2**80), (True, 9), (1, 9)]
)
def test_entities_that_fit_nowhere_are_no_mention(offset: object, length: object) -> None:
    entities = [{"type": "mention", "offset": offset, "length": length}, "nonsense"]
    assert read(DOUBLE.say("@ocmt_bot", chat=GROUP, entities=entities)) is None


def test_bots_service_messages_and_channels_are_not_heard() -> None:
    assert read(DOUBLE.say("Hi", sender={**ADA, "is_bot": True})) is None
    assert read(DOUBLE.say(None, new_chat_title="Engines")) is None
    assert read(DOUBLE.say("@ocmt_bot", chat={"id": -1, "type": "channel"})) is None


def test_files_come_with_their_caption() -> None:
    # As https://core.telegram.org/bots/api#photosize and …#document have them.
    photo = [
        {"file_id": "small", "file_unique_id": "a", "width": 90, "height": 51, "file_size": 1101},
        {"file_id": "large", "file_unique_id": "b", "width": 1280, "height": 731, "file_size": 138_000},
        {"file_id": "medium", "file_unique_id": "c", "width": 320, "height": 183},
    ]
    message = read(DOUBLE.say(None, photo=photo, caption="Look"))
    assert message is not None
    assert message.text == "Look"
    assert message.attachments == [Attachment("large", "photo.jpg", "image/jpeg", 138_000)]
    document = {"file_id": "d", "file_name": "a.pdf", "mime_type": "application/pdf", "file_size": 7}
    message = read(DOUBLE.say(None, document=document, voice={"file_id": "v", "duration": 3}))
    assert message is not None
    assert message.text == ""
    assert message.attachments == [
        Attachment("d", "a.pdf", "application/pdf", 7),
        Attachment("v", "voice.ogg", "audio/ogg", None),
    ]


ENTITY = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["mention", "bot_command", "text_mention"]) | JSON,
        "offset": st.integers(-3, 20) | JSON,
        "length": st.integers(-3, 20) | JSON,
        "user": JSON,
    },
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "message_id": st.integers() | JSON,
        "chat": st.fixed_dictionaries(
            {"id": st.integers() | JSON, "type": st.sampled_from(["private", "group"]) | JSON}
        )
        | JSON,
        "from": st.fixed_dictionaries({"id": st.integers() | JSON, "is_bot": st.just(False) | JSON}) | JSON,
        "text": st.text() | st.just("@ocmt_bot 👋 /a@ocmt_bot") | JSON,
        "caption": JSON,
        "entities": st.lists(ENTITY, max_size=4) | JSON,
        "photo": st.lists(st.dictionaries(st.sampled_from(["file_id", "width", "file_size"]), JSON)) | JSON,
        "document": JSON,
        "reply_to_message": JSON,
        "is_topic_message": st.booleans() | JSON,
        "message_thread_id": st.integers() | JSON,
    },
)
UPDATES = st.fixed_dictionaries({"update_id": st.integers() | JSON, "message": MESSAGE | JSON}) | JSON


@given(UPDATES.map(raw) | st.binary())
def test_nothing_that_a_stranger_sends_breaks_it(body: bytes) -> None:
    try:
        found = received(body)
    except InvalidInput:
        pass
    else:
        assert isinstance(found, Accepted | Ignored)
        message = PURE.read(body, endpoint())
        if isinstance(found, Accepted):
            assert 0 < len(found.external_id) <= 200
            assert 0 < len(found.thread) <= 200
            assert message is None or message.thread == found.thread
    with pytest.raises(Unauthenticated):
        received(body, "wrong")


# Splitting


@given(
    st.lists(
        st.sampled_from(["word", " ", "\n", "\n\n", "👩🏽\u200d🚀", "x" * 150, "é", "\t"])
        | st.text("ab 🎉\n")
    )
    .map("".join)
    .map(lambda text: text * 3),
    st.integers(200, 400),
)
def test_split_loses_nothing_but_white_space_and_keeps_the_bound(text: str, most: int) -> None:
    pieces = in_pieces(text, most, utf16_units)
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", text)
    for piece in pieces:
        assert piece.strip()
        assert 0 < utf16_units(piece) <= most
        piece.encode("utf-16-le")  # would raise inside a surrogate pair


LINES = st.text("abc =():👋", max_size=60).map(lambda text: "-" + text)
BLOCKS = st.tuples(
    st.sampled_from(["```", "```python", "~~~~", ""]), st.lists(LINES, min_size=1, max_size=12)
)


@given(st.lists(BLOCKS, max_size=6), st.integers(200, 400))
def test_split_closes_and_reopens_code(blocks: list[tuple[str, list[str]]], most: int) -> None:
    lines = []
    for opening, inner in blocks:
        lines += [opening, *inner, opening.rstrip("python"), ""] if opening else [*inner, ""]
    pieces = in_pieces("\n".join(lines), most, utf16_units)
    for piece in pieces:
        assert utf16_units(piece) <= most
        assert sum(line[:3] in ("```", "~~~") for line in piece.split("\n")) % 2 == 0
    kept = [line for piece in pieces for line in piece.split("\n") if line[:3] not in ("```", "~~~")]
    said = [line for _, inner in blocks for line in inner]
    assert re.sub(r"\s", "", "".join(kept)) == re.sub(r"\s", "", "".join(said))


def test_split_prefers_paragraphs_then_lines_then_words_and_keeps_indents() -> None:
    paragraph = "word " * 500
    assert PURE.split(f"{paragraph}\n\n{paragraph}") == [paragraph.strip()] * 2
    code = "```python\n" + "    pass\n" * 900 + "```"
    pieces = PURE.split(code)
    assert len(pieces) == 2 + len(code) // PIECE - 1
    assert all(piece.startswith("```python\n    pass\n") and piece.endswith("\n```") for piece in pieces)
    assert PURE.split("🎉" * 4096) == ["🎉" * 2037, "🎉" * 2037, "🎉" * 22]
    assert PURE.split("  \n ") == []
    assert PURE.split("short") == ["short"]


# Connecting


async def test_connecting_registers_the_webhook_and_disconnecting_removes_it(
    telegram: TelegramApi, channel: Telegram
) -> None:
    endpoint_id = uuid4()
    url = f"https://ocmt.example.org/webhooks/telegram/{endpoint_id}"
    made = await channel.connect({"bot_token": f" {TOKEN}\n"})
    assert (made.name, made.settings) == ("@ocmt_bot", ME)
    assert telegram.webhook is None
    mine = Endpoint(endpoint_id, uuid4(), "telegram", made.secrets, made.settings)
    await channel.register(mine, url)
    assert telegram.webhook == {
        "url": url,
        "secret_token": made.secrets["webhook_secret"],
        "allowed_updates": ["message"],
        "drop_pending_updates": False,
    }
    assert TOKEN not in repr(made)
    again = await channel.connect({**made.secrets, "username": "ocmt_bot"})
    assert again == made
    await channel.disconnect(endpoint())  # of an older connection: this one's webhook stays
    assert telegram.webhook is not None
    await channel.disconnect(mine)
    assert telegram.webhook is None
    await channel.disconnect(mine)


@pytest.mark.parametrize("token", ["", "abc", "1:2", TOKEN + "/../x", "999:" + "A" * 35])
async def test_a_wrong_token_is_the_users_to_mend(channel: Telegram, token: str) -> None:
    with pytest.raises(InvalidInput):
        await channel.connect({"bot_token": token})


async def test_what_telegram_says_about_the_address_is_told(channel: Telegram) -> None:
    with pytest.raises(InvalidInput, match="HTTPS URL must be provided"):
        await connected(channel, {"bot_token": TOKEN}, "ftp://x")


async def test_a_telegram_that_is_down_is_unavailable(telegram: TelegramApi, channel: Telegram) -> None:
    for method in ("getMe", "setWebhook", "getWebhookInfo", "deleteWebhook"):
        telegram.fail(1, 502, method=method)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await connected(channel, {"bot_token": TOKEN}, URL)
    with pytest.raises(Unavailable):
        await channel.disconnect(endpoint())


async def test_disconnecting_succeeds_where_the_bot_is_gone(telegram: TelegramApi, channel: Telegram) -> None:
    telegram.token = "123456:another"
    await channel.disconnect(endpoint())


# Sending


async def test_an_answer_goes_to_its_chat_topic_and_message(telegram: TelegramApi, channel: Telegram) -> None:
    await channel.send(endpoint(), {"chat_id": 1001}, "*Hi*", key="k")
    await channel.send(endpoint(), {"chat_id": -5, "message_thread_id": 7, "message_id": 3}, "Hi", key="k")
    await channel.typing(endpoint(), {"chat_id": -5, "message_thread_id": 7, "message_id": 3})
    assert telegram.sent[0].body == {"chat_id": 1001, "text": "*Hi*"}
    assert telegram.sent[1].body == {
        "chat_id": -5,
        "message_thread_id": 7,
        "text": "Hi",
        "reply_parameters": {"message_id": 3, "allow_sending_without_reply": True},
    }
    assert telegram.actions == [{"chat_id": -5, "message_thread_id": 7, "action": "typing"}]
    for piece in channel.split("🎉" * 5000):
        await channel.send(endpoint(), {"chat_id": 1001}, piece, key="k")
    assert "".join(one.text for one in telegram.sent[2:]) == "🎉" * 5000


async def test_an_answer_follows_a_group_that_has_become_a_supergroup(
    telegram: TelegramApi, channel: Telegram
) -> None:
    telegram.moved[-5] = -1005
    await channel.send(endpoint(), {"chat_id": -5, "message_id": 3}, "Hi", key="k")
    assert [one.body for one in telegram.sent] == [{"chat_id": -1005, "text": "Hi"}]
    assert read(DOUBLE.say(None, chat=GROUP, migrate_from_chat_id=-5)) is None
    assert read(DOUBLE.say(None, chat={"id": -5, "type": "group"}, migrate_to_chat_id=-1005)) is None


async def test_how_a_failure_is_told(telegram: TelegramApi, channel: Telegram) -> None:
    telegram.fail(1, 429, retry_after=35)
    error = await failure(channel)
    assert (error.permanent, error.uncertain, error.retry_after) == (False, False, 35)
    telegram.fail(1, 403, description="Forbidden: bot was blocked by the user")
    error = await failure(channel)
    assert (error.permanent, error.message) == (True, "Telegram says: Forbidden: bot was blocked by the user")
    assert (await failure(channel, "x" * 4097)).permanent is True
    telegram.fail(1, 500)
    error = await failure(channel)
    assert (error.permanent, error.uncertain) == (False, False)
    assert telegram.sent == []


async def test_no_answer_behind_the_request_may_mean_that_it_was_taken(
    telegram: TelegramApi, channel: Telegram, impatient: None
) -> None:
    telegram.drop()
    error = await failure(channel)
    assert (error.permanent, error.uncertain) == (False, True)
    telegram.hang()
    error = await failure(channel)
    assert (error.permanent, error.uncertain) == (False, True)
    assert len(telegram.sent) == 2


async def test_an_address_that_nobody_listens_at_is_certain(telegram: TelegramApi) -> None:
    async with calling(Telegram, "http://127.0.0.1:1") as channel:
        error = await failure(channel)
    assert (error.permanent, error.uncertain) == (False, False)


# Files


async def test_a_file_is_fetched_within_its_bound(telegram: TelegramApi, channel: Telegram) -> None:
    content = bytes(range(256)) * 1000
    file = Attachment(telegram.add_file(content, "photos/file 1.jpg"), "a", "image/jpeg")
    assert await channel.fetch(endpoint(), file, most=len(content)) == content
    with pytest.raises(TooLarge):
        await channel.fetch(endpoint(), file, most=len(content) - 1)
    telegram.calls.clear()
    with pytest.raises(TooLarge):
        await channel.fetch(endpoint(), Attachment(file.reference, "a", "b", size=11), most=10)
    assert telegram.calls == []
    with pytest.raises(SendFailed, match="invalid file_id"):
        await channel.fetch(endpoint(), Attachment("nothing", "a", "b"), most=10)
    telegram.fail(1, 400, description="Bad Request: file is too big", method="getFile")
    with pytest.raises(TooLarge):
        await channel.fetch(endpoint(), file, most=10**9)


# The token

METHODS = ("getMe", "setWebhook", "sendMessage", "getFile", "getWebhookInfo")


def hostile(status: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Says the address that it was asked at in every way that it can."""

    async def answer(request: web.Request) -> web.Response:
        said = {"description": f"no {request.path} here", "parameters": {"retry_after": request.path}}
        return web.json_response({"ok": False, **said}, status=status, headers={"location": request.path})

    return answer


@pytest.mark.parametrize(
    "fault", [200, 302, 400, 401, 404, 418, 429, 500, "cut", "hang", "nobody", "address"]
)
async def test_the_token_gets_into_no_error_and_no_log(
    fault: int | str, telegram: TelegramApi, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = {"nobody": "http://127.0.0.1:1", "address": "http://[::/x"}.get(str(fault), telegram.url)
    if fault == "cut":
        for method in METHODS:
            telegram.drop(method=method)
    elif fault == "hang":
        for method in METHODS:
            telegram.hang(method=method)
    errors: list[OcmtError] = []
    async with AsyncExitStack() as stack:
        if isinstance(fault, int):
            url = (await stack.enter_async_context(Served(hostile(fault)))).url
        channel = await stack.enter_async_context(calling(Telegram, url))
        for call in (
            channel.connect({"bot_token": TOKEN}),
            channel.register(endpoint(), URL),
            channel.send(endpoint(), {"chat_id": 1}, "Hi", key="k"),
            channel.fetch(endpoint(), Attachment("f", "a", "b"), most=10),
            channel.disconnect(endpoint()),
        ):
            try:
                await call
            except OcmtError as error:
                errors.append(error)
    assert len(errors) >= 4
    for raised in errors:
        chain: BaseException | None = raised
        while chain is not None:
            assert isinstance(chain, OcmtError)
            assert TOKEN not in f"{chain!r} {chain.args} {chain.message} {chain.detail} {chain.retry_after}"
            assert TOKEN.partition(":")[2] not in repr(vars(chain))
            chain = chain.__cause__ or chain.__context__
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(endpoint())


# The double


async def test_the_double_delivers_in_order_until_it_is_taken() -> None:
    seen: list[tuple[int, str]] = []

    async def take(request: web.Request) -> web.Response:
        update = await request.json()
        seen.append((update["update_id"], request.headers["X-Telegram-Bot-Api-Secret-Token"]))
        return web.Response(status=503 if len(seen) < 3 else 200)

    async with Served(take) as hook, TelegramApi() as telegram:
        telegram.pause = 0.01
        telegram.webhook = {"url": hook.url, "secret_token": SECRET}
        first, second = telegram.say("1"), telegram.say("2")
        assert await telegram.deliver(first) == 3
        assert await telegram.deliver(second) == 1
    assert seen == [(first["update_id"], SECRET)] * 3 + [(second["update_id"], SECRET)]
