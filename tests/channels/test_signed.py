"""Standard Webhooks and plain HMAC: signatures in, signed answers out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import ocmt.channels.wire as wire
from ocmt.channels.base import Endpoint, SendFailed
from ocmt.channels.model import KEEP
from ocmt.channels.service import Opened
from ocmt.channels.signed import Signed, check_callback, sign
from ocmt.errors import InvalidInput
from ocmt.platform.http import HttpClient
from ocmt.platform.internet import is_public
from tests.agents.replica import until
from tests.channels.conftest import Answer, House, call


async def connect(house: House, **fields: str) -> Opened:
    return await house.room.channels.connect(house.anna, "signed", fields)


def own_signature(secret: str, message_id: str, moment: str, body: bytes) -> str:
    """As the specification says it, written anew."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{moment}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


async def send(
    house: House, opened: Opened, body: bytes, *, id: str = "m1", age: float = 0, **headers: str
) -> Answer:
    moment = str(int(house.clock.now().timestamp() - age))
    assert opened.secret is not None
    given = {
        "webhook-id": id,
        "webhook-timestamp": moment,
        "webhook-signature": own_signature(opened.secret, id, moment, body),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return await call(
        house.room.intake, opened.webhook_url.removeprefix("https://ocmt.example.org"), body, given
    )


def test_the_specifications_own_example() -> None:
    # https://github.com/standard-webhooks/standard-webhooks: the libraries' shared test vector.
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_signed_webhook_is_kept_once(house: House) -> None:
    opened = await connect(house)
    assert opened.secret is not None
    assert opened.secret.startswith("whsec_")
    assert opened.webhook_url.startswith("https://ocmt.example.org/webhooks/signed/")
    body = json.dumps({"text": "Hi", "thread": "t"}).encode()
    for _ in range(2):
        assert (await send(house, opened, body)).status == 200
    (row,) = await house.rows("select external_id, thread from deliveries")
    assert tuple(row) == ("m1", "t")
    async with house.at_work():
        await house.becomes("m1", "answering")
        await house.answer()
        await house.becomes("m1", "done")
    assert await house.rows("select * from outbox") == []
    assert (await house.turns())[0]["text"] == "Hi"


@pytest.mark.parametrize(
    ("age", "headers", "status"),
    [
        (299, {}, 200),
        (-299, {}, 200),
        (301, {}, 401),
        (-301, {}, 401),
        (0, {"webhook_signature": ""}, 401),
        (0, {"webhook_signature": "v1,AAAA"}, 401),
        (0, {"webhook_signature": "v1a,é"}, 401),
        (0, {"webhook_id": "another"}, 401),
        (0, {"webhook_id": ""}, 401),
        (0, {"webhook_timestamp": "1"}, 401),
        (0, {"webhook_timestamp": "٣"}, 401),
        (0, {"webhook_timestamp": "9" * 500}, 401),
    ],
)
async def test_what_is_forged_or_stale_is_refused(
    house: House, age: float, headers: dict[str, str], status: int
) -> None:
    opened = await connect(house)
    headers = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    assert (await send(house, opened, b"Hi", age=age, **headers)).status == status


async def test_one_of_several_signatures_is_enough(house: House) -> None:
    opened = await connect(house)
    assert opened.secret is not None
    moment = str(int(house.clock.now().timestamp()))
    right = own_signature(opened.secret, "m1", moment, b"Hi")
    assert (await send(house, opened, b"Hi", webhook_signature=f"v1,AAAA {right}")).status == 200


async def test_plain_hmac(house: House) -> None:
    opened = await connect(house, mode="hmac")
    assert opened.secret is not None
    path = opened.webhook_url.removeprefix("https://ocmt.example.org")
    signature = "sha256=" + hmac.digest(opened.secret.encode(), b"Hi", "sha256").hex()
    for headers, status in [
        ({"x-signature-256": signature, "x-delivery-id": "d1"}, 200),
        ({"X-Signature-256": signature}, 200),
        ({"x-signature-256": signature[:-1] + "x"}, 401),
        ({}, 401),
    ]:
        assert (await call(house.room.intake, path, b"Hi", headers)).status == status
    # The header is not signed, so it makes no other delivery of the same body.
    assert set(await house.states()) == {hashlib.sha256(b"Hi").hexdigest()}


async def test_the_secret_is_shown_once_kept_sealed_and_stays_at_a_repair(house: House) -> None:
    opened = await connect(house)
    assert opened.secret is not None
    again = await house.room.channels.reconnect(house.anna, opened.connection.id)
    assert again.secret is None
    assert (await send(house, opened, b"Hi")).status == 200
    rows = await house.rows("select * from channel_endpoints")
    assert opened.secret not in str(rows)
    assert opened.secret not in repr(opened)


async def test_answers_are_posted_and_signed(house: House) -> None:
    got: list[tuple[dict[str, str], bytes]] = []
    statuses = [500, 429, 200]

    async def take(request: web.Request) -> web.Response:
        got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(status=statuses.pop(0))

    app = web.Application()
    app.router.add_post("/answers", take)
    async with TestServer(app) as server:
        opened = await connect(house, callback_url=str(server.make_url("/answers")))
        async with house.at_work():
            await send(house, opened, b'{"text": "Hi", "thread": "t"}')
            await house.becomes("m1", "answering")
            await house.answer("Hello!")
            await until(lambda: len(got) == 3)
    assert opened.secret is not None
    for headers, body in got:
        said = json.loads(body)
        assert (said["text"], said["thread"], said["id"]) == ("Hello!", "t", headers["webhook-id"])
        expected = own_signature(opened.secret, said["id"], headers["webhook-timestamp"], body)
        assert headers["webhook-signature"] == expected
    assert len({headers["webhook-id"] for headers, _ in got}) == 1


@pytest.mark.parametrize(("status", "permanent"), [(302, True), (404, True), (410, True), (503, False)])
async def test_what_an_address_says_to_an_answer(house: House, status: int, permanent: bool) -> None:
    async def take(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"retry-after": "7"})

    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as server:
        opened = await connect(house, callback_url=str(server.make_url("/")))
        endpoint = await house.room.endpoints.get(opened.connection.id)
        signed: Any = house.room.channels.kinds["signed"]
        with pytest.raises(SendFailed) as refused:
            await signed.send(endpoint, {}, "Hi", key="k")
    assert (refused.value.permanent, refused.value.retry_after) == (permanent, 7)


