"""Connecting and disconnecting, and that other users' things do not exist."""

from __future__ import annotations

import json
from dataclasses import dataclass
from json import dumps
from typing import Any
from urllib.parse import unquote, urlencode
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from ocmt.bootstrap.channels import ChannelSeal
from ocmt.channels.github import GitHub
from ocmt.channels.model import MAX_ENDPOINTS
from ocmt.channels.room import ChannelRoom
from ocmt.channels.routes import routes
from ocmt.errors import InvalidInput, LimitReached, NotFound, SetupProblem, Unavailable
from ocmt.platform.http import exception_handlers
from ocmt.platform.principal import Principal
from ocmt.testing.github import GitHubApi
from tests.accounts import make_user
from tests.channels.conftest import House, call
from tests.channels.vendors import Served, arrived, calling


async def test_a_fault_of_the_vendor_leaves_nothing(house: House) -> None:
    house.fake.away = True
    with pytest.raises(Unavailable):
        await house.room.channels.connect(house.anna, "fake", {"token": "token"})
    with pytest.raises(InvalidInput):
        await house.room.channels.connect(house.anna, "fake", {"nope": "x"})
    assert len(await house.room.channels.endpoints(house.anna)) == 1


async def test_what_a_vendor_refuses_to_register_remains_nowhere(house: House) -> None:
    house.fake.refuses = {"weak"}
    with pytest.raises(InvalidInput):
        await house.room.channels.connect(house.anna, "fake", {"token": "weak"})
    assert [one.id for one in await house.room.channels.endpoints(house.anna)] == [house.endpoint]
    assert list(house.fake.webhooks) == [(house.endpoint, "token")]


async def test_a_vendor_that_tries_the_webhook_at_once_finds_it_here(house: House) -> None:
    async def take(request: web.Request) -> web.Response:
        came = await arrived(request)
        answer = await call(room.intake, request.path, came.body, dict(came.headers))
        return web.Response(status=answer.status)

    async with GitHubApi() as github, Served(take) as server, calling(GitHub, github.url) as channel:
        room = ChannelRoom.over(
            house.database,
            house.clock,
            house.hints,
            house.chat,
            kinds={"github": channel},
            seal=ChannelSeal(house.secrets),
            url=server.url,
        )
        github.pings = True
        fields = {"repository": github.repository, "access_token": github.token}
        opened = await room.channels.connect(house.anna, "github", fields)
        assert github.pinged == [200]
        await room.channels.disconnect(house.anna, opened.connection.id)
        assert github.hooks == {}


async def test_reconnecting_moves_the_webhook_with_the_bot(house: House) -> None:
    channels = house.room.channels
    await channels.reconnect(house.anna, house.endpoint, {"token": "another"})
    assert list(house.fake.webhooks) == [(house.endpoint, "another")]
    house.fake.refuses = {"weak"}
    with pytest.raises(InvalidInput):
        await channels.reconnect(house.anna, house.endpoint, {"token": "weak"})
    assert (house.endpoint, "another") in house.fake.webhooks
    endpoint = await house.room.endpoints.get(house.endpoint)
    assert endpoint is not None
    assert endpoint.secrets == {"token": "another"}


async def test_disconnecting_removes_the_webhook_or_at_least_what_is_here(house: House) -> None:
    await house.post(id="1", text="Hi")
    assert (house.endpoint, "token") in house.fake.webhooks
    second = await house.room.channels.connect(house.anna, "fake", {"token": "token"})
    await house.room.channels.disconnect(house.anna, house.endpoint)
    assert (house.endpoint, "token") not in house.fake.webhooks
    house.fake.away = True
    await house.room.channels.disconnect(house.anna, second.connection.id)
    for table in ("channel_endpoints", "deliveries"):
        assert await house.rows(f"select * from {table}") == []


