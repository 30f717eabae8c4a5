"""GitHub: reviews are heard and answered where they are, old copies are not, and every event is decided."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ocmt.channels.base import Accepted, CountsOnce, Ignored, SendFailed
from ocmt.channels.delivering import text_of
from ocmt.channels.github import GitHub
from ocmt.channels.github_event import EVENTS
from ocmt.channels.model import KEEP
from ocmt.channels.schema import GITHUB, How
from ocmt.testing.github import Failed, GitHubApi
from tests.channels.test_github import DOUBLE, FIELDS, NOW, URL, channel, github, read, received
from tests.channels.vendors import connected

__all__ = ["channel", "github"]
pytestmark = pytest.mark.anyio


def test_a_review_with_a_mention_is_heard() -> None:
    payload = DOUBLE.review("@ocmt-bot what do you think?", number=9)
    review = payload["review"]
    assert received("pull_request_review", payload) == Accepted(f"review:{review['id']}", "issue:9")
    found = read(payload)
    assert found is not None
    assert text_of(found) == (
        "Codertocat: what do you think?\n\n[A review of this pull request: asks for changes]"
    )
    assert found.reply == {"number": 9, "calls": "Codertocat"}


def test_a_comment_in_a_review_comes_with_its_place() -> None:
    payload = DOUBLE.review_comment("@ocmt-bot why?", number=9, in_reply_to_id=55)
    comment = payload["comment"]
    accepted = received("pull_request_review_comment", payload)
    assert accepted == Accepted(f"review_comment:{comment['id']}", "issue:9")
    found = read(payload)
    assert found is not None
    assert found.text == "why?"
    assert "src/a.py, line 7" in found.context
    assert "> +b" in found.context
    assert found.reply == {"number": 9, "review_comment": 55, "calls": "Codertocat"}


def test_a_bare_mention_at_a_line_is_a_request() -> None:
    found = read(DOUBLE.review_comment("@ocmt-bot"))
    assert found is not None
    assert (found.text, "src/a.py" in found.context) == ("", True)


def test_a_review_without_a_mention_or_a_text_is_nothing() -> None:
    assert read(DOUBLE.review("looks good")) is None
    assert read(DOUBLE.review(None)) is None


def test_the_same_number_of_another_kind_is_another_delivery() -> None:
    comment, review = DOUBLE.comment("@ocmt-bot a"), DOUBLE.review("@ocmt-bot a")
    review["review"]["id"] = comment["comment"]["id"]
    assert received("issue_comment", comment) != received("pull_request_review", review)


@pytest.mark.parametrize("text", ["@ocmt-bot stop", "@OCMT-bot Stop!"])
def test_a_stop_phrase_passes_the_queue(text: str) -> None:
    for event, payload in [
        ("issue_comment", DOUBLE.comment(text)),
        ("pull_request_review_comment", DOUBLE.review_comment(text)),
    ]:
        found = received(event, payload)
        assert isinstance(found, Accepted)
        assert found.urgent
        message = read(payload)
        assert message is not None
        assert (message.text.lower().rstrip("!"), message.context) == ("stop", "")


@pytest.mark.parametrize(("days", "heard"), [(0, True), (3, True), (28, True), (30, False), (400, False)])
def test_a_copy_of_an_old_delivery_is_nothing_new(days: float, heard: bool) -> None:
    written = (NOW - timedelta(days=days)).isoformat().replace("+00:00", "Z")
    comment, review = DOUBLE.comment("@ocmt-bot a"), DOUBLE.review("@ocmt-bot a", submitted_at=written)
    issue = DOUBLE.issue("@ocmt-bot a", created_at=written)
    comment["comment"]["created_at"] = written
    for event, payload in [("issue_comment", comment), ("pull_request_review", review), ("issues", issue)]:
        assert isinstance(received(event, payload), Accepted if heard else Ignored)
    assert timedelta(days=28) < KEEP
    # What was cleared earlier than that is known by its id.
    github = GitHub(lambda: pytest.fail("no call"), "https://api.github.com")
    assert isinstance(github, CountsOnce)


def payload_of(event: str, action: str) -> dict[str, Any]:
    made = {
        "issues": DOUBLE.issue, "pull_request": DOUBLE.pull_request, "issue_comment": DOUBLE.comment,
        "pull_request_review": DOUBLE.review, "pull_request_review_comment": DOUBLE.review_comment,
    }.get(event, DOUBLE.comment)("@ocmt-bot hello")  # fmt: skip
    return {**made, "action": action}


@pytest.mark.parametrize("name", sorted(GITHUB))
def test_every_event_is_decided(name: str) -> None:
    event, action = name.split(" ")
    found = received(event, payload_of(event, action))
    assert isinstance(found, Accepted if GITHUB[name][0] is How.READ else Ignored)


def test_what_is_read_is_subscribed() -> None:
    assert {name.split(" ")[0] for name, (how, _) in GITHUB.items() if how is How.READ} == set(EVENTS)


async def test_an_answer_goes_into_the_thread_of_the_review(github: GitHubApi, channel: GitHub) -> None:
    endpoint = await connected(channel, FIELDS, URL)
    reply = {"number": 9, "review_comment": 55, "calls": "Codertocat"}
    await channel.send(endpoint, reply, "Because @octocat said so, @Codertocat.", key="k")
    assert github.replies == [(9, 55, "Because @\u200boctocat said so, @Codertocat.")]
    assert github.comments == []
    github.may_write_pulls = False
    await channel.send(endpoint, reply, "Hello", key="k")
    assert github.comments == [(9, "Hello")]
    github.script(Failed(500))
    with pytest.raises(SendFailed):
        await channel.send(endpoint, {"number": 9}, "Hello", key="k")


async def test_a_connection_of_before_hears_reviews_once_it_is_registered_anew(
    github: GitHubApi, channel: GitHub
) -> None:
    endpoint = await connected(channel, FIELDS, URL)
    address = f"https://ocmt.example.org/webhooks/github/{endpoint.id}"
    await channel.register(endpoint, address)
    (hook,) = [one for one in github.hooks.values() if one["config"]["url"] == address]
    hook["events"] = ["issues", "issue_comment", "pull_request"]
    await channel.register(endpoint, address)
    assert hook["events"] == list(EVENTS)
