"""GitHub's REST API and webhooks of one repository as a double on the wire: a real server on loopback.

    async with GitHubApi() as github:
        ...  # a channel connects with github.token and github.repository at github.url
        await github.deliver("issue_comment", github.comment("@ocmt-bot hello", number=7))

Shapes as documented at https://docs.github.com/en/rest and …/webhooks/webhook-events-and-payloads.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

from ocmt.testing.web import WebDouble

TOKEN = "token-of-nobody-0123456789"  # noqa: S105
REPOSITORY = "octocat/Hello-World"


@dataclass
class Failed:
    """How one call that writes a comment ends. `takes_it`: the comment is there all the same."""

    status: int
    message: str = "Server Error"
    headers: Mapping[str, str] = field(default_factory=dict)
    takes_it: bool = False
    hangs: bool = False


class GitHubApi(WebDouble):
    """One repository, and the account that the token is of."""

    def __init__(self, token: str = TOKEN, repository: str = REPOSITORY, login: str = "ocmt-bot") -> None:
        self.token = token
        self.repository = repository
        self.login = login
        self.account_id = 41898282
        self.hooks: dict[int, dict[str, Any]] = {}
        self.comments: list[tuple[int, str]] = []
        """Number and text of what was written."""
        self.replies: list[tuple[int, int, str]] = []
        """Number, comment and text of what was written in the thread of a review."""
        self.may_write_pulls = True
        """Whether the token may write pull requests as well as issues."""
        self.accounts = {login: self.account_id, "Codertocat": 21031067}
        """The numbers of people, by login; of whoever else writes one is made up."""
        self.pings = False
        """Whether a new webhook is tried before its maker has the answer, which is as soon as can be."""
        self.pinged: list[int] = []
        """What the webhooks said to that."""
        self._script: deque[Failed] = deque()
        self._numbers = 1

    def script(self, *answers: Failed) -> None:
        """How the next comments end."""
        self._script.extend(answers)

    def issue(self, text: str, *, number: int = 1, user: str = "Codertocat", **more: Any) -> dict[str, Any]:
        """The payload of `issues` when one is opened. `more`: other fields of the issue, as `labels`."""
        return {"action": "opened", "issue": self._subject(text, number, user, more), **self._around(user)}

    def pull_request(
        self, text: str, *, number: int = 2, user: str = "Codertocat", **more: Any
    ) -> dict[str, Any]:
        """The payload of `pull_request` when one is opened."""
        subject = self._subject(text, number, user, more)
        return {"action": "opened", "number": number, "pull_request": subject, **self._around(user)}

    def comment(self, text: str, *, number: int = 1, user: str = "Codertocat", **more: Any) -> dict[str, Any]:
        """The payload of `issue_comment` when one is written. `more`: other fields of its issue."""
        self._numbers += 1
        comment = {"id": self._numbers, "body": text, "user": self._person(user)}
        issue = self._subject("It does not work.", number, "octocat", more)
        return {"action": "created", "issue": issue, "comment": comment, **self._around(user)}

    def review(
        self, text: str | None, *, number: int = 2, user: str = "Codertocat", **more: Any
    ) -> dict[str, Any]:
        """The payload of `pull_request_review` when one is submitted. `more`: other fields of the review."""
        self._numbers += 1
        known = {"id": self._numbers, "body": text, "state": "changes_requested", "user": self._person(user)}
        subject = self._subject("Please look.", number, "octocat", {})
        return {
            "action": "submitted",
            "review": {**known, **more},
            "pull_request": subject,
            **self._around(user),
        }

    def review_comment(
        self, text: str, *, number: int = 2, user: str = "Codertocat", **more: Any
    ) -> dict[str, Any]:
        """The payload of `pull_request_review_comment` when one is written. `more`: other fields of it."""
        self._numbers += 1
        where = {"path": "src/a.py", "line": 7, "diff_hunk": "@@ -1 +1 @@\n-a\n+b"}
        known = {"id": self._numbers, "body": text, "user": self._person(user), **where}
        subject = self._subject("Please look.", number, "octocat", {})
        return {
            "action": "created",
            "comment": {**known, **more},
            "pull_request": subject,
            **self._around(user),
        }

    async def deliver(self, event: str, payload: Mapping[str, Any], *, delivery: str = "") -> int:
        """POST it once to every webhook that asked for the event, as GitHub does; the last status."""
        body = json.dumps(payload).encode()
        status = 0
        async with aiohttp.ClientSession() as session:
            for hook_id, hook in list(self.hooks.items()):
                if event != "ping" and event not in hook["events"]:
                    continue
                headers = signed(hook["config"]["secret"], body) | {
                    "Content-Type": "application/json",
                    "User-Agent": "GitHub-Hookshot/044aadd",
                    "X-GitHub-Hook-ID": str(hook_id),
                    "X-GitHub-Event": event,
                    "X-GitHub-Delivery": delivery or str(uuid4()),
                }
                async with session.post(hook["config"]["url"], data=body, headers=headers) as response:
                    status = response.status
        return status

    def _app(self) -> web.Application:
        app = web.Application()
        repository = "/repos/{owner}/{name}"
        app.router.add_get("/user", self._user)
        app.router.add_get(repository + "/hooks", self._list_hooks)
        app.router.add_post(repository + "/hooks", self._make_hook)
        app.router.add_patch(repository + "/hooks/{id}", self._change_hook)
        app.router.add_delete(repository + "/hooks/{id}", self._delete_hook)
        app.router.add_post(repository + "/issues/{number}/comments", self._write)
        app.router.add_post(repository + "/pulls/{number}/comments/{comment}/replies", self._reply)
        app.middlewares.append(self._guard)
        return app

    def _subject(self, text: str, number: int, user: str, more: Mapping[str, Any]) -> dict[str, Any]:
        known = {"id": 73_464_126 + number, "number": number, "title": "Spelling error", "state": "open"}
        return {**known, "labels": [], "user": self._person(user), "body": text, **more}

    def _around(self, user: str) -> dict[str, Any]:
        return {"repository": {"full_name": self.repository}, "sender": self._person(user)}

    def _person(self, login: str) -> dict[str, Any]:
        known = self.accounts.setdefault(login, 30_000_000 + len(self.accounts))
        return {"login": login, "id": known, "type": "Bot" if login.endswith("[bot]") else "User"}

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return _error(401, "Bad credentials")
        if not request.headers.get("user-agent"):
            return _error(403, "Request forbidden by administrative rules.")
        where = request.match_info
        if "owner" in where and f"{where['owner']}/{where['name']}" != self.repository:
            return _error(404, "Not Found")
        if "id" in where and int(where["id"]) not in self.hooks:
            return _error(404, "Not Found")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _user(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"login": self.login, "id": self.account_id, "type": "User"})

    async def _list_hooks(self, request: web.Request) -> web.StreamResponse:
        return web.json_response([_shown(hook) for hook in self.hooks.values()])

    async def _make_hook(self, request: web.Request) -> web.StreamResponse:
        hook = await request.json()
        if any(one["config"]["url"] == hook["config"]["url"] for one in self.hooks.values()):
            problem = {
                "resource": "Hook",
                "code": "custom",
                "message": "Hook already exists on this repository",
            }
            return _error(422, "Validation Failed", errors=[problem])
        self._numbers += 1
        self.hooks[self._numbers] = {"id": self._numbers, **hook}
        if self.pings:
            self.pinged.append(await self.deliver("ping", {"zen": "Design for failure."}))
        return web.json_response(_shown(self.hooks[self._numbers]), status=201)

    async def _change_hook(self, request: web.Request) -> web.StreamResponse:
        hook = self.hooks[int(request.match_info["id"])]
        hook.update(await request.json())
        return web.json_response(_shown(hook))

    async def _delete_hook(self, request: web.Request) -> web.StreamResponse:
        del self.hooks[int(request.match_info["id"])]
        return web.Response(status=204)

    async def _write(self, request: web.Request) -> web.StreamResponse:
        text, number = str((await request.json()).get("body", "")), int(request.match_info["number"])
        fault = self._script.popleft() if self._script else None
        if fault is None and not 0 < len(text) <= 65536:
            return _error(422, "Validation Failed")
        if fault is None or fault.takes_it:
            self.comments.append((number, text))
        if fault is None:
            return web.json_response({"id": len(self.comments), "body": text}, status=201)
        if fault.hangs:
            await asyncio.Event().wait()
        return _error(fault.status, fault.message, headers=fault.headers)

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        if not self.may_write_pulls:
            return _error(403, "Resource not accessible by personal access token")
        text = str((await request.json()).get("body", ""))
        number, comment = int(request.match_info["number"]), int(request.match_info["comment"])
        self.replies.append((number, comment, text))
        return web.json_response({"id": len(self.replies), "body": text}, status=201)


def signed(secret: str, body: bytes) -> dict[str, str]:
    """The header that proves it."""
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def _shown(hook: Mapping[str, Any]) -> dict[str, Any]:
    return {**hook, "config": {**hook["config"], "secret": "********"}}


def _error(
    status: int, message: str, *, headers: Mapping[str, str] | None = None, **more: object
) -> web.Response:
    body = {"message": message, "documentation_url": "https://docs.github.com/rest", **more}
    return web.json_response(body, status=status, headers=headers)