def test_where_answers_may_be_sent() -> None:
    for good in ("https://example.org/x", "http://127.0.0.1:8000/", "http://localhost/", "http://[::1]/"):
        check_callback(good, local=True)
    for bad in (
        "http://example.org/",
        "ftp://x/",
        "x",
        "https://",
        "https://a:b@c/",
        "http://[x/",
        "http://x:y/",
    ):
        with pytest.raises(InvalidInput):
            check_callback(bad, local=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0",
        "192.0.0.192", "168.63.129.16", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1",
        "fe80::1%eth0", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "2001:0:1::", "fec0::1",
    ],
)  # fmt: skip
def test_addresses_that_answers_are_not_sent_to(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(InvalidInput):
        check_callback(f"https://[{address}]/" if ":" in address else f"https://{address}/", local=False)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2001:4860:4860::8888"]
)
def test_addresses_that_they_are_sent_to(address: str) -> None:
    assert is_public(ip_address(address))


class Names:
    """A name service whose answer is another one the next moment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int, *addresses: str) -> None:
        self.asked = 0
        self._port, self._left = port, list(addresses)
        monkeypatch.setattr(socket, "getaddrinfo", self._look)

    def _look(self, *_: Any, **__: Any) -> list[Any]:
        self.asked += 1
        address = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, self._port))]


async def answer_to(callback: str, *, local: bool) -> None:
    """One answer, as the outbox sends it."""
    endpoint = Endpoint(uuid4(), uuid4(), "signed", {"secret": "whsec_AAAA"}, {"callback_url": callback})
    async with HttpClient() as http:
        await Signed(http.session, local=local).send(endpoint, {}, "Hi", key="k")


@pytest.mark.anyio
async def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got: list[str] = []

    async def take(request: web.Request) -> web.Response:
        got.append(request.host)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as server:
        callback = f"http://answers.example:{server.port}/"
        Names(monkeypatch, server.port or 0, "127.0.0.1")
        with pytest.raises(SendFailed, match="public address") as refused:
            await answer_to(callback, local=False)
        assert refused.value.permanent
        assert got == []
        await answer_to(callback, local=True)  # where all users are on this machine
        assert got == [f"answers.example:{server.port}"]


@pytest.mark.anyio
async def test_an_address_in_another_spelling_is_none_either() -> None:
    async with TestServer(web.Application()) as server:
        for literal in ("127.0.0.1", "0x7f000001", "localhost", "[::1]"):
            with pytest.raises(SendFailed, match="public address"):
                await answer_to(f"http://{literal}:{server.port}/", local=False)


@pytest.mark.anyio
async def test_what_is_judged_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []

    def judge(address: Any) -> bool:
        judged.append(str(address))
        return True

    async def take(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as server:
        names = Names(monkeypatch, server.port or 0, "127.0.0.1", "127.0.0.2")
        monkeypatch.setattr(wire, "is_public", judge)
        await answer_to(f"http://answers.example:{server.port}/", local=False)
    assert judged == ["127.0.0.1"]
    assert names.asked == 1


async def test_fields_that_make_no_sense(house: House) -> None:
    for fields in ({"mode": "x"}, {"callback_url": "http://example.org"}, {"secret": "mine"}):
        with pytest.raises(InvalidInput):
            await connect(house, **fields)
    with pytest.raises(InvalidInput):
        await house.room.channels.connect(house.anna, "nope", {})
    assert isinstance(house.endpoint, UUID)


async def test_a_captured_plain_body_runs_once_under_any_header(house: House) -> None:
    opened = await connect(house, mode="hmac")
    assert opened.secret is not None
    path = opened.webhook_url.removeprefix("https://ocmt.example.org")
    signature = "sha256=" + hmac.digest(opened.secret.encode(), b"Hi", "sha256").hex()
    made_up: list[dict[str, str]] = [
        {"x-delivery-id": f"d{n}", "x-request-id": str(n), "webhook-id": f"m{n}", "webhook-timestamp": str(n)}
        for n in range(4)
    ]
    for headers in made_up:
        assert (
            await call(house.room.intake, path, b"Hi", {**headers, "x-signature-256": signature})
        ).status == 200
    assert len(await house.states()) == 1


async def test_a_copy_is_known_also_after_its_delivery_is_forgotten(house: House) -> None:
    opened = await connect(house, mode="hmac")
    assert opened.secret is not None
    path = opened.webhook_url.removeprefix("https://ocmt.example.org")
    signature = "sha256=" + hmac.digest(opened.secret.encode(), b"Hi", "sha256").hex()
    known = hashlib.sha256(b"Hi").hexdigest()
    async with house.at_work(), house.agent_answers():
        await call(house.room.intake, path, b"Hi", {"x-signature-256": signature})
        await house.becomes(known, "done")
    for _ in range(2):
        await house.clock.advance(KEEP.total_seconds() + 1)
        await house.room.deliveries.sweep()
        assert await house.states() == {}
        async with house.at_work(), house.agent_answers():
            await call(house.room.intake, path, b"Hi", {"x-signature-256": signature})
            await house.becomes(known, "ignored")
    assert len(await house.turns()) == 1


async def test_as_many_ids_stay_known_as_may(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocmt.channels.history.MOST_FORGOTTEN", 3)
    opened = await connect(house, mode="hmac")
    for n in range(5):
        await house.rows(
            "insert into deliveries_forgotten values ($1, $2, $3, $4)",
            house.anna,
            opened.connection.id,
            str(n),
            house.clock.now() + timedelta(seconds=n),
        )
    await house.room.deliveries.sweep()
    rows = await house.rows("select external_id from deliveries_forgotten order by 1")
    assert [row["external_id"] for row in rows] == ["2", "3", "4"]


async def test_of_a_standard_webhook_nothing_needs_to_stay_known(house: House) -> None:
    opened = await connect(house)
    async with house.at_work(), house.agent_answers():
        await send(house, opened, b"Hi")
        await house.becomes("m1", "done")
    await house.clock.advance(KEEP.total_seconds() + 1)
    await house.room.deliveries.sweep()
    assert await house.rows("select from deliveries_forgotten") == []


async def test_a_stop_phrase_stops_its_thread(house: House) -> None:
    opened = await connect(house)
    async with house.at_work():
        await send(house, opened, json.dumps({"text": "a question", "thread": "t"}).encode())
        await house.becomes("m1", "answering")
        await send(house, opened, json.dumps({"text": "Stop!", "thread": "t"}).encode(), id="m2")
        await house.becomes("m2", "done")
        await send(house, opened, b"/restart", id="m3")
        await house.becomes("m3", "done")
    (turn,) = await house.turns()
    assert turn["stop_requested"]
