"""Slack: its published signature, its mark-up, its errors, and where the token goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import ocmt.channels.slack as module
from ocmt.channels.base import (
    Accepted,
    Answered,
    Attachment,
    Endpoint,
    Ignored,
    Message,
    Received,
    SendFailed,
)
from ocmt.channels.slack import PIECE, Slack, sign
from ocmt.channels.slack_message import plain
from ocmt.errors import InvalidInput, TooLarge, Unauthenticated, Unavailable
from ocmt.testing.slack import BOT, SIGNING_SECRET, TOKEN, Answer, SlackApi
from tests.channels.vendors import (
    JSON,
    Served,
    arrived,
    assert_whole,
    calling,
    connected,
    incoming,
    nowhere,
    raw,
)

pytestmark = pytest.mark.anyio

NOW = datetime.fromtimestamp(1531420618, UTC)
# https://docs.slack.dev/authentication/verifying-requests-from-slack.
DOCUMENTED = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&"
    b"response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
    b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
DOCUMENTED_SIGNATURE = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
FIELDS = {"bot_token": TOKEN, "signing_secret": SIGNING_SECRET}
DOUBLE = SlackApi()
PURE = Slack(nowhere, "https://slack.invalid/api")


def endpoint() -> Endpoint:
    return Endpoint(uuid4(), uuid4(), "slack", FIELDS, {"bot_user_id": BOT})


def received(body: object, now: datetime = NOW, **headers: Any) -> Received:
    given = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": sign(SIGNING_SECRET, "1531420618", raw(body)),
    }
    return PURE.receive(incoming(raw(body), given, **headers), endpoint(), now)


def read(event: object) -> Message | None:
    return PURE.read(raw(event), endpoint())


@pytest.fixture
async def slack() -> AsyncIterator[SlackApi]:
    async with SlackApi() as api:
        yield api


@pytest.fixture
async def channel(slack: SlackApi) -> AsyncIterator[Slack]:
    async with calling(Slack, slack.url) as channel:
        yield channel


# Receiving


def test_the_signature_is_the_published_one() -> None:
    assert sign(SIGNING_SECRET, "1531420618", DOCUMENTED) == DOCUMENTED_SIGNATURE
    with pytest.raises(InvalidInput):  # genuine, and a slash command, which we have none of
        received(DOCUMENTED, x_slack_signature=DOCUMENTED_SIGNATURE)


@pytest.mark.parametrize(
    "headers",
    [
        {"x_slack_signature": ""},
        {"x_slack_signature": "v0=" + "0" * 64},
        {"x_slack_signature": "ü"},
        {"x_slack_request_timestamp": ""},
        {"x_slack_request_timestamp": "1531420619"},
        {"x_slack_request_timestamp": "\u0661"},
        {"x_slack_request_timestamp": "9" * 5000},
    ],
)
def test_another_signature_is_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        received(DOUBLE.say("Hi"), **headers)


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_stale_one_is_refused(seconds: float) -> None:
    with pytest.raises(Unauthenticated, match="too old"):
        received(DOUBLE.say("Hi"), now=NOW + timedelta(seconds=seconds))
    assert received(DOUBLE.say("Hi"), now=NOW + timedelta(seconds=seconds * 0.99))


def test_the_challenge_is_answered_where_it_is_signed() -> None:
    # https://docs.slack.dev/reference/events/url_verification.
    challenge = {
        "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl",
        "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P",
        "type": "url_verification",
    }
    assert received(challenge) == Answered(challenge["challenge"].encode())
    with pytest.raises(Unauthenticated):
        received(challenge, x_slack_signature="v0=")


def test_a_mention_opens_a_thread_and_a_direct_message_is_its_channel() -> None:
    # https://docs.slack.dev/reference/events/app_mention.
    mention = {
        "token": "ZZZZZZWSxiZZZ2yIvs3peJ",
        "team_id": "T123ABC456",
        "api_app_id": "A123ABC456",
        "event": {
            "type": "app_mention",
            "user": "U123ABC456",
            "text": f"What is the hour of the pearl, <@{BOT}>?",
            "ts": "1515449522.000016",
            "channel": "C123ABC456",
            "event_ts": "1515449522000016",
        },
        "type": "event_callback",
        "event_id": "Ev123ABC456",
        "event_time": 1515449522000016,
        "authed_users": [BOT],
    }
    assert received(mention) == Accepted("Ev123ABC456", "C123ABC456:1515449522.000016")
    message = read(mention)
    assert message is not None
    assert (message.sender, message.private) == ("U123ABC456", False)
    assert message.text == "What is the hour of the pearl, ?"
    assert message.reply == {"channel": "C123ABC456", "thread_ts": "1515449522.000016"}
    inside = DOUBLE.say(f"<@{BOT}> and now?", channel="C1", thread_ts="1.2")
    assert received(inside) == Accepted(inside["event_id"], "C1:1.2")

    direct = DOUBLE.say("Hello", channel="D1")
    assert received(direct) == Accepted(direct["event_id"], "D1")
    message = read(direct)
    assert message is not None
    assert (message.reply, message.private) == ({"channel": "D1"}, True)


@pytest.mark.parametrize(
    "more",
    [
        {"bot_id": "B1"},
        {"subtype": "message_changed"},
        {"subtype": "bot_message"},
        {"channel_type": "channel"},
        {"type": "reaction_added"},
    ],
)
def test_what_nobody_says_to_the_app_is_not_kept(more: dict[str, Any]) -> None:
    event = DOUBLE.say("Hi", **more)
    assert received(event) == Ignored()
    assert read(event) is None


def test_the_app_does_not_hear_itself() -> None:
    assert read(DOUBLE.say("Hi", user=BOT)) is None
    assert received({"type": "app_rate_limited"}) == Ignored()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", {"type": "event_callback", "event": {"type": "app_mention"}}]
)
def test_a_body_that_makes_no_sense_is_said_to(body: object) -> None:
    with pytest.raises(InvalidInput):
        received(body)


# Reading


@pytest.mark.parametrize(
    ("marked", "text"),
    [
        (f"<@{BOT}> hello <@U9> and <@U8|ada>", "hello @U9 and @ada"),
        ("in <#C1|general>, <!here>", "in #general, @here"),
        ("a &lt;b&gt; &amp;amp; c", "a <b> &amp; c"),
        ("<https://a.example/?x=1&amp;y=2>", "https://a.example/?x=1&y=2"),
        ("<https://a.example|here>", "here (https://a.example)"),
        ("<mailto:a@b.example|a@b.example>", "a@b.example"),
        ("<!date^1392734382^{date}|18 February>", "18 February"),
    ],
)
def test_mark_up_becomes_text(marked: str, text: str) -> None:
    assert plain(marked, BOT) == text


def test_files_come_as_attachments() -> None:
    file = {
        "id": "F0",
        "name": "cat.png",
        "mimetype": "image/png",
        "size": 42,
        "url_private": "https://files.slack.com/files-pri/T0-F0/cat.png",
    }
    message = read(DOUBLE.say("", subtype="file_share", files=[file, {"file_access": "check_file_info"}, 1]))
    assert message is not None
    assert message.attachments == [Attachment(file["url_private"], "cat.png", "image/png", 42)]  # type: ignore[arg-type]


EVENT = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "app_mention"]) | JSON},
    optional={
        "channel": st.text() | JSON,
        "channel_type": st.just("im") | JSON,
        "user": st.text() | JSON,
        "text": st.text("<>@|!#^U&;amplt") | JSON,
        "ts": st.text() | JSON,
        "thread_ts": st.text() | JSON,
        "subtype": st.just("file_share") | JSON,
        "files": st.lists(st.dictionaries(st.sampled_from(["url_private", "size", "name"]), JSON)) | JSON,
        "user_profile": JSON,
    },
)
BODIES = (
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["event_callback", "url_verification"]) | JSON,
            "event": EVENT | JSON,
            "event_id": st.text(min_size=1) | JSON,
            "challenge": st.text() | JSON,
        }
    )
    | JSON
)


@given(BODIES.map(raw) | st.binary())
def test_nothing_that_a_stranger_sends_breaks_it(body: bytes) -> None:
    try:
        found = received(body)
    except InvalidInput:
        pass
    else:
        message = PURE.read(body, endpoint())
        if isinstance(found, Accepted):
            assert 0 < len(found.external_id) <= 200
            assert 0 < len(found.thread) <= 200
            assert message is None or message.thread == found.thread
    with pytest.raises(Unauthenticated):
        received(body, x_slack_signature="v0=00")


@given(st.lists(st.sampled_from(["word ", "\n", "x" * 900, "🎉", "\n\n"]), max_size=40).map("".join))
def test_split_keeps_the_bound(text: str) -> None:
    assert_whole(text, PURE.split(text), PIECE)


# Calling


async def test_connecting_finds_out_who_it_is(channel: Slack) -> None:
    made = await channel.connect(FIELDS)
    assert made.name == "@bot in Subarachnoid Workspace"
    assert made.secrets == FIELDS
    assert made.settings["bot_user_id"] == BOT
    await channel.disconnect(await connected(channel, FIELDS, "https://x.example"))


@pytest.mark.parametrize(
    ("token", "secret"),
    [
        ("", SIGNING_SECRET),
        ("xoxp-123456789", SIGNING_SECRET),
        ("xoxb-12345\r\nx: y", SIGNING_SECRET),
        (TOKEN, ""),
        (TOKEN, "short"),
        ("xoxb-123456789", SIGNING_SECRET),
    ],
)
async def test_what_is_wrong_is_the_users_to_mend(channel: Slack, token: str, secret: str) -> None:
    with pytest.raises(InvalidInput):
        await channel.connect({"bot_token": token, "signing_secret": secret})


async def test_a_slack_that_is_not_there_is_unavailable() -> None:
    async with calling(Slack, "http://127.0.0.1:1/api") as channel:
        with pytest.raises(Unavailable):
            await channel.connect(FIELDS)


async def test_an_answer_is_sent_escaped_and_calls_nobody(slack: SlackApi, channel: Slack) -> None:
    await channel.send(endpoint(), {"channel": "C1", "thread_ts": "1.2"}, "<!channel> a & b", key="k")
    await channel.send(endpoint(), {"channel": "D1"}, "Hi", key="k")
    assert slack.sent[0] == {
        "channel": "C1",
        "thread_ts": "1.2",
        "text": "&lt;!channel&gt; a &amp; b",
        "unfurl_links": False,
        "unfurl_media": False,
    }
    assert "thread_ts" not in slack.sent[1]


async def test_in_a_thread_it_is_seen_to_be_typing(slack: SlackApi, channel: Slack) -> None:
    await channel.typing(endpoint(), {"channel": "C1", "thread_ts": "1.2"})
    await channel.typing(endpoint(), {"channel": "D1"})
    assert slack.statuses == [{"channel_id": "C1", "thread_ts": "1.2", "status": "is typing…"}]


@pytest.mark.parametrize(
    ("answer", "permanent", "uncertain", "after"),
    [
        (Answer(429, "ratelimited", retry_after=30), False, False, 30),
        (Answer(200, "ratelimited"), False, False, None),
        (Answer(200, "invalid_auth"), True, False, None),
        (Answer(200, "channel_not_found"), True, False, None),
        (Answer(200, "fatal_error", takes_it=True), False, True, None),
        (Answer(500, "x"), False, False, None),
        (Answer(302, "x"), True, False, None),
        (Answer(takes_it=True, hangs=True), False, True, None),
    ],
)
async def test_how_a_failure_is_told(
    slack: SlackApi,
    channel: Slack,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    permanent: bool,
    uncertain: bool,
    after: float | None,
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.3)
    slack.script(answer)
    with pytest.raises(SendFailed) as failed:
        await channel.send(endpoint(), {"channel": "C1"}, "Hi", key="k")
    error = failed.value
    assert (error.permanent, error.uncertain, error.retry_after) == (permanent, uncertain, after)
    assert TOKEN not in f"{error!r} {error.detail}"
    assert len(slack.sent) == answer.takes_it


# Files


async def test_a_file_is_fetched_with_the_token_within_its_bound(slack: SlackApi, channel: Slack) -> None:
    slack.files["/files-pri/T0-F0/cat.png"] = b"\x89PNG" * 100
    file = Attachment(slack.url.removesuffix("/api") + "/files-pri/T0-F0/cat.png", "cat.png", "image/png")
    assert await channel.fetch(endpoint(), file, most=400) == b"\x89PNG" * 100
    assert slack.tokens == [f"Bearer {TOKEN}"]
    with pytest.raises(TooLarge):
        await channel.fetch(endpoint(), file, most=399)
    slack.may_read_files = False
    with pytest.raises(SendFailed, match="files:read"):
        await channel.fetch(endpoint(), file, most=400)


@pytest.mark.parametrize(
    "reference",
    [
        "http://{}/x.png",
        "https://files.slack.com.example.org/x",
        "https://files.slack.com:444/x",
        "http://files.slack.com/x",
        "https://files.slack.com@{}/x",
        "http://{}\\@files.slack.com/x",
        "//files.slack.com/x",
        "/x",
        "",
        "http://[::/x",
    ],
)
async def test_the_token_goes_to_no_other_server(reference: str) -> None:
    seen = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request.headers.get("authorization"))
        return web.Response()

    async with Served(note) as server, calling(Slack, "http://127.0.0.1:1/api") as channel:
        there = server.url.removeprefix("http://")
        with pytest.raises(SendFailed) as failed:
            await channel.fetch(endpoint(), Attachment(reference.format(there), "x", "image/png"), most=10)
    assert failed.value.permanent
    assert seen == []


# The double


async def test_the_double_delivers_what_the_channel_takes() -> None:
    found = []

    async def take(request: web.Request) -> web.Response:
        found.append(PURE.receive(await arrived(request), endpoint(), datetime.now(UTC)))
        return web.Response(status=500 if len(found) == 1 else 200)

    event = DOUBLE.say("Hi")
    async with Served(take) as hook:
        assert await DOUBLE.deliver(hook.url, event) == (200, b"")
    assert found == [Accepted(event["event_id"], "D024BE91L")] * 2
