"""What holds for every route: who may come in, whose things are whose, how errors look."""

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NoReturn
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from starlette.routing import Route
from starlette.types import Message

from ocmt.agents.model import EgressPolicy, Plan
from ocmt.agents.plans import Plans
from ocmt.errors import Unavailable
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock
from tests.identity.browser import Answer, Browser
from tests.services.conftest import House

pytestmark = pytest.mark.anyio

ENTRANCE = {
    "/api/v1/auth/magic-link",
    "/api/v1/auth/magic-link/verify",
    "/api/v1/auth/mfa",
    "/api/v1/auth/passkey/options",
    "/api/v1/auth/passkey/verify",
    "/api/v1/auth/providers",
    "/api/v1/auth/oidc/{provider}/start",
    "/api/v1/auth/oidc/{provider}/callback",
    "/.well-known/jwks.json",
}
BODIES = {
    "/api/v1/auth/magic-link": {"email": "anna@example.org"},
    "/api/v1/auth/magic-link/verify": {"token": "x"},
    "/api/v1/admin/users": {"email": "carla@example.org"},
    "/api/v1/vault/items/{name}": {"value": "sk-ant-1234"},
    "/agent": {"egress": True},
    "/agent/channels/{endpoint_id}": {"name": "mine"},
    "/agent/channels/{endpoint_id}/senders/approve": {"sender": "bob"},
    "/agent/channels/{endpoint_id}/senders/block": {"sender": "bob"},
    "/agent/channels/{endpoint_id}/deliveries/replay": {"from": "2026-01-01T00:00:00Z"},
    "/agent/conversations/{conversation_id}": {"title": "mine"},
    "/agent/conversations/{conversation_id}/turns": {"text": "hello"},
}


