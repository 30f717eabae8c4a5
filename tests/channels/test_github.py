"""GitHub: its published signature, who is meant, and the repository's webhook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import ocmt.channels.github as module
from ocmt.channels.base import (
    Accepted,
    Attachment,
    Endpoint,
    Ignored,
    Message,
    Received,
    SendFailed,
)
from ocmt.channels.github import PIECE, GitHub, sign
from ocmt.errors import InvalidInput, Unauthenticated, Unavailable
from ocmt.testing.github import REPOSITORY, TOKEN, Failed, GitHubApi
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

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries.
SECRET = "It's a Secret to Everybody"
URL = "https://ocmt.example.org/webhooks/github/1"
DOUBLE = GitHubApi()
PURE = GitHub(nowhere, "https://api.github.invalid")


def endpoint(**settings: Any) -> Endpoint:
    secrets = {"access_token": TOKEN, "webhook_secret": SECRET}
    known = {"repository": REPOSITORY, "login": "ocmt-bot", "account_id": DOUBLE.account_id, **settings}
    return Endpoint(uuid4(), uuid4(), "github", secrets, known)


def received(event: str, body: object, **headers: str) -> Received:
    given = {"x-github-event": event, "x-hub-signature-256": sign(SECRET, raw(body))}
    return PURE.receive(incoming(raw(body), given, **headers), endpoint(), NOW)


def read(payload: object) -> Message | None:
    return PURE.read(raw(payload), endpoint())


@pytest.fixture
async def github() -> AsyncIterator[GitHubApi]:
    async with GitHubApi() as api:
        yield api


@pytest.fixture
async def channel(github: GitHubApi) -> AsyncIterator[GitHub]:
    async with calling(GitHub, github.url) as channel:
        yield channel


# Receiving


def test_the_signature_is_the_published_one() -> None:
    published = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert sign(SECRET, b"Hello, World!") == published
    with pytest.raises(InvalidInput):  # genuine, and not JSON
        received("issues", b"Hello, World!", x_hub_signature_256=published)


@pytest.mark.parametrize("signature", ["", "sha256=", "sha256=" + "0" * 64, "ü", "sha1=x"])
def test_another_signature_is_refused(signature: str) -> None:
    with pytest.raises(Unauthenticated):
        received("issues", DOUBLE.issue("Hi"), x_hub_signature_256=signature)


def test_what_is_written_belongs_to_its_number() -> None:
    issue, comment = DOUBLE.issue("Hi", number=1), DOUBLE.comment("Hi", number=2)
    assert received("issues", issue) == Accepted(f"issue:{issue['issue']['id']}", "issue:1")
    assert received("issue_comment", comment) == Accepted(f"comment:{comment['comment']['id']}", "issue:2")
    pull = DOUBLE.pull_request("Hi", number=3)
    assert received("pull_request", pull) == Accepted(f"pull_request:{pull['pull_request']['id']}", "issue:3")


def test_the_same_comment_under_other_headers_is_the_same() -> None:
    comment = DOUBLE.comment("Hi")
    first = received("issue_comment", comment, x_github_delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958")
    assert received("issue_comment", comment, x_github_delivery="a-replay") == first
    assert received("issues", comment) == first
    assert received("issue_comment", DOUBLE.comment("Hi")) != first


def test_what_is_nothing_new_is_not_kept() -> None:
    ping = {"zen": "Design for failure.", "hook_id": 1, "hook": {"type": "Repository"}}
    assert received("ping", ping) == Ignored()
    assert received("issues", {**DOUBLE.issue("Hi"), "action": "closed"}) == Ignored()
    assert received("issue_comment", {**DOUBLE.comment("Hi"), "action": "edited"}) == Ignored()
    assert received("push", DOUBLE.issue("Hi")) == Ignored()


def test_a_body_that_makes_no_sense_is_said_to() -> None:
    for body in (b"", b"[]", b"{}", {**DOUBLE.issue("Hi"), "issue": {"number": "1"}}):
        with pytest.raises(InvalidInput):
            received("issues", body)
    with pytest.raises(InvalidInput):
        received("issues", DOUBLE.issue("Hi", id="1"))


# Reading


def test_a_mention_is_for_the_agent_and_nothing_is_private() -> None:
    message = read(DOUBLE.comment("@OCMT-bot please look", number=7))
    assert message is not None
    assert (message.sender, message.sender_name) == ("21031067", "Codertocat")
    assert (message.text, message.thread) == ("please look", "issue:7")
    assert message.reply == {"number": 7, "calls": "Codertocat"}
    assert message.title == "GitHub: octocat/Hello-World#7 Spelling error"
    assert message.private is False
    message = read(DOUBLE.pull_request("Review, @ocmt-bot?"))
    assert message is not None
    assert message.text == "Spelling error\n\nReview, ?"


@pytest.mark.parametrize(
    "text", ["Hello", "@ocmt-bot2", "@ocmt-bot-x", "mail@ocmt-bot", "https://x/@ocmt-bot", "@ocmt-bot", ""]
)
def test_without_a_mention_of_it_nothing_is(text: str) -> None:
    assert read(DOUBLE.comment(text)) is None


def test_what_is_labelled_is_for_the_agent() -> None:
    labels = [{"id": 208045946, "name": "Agent", "color": "f29513"}]
    message = read(DOUBLE.issue("It fails.", labels=labels))
    assert message is not None
    assert message.text == "Spelling error\n\nIt fails."
    assert read(DOUBLE.comment("Still.", labels=labels)) is not None
    assert read(DOUBLE.issue("It fails.", labels=[{"name": "bug"}, 1])) is None
    assert read(DOUBLE.issue(None, labels=labels)) is not None  # type: ignore[arg-type]


def test_it_hears_neither_itself_nor_other_bots() -> None:
    assert read(DOUBLE.comment("I am @ocmt-bot", user="ocmt-bot")) is None
    assert read(DOUBLE.comment("@ocmt-bot", user="dependabot[bot]")) is None


def test_who_takes_a_login_that_was_given_up_is_somebody_else() -> None:
    world = GitHubApi()
    before = read(world.comment("@ocmt-bot hi", user="ada"))
    world.accounts["countess"] = world.accounts.pop("ada")
    renamed = read(world.comment("@ocmt-bot hi", user="countess"))
    taken = read(world.comment("@ocmt-bot hi", user="ada"))
    assert before is not None
    assert renamed is not None
    assert taken is not None
    assert renamed.sender == before.sender != taken.sender
    world.accounts["old-bot"] = world.account_id
    assert read(world.comment("I am not @ocmt-bot any more", user="old-bot")) is None


SUBJECT = st.fixed_dictionaries(
    {"number": st.integers(-1, 9) | JSON},
    optional={
        "id": st.integers(-1, 9) | JSON,
        "title": st.text() | JSON,
        "body": st.just("@ocmt-bot hi") | JSON,
        "user": st.dictionaries(st.sampled_from(["login", "type", "id"]), st.integers() | JSON) | JSON,
        "labels": st.lists(st.just({"name": "agent"}) | JSON) | JSON,
    },
)
PAYLOADS = (
    st.fixed_dictionaries(
        {"action": st.sampled_from(["opened", "created"]) | JSON},
        optional={"issue": SUBJECT | JSON, "comment": SUBJECT | JSON, "pull_request": SUBJECT | JSON},
    )
    | JSON
)


@given(PAYLOADS.map(raw) | st.binary(), st.text() | st.just("issues"))
def test_nothing_that_a_stranger_sends_breaks_it(body: bytes, event: str) -> None:
    try:
        found = received(event, body)
    except InvalidInput:
        pass
    else:
        message = PURE.read(body, endpoint())
        if isinstance(found, Accepted):
            assert 0 < len(found.external_id) <= 200
            assert message is None or message.thread == found.thread
    with pytest.raises(Unauthenticated):
        received(event, body, x_hub_signature_256="sha256=00")


def test_split_keeps_the_bound() -> None:
    text = "word " * 30_000
    assert_whole(text, PURE.split(text), PIECE)


# Connecting


FIELDS = {"repository": REPOSITORY, "access_token": TOKEN}


async def test_connecting_makes_one_webhook_and_disconnecting_removes_it(
    github: GitHubApi, channel: GitHub
) -> None:
    endpoint_id = uuid4()
    url = f"https://ocmt.example.org/webhooks/github/{endpoint_id}"
    made = await channel.connect(FIELDS)
    secret = made.secrets["webhook_secret"]
    settings = {"repository": REPOSITORY, "login": "ocmt-bot", "account_id": github.account_id}
    assert (made.name, made.settings) == (REPOSITORY, settings)
    assert TOKEN not in repr(made)
    assert secret not in repr(made)
    assert github.hooks == {}

    mine = Endpoint(endpoint_id, uuid4(), "github", made.secrets, made.settings)
    await channel.register(mine, url)
    others = await connected(channel, FIELDS, f"https://ocmt.example.org/webhooks/github/{uuid4()}")
    hook_id, others_id = github.hooks
    hook = github.hooks[hook_id]
    assert (hook["name"], hook["active"]) == ("web", True)
    assert hook["events"] == [
        "issues",
        "issue_comment",
        "pull_request",
        "pull_request_review",
        "pull_request_review_comment",
    ]
    assert hook["config"] == {"url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0"}

    known = {name: str(text) for name, text in {**made.settings, **made.secrets}.items()}
    assert await channel.connect(known) == made
    moved = url.replace("ocmt.", "moved.")
    await channel.register(mine, moved)
    assert list(github.hooks) == [hook_id, others_id]
    assert github.hooks[hook_id]["config"]["url"] == moved

    await channel.disconnect(mine)
    await channel.disconnect(mine)
    assert list(github.hooks) == [others_id]
    await channel.disconnect(others)  # which is not in that address
    assert list(github.hooks) == [others_id]
    await channel.register(mine, url)
    assert len(github.hooks) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"repository": ""},
        {"repository": "octocat"},
        {"repository": "octocat/.."},
        {"repository": "../user"},
        {"repository": "octocat/Hello-World/../x"},
        {"repository": "octocat/another"},
        {"access_token": ""},
        {"access_token": "x\r\ny: z, 0123456789"},
        {"access_token": "another-0123456789"},
    ],
)
async def test_what_is_wrong_is_the_users_to_mend(channel: GitHub, fields: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        await connected(channel, FIELDS | fields, URL)


async def test_a_github_that_is_not_there_is_unavailable() -> None:
    async with calling(GitHub, "http://127.0.0.1:1") as channel:
        for call_it in (
            channel.connect(FIELDS),
            channel.register(endpoint(), URL),
            channel.disconnect(endpoint()),
        ):
            with pytest.raises(Unavailable):
                await call_it


# Sending


async def test_an_answer_becomes_a_comment(github: GitHubApi, channel: GitHub) -> None:
    await channel.send(endpoint(), {"number": 7}, "Done.", key="k")
    await channel.typing(endpoint(), {"number": 7})
    assert github.comments == [(7, "Done.")]
    with pytest.raises(SendFailed):
        await channel.fetch(endpoint(), Attachment("a", "b", "c"), most=1)


LATER = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}


@pytest.mark.parametrize(
    ("fault", "permanent", "uncertain", "after"),
    [
        (Failed(403, "Resource not accessible by personal access token"), True, False, None),
        (Failed(404, "Not Found"), True, False, None),
        (Failed(410, "Issues are disabled for this repo"), True, False, None),
        (Failed(403, "You have exceeded a secondary rate limit."), False, False, 60),
        (Failed(403, "Wait", {"retry-after": "17"}), False, False, 17),
        (Failed(429, "API rate limit exceeded", LATER), False, False, 1),
        (Failed(500), False, False, None),
        (Failed(502, takes_it=True), False, True, None),
        (Failed(0, takes_it=True, hangs=True), False, True, None),
    ],
)
async def test_how_a_failure_is_told(
    github: GitHubApi,
    channel: GitHub,
    monkeypatch: pytest.MonkeyPatch,
    fault: Failed,
    permanent: bool,
    uncertain: bool,
    after: float | None,
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.3)
    github.script(fault)
    with pytest.raises(SendFailed) as failed:
        await channel.send(endpoint(), {"number": 7}, "Done.", key="k")
    error = failed.value
    assert (error.permanent, error.uncertain, error.retry_after) == (permanent, uncertain, after)
    assert TOKEN not in f"{error!r} {error.detail}"
    assert len(github.comments) == fault.takes_it


# The double


async def test_the_double_delivers_what_the_channel_takes(github: GitHubApi, channel: GitHub) -> None:
    found: list[Received] = []
    mine: list[Endpoint] = []

    async def take(request: web.Request) -> web.Response:
        found.append(channel.receive(await arrived(request), mine[0], NOW))
        return web.Response(status=202)

    async with Served(take) as hook:
        mine.append(await connected(channel, FIELDS, hook.url))
        assert await github.deliver("ping", {"zen": "Keep it logically awesome."}) == 202
        comment = github.comment("@ocmt-bot hi")
        assert await github.deliver("issue_comment", comment) == 202
        assert await github.deliver("push", {}) == 0
    assert found == [Ignored(), Accepted(f"comment:{comment['comment']['id']}", "issue:1")]
