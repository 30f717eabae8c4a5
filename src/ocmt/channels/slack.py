"""Slack: an app of the user's own, by the Events API. https://docs.slack.dev/apis/events-api.

The app hears `message.im` and `app_mention`, and needs the scopes `chat:write`, `im:history`,
`app_mentions:read` and, for files, `files:read`. Where its events go can not be set by API.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ocmt.channels.base import (
    Accepted,
    Answered,
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
from ocmt.channels.quoting import context_of
from ocmt.channels.slack_message import (
    beside,
    files,
    hears,
    is_direct,
    own_words,
    unreadable,
)
from ocmt.channels.splitting import in_pieces
from ocmt.channels.wire import (
    WRONG_SIGNATURE,
    Reply,
    ask,
    check_moment,
    moment_of,
    object_of,
    part,
    retry_after,
    setting_up,
    words,
)
from ocmt.chat.controls import asks_to_stop, command_in, may_be_urgent
from ocmt.errors import InvalidInput, TooLarge, Unauthenticated, Unavailable

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

PIECE = 3500
"""Characters of one message; Slack advises 4,000: https://docs.slack.dev/reference/methods/chat.postMessage."""
TYPING = "is typing…"
"""Behind the app's name."""
CALL_SECONDS = 20.0
FILE_SECONDS = 60.0
_LARGEST_ANSWER = 1024 * 1024
_FILES = "https://files.slack.com"
_TOKEN = re.compile(r"[A-Za-z0-9._-]{10,500}")
_SECRET = re.compile(r"[A-Za-z0-9]{16,200}")
_TEMPORARY = frozenset({
    "ratelimited", "rate_limited", "service_unavailable", "request_timeout", "team_added_to_org",
    "internal_error", "fatal_error",
})  # fmt: skip
_MAY_HAVE_DONE_IT = frozenset({"internal_error", "fatal_error"})


