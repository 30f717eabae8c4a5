"""GitHub: issues and pull requests of one repository, by its webhook. https://docs.github.com/en/webhooks.

The token should be of an account of the bot's own, for what that account writes is not read. It needs the
permissions Webhooks and Issues, both read and write.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ocmt.channels.base import (
    Accepted,
    Attachment,
    Connected,
    Endpoint,
    Ignored,
    Incoming,
    Message,
    Received,
    SendFailed,
)
from ocmt.channels.model import short_id
from ocmt.channels.splitting import in_pieces
from ocmt.channels.wire import (
    WRONG_SIGNATURE,
    ask,
    json_of,
    number_of,
    object_of,
    part,
    removing,
    retry_after,
    setting_up,
    words,
)
from ocmt.errors import InvalidInput, Unauthenticated, Unavailable

if TYPE_CHECKING:
    import aiohttp

PIECE = 60_000
"""Characters of one comment; GitHub takes 65,536."""
LABEL = "agent"
"""What has this label is for the agent without a mention."""
CALL_SECONDS = 20.0
_LARGEST_ANSWER = 4 * 1024 * 1024
_EVENTS = ("issues", "issue_comment", "pull_request")
_REPOSITORY = re.compile(r"[A-Za-z0-9_-]{1,100}/(?!\.{1,2}$)[A-Za-z0-9_.-]{1,100}")
_TOKEN = re.compile(r"[A-Za-z0-9_.-]{10,500}")


class GitHub:
    """The channel `github`."""

    name = "github"
    label = "GitHub"
    fields: Mapping[str, str] = {
        "repository": "The repository: owner/name",
        "access_token": "A token of the bot's account that may write issues and webhooks of it",
    }
    answers = True
    pairs = True  # anybody can comment on a public repository

    def __init__(self, session: Callable[[], aiohttp.ClientSession], base_url: str) -> None:
        """`base_url`: of the REST API, `https://api.github.com`."""
        self._session = session
        self._url = base_url.rstrip("/")

    def receive(self, request: Incoming, endpoint: Endpoint, now: datetime) -> Received:
        """See Channel. There is no time in it: an old delivery is known by its id.

        https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries.
        """
        given = request.headers.get("x-hub-signature-256", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, sign(endpoint.secrets["webhook_secret"], request.body).encode()):
            raise Unauthenticated(WRONG_SIGNATURE)
        data = object_of(request.body)
        if not data:
            raise InvalidInput("This is not an event of GitHub's.")
        if request.headers.get("x-github-event") not in _EVENTS or _said(data) is None:
            return Ignored()
        number, delivery = _number(data), request.headers.get("x-github-delivery", "")
        if number is None or not delivery:
            raise InvalidInput("This event of GitHub's has no number or no id.")
        return Accepted(short_id(delivery), f"issue:{number}")

    def read(self, body: bytes, endpoint: Endpoint) -> Message | None:
        """See Channel. Only what mentions the bot's account or has the label `agent`."""
        data = object_of(body)
        number, said, login = _number(data), _said(data), str(endpoint.settings.get("login"))
        if said is None or number is None:
            return None
        author, subject = part(said, "user"), part(data, "issue") or part(data, "pull_request")
        sender, title = words(author, "login"), words(subject, "title")
        if not sender or sender.lower() == login.lower() or author.get("type") == "Bot":
            return None
        text = words(said, "body")
        if said is subject:
            text = f"{title}\n\n{text}"
        # Not within a word, a path or an address.
        mention = re.compile(rf"(?<![\w/@.-])@{re.escape(login)}(?![\w-])", re.IGNORECASE)
        if not mention.search(text) and not _is_labelled(subject):
            return None
        text = mention.sub("", text).strip()
        if not text:
            return None
        repository = str(endpoint.settings.get("repository"))
        return Message(
            sender=short_id(sender),
            sender_name=sender,
            text=text,
            thread=f"issue:{number}",
            title=f"GitHub: {repository}#{number} {title}".strip(),
            reply={"number": number},
            private=False,
        )

    async def connect(self, fields: Mapping[str, str], endpoint_id: UUID, url: str) -> Connected:
        """See Channel: https://docs.github.com/en/rest/repos/webhooks. A secret that there is stays."""
        repository, token = fields.get("repository", "").strip(), fields.get("access_token", "").strip()
        if not _REPOSITORY.fullmatch(repository):
            raise InvalidInput("A repository is named as owner/name.")
        if not _TOKEN.fullmatch(token):
            raise InvalidInput("This is not a token of GitHub's.")
        secret = fields.get("webhook_secret") or secrets.token_urlsafe(32)
        with setting_up():
            _, me = await self._call(token, "GET", "/user")
            hook_id = await self._register(token, repository, url, secret, fields.get("hook_id", ""))
        login = words(me, "login") if isinstance(me, dict) else ""
        if not login:
            raise Unavailable("GitHub gave an answer that we do not understand.")
        settings = {"repository": repository, "login": login, "hook_id": hook_id}
        return Connected(repository, {"access_token": token, "webhook_secret": secret}, settings)

    async def disconnect(self, endpoint: Endpoint) -> None:
        """See Channel. What the token may not remove any more is its owner's to remove."""
        hook = f"/repos/{endpoint.settings['repository']}/hooks/{endpoint.settings['hook_id']}"
        with removing():
            await self._call(endpoint.secrets["access_token"], "DELETE", hook)

    def split(self, text: str) -> list[str]:
        """See Channel."""
        return in_pieces(text, PIECE)

    async def send(self, endpoint: Endpoint, reply: Mapping[str, Any], text: str, *, key: str) -> None:
        """See Channel. GitHub knows no duplicates, so `key` is of no use.

        https://docs.github.com/en/rest/issues/comments#create-an-issue-comment, for pull requests as well.
        """
        comments = f"/repos/{endpoint.settings['repository']}/issues/{int(reply['number'])}/comments"
        await self._call(endpoint.secrets["access_token"], "POST", comments, {"body": text})

    async def typing(self, endpoint: Endpoint, reply: Mapping[str, Any]) -> None:
        """See Channel: there is no such thing."""

    async def fetch(self, endpoint: Endpoint, attachment: Attachment, *, most: int) -> bytes:
        """See Channel: there are no files."""
        raise SendFailed("A comment at GitHub has no files.", permanent=True)

    async def _register(self, token: str, repository: str, url: str, secret: str, known: str) -> str:
        """The id of the webhook: `known` where there still is one, else one with this address, else new.

        Raises: SendFailed.
        """
        hooks = f"/repos/{repository}/hooks"
        config = {"url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0"}
        hook = {"active": True, "events": list(_EVENTS), "config": config}
        if known.isascii() and known.isdigit():
            status, _ = await self._call(token, "PATCH", f"{hooks}/{known}", hook, also=(404,))
            if status != 404:
                return known
        status, made = await self._call(token, "POST", hooks, {"name": "web", **hook}, also=(422,))
        if status != 422:
            return _id_of(made)
        if "already exists" in json.dumps(made):
            _, others = await self._call(token, "GET", f"{hooks}?per_page=100")
            for other in others if isinstance(others, list) else ():
                if isinstance(other, dict) and part(other, "config").get("url") == url:
                    await self._call(token, "PATCH", f"{hooks}/{_id_of(other)}", hook)
                    return _id_of(other)
        raise SendFailed(f"GitHub does not take this webhook: {_problem(made)}", permanent=True)

    async def _call(
        self,
        token: str,
        verb: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        also: tuple[int, ...] = (),
    ) -> tuple[int, Any]:
        """Status and JSON of an answer that is 2xx or one of `also`. Raises: SendFailed."""
        headers = {
            "accept": "application/vnd.github+json",
            "authorization": f"Bearer {token}",
            "user-agent": "ocmt",
            "x-github-api-version": "2022-11-28",
        }
        reply = await ask(
            self._session,
            verb,
            self._url + path,
            body=body,
            headers=headers,
            seconds=CALL_SECONDS,
            most=_LARGEST_ANSWER,
        )
        reply.check(self.label)
        status, answer = reply.status, json_of(reply.content or b"")
        if 200 <= status < 300 or status in also:
            return status, answer
        raise _failed(status, reply.headers, answer, f"{verb} {path}: {status}")