async def test_only_so_many(house: House) -> None:
    for _ in range(MAX_ENDPOINTS - 1):
        await house.room.channels.connect(house.anna, "fake", {"token": "token"})
    with pytest.raises(LimitReached):
        await house.room.channels.connect(house.anna, "fake", {"token": "token"})


async def test_secrets_open_in_their_own_place_only(house: House) -> None:
    second = await house.room.channels.connect(house.anna, "fake", {"token": "other"})
    await house.rows(
        "update channel_endpoints e set sealed = o.sealed from channel_endpoints o "
        "where o.id = $1 and e.id = $2",
        house.endpoint,
        second.connection.id,
    )
    with pytest.raises(SetupProblem):
        await house.room.endpoints.get(second.connection.id)
    # The other one is not touched by that.
    assert (await house.post(id="1", text="Hi")).status == 200


async def test_a_deleted_user_leaves_nothing(house: House) -> None:
    async with house.at_work(), house.agent_answers():
        await house.post(id="1", text="Hi")
        await house.becomes("1", "done")
    await house.rows("delete from users where id = $1", house.anna)
    for table in ("channel_endpoints", "channel_threads", "deliveries", "outbox"):
        assert await house.rows(f"select * from {table}") == []


@dataclass
class Said:
    """What a route answered."""

    status_code: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def _written(_connection: object, _details: object) -> None:
    """Stands for the audit log: what is written there is tested where it is written."""


class Client:
    """A signed-in user's requests to the room's routes."""

    def __init__(self, house: House, user_id: UUID) -> None:
        self._user_id = user_id
        self._app = Starlette(
            routes=routes(house.room.channels, house.room.deliveries, lambda _request, _action: _written),
            exception_handlers=exception_handlers(),
        )

    async def request(
        self, method: str, path: str, *, json: Any = None, params: dict[str, str] | None = None
    ) -> Said:
        async def signed_in(scope: Scope, receive: Receive, send: Send) -> None:
            person = Principal(self._user_id, None, "x@example.org")
            state = {"principal": person}
            query = urlencode(params or {}).encode()
            await self._app({**scope, "state": state, "query_string": query}, receive, send)

        body = b"" if json is None else dumps(json).encode()
        answer = await call(signed_in, "/agent/channels" + unquote(path), body, method=method)
        return Said(answer.status, answer.body)

    async def get(self, path: str, params: dict[str, str] | None = None) -> Said:
        return await self.request("GET", path, params=params)

    async def post(self, path: str, json: Any = None) -> Said:
        return await self.request("POST", path, json=json)

    async def patch(self, path: str, json: Any = None) -> Said:
        return await self.request("PATCH", path, json=json)

    async def delete(self, path: str) -> Said:
        return await self.request("DELETE", path)


@pytest.fixture
def http(house: House) -> Client:
    return Client(house, house.anna)


async def test_by_http(house: House, http: Client) -> None:
    listed = (await http.get("")).json()
    kind = {one["channel"]: one for one in listed["kinds"]}["fake"]
    assert kind["fields"] == {"token": "The token"}
    assert (kind["before"], kind["after"]) == (["Get a token."], ["Paste the address."])
    made = await http.post("", json={"channel": "signed", "name": "My shop"})
    assert made.status_code == 201
    body = made.json()
    assert (body["name"], body["secret"][:6]) == ("My shop", "whsec_")
    one = f"/{body['id']}"
    assert body["webhook_url"] == f"https://ocmt.example.org/webhooks/signed{one}"
    assert (await http.patch(one, json={"name": "Shop"})).json()["name"] == "Shop"
    (listed,) = (item for item in (await http.get("")).json()["items"] if item["id"] == body["id"])
    for again in (listed, (await http.get(one)).json(), (await http.post(f"{one}/reconnect")).json()):
        assert again["webhook_url"] == body["webhook_url"]
        assert "secret" not in again
    assert (await http.delete(one)).status_code == 204
    assert (await http.get(one)).status_code == 404
    assert (await http.post("", json={"channel": "nope"})).status_code == 400


