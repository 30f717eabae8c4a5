"""No redirect names another scheme, host or port, whatever a request says about its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.identity.browser import Browser
from tests.services.conftest import House
from tests.services.test_every_route import STREAMS
from tests.services.test_routes import routes

pytestmark = pytest.mark.anyio

MORE = (
    "/",
    "/assets",
    "/assets/app-1a2b3c.js",
    "/chat",
    "/settings",
    "/agent",
    "/agent/gateway",
    "/agent/gateway/",
    "/agent/gateway/chat",
    "/agent/gateway/v1/models",
    "/broker/anthropic",
    "/broker/anthropic/v1/messages",
    "/webhooks/signed/0190f0a0-0000-7000-8000-000000000000",
    "/healthz",
    "/readyz",
    "/api",
    "/api/v1",
    "/.well-known/jwks.json",
    "//evil.example",
    "//evil.example/..",
    "/\\evil.example",
    "/.//evil.example",
)
LIES = (
    {"host": "evil.example"},
    {"host": "localhost:9443"},
    {"host": "evil.example:1@localhost:8080"},
    {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "x-forwarded-port": "444"},
    {
        "forwarded": "host=evil.example;proto=https",
        "x-forwarded-scheme": "ftp",
        "x-original-host": "evil.example",
    },
    {"x-rewrite-url": "//evil.example/", "x-forwarded-prefix": "//evil.example"},
)


def paths(house: House) -> Iterator[str]:
    """Of every route, and of what is no route; with and without a slash, or two, at the end."""
    templates = {template for _, template in routes(house)} - STREAMS
    # What ends the session comes last.
    ordered = sorted(templates, key=lambda template: (template.endswith("/logout"), template))
    for template in (*MORE, *ordered):
        path = re.sub(r"{\w+(:\w+)?}", lambda _: str(uuid4()), template)
        bare = path.rstrip("/") or "/"
        yield from {path, bare, f"{bare}/", f"{bare}//"} if bare != "/" else {path, "//"}


@pytest.mark.parametrize("signed_in", [True, False])
async def test_every_location_is_a_path_of_the_address_one_is_at(house: House, signed_in: bool) -> None:
    browser = await house.sign_in("anna@example.org") if signed_in else Browser(house.app)
    before = dict(browser.cookies)
    walked = set()
    for index, path in enumerate(paths(house)):
        for method in ("GET", "POST"):
            browser.cookies = dict(before)
            lie = LIES[index % len(LIES)]
            answer = await browser.call(method, path, {} if method == "POST" else None, headers=lie)
            location = answer.headers.get("location")
            where = f"{method} {path} {lie}: {answer.status} {location}"
            assert "evil" not in str(location), where
            assert location is None or re.fullmatch(r"/([^/\\].*)?", location), where
            assert answer.status not in (301, 302, 307, 308) or location is not None, where
            walked.add(path)
    assert len(walked) > 300


async def test_the_page_without_its_slash_leads_to_the_page(house: House) -> None:
    anna = await house.sign_in("anna@example.org")
    answer = await anna.call("GET", "/agent/gateway", headers={"host": "evil.example"})
    assert (answer.status, answer.headers["location"]) == (303, "/agent/gateway/")
    for path in ("/agent/conversations/", "/agent/channels/", "/api/v1/me/"):
        answer = await anna.call("GET", path, headers={"host": "evil.example"})
        assert (answer.status, answer.json()["code"]) == (404, "not_found"), path
    assert (await anna.call("POST", "/agent/gateway", {})).status == 404
