"""Slack's Web API and Events API as a double on the wire: a real server on loopback.

    async with SlackApi() as slack:
        ...  # a channel connects with slack.token and slack.signing_secret at slack.url
        await slack.deliver(webhook_url, slack.say("Hello"), now=clock.now())

Shapes as documented at https://docs.slack.dev/apis/events-api and …/reference/methods.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web

from ocmt.testing.web import WebDouble

TOKEN = "xoxb-of-nobody-0123456789"  # noqa: S105
SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"  # noqa: S105 - the documentation's
TEAM = "T0001"
BOT = "U0LAN0Z89"


@dataclass
class Answer:
    """How one call of chat.postMessage ends. `takes_it`: the message is there all the same."""

    status: int = 200
    error: str | None = None
    retry_after: int | None = None
    takes_it: bool = False
    hangs: bool = False


class SlackApi(WebDouble):
    """One app in one workspace."""

    path = "/api"

    def __init__(self, token: str = TOKEN, signing_secret: str = SIGNING_SECRET) -> None:
        self.token = token
        self.signing_secret = signing_secret
        """Where the methods are, with `/api`."""
        self.sent: list[dict[str, Any]] = []
        """What chat.postMessage took."""
        self.statuses: list[dict[str, Any]] = []
        """What assistant.threads.setStatus took."""
        self.tokens: list[str] = []
        """The Authorization of every request, of files as well."""
        self.files: dict[str, bytes] = {}
        """By path: `/files-pri/…`."""
        self.may_read_files = True
        self.pause = 0.05
        """Seconds between two tries of a delivery; Slack's own are longer."""
        self._script: deque[Answer] = deque()
        self._events = 0

    def script(self, *answers: Answer) -> None:
        """How the next calls of chat.postMessage end."""
        self._script.extend(answers)

    def say(
        self, text: str, *, user: str = "U2147483697", channel: str = "D024BE91L", **more: Any
    ) -> dict[str, Any]:
        """An event: to the app alone in a channel D…, else a mention. `more`: other fields of the message."""
        self._events += 1
        direct = channel.startswith("D")
        event = {
            "type": "message" if direct else "app_mention",
            "user": user,
            "text": text,
            "ts": f"1893499200.{self._events:06}",
            "channel": channel,
            "event_ts": f"1893499200.{self._events:06}",
            **({"channel_type": "im"} if direct else {}),
            **more,
        }
        return {
            "token": "XXYYZZ",
            "team_id": TEAM,
            "api_app_id": "AXXXXXXXXX",
            "event": event,
            "type": "event_callback",
            "event_id": f"Ev{self._events:08}",
            "event_time": 1_893_499_200,
        }

    def signed(self, body: bytes, now: datetime) -> dict[str, str]:
        """The headers that prove it."""
        moment = str(int(now.timestamp()))
        base = b"v0:" + moment.encode() + b":" + body
        signature = hmac.new(self.signing_secret.encode(), base, hashlib.sha256).hexdigest()
        return {"X-Slack-Request-Timestamp": moment, "X-Slack-Signature": f"v0={signature}"}

    async def deliver(
        self, url: str, event: Mapping[str, Any], *, now: datetime | None = None, tries: int = 4
    ) -> tuple[int, bytes]:
        """POST it until it is taken, at most `tries` times: status and body of the last answer."""
        body = json.dumps(event).encode()
        status, said = 0, b""
        async with aiohttp.ClientSession() as session:
            for number in range(tries):
                headers = self.signed(body, now or datetime.now(UTC)) | {"Content-Type": "application/json"}
                if number:
                    headers |= {"X-Slack-Retry-Num": str(number), "X-Slack-Retry-Reason": "http_error"}
                    await asyncio.sleep(self.pause)
                try:
                    async with session.post(url, data=body, headers=headers) as response:
                        status, said = response.status, await response.read()
                        if 200 <= status < 300:
                            break
                except aiohttp.ClientError:
                    status = 0
        return status, said

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/{method}", self._method)
        app.router.add_get("/{path:.+}", self._file)
        return app

    def _knows(self, request: web.Request) -> bool:
        given = request.headers.get("authorization", "")
        self.tokens.append(given)
        return given == f"Bearer {self.token}"

    async def _method(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not self._knows(request):
            return _error("invalid_auth")
        if request.match_info["method"] == "auth.test":
            team = {
                "url": "https://subarachnoid.slack.com/",
                "team": "Subarachnoid Workspace",
                "team_id": TEAM,
            }
            return web.json_response({"ok": True, **team, "user": "bot", "user_id": BOT, "bot_id": "B0001"})
        if request.match_info["method"] == "assistant.threads.setStatus":
            self.statuses.append(body)
            return web.json_response({"ok": True})
        if request.match_info["method"] == "chat.postMessage":
            return await self._post(request, body)
        return _error("unknown_method")

    async def _post(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        answer = self._script.popleft() if self._script else Answer(takes_it=True)
        if answer.error is None and answer.status == 200 and not body.get("text"):
            return _error("no_text")
        if answer.takes_it:
            self.sent.append(body)
        if answer.hangs:
            await asyncio.Event().wait()
        headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
        if answer.error is not None or answer.status != 200:
            return _error(answer.error or "ratelimited", status=answer.status, headers=headers)
        ts = f"1893499201.{len(self.sent):06}"
        return web.json_response({"ok": True, "channel": body.get("channel"), "ts": ts, "message": body})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        known = self._knows(request)
        if not known or not self.may_read_files:
            return web.Response(text="<!DOCTYPE html><html>Sign in to Slack</html>", content_type="text/html")
        content = self.files.get(request.path)
        if content is None:
            return web.Response(status=404)
        return web.Response(body=content, content_type="application/octet-stream")


def _error(error: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"ok": False, "error": error}, status=status, headers=headers)