async def test_senders_and_deliveries_by_http(house: House, http: Client) -> None:
    one = f"/{house.endpoint}"
    approved = await http.post(f"{one}/senders/approve", json={"sender": "a/b"})
    assert (approved.status_code, approved.json()["state"]) == (200, "approved")
    assert (await http.post(f"{one}/senders/approve", json={})).status_code == 400
    assert (await http.post(f"{one}/senders/approve", json={"code": "AAAA-BBBB"})).status_code == 404
    assert (await http.post(f"{one}/senders/block", json={"sender": "c"})).json()["state"] == "blocked"
    assert len((await http.get(f"{one}/senders")).json()["items"]) == 2
    assert (await http.delete(f"{one}/senders/a%2Fb")).status_code == 204
    for n in range(60):
        await house.post(id=str(n), text=str(n))
    page = (await http.get(f"{one}/deliveries")).json()
    rest = (await http.get(f"{one}/deliveries", params={"cursor": page["next_cursor"]})).json()
    found = [item["external_id"] for item in page["items"] + rest["items"]]
    assert found == [str(n) for n in reversed(range(60))]
    assert rest["next_cursor"] is None
    assert (await http.get(f"{one}/deliveries", params={"state": "nope"})).status_code == 400
    assert (await http.get(f"{one}/deliveries", params={"cursor": "nope"})).status_code == 400
    assert (await http.get(f"{one}/deliveries", params={"state": "dead"})).json()["items"] == []
    delivery = page["items"][0]["id"]
    assert (await http.post(f"{one}/deliveries/{delivery}/replay")).status_code == 409
    assert (await http.post(f"{one}/deliveries/{delivery}/resend")).json() == {"count": 0}
    many = {"from": "2030-01-01T00:00:00Z", "to": "2031-01-01T00:00:00Z", "states": ["dead"]}
    assert (await http.post(f"{one}/deliveries/replay", json=many)).json() == {"count": 0}
    await house.rows("update deliveries set state = 'dead'")
    assert (await http.post(f"{one}/deliveries/replay", json=many)).json() == {"count": 60}
    assert (await http.post(f"{one}/deliveries/replay", json={**many, "states": ["open"]})).status_code == 400


async def test_others_things_do_not_exist(house: House) -> None:
    await house.post(id="1", text="Hi")
    (row,) = await house.rows("select id from deliveries")
    one = f"/{house.endpoint}"
    bert = Client(house, await make_user(house.database, "bert@example.org"))
    for method, path, body in [
        ("GET", one, None),
        ("PATCH", one, {"name": "x"}),
        ("DELETE", one, None),
        ("POST", f"{one}/reconnect", None),
        ("GET", f"{one}/senders", None),
        ("POST", f"{one}/senders/approve", {"code": "AAAA-BBBB"}),
        ("POST", f"{one}/senders/approve", {"sender": "x"}),
        ("POST", f"{one}/senders/block", {"sender": "x"}),
        ("DELETE", f"{one}/senders/x", None),
        ("GET", f"{one}/deliveries", None),
        ("POST", f"{one}/deliveries/{row['id']}/replay", None),
        ("POST", f"{one}/deliveries/{row['id']}/resend", None),
        ("POST", f"{one}/deliveries/replay", {"from": "2030-01-01T00:00:00Z"}),
        ("GET", "/nope", None),
        ("POST", f"{one}/deliveries/nope/replay", None),
    ]:
        assert (await bert.request(method, path, json=body)).status_code == 404, (method, path)
    assert (await bert.get("")).json()["items"] == []
    with pytest.raises(NotFound):
        await house.room.deliveries.owner(uuid4())
    assert await house.room.deliveries.owner(house.endpoint) == house.anna
    assert [one["open"] for one in await house.room.deliveries.endpoints()] == [1]
    assert await house.room.deliveries.endpoints("nobody@example.org") == []