class Slack:
    """The channel `slack`."""

    name = "slack"
    label = "Slack"
    fields: Mapping[str, str] = {
        "bot_token": "The app's bot token, which begins with xoxb-",
        "signing_secret": "The app's signing secret, under Basic Information",
    }
    required = frozenset(fields)
    before: Sequence[str] = (
        "Create an app at https://api.slack.com/apps: Create New App, From scratch, and choose the "
        "workspace.",
        "Under OAuth & Permissions, add the Bot Token Scopes chat:write, im:history, app_mentions:read and, "
        "for files that are sent to it, files:read.",
        "Under App Home, turn on the Messages Tab and allow users to send messages from it.",
        "Under Install App, install it to the workspace, and copy the Bot User OAuth Token, which begins "
        "with xoxb-.",
        "Under Basic Information, App Credentials, copy the Signing Secret.",
    )
    after: Sequence[str] = (
        "In the app's settings, under Event Subscriptions, turn on Enable Events and paste the webhook's "
        "address as the Request URL: Slack says Verified.",
        "There, under Subscribe to bot events, add message.im and app_mention, and save. Reinstall the app "
        "where Slack asks for it.",
        "Write to the app; it answers with the code that lets you in. In a channel, invite it (/invite "
        "@its_name) and mention it.",
    )
    answers = True
    pairs = True

    def __init__(self, session: Callable[[], aiohttp.ClientSession], base_url: str) -> None:
        """`base_url`: where the methods are, `https://slack.com/api`."""
        self._session = session
        self._url = base_url.rstrip("/")

    def receive(self, request: Incoming, endpoint: Endpoint, now: datetime) -> Received:
        """See Channel: https://docs.slack.dev/authentication/verifying-requests-from-slack."""
        stamp = request.headers.get("x-slack-request-timestamp", "")
        moment = moment_of(stamp)
        given = request.headers.get("x-slack-signature", "").encode("utf-8", "replace")
        if not hmac.compare_digest(
            given, sign(endpoint.secrets["signing_secret"], stamp, request.body).encode()
        ):
            raise Unauthenticated(WRONG_SIGNATURE)
        check_moment(moment, now)
        data = object_of(request.body)
        kind, event = words(data, "type"), part(data, "event")
        if not kind:
            raise InvalidInput("This is not an event of Slack's.")
        if kind == "url_verification":
            return Answered(words(data, "challenge").encode("utf-8", "replace"))
        if kind != "event_callback" or not hears(event):
            return Ignored()
        event_id, thread = words(data, "event_id"), _thread(event)
        if not event_id or not thread:
            raise InvalidInput("This event of Slack's has no id or no channel.")
        return Accepted(short_id(event_id), short_id(thread), may_be_urgent(words(event, "text")))

    def read(self, body: bytes, endpoint: Endpoint) -> Message | None:
        """See Channel. Slack tells only the id of who said it; a name would take a call and `users:read`."""
        event = part(object_of(body), "event")
        sender, thread, me = words(event, "user"), _thread(event), str(endpoint.settings.get("bot_user_id"))
        if not hears(event) or not sender or not thread or sender == me:
            return None
        text, attachments, what = own_words(event, me), files(event), unreadable(event)
        steers = command_in(text) is not None or asks_to_stop(text)
        context = "" if steers else context_of(beside(event, me))
        if not text and not attachments and not context and not what:
            return None
        private, channel = is_direct(event), words(event, "channel")
        reply = {"channel": channel}
        answered = words(event, "thread_ts") or ("" if private else words(event, "ts"))
        if answered:
            reply["thread_ts"] = answered
        profile = part(event, "user_profile")
        name = words(profile, "display_name") or words(profile, "real_name") or sender
        return Message(
            sender=short_id(sender),
            sender_name=name,
            text=text,
            thread=short_id(thread),
            title=f"Slack: {name if private else channel}",
            attachments=attachments,
            reply=reply,
            private=private,
            context=context,
            unreadable=what,
        )

    async def connect(self, fields: Mapping[str, str]) -> Connected:
        """See Channel."""
        token, secret = fields.get("bot_token", "").strip(), fields.get("signing_secret", "").strip()
        if not _TOKEN.fullmatch(token) or not token.startswith("xoxb-"):
            raise InvalidInput("This is not the token of a Slack bot: those begin with xoxb-.")
        if not _SECRET.fullmatch(secret):
            raise InvalidInput("This is not a signing secret of Slack's: letters and digits only.")
        with setting_up():
            known = await self._call(token, "auth.test", {})
        me, team = words(known, "user_id"), words(known, "team")
        if not me:
            raise Unavailable("Slack gave an answer that we do not understand.")
        settings = {
            "bot_user_id": me,
            "team_id": words(known, "team_id"),
            "team": team,
        }
        name = f"@{words(known, 'user') or me}" + (f" in {team}" if team else "")
        return Connected(name, {"bot_token": token, "signing_secret": secret}, settings)

    async def register(self, endpoint: Endpoint, url: str) -> None:
        """See Channel: the user tells Slack the address, as `after` says; there is no API for it."""

    async def disconnect(self, endpoint: Endpoint) -> None:
        """See Channel: the address is the user's to remove."""

    def split(self, text: str) -> list[str]:
        """See Channel."""
        return in_pieces(text, PIECE)

    async def send(self, endpoint: Endpoint, reply: Mapping[str, Any], text: str, *, key: str) -> None:
        """See Channel. Slack knows no duplicates, so `key` is of no use.

        Escaped, so that an answer calls nobody: https://docs.slack.dev/messaging/formatting-message-text.
        Links are not unfolded, for Slack would visit them.
        """
        body: dict[str, Any] = {
            "channel": reply.get("channel"),
            "text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
            "unfurl_links": False,
            "unfurl_media": False,
        }
        if "thread_ts" in reply:
            body["thread_ts"] = reply["thread_ts"]
        await self._call(endpoint.secrets["bot_token"], "chat.postMessage", body)

    async def typing(self, endpoint: Endpoint, reply: Mapping[str, Any]) -> None:
        """See Channel. Only in threads, where it goes with the answer, else after two minutes.

        https://docs.slack.dev/reference/methods/assistant.threads.setStatus; `chat:write` is enough for it.
        """
        if "thread_ts" in reply:
            status = {"channel_id": reply.get("channel"), "thread_ts": reply["thread_ts"], "status": TYPING}
            await self._call(endpoint.secrets["bot_token"], "assistant.threads.setStatus", status)

    async def fetch(self, endpoint: Endpoint, attachment: Attachment, *, most: int) -> bytes:
        """See Channel. The token goes to Slack's own host for files and to no other.

        https://docs.slack.dev/reference/objects/file-object; without the scope `files:read` there comes a
        page to sign in at, or a redirect to it.
        """
        too_large = TooLarge(f"The file is larger than {most} bytes.")
        url = _address(attachment.reference, (_FILES, self._url))
        if url is None:
            raise SendFailed("This file is not at Slack.", permanent=True)
        if attachment.size is not None and attachment.size > most:
            raise too_large
        token = endpoint.secrets["bot_token"]
        answer = await self._ask("GET", url, token, None, FILE_SECONDS, most)
        status, content = answer.status, answer.content
        is_page = answer.headers.get("content-type", "").startswith("text/html")
        if (is_page and not attachment.media_type.startswith("text/html")) or 300 <= status < 400:
            raise SendFailed(
                "The Slack app may not read files: it lacks the scope files:read.", permanent=True
            )
        if status != 200:
            permanent = 400 <= status < 500 and status != 429
            raise SendFailed("Slack does not give the file.", permanent=permanent, detail=f"file: {status}")
        if content is None:
            raise too_large
        return content

    async def _call(self, token: str, method: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """A method's answer. Raises: SendFailed. https://docs.slack.dev/apis/web-api#responses."""
        url = f"{self._url}/{method}"
        reply = await self._ask("POST", url, token, body, CALL_SECONDS, _LARGEST_ANSWER)
        status, answer = reply.status, object_of(reply.content or b"")
        if status == 200 and answer.get("ok") is True:
            return answer
        said = words(answer, "error")[:100]
        detail = f"{method}: {status} {said}"
        if status == 429 or said in _TEMPORARY:
            raise SendFailed(
                "Slack wants us to wait." if said not in _MAY_HAVE_DONE_IT else "Slack has a problem.",
                uncertain=said in _MAY_HAVE_DONE_IT,
                detail=detail,
                retry_after=retry_after(reply.headers),
            )
        if (status == 200 and said) or 300 <= status < 500:
            raise SendFailed(f"Slack says: {said or status}", permanent=True, detail=detail)
        # Behind a 200 without an `ok` is something that is not Slack; it may have passed it on.
        raise SendFailed(
            "Slack has a problem.", uncertain=status < 300 or status in (502, 504), detail=detail
        )

    async def _ask(
        self, verb: str, url: str | URL, token: str, body: Mapping[str, Any] | None, seconds: float, most: int
    ) -> Reply:
        """With the token. Raises: SendFailed where there was no answer."""
        headers = {"authorization": f"Bearer {token}"}
        reply = await ask(self._session, verb, url, body=body, headers=headers, seconds=seconds, most=most)
        reply.check(self.label)
        return reply


def sign(signing_secret: str, timestamp: str, body: bytes) -> str:
    """The signature of a request: `v0=…`."""
    base = b"v0:" + timestamp.encode() + b":" + body
    return "v0=" + hmac.digest(signing_secret.encode(), base, "sha256").hex()


def _thread(event: Mapping[str, Any]) -> str:
    channel = words(event, "channel")
    if not channel or is_direct(event):
        return channel
    return f"{channel}:{words(event, 'thread_ts') or words(event, 'ts')}"


def _address(reference: str, allowed: Sequence[str]) -> URL | None:
    """The address, where it is on one of these servers."""
    from yarl import URL  # late, as HttpClient says; what is looked at is what is called

    try:
        url = URL(reference)
        there = url.origin()
    except (ValueError, TypeError):
        return None
    servers = [URL(one).origin() for one in allowed]
    return url if there in servers and url.user is None and url.password is None else None