def sign(secret: str, body: bytes) -> str:
    """The signature of a delivery: `sha256=…`."""
    return "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()


def _failed(status: int, headers: Mapping[str, str], answer: object, detail: str) -> SendFailed:
    """https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api."""
    said = _problem(answer)
    detail = f"{detail} {said}"
    spent = headers.get("x-ratelimit-remaining") == "0" or "rate limit" in said.lower()
    if status == 429 or (status == 403 and (spent or "retry-after" in headers)):
        seconds, until = retry_after(headers), number_of(headers.get("x-ratelimit-reset", "")[:12], 12)
        if seconds is None and until is not None and headers.get("x-ratelimit-remaining") == "0":
            seconds = min(max(until - time.time(), 1.0), 3600.0)
        seconds = 60.0 if seconds is None else seconds
        return SendFailed("GitHub wants us to wait.", detail=detail, retry_after=seconds)
    if status >= 500:
        return SendFailed("GitHub has a problem.", uncertain=status in (502, 504), detail=detail)
    said = {
        401: "GitHub does not take this token: it is wrong, or has ended.",
        404: "GitHub knows no such repository, or the token may not do this there.",
    }.get(status, f"GitHub says: {said or status}")
    return SendFailed(said, permanent=True, detail=detail)


def _problem(answer: object) -> str:
    """What an error answer says, with the first of its `errors`."""
    if not isinstance(answer, dict):
        return ""
    errors = answer.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    parts = [words(answer, "message"), words(first, "message") if isinstance(first, dict) else ""]
    return ": ".join(filter(None, parts))[:300]


def _said(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The part of an event that somebody has just written: a comment, an issue, a pull request."""
    action, comment, issue = data.get("action"), part(data, "comment"), part(data, "issue")
    if comment:
        return comment if action == "created" and issue else None
    return (issue or part(data, "pull_request") or None) if action == "opened" else None


def _number(data: Mapping[str, Any]) -> int | None:
    number = (part(data, "issue") or part(data, "pull_request")).get("number")
    return number if type(number) is int and 0 < number < 2**63 else None


def _is_labelled(subject: Mapping[str, Any]) -> bool:
    labels = subject.get("labels")
    return isinstance(labels, list) and any(
        isinstance(one, dict) and words(one, "name").lower() == LABEL for one in labels
    )


def _id_of(hook: object) -> str:
    found = hook.get("id") if isinstance(hook, dict) else None
    if type(found) is not int:
        raise SendFailed("GitHub gave an answer that we do not understand.")
    return str(found)
