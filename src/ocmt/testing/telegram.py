"""Telegram's Bot API as a double on the wire: a real server on loopback, and the webhooks that it would send.

    async with TelegramApi() as telegram:
        ...  # a channel connects with telegram.token at telegram.url
        await telegram.deliver(telegram.say("Hello", sender=ADA))
        telegram.fail(2, 429, retry_after=3)

Shapes as documented at https://core.telegram.org/bots/api. Unlike there, a webhook may be plain http.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from ocmt.testing.web import WebDouble

TOKEN = "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11"  # noqa: S105 - the documentation's
ADA: Mapping[str, Any] = {"id": 1001, "is_bot": False, "first_name": "Ada", "last_name": "Lovelace"}
GROUP: Mapping[str, Any] = {"id": -1001234567890, "type": "supergroup", "title": "Engines"}
_MOST = 4096
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")


@dataclass
class Sent:
    """A message that the bot has sent: what it said, and the whole request."""

    chat_id: int
    text: str
    body: dict[str, Any]


@dataclass
class Fault:
    """What happens to one call. `takes_it`: the message is there all the same."""

    status: int | None = None
    """Of the answer; None: there is none, the connection is cut or `hangs`."""
    retry_after: int | None = None
    description: str = "Internal Server Error"
    takes_it: bool = False
    hangs: bool = False


class TelegramApi(WebDouble):
    """One bot, its webhook and its files."""

    def __init__(self, token: str = TOKEN, username: str = "ocmt_bot") -> None:
        self.token = token
        self.username = username
        self.bot_id = int(token.partition(":")[0])
        self.sent: list[Sent] = []
        self.actions: list[dict[str, Any]] = []
        """What sendChatAction was asked."""
        self.webhook: dict[str, Any] | None = None
        """As setWebhook was asked."""
        self.calls: list[str] = []
        """The methods of all calls, in their order."""
        self.slow = 0.0
        """Seconds before each answer."""
        self.pause = 0.05
        """Seconds between two tries of a delivery; Telegram's own are longer."""
        self.most_tries = 20
        self.moved: dict[int, int] = {}
        """Groups that have become supergroups: their new ids, by the old ones."""
        self._files: dict[str, tuple[str, bytes]] = {}
        self._faults: dict[str, deque[Fault]] = {}
        self._updates = 0
        self._messages = 0
        self._in_order = asyncio.Lock()

    def fail(
        self,
        times: int,
        status: int,
        *,
        retry_after: int | None = None,
        description: str = "",
        method: str = "sendMessage",
    ) -> None:
        """Answer the next calls with an error."""
        description = description or ("Too Many Requests" if status == 429 else "Internal Server Error")
        self._fault(times, method, Fault(status, retry_after, description))

    def drop(self, times: int = 1, *, takes_it: bool = True, method: str = "sendMessage") -> None:
        """Take the next calls, or do not, and cut the connection instead of answering."""
        self._fault(times, method, Fault(takes_it=takes_it))

    def hang(self, times: int = 1, *, takes_it: bool = True, method: str = "sendMessage") -> None:
        """Take the next calls, or do not, and never answer."""
        self._fault(times, method, Fault(takes_it=takes_it, hangs=True))

    def add_file(self, content: bytes, path: str = "documents/file_1.bin") -> str:
        """A file that getFile knows: its id."""
        file_id = f"BQACAgIAAxkBAAI{secrets.token_hex(8)}"
        self._files[file_id] = (path, content)
        return file_id

    def say(
        self,
        text: str | None,
        *,
        chat: Mapping[str, Any] | None = None,
        sender: Mapping[str, Any] = ADA,
        **more: Any,
    ) -> dict[str, Any]:
        """An update with a message; without `chat`, one to the bot alone. Names and commands become entities.

        `more`: other fields of the message, as `photo` or `reply_to_message`.
        """
        self._updates += 1
        self._messages += 1
        private = {"id": sender["id"], "type": "private", "first_name": sender.get("first_name")}
        message: dict[str, Any] = {
            "message_id": self._messages,
            "from": dict(sender),
            "chat": dict(chat or private),
            "date": 1_893_499_200,
        }
        if text is not None:
            message["text"] = text
            if entities := _entities(text):
                message["entities"] = entities
        return {"update_id": 10_000 + self._updates, "message": {**message, **more}}

    async def deliver(self, update: Mapping[str, Any]) -> int:
        """POST it to the webhook until that says 2xx, one update at a time. Returns how many tries it took.

        Raises: RuntimeError without a webhook, or after `most_tries`.
        """
        async with self._in_order, aiohttp.ClientSession() as session:
            for number in range(1, self.most_tries + 1):
                if self.webhook is None:
                    raise RuntimeError("there is no webhook")
                headers = {"X-Telegram-Bot-Api-Secret-Token": str(self.webhook.get("secret_token", ""))}
                try:
                    async with session.post(self.webhook["url"], json=update, headers=headers) as response:
                        if 200 <= response.status < 300:
                            return number
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(self.pause)
        raise RuntimeError(f"the webhook did not take it in {self.most_tries} tries")

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/bot{token}/{method}", self._method)
        app.router.add_get("/file/bot{token}/{path:.+}", self._file)
        return app

    def _fault(self, times: int, method: str, fault: Fault) -> None:
        self._faults.setdefault(method, deque()).extend([fault] * times)

    async def _method(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.calls.append(method)
        body = await request.json() if request.can_read_body else {}
        if self.slow:
            await asyncio.sleep(self.slow)
        if request.match_info["token"] != self.token:
            return _error(401, "Unauthorized")
        does = getattr(self, f"_do_{method.lower()}", None)
        if does is None:
            return _error(404, "Not Found: method not found")
        faults = self._faults.get(method)
        fault = faults.popleft() if faults else None
        answer: web.Response | None = does(body) if fault is None or fault.takes_it else None
        if fault is None:
            assert answer is not None
            return answer
        if fault.status is not None:
            more = {} if fault.retry_after is None else {"parameters": {"retry_after": fault.retry_after}}
            return _error(fault.status, fault.description, **more)
        if fault.hangs:
            await asyncio.Event().wait()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _file(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["token"] == self.token:
            for path, content in self._files.values():
                if path == request.match_info["path"]:
                    # In pieces and without a length, as large ones come.
                    response = web.StreamResponse(headers={"content-type": "application/octet-stream"})
                    await response.prepare(request)
                    for start in range(0, len(content), 65536):
                        await response.write(content[start : start + 65536])
                    return response
        return _error(404, "Not Found")

    def _do_getme(self, body: Mapping[str, Any]) -> web.Response:
        return _result(self._me())

    def _do_setwebhook(self, body: dict[str, Any]) -> web.Response:
        if not str(body.get("url", "")).startswith(("https://", "http://")):
            return _error(400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook")
        if not _SECRET.fullmatch(str(body.get("secret_token", "none"))):
            return _error(400, "Bad Request: secret token contains unallowed characters")
        self.webhook = body
        return _result(True, description="Webhook was set")

    def _do_deletewebhook(self, body: Mapping[str, Any]) -> web.Response:
        self.webhook = None
        return _result(True, description="Webhook was deleted")

    def _do_getwebhookinfo(self, body: Mapping[str, Any]) -> web.Response:
        known = self.webhook or {}
        info = {"url": known.get("url", ""), "has_custom_certificate": False, "pending_update_count": 0}
        if "allowed_updates" in known:
            info["allowed_updates"] = known["allowed_updates"]
        return _result(info)

    def _do_sendmessage(self, body: dict[str, Any]) -> web.Response:
        text = str(body.get("text", ""))
        if not isinstance(body.get("chat_id"), int):
            return _error(400, "Bad Request: chat not found")
        if body["chat_id"] in self.moved:
            where = {"migrate_to_chat_id": self.moved[body["chat_id"]]}
            upgraded = "Bad Request: group chat was upgraded to a supergroup chat"
            return _error(400, upgraded, parameters=where)
        if not text.strip():
            return _error(400, "Bad Request: message text is empty")
        if _units(text) > _MOST:
            return _error(400, "Bad Request: message is too long")
        self._messages += 1
        self.sent.append(Sent(body["chat_id"], text, body))
        chat = {"id": body["chat_id"], "type": "private" if body["chat_id"] > 0 else "supergroup"}
        said = {"message_id": self._messages, "from": self._me(), "chat": chat, "date": 1_893_499_200}
        return _result({**said, "text": text})

    def _do_sendchataction(self, body: dict[str, Any]) -> web.Response:
        self.actions.append(body)
        return _result(True)

    def _do_getfile(self, body: Mapping[str, Any]) -> web.Response:
        file_id = str(body.get("file_id"))
        if file_id not in self._files:
            return _error(400, "Bad Request: invalid file_id")
        path, content = self._files[file_id]
        if len(content) > 20 * 1024 * 1024:
            return _error(400, "Bad Request: file is too big")
        size = {"file_size": len(content)}
        return _result({"file_id": file_id, "file_unique_id": "AgADBAADr6cxG", **size, "file_path": path})

    def _me(self) -> dict[str, Any]:
        name = {"first_name": "OCMT", "username": self.username}
        return {"id": self.bot_id, "is_bot": True, **name, "can_join_groups": True}


def _entities(text: str) -> list[dict[str, Any]]:
    found = re.finditer(r"(?P<command>/\w+(?:@\w+)?)|@\w{4,}", text)
    return [
        {
            "type": "bot_command" if one["command"] else "mention",
            "offset": _units(text[: one.start()]),
            "length": _units(one[0]),
        }
        for one in found
    ]


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _result(result: object, **more: str) -> web.Response:
    return web.json_response({"ok": True, "result": result, **more})


def _error(status: int, description: str, **more: object) -> web.Response:
    body = {"ok": False, "error_code": status, "description": description, **more}
    return web.json_response(body, status=status)