def routes(house: House) -> Iterator[tuple[str, str]]:
    """(method, path template) of every route for people."""
    for path, operations in house.api.openapi()["paths"].items():
        for method in operations:
            yield method.upper(), path
    for route in house.agents.routes:
        if isinstance(route, Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, route.path


async def knock(browser: Browser, method: str, template: str, names: dict[str, str]) -> Answer:
    """One request to a route, with a body as it should be."""
    path = re.sub(r"{(\w+)}", lambda match: names.get(match[1], str(uuid4())), template)
    body = BODIES.get(template, {}) if method in ("POST", "PUT", "PATCH") else None
    return await browser.call(method, path, body, headers={"idempotency-key": "k"})


def assert_problem(answer: Answer, *, status: int, where: str) -> None:
    assert answer.status == status, f"{where}: {answer.status} {answer.body!r}"
    assert answer.headers["content-type"] == "application/problem+json", where
    problem = answer.json()
    assert {"type", "title", "status", "detail", "code", "retryable"} <= problem.keys(), where
    assert problem["status"] == status


async def test_nobody_gets_anywhere_without_signing_in(house: House) -> None:
    walked = 0
    for method, template in routes(house):
        if template not in ENTRANCE:
            answer = await knock(Browser(house.app), method, template, {})
            assert_problem(answer, status=401, where=f"{method} {template}")
            walked += 1
    assert walked >= 20


async def test_another_users_things_do_not_exist(house: House, database: Database) -> None:
    anna = await house.sign_in("anna@example.org")
    bert = await house.sign_in("bert@example.org")
    conversation = (await anna.call("POST", "/agent/conversations", {})).json()["id"]
    turns = f"/agent/conversations/{conversation}/turns"
    turn = (await anna.call("POST", turns, {"text": "secret"}, headers={"idempotency-key": "k"})).json()["id"]
    session = (await anna.call("GET", "/api/v1/sessions")).json()["items"][0]["id"]
    async with database.connection() as connection:
        await connection.execute(
            "insert into snapshots select user_id, 7, now(), null, 0, 0, '', '' from agents"
            " where user_id = (select id from users where email = 'anna@example.org')"
        )
    file = (await upload(anna, "a.txt", "text/plain", b"secret")).json()["id"]
    channel = (await anna.call("POST", "/agent/channels", {"channel": "signed"})).json()["id"]
    names = {"conversation_id": conversation, "turn_id": turn, "session_id": session, "generation": "7"}
    names |= {"attachment_id": file, "endpoint_id": channel}
    walked = []
    for method, template in routes(house):
        if set(re.findall(r"{(\w+)}", template)) & names.keys():
            answer = await knock(bert, method, template, names)
            assert_problem(answer, status=404, where=f"{method} {template}")
            walked.append(template)
    assert len(walked) >= 20
    assert (await anna.call("GET", f"/agent/attachments/{file}")).body == b"secret"
    assert (await anna.call("GET", f"/agent/channels/{channel}")).status == 200
    assert (await anna.call("GET", "/agent/snapshots")).json()["restore_asked"] is None
    assert (await anna.call("GET", turns)).json()["items"][0]["text"] == "secret", "it is all still there"
    assert (await anna.call("GET", "/api/v1/me")).status == 200


async def test_what_one_puts_into_the_vault_nobody_else_finds(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    bert = await house.sign_in("bert@example.org")
    item = "/api/v1/vault/items/anthropic_api_key"
    assert (await anna.call("PUT", item, {"value": "sk-ant-secret-1234"})).status == 200
    assert (await bert.call("GET", "/api/v1/vault/items")).json()["items"] == []
    assert (await bert.call("DELETE", item)).status == 204, "what he does not have is gone"
    listed = await anna.call("GET", "/api/v1/vault/items")
    assert [found["name"] for found in listed.json()["items"]] == ["anthropic_api_key"]
    assert b"sk-ant-secret" not in listed.body


async def test_an_agents_page_tells_what_keeps_it_awake_and_what_it_has_planned(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    me = UUID((await anna.call("GET", "/api/v1/me")).json()["id"])
    agents = house.orchestrator.agents
    await agents.find(me)
    await agents.hold(me, "operator", "cli", ttl=timedelta(hours=1), note="a demo")
    shown = (await anna.call("GET", "/agent")).json()
    assert shown["files"] == {"saved_at": None, "generation": None, "problem": None}
    (hold,) = shown["kept_awake_by"]
    assert (hold["reason"], hold["text"]) == ("operator", "An operator keeps it awake: a demo")
    assert (await anna.call("GET", "/agent/schedule")).json() == {
        "jobs": [],
        "done": [],
        "next_run_at": None,
        "left_out": 0,
        "read_at": None,
        "heartbeat": {"on": False, "turns_per_day": 0},
    }


async def test_only_administrators_administer(house: House) -> None:
    await house.sign_in("anna@example.org")
    bert = await house.sign_in("bert@example.org")
    for method in ("GET", "POST"):
        answer = await bert.call(method, "/api/v1/admin/users", {"email": "carla@example.org"})
        assert_problem(answer, status=403, where=method)


async def test_a_write_from_another_sites_page_is_refused_everywhere(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    anna.origin = "https://evil.example"
    for method, template in routes(house):
        if method != "GET":
            answer = await knock(anna, method, template, {})
            assert_problem(answer, status=403, where=f"{method} {template}")


async def test_nonsense_is_a_problem_in_words_and_never_a_crash(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    for method, template in routes(house):
        wrong: list[object] = [[], "x", {"unknown": 1}, {"text": 7, "email": [], "token": {}, "value": None}]
        for body in wrong:
            if method in ("POST", "PUT", "PATCH") and template in BODIES:
                path = re.sub(r"{(\w+)}", "nonsense", template)
                answer = await anna.call(method, path, body, headers={"idempotency-key": "k"})
                assert answer.status in (400, 404), f"{method} {path} {body}: {answer.body!r}"
                assert_problem(answer, status=answer.status, where=f"{method} {path}")
    for path in ("/agent/nothing", "/api/v1/nothing", "/api/nothing", "/agent/conversations/x/turns"):
        assert_problem(await anna.call("GET", path), status=404, where=path)
    assert_problem(await anna.call("DELETE", "/api/v1/usage"), status=405, where="DELETE /api/v1/usage")


async def upload(browser: Browser, name: str, kind: str, content: bytes) -> Answer:
    """A file for a message."""
    headers = {"content-type": kind, "x-ocmt-request": "1"}
    return await browser.call("POST", f"/agent/attachments?name={quote(name)}", content, headers=headers)


async def test_files_are_sent_shown_and_downloaded_and_nothing_in_them_runs_here(house: House) -> None:
    signed_in = await house.sign_in("anna@example.org")
    anna = PatientBrowser(signed_in.app, cookies=signed_in.cookies)
    page = (await upload(anna, 'x"; y=\r\né.html', "text/html", b"<script>alert(1)</script>")).json()
    photo = (await upload(anna, "p.png", "image/png", b"\x89PNG" * 300_000)).json()
    assert (page["name"], photo["size"]) == ('x"; y= é.html', 1_200_000)
    shown = await anna.call("GET", f"/agent/attachments/{photo['id']}")
    assert (shown.headers["content-type"], len(shown.body)) == ("image/png", 1_200_000)
    assert shown.headers["content-disposition"].startswith("inline")
    saved = await anna.call("GET", f"/agent/attachments/{page['id']}")
    assert saved.headers["content-type"] == "application/octet-stream"
    assert saved.headers["content-disposition"] == "attachment; filename*=UTF-8''x%22%3B%20y%3D%20%C3%A9.html"
    for answer in (shown, saved):
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    again = {"if-none-match": shown.headers["etag"]}
    assert (await anna.call("GET", f"/agent/attachments/{photo['id']}", headers=again)).status == 304
    conversation = (await anna.call("POST", "/agent/conversations", {})).json()["id"]
    turns = f"/agent/conversations/{conversation}/turns"
    sent = await anna.call("POST", turns, {"attachments": [photo["id"]]}, headers={"idempotency-key": "k"})
    assert sent.status == 202
    assert (await anna.call("GET", turns)).json()["items"][0]["attachments"] == [photo]
    assert (await anna.call("DELETE", f"/agent/attachments/{photo['id']}")).status == 404
    assert (await anna.call("DELETE", f"/agent/attachments/{page['id']}")).status == 204
    assert (await anna.call("GET", f"/agent/attachments/{page['id']}")).status == 404


async def test_a_file_may_be_larger_than_a_message_and_has_a_limit_of_its_own(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    assert (await upload(anna, "a", "text/plain", b"x" * 3 * 1024 * 1024)).status == 201
    for size in (16 * 1024 * 1024 + 1, 18 * 1024 * 1024):
        assert_problem(await upload(anna, "a", "text/plain", b"x" * size), status=413, where=f"{size} bytes")
    assert_problem(await upload(anna, "a", "text/plain", b""), status=400, where="an empty file")


async def test_what_is_too_large_is_refused_in_plain_words(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    conversation = (await anna.call("POST", "/agent/conversations", {})).json()["id"]
    turns = f"/agent/conversations/{conversation}/turns"
    key = {"idempotency-key": "k"}
    message = await anna.call("POST", turns, {"text": "x" * 1024 * 1024}, headers=key)
    assert_problem(message, status=413, where="a message of 1 MB")
    assert "1024 KB; at most 256 KB" in message.json()["detail"]
    body = await anna.call("POST", turns, {"text": "x" * 3 * 1024 * 1024}, headers=key)
    assert_problem(body, status=413, where="a body of 3 MB")
    assert "at most 2 MB" in body.json()["detail"]
    assert (await anna.call("GET", turns)).json()["items"] == []


async def test_nothing_of_the_broker_is_on_the_public_port(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    for path in ("/broker", "/broker/", "/broker/anthropic/v1/messages", "/broker/anthropic/v1/messages/"):
        for method in ("GET", "POST", "PUT", "OPTIONS"):
            answer = await anna.call(method, path, {"model": "x"} if method in ("POST", "PUT") else None)
            assert (answer.status, answer.body) == (404, b"Not found\n"), (method, path)
    for path in ("/v1/messages", "//broker/anthropic/v1/messages", "/agent/broker/v1/messages"):
        answer = await anna.call("POST", path, {"model": "x"})
        assert answer.status in (404, 405), path


async def test_a_websocket_to_the_broker_is_not_found_either(house: House) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {
        "type": "websocket",
        "path": "/broker/anthropic/v1/messages",
        "raw_path": b"/broker/anthropic/v1/messages",
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    await house.app(scope, receive, send)
    assert [(message["type"], message.get("status")) for message in sent] == [
        ("websocket.http.response.start", 404),
        ("websocket.http.response.body", None),
    ]


class TestTheInternet:
    async def test_to_switch_it_on_takes_a_recent_sign_in_and_leaves_a_trace(
        self, house: House, clock: VirtualClock
    ) -> None:
        anna = await house.sign_in("anna@example.org")
        assert (await anna.call("GET", "/agent")).json()["egress_policy"] == "opt-in"
        shown = await anna.call("PATCH", "/agent", {"egress": True})
        assert (shown.status, shown.json()["egress"]) == (200, True)
        actions = [row["action"] for row in (await anna.call("GET", "/api/v1/audit")).json()["items"]]
        assert actions.count("agent.egress") == 1
        made = {"name": "mine", "scopes": ["agent:read", "agent:write"]}
        key = (await anna.call("POST", "/api/v1/api-keys", made)).json()["key"]
        program = {"authorization": f"Bearer {key}"}
        by_key = await Browser(house.app).call("PATCH", "/agent", {"egress": True}, headers=program)
        assert (by_key.status, by_key.json()["code"]) == (403, "refused")  # it outlives every token
        await anna.call("PATCH", "/agent", {"egress": True})
        await anna.call("PATCH", "/agent", {"egress": False})
        await clock.advance(3600)
        refused = await anna.call("PATCH", "/agent", {"egress": True})
        assert (refused.status, refused.json()["code"]) == (403, "recent_sign_in_needed")

    @pytest.mark.parametrize("egress_policy", ["off"])
    async def test_where_the_operator_says_no_nobody_switches_it_on(self, house: House) -> None:
        anna = await house.sign_in("anna@example.org")
        me = UUID((await anna.call("GET", "/api/v1/me")).json()["id"])
        made = {"name": "mine", "scopes": ["agent:read", "agent:write"]}
        key = (await anna.call("POST", "/api/v1/api-keys", made)).json()["key"]
        program = {"authorization": f"Bearer {key}"}
        for asking, headers in ((anna, {}), (Browser(house.app), program)):
            refused = await asking.call("PATCH", "/agent", {"egress": True}, headers=headers)
            assert refused.status == 403
            if asking is anna:
                assert refused.json()["detail"].startswith("The operator of this installation does not let")
        shown = (await anna.call("GET", "/agent")).json()
        assert (shown["egress"], shown["egress_policy"]) == (False, "off")
        async with house.database.connection() as connection:
            await connection.execute("update agents set egress = true where user_id = $1", me)
        assert not await house.orchestrator.egress.allows(me), "whatever the row says from before"
        assert (await anna.call("GET", "/agent")).json()["egress"] is False
        assert (await anna.call("PATCH", "/agent", {"egress": False})).status == 200

    @pytest.mark.parametrize("egress_policy", ["off", "on"])
    async def test_a_plan_goes_before_the_setting(self, house: House, egress_policy: EgressPolicy) -> None:
        anna = await house.sign_in("anna@example.org")
        me = UUID((await anna.call("GET", "/api/v1/me")).json()["id"])
        egress, plans = house.orchestrator.egress, Plans(house.database, house.orchestrator.agents)
        assert await egress.allows(me) == (egress_policy == "on")
        other: EgressPolicy = "on" if egress_policy == "off" else "off"
        await plans.put(Plan("special", egress=other))
        await plans.assign(me, "special")
        assert await egress.allows(me) == (other == "on")
        await plans.put(Plan("special", egress="opt-in"))
        assert not await egress.allows(me)
        assert (await anna.call("PATCH", "/agent", {"egress": True})).status == 200
        assert await egress.allows(me)

    async def test_the_bytes_of_a_day_are_bounded_and_the_next_day_is_new(
        self, house: House, clock: VirtualClock
    ) -> None:
        anna = await house.sign_in("anna@example.org")
        me = UUID((await anna.call("GET", "/api/v1/me")).json()["id"])
        egress = house.orchestrator.egress
        assert not await egress.spend(me, 1001)
        assert await egress.spend(me, 600)
        assert not await egress.spend(me, 600)
        assert await egress.spend(me, 400)
        await egress.give_back(me, 100)
        assert [await egress.spend(me, size) for size in (101, 100, 1)] == [False, True, False]
        await clock.advance(86400)
        assert await egress.spend(me, 1000)


class PatientBrowser(Browser):
    """Stays until it has the whole answer, which files are sent for."""

    async def _exchange(self, scope: dict[str, Any], payload: bytes) -> list[Message]:
        whole = asyncio.Event()
        sent: list[Message] = []
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await whole.wait()
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": payload, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                whole.set()

        await self.app(scope, receive, send)
        return sent


async def test_the_user_interface_answers_for_its_own_addresses(house: House) -> None:
    visitor = PatientBrowser(house.app)
    for path in ("/", "/sign-in", "/chat/0193"):
        page = await visitor.call("GET", path)
        assert (page.status, page.headers["cache-control"]) == (200, "no-cache"), path
        assert b"<title>OCMT" in page.body
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
    asset = await visitor.call("GET", "/assets/app-1a2b3c.js")
    assert "immutable" in asset.headers["cache-control"]
    assert (await visitor.call("GET", "/assets/app-old.js")).status == 404
    for path in ("/../secret", "/assets/../../secret", "/%2e%2e/secret"):
        assert b"secret" not in (await visitor.call("GET", path)).body


async def test_probes_answer_and_metrics_stay_inside(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Browser(house.app)
    assert (await machine.call("GET", "/healthz")).json() == {"status": "alive"}
    assert (await machine.call("GET", "/readyz")).json() == {"status": "ready"}
    metrics = await machine.call("GET", "/metrics")
    assert b"ocmt_" in metrics.body
    for forwarded in ({"x-forwarded-for": "203.0.113.5"}, {"forwarded": "for=203.0.113.5"}):
        answer = await machine.call("GET", "/metrics", headers=forwarded)
        assert_problem(answer, status=404, where="forwarded")

    def gone() -> NoReturn:
        raise Unavailable("The database does not answer just now.")

    monkeypatch.setattr(database, "connection", gone)
    assert (await machine.call("GET", "/readyz")).status == 503
    assert (await machine.call("GET", "/healthz")).status == 200


async def test_a_vault_that_was_locked_shows_nothing_until_one_has_signed_in_again(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    item = "/api/v1/vault/items/token"
    assert (await anna.call("PUT", item, {"value": "of anna's"})).status == 200
    assert (await anna.call("POST", f"{item}/reveal")).json() == {"value": "of anna's"}
    assert (await anna.call("POST", "/api/v1/vault/lock")).status == 204
    assert (await anna.call("GET", "/api/v1/me")).status == 200
    refused = await anna.call("POST", f"{item}/reveal")
    assert (refused.status, refused.json()["code"]) == (403, "recent_sign_in_needed")
