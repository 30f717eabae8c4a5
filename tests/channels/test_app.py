"""Through the front door of the whole application: a user connects, a stranger's program sends."""

from __future__ import annotations

import json

from tests.channels.conftest import call
from tests.channels.test_signed import own_signature
from tests.services.conftest import URL, House, egress_policy, gateways, hints, house, pages, runtime

__all__ = ["egress_policy", "gateways", "hints", "house", "pages", "runtime"]


async def test_a_user_connects_and_a_program_sends(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    made = await anna.call("POST", "/agent/channels", {"channel": "signed"})
    assert made.status == 201, made.body
    opened = json.loads(made.body)
    assert opened["webhook_url"] == f"{URL}/webhooks/signed/{opened['id']}"
    body = b'{"text": "Hi"}'
    moment = str(int(house.orchestrator.channels.channels._clock.now().timestamp()))
    signature = own_signature(opened["secret"], "m1", moment, body)
    headers = {"webhook-id": "m1", "webhook-timestamp": moment, "webhook-signature": signature}
    path = opened["webhook_url"].removeprefix(URL)
    answer = await call(house.app, path, body, headers)
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    assert (await call(house.app, path, body, {**headers, "webhook-id": "m2"})).status == 401
    assert (await call(house.app, "/webhooks/x")).status == 404
    listed = await anna.call("GET", f"/agent/channels/{opened['id']}/deliveries")
    assert [one["external_id"] for one in json.loads(listed.body)["items"]] == ["m1"]
