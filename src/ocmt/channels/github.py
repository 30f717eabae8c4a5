"""GitHub: issues and pull requests of one repository, by its webhook. https://docs.github.com/en/webhooks.

The token should be of an account of the bot's own, for what that account writes is not read. It needs the
permissions Webhooks, Issues and Pull requests, each read and write. What an event says is `github_event`'s.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

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
from ocmt.channels.github_event import EVENTS, is_old, number, said_in
from ocmt.channels.pings import for_github, longest
from ocmt.channels.quoting import context_of
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
from ocmt.chat.controls import asks_to_stop, command_in, may_be_urgent
from ocmt.errors import InvalidInput, Unauthenticated, Unavailable

if TYPE_CHECKING:
    import aiohttp

PIECE = 60_000
"""Characters of one comment; GitHub takes 65,536."""
LABEL = "agent"
"""What has this label is for the agent without a mention."""
CALL_SECONDS = 20.0
_LARGEST_ANSWER = 4 * 1024 * 1024
_REPOSITORY = re.compile(r"[A-Za-z0-9_-]{1,100}/(?!\.{1,2}$)[A-Za-z0-9_.-]{1,100}")
_TOKEN = re.compile(r"[A-Za-z0-9_.-]{10,500}")


class GitHub:
    """The channel `github`."""

    name = "github"
    label = "GitHub"
    fields: Mapping[str, str] = {
        "repository": "The repository: owner/name",
        "access_token": "A token of the bot's own account: answers are written in that account's name",
    }
    required = frozenset(fields)
    before: Sequence[str] = (
        "Have a GitHub account for the bot, with the role Admin at the repository: only an admin may make "
        "its webhook, and a repository that is not an organization's has no admin but its owner. Answers are "
        "written in that account's name, and what it writes itself is not heard; so with a token of your own "
        "the agent does not hear you.",
        "Signed in with it, create a fine-grained token at "
        "https://github.com/settings/personal-access-tokens/new: the repository's owner as Resource owner, "
        "this one repository, and the repository permissions Webhooks, Issues and Pull requests, each Read "
        "and write. Without Pull requests, comments of a review are answered below the pull request.",
        "Or a classic token at https://github.com/settings/tokens/new, with the scope repo; for a public "
        "repository public_repo and admin:repo_hook are enough.",
        "Copy the token, and the repository's name as it is in its address: owner/name.",
    )
    after: Sequence[str] = (
        "Nothing more is to be done at GitHub: the webhook is registered, and under Settings, Webhooks of "
        "the repository.",
        "Mention the bot's account in an issue, a pull request, a review or a comment there. What is written "
        f"where the label {LABEL} is, is heard without a mention.",
        "Who has written is in the list of senders then, and is not heard until you let them in there.",
    )
    answers = True
    pairs = True  # anybody can comment on a public repository

    def __init__(self, session: Callable[[], aiohttp.ClientSession], base_url: str) -> None:
        """`base_url`: of the REST API, `https://api.github.com`."""
        self._session = session
        self._url = base_url.rstrip("/")

    def receive(self, request: Incoming, endpoint: Endpoint, now: datetime) -> Received:
        """See Channel. There is no time in it: an old delivery is known by the id of what was written.

        For the body is signed, and the headers are not: whoever got hold of a delivery could send it again
        under another X-GitHub-Delivery, which is the same in a redelivery by GitHub.
        https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries.
        """
        given = request.headers.get("x-hub-signature-256", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, sign(endpoint.secrets["webhook_secret"], request.body).encode()):
            raise Unauthenticated(WRONG_SIGNATURE)
        data = object_of(request.body)
        if not data:
            raise InvalidInput("This is not an event of GitHub's.")
        said = said_in(data)
        if request.headers.get("x-github-event") not in EVENTS or said is None or is_old(said, now):
            return Ignored()
        where, said_id = number(said.subject, "number"), number(said.what, "id")
        if where is None or said_id is None:
            raise InvalidInput("This event of GitHub's has no number or no id.")
        urgent = said.what is not said.subject and may_be_urgent(words(said.what, "body"))
        return Accepted(f"{said.kind}:{said_id}", f"issue:{where}", urgent)

    def read(self, body: bytes, endpoint: Endpoint) -> Message | None:
        """See Channel. Only what mentions the bot's account or has the label `agent`.

        Accounts are known by their numbers: a login can be given up, and is somebody else's then.
        """
        data = object_of(body)
        said, login = said_in(data), str(endpoint.settings.get("login"))
        where = number(said.subject, "number") if said is not None else None
        if said is None or where is None:
            return None
        author, title = part(said.what, "user"), words(said.subject, "title")
        sender = number(author, "id")
        if sender is None or sender == endpoint.settings.get("account_id") or author.get("type") == "Bot":
            return None
        # Not within a word, a path or an address.
        mention = re.compile(rf"(?<![\w/@.-])@{re.escape(login)}(?![\w-])", re.IGNORECASE)
        text = said.text
        if not mention.search(text) and not _is_labelled(said.subject):
            return None
        text = mention.sub("", text).strip()
        if not text and said.kind != "review_comment":
            return None
        steers = command_in(text) is not None or asks_to_stop(text)
        repository = str(endpoint.settings.get("repository"))
        return Message(
            sender=str(sender),
            sender_name=words(author, "login") or str(sender),
            text=text,
            thread=f"issue:{where}",
            title=f"GitHub: {repository}#{where} {title}".strip(),
            reply=said.reply,
            private=False,
            context="" if steers else context_of(said.context),
        )

    def counts_once(self, endpoint: Endpoint) -> bool:
        """See CountsOnce: deliveries that are cleared to make room are not old enough for `is_old` yet."""
        return True

    async def connect(self, fields: Mapping[str, str]) -> Connected:
        """See Channel. A secret that there is stays."""
        repository, token = fields.get("repository", "").strip(), fields.get("access_token", "").strip()
        if not _REPOSITORY.fullmatch(repository):
            raise InvalidInput("A repository is named as owner/name.")
        if not _TOKEN.fullmatch(token):
            raise InvalidInput("This is not a token of GitHub's.")
        secret = fields.get("webhook_secret") or secrets.token_urlsafe(32)
        with setting_up():
            known = await self._call(token, "GET", "/user")
        me = known if isinstance(known, dict) else {}
        login, account_id = words(me, "login"), number(me, "id")
        if not login or account_id is None:
            raise Unavailable("GitHub gave an answer that we do not understand.")
        settings = {"repository": repository, "login": login, "account_id": account_id}
        return Connected(repository, {"access_token": token, "webhook_secret": secret}, settings)

    async def register(self, endpoint: Endpoint, url: str) -> None:
        """See Channel: https://docs.github.com/en/rest/repos/webhooks."""
        secret = endpoint.secrets["webhook_secret"]
        config = {"url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0"}
        hook = {"active": True, "events": list(EVENTS), "config": config}
        token = endpoint.secrets["access_token"]
        with setting_up():
            known = await self._hook(endpoint)
            if known is not None:
                await self._call(token, "PATCH", known, hook)
            else:
                await self._call(token, "POST", _hooks(endpoint), {"name": "web", **hook})

    async def disconnect(self, endpoint: Endpoint) -> None:
        """See Channel. What the token may not remove any more is its owner's to remove."""
        with removing():
            known = await self._hook(endpoint)
            if known is not None:
                await self._call(endpoint.secrets["access_token"], "DELETE", known)

    def split(self, text: str) -> list[str]:
        """See Channel."""
        return in_pieces(text, PIECE, longest)

    async def send(self, endpoint: Endpoint, reply: Mapping[str, Any], text: str, *, key: str) -> None:
        """See Channel. GitHub knows no duplicates, so `key` is of no use.

        https://docs.github.com/en/rest/issues/comments#create-an-issue-comment, for pull requests as well; a
        comment of a review is answered in its thread, where the token may write pull requests:
        https://docs.github.com/en/rest/pulls/comments#create-a-reply-for-a-review-comment.
        """
        token, number_of_it = endpoint.secrets["access_token"], int(reply["number"])
        body = {"body": for_github(text, str(reply.get("calls") or ""))}
        repository = f"/repos/{endpoint.settings['repository']}"
        if "review_comment" in reply:
            thread = f"{repository}/pulls/{number_of_it}/comments/{int(reply['review_comment'])}/replies"
            try:
                await self._call(token, "POST", thread, body)
            except SendFailed as error:
                if not error.permanent:
                    raise
                # The token may write issues only, or the thread is gone: below the pull request, then.
            else:
                return
        await self._call(token, "POST", f"{repository}/issues/{number_of_it}/comments", body)

    async def typing(self, endpoint: Endpoint, reply: Mapping[str, Any]) -> None:
        """See Channel: there is no such thing."""

    async def fetch(self, endpoint: Endpoint, attachment: Attachment, *, most: int) -> bytes:
        """See Channel: there are no files."""
        raise SendFailed("A comment at GitHub has no files.", permanent=True)

    async def _hook(self, endpoint: Endpoint) -> str | None:
        """The path of the webhook that is this endpoint's, by the id in its address. Raises: SendFailed."""
        hooks = _hooks(endpoint)
        # A repository has at most 20 for one kind of event.
        found = await self._call(endpoint.secrets["access_token"], "GET", f"{hooks}?per_page=100")
        for one in found if isinstance(found, list) else ():
            if isinstance(one, dict) and str(endpoint.id) in words(part(one, "config"), "url"):
                return f"{hooks}/{one.get('id')}"
        return None

    async def _call(self, token: str, verb: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of an answer that is 2xx. Raises: SendFailed."""
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
        if 200 <= status < 300:
            return answer
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


def _hooks(endpoint: Endpoint) -> str:
    return f"/repos/{endpoint.settings['repository']}/hooks"


def _is_labelled(subject: Mapping[str, Any]) -> bool:
    labels = subject.get("labels")
    return isinstance(labels, list) and any(
        isinstance(one, dict) and words(one, "name").lower() == LABEL for one in labels
    )
