"""Access tokens: who gets one, what it is good for, how keys are rotated under it, and how a user is shut
out."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey
from starlette.types import ASGIApp

from ocmt.errors import NotYet, Unavailable
from ocmt.identity.accounts import Accounts
from ocmt.identity.tokens import model
from ocmt.identity.tokens.keys import PUBLIC, RING, PublicKeys, SigningKeys, new_jwk
from ocmt.identity.tokens.service import Issuer, Revocations, Verifier
from ocmt.platform.database import Connection, Database
from ocmt.platform.principal import Principal
from ocmt.testing.clock import VirtualClock
from ocmt.testing.secrets import MemorySecrets

from ..browser import Browser
from ..conftest import PUBLIC_URL, let_in

pytestmark = pytest.mark.anyio

TOKEN = "/api/v1/auth/token"
ME = "/api/v1/me"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def status(front: ASGIApp, token: str, method: str = "GET", path: str = ME, body: object = None) -> int:
    return (await Browser(front, origin=None).call(method, path, body, headers=bearer(token))).status


async def token_of(browser: Browser, **body: str) -> str:
    answer = await browser.call("POST", TOKEN, body)
    assert answer.status == 200, answer.body
    return str(answer.json()["access_token"])


class TestIssuing:
    async def test_a_session_gets_one_for_a_quarter_of_an_hour(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        browser = await let_in(front, accounts, "ada@example.org")
        answer = (await browser.call("POST", TOKEN, {})).json()
        assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 900)
        assert await status(front, answer["access_token"]) == 200
        await clock.advance(15 * 60 + 31)
        assert await status(front, answer["access_token"]) == 401

    async def test_a_key_gets_one_with_at_most_its_own_scopes(
        self, front: ASGIApp, accounts: Accounts
    ) -> None:
        browser = await let_in(front, accounts, "ada@example.org")
        made = {"name": "k", "scopes": ["account:read", "agent:read"]}
        key = (await browser.call("POST", "/api/v1/api-keys", made)).json()["key"]
        program = Browser(front, origin=None)
        whole = await program.call("POST", TOKEN, headers=bearer(key))
        assert whole.json()["scope"] == "account:read agent:read"
        part = await program.call("POST", TOKEN, {"scope": "agent:read"}, headers=bearer(key))
        assert await status(front, part.json()["access_token"]) == 403
        beyond = await program.call("POST", TOKEN, {"scope": "vault:read"}, headers=bearer(key))
        assert beyond.status == 403

    async def test_a_token_gets_no_further_token(self, front: ASGIApp, accounts: Accounts) -> None:
        token = await token_of(await let_in(front, accounts, "ada@example.org"))
        assert await status(front, token, "POST", TOKEN, {}) == 403

    async def test_no_token_does_what_takes_a_session(self, front: ASGIApp, accounts: Accounts) -> None:
        token = await token_of(await let_in(front, accounts, "ada@example.org"))
        assert await status(front, token, "GET", "/api/v1/sessions") == 403
        assert await status(front, token, "POST", "/api/v1/api-keys", {"name": "k", "scopes": []}) == 403

    async def test_anybody_can_check_one_by_the_published_keys(
        self, front: ASGIApp, accounts: Accounts
    ) -> None:
        token = await token_of(await let_in(front, accounts, "ada@example.org"))
        answer = await Browser(front).call("GET", "/.well-known/jwks.json")
        assert answer.headers["cache-control"] == "public, max-age=300"
        keys = {key["kid"]: key for key in answer.json()["keys"]}
        assert len(keys) == 2
        assert not any("d" in key for key in keys.values()), "the private part stays here"
        kid = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"]
        claims = jwt.decode(token, OKPKey.import_key(keys[kid]), algorithms=["Ed25519"]).claims
        assert (claims["iss"], claims["aud"], claims["email"]) == (PUBLIC_URL, "ocmt", "ada@example.org")


class TestForgeries:
    async def claims(self, accounts: Accounts, clock: VirtualClock) -> dict[str, object]:
        user = await accounts.identity.add_user("ada@example.org")
        said = model.Claims(user.id, user.email, "admin", None, clock.now(), "1")
        return model.claims_to_sign(said, issuer=PUBLIC_URL)

    async def test_another_key_of_the_same_name(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        claims = await self.claims(accounts, clock)
        kid = (await accounts.issuer.keys.ring()).current.kid
        own = OKPKey.generate_key("Ed25519", {"kid": kid})
        header = {"alg": "Ed25519", "kid": kid, "typ": "at+jwt"}
        assert await status(front, jwt.encode(header, claims, own, algorithms=["Ed25519"])) == 401

    async def test_the_public_key_as_a_shared_secret(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        claims = await self.claims(accounts, clock)
        current = (await accounts.issuer.keys.ring()).current
        shared = OctKey.import_key({"kty": "oct", "k": current.jwk["x"]})
        header = {"alg": "HS256", "kid": current.kid, "typ": "at+jwt"}
        assert await status(front, jwt.encode(header, claims, shared)) == 401

    async def test_none_at_all(self, front: ASGIApp, accounts: Accounts, clock: VirtualClock) -> None:
        claims = await self.claims(accounts, clock)

        def part(data: object) -> str:
            return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()

        kid = (await accounts.issuer.keys.ring()).current.kid
        assert await status(front, f"{part({'alg': 'none', 'kid': kid})}.{part(claims)}.") == 401

    @pytest.mark.parametrize(
        "change",
        [
            {"iss": "https://evil.org"},
            {"aud": "another"},
            {"role": "god"},
            {"exp": 1},
            {"sub": "x"},
            {"iat": 1e300},
        ],
    )
    async def test_ours_but_not_for_us(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock, change: dict[str, object]
    ) -> None:
        claims = await self.claims(accounts, clock) | change
        current = (await accounts.issuer.keys.ring()).current
        header = {"alg": "Ed25519", "kid": current.kid, "typ": "at+jwt"}
        key = OKPKey.import_key(dict(current.jwk))
        assert await status(front, jwt.encode(header, claims, key, algorithms=["Ed25519"])) == 401

    @pytest.mark.parametrize(
        "token", ["a.b.c", "..", "é.é.é", "e30.e30.e30", "x" * 5000 + "..", "W10.W10.W10"]
    )
    async def test_rubbish(self, front: ASGIApp, token: str) -> None:
        assert await status(front, token) == 401


class House:
    """Some replicas that sign and verify, each with what it has read itself."""

    def __init__(
        self, secrets: MemorySecrets, database: Database, clock: VirtualClock, replicas: int
    ) -> None:
        self.issuers = [
            Issuer(SigningKeys(secrets, database, clock), clock, issuer=PUBLIC_URL) for _ in range(replicas)
        ]
        self.verifiers = [
            Verifier(PublicKeys(secrets, clock), Revocations(database, clock), clock, issuer=PUBLIC_URL)
            for _ in range(replicas)
        ]
        self.operator = SigningKeys(secrets, database, clock)


class TestRotation:
    async def test_no_request_fails_through_many_rotations(
        self, secrets: MemorySecrets, database: Database, clock: VirtualClock
    ) -> None:
        house = House(secrets, database, clock, replicas=3)
        me = Principal(uuid4(), uuid4(), "ada@example.org")
        alive: list[tuple[float, str]] = []
        signed_by = set()
        for second in range(0, 3600, 20):
            if second % 400 == 380:
                signed_by.add((await house.operator.rotate()).current.kid)
            for issuer in house.issuers:
                alive.append((clock.monotonic() + 900, (await issuer.issue(me)).token))
            alive = [(until, token) for until, token in alive if until > clock.monotonic()]
            for verifier in house.verifiers:
                for _, token in alive[:: max(1, len(alive) // 10)]:
                    assert await verifier.authenticate(token, address=None) is not None
            await clock.advance(20)
        assert len(signed_by) == 9

    async def test_a_key_that_nobody_can_know_yet_does_not_sign(
        self, secrets: MemorySecrets, database: Database, clock: VirtualClock
    ) -> None:
        keys = SigningKeys(secrets, database, clock)
        await keys.ring()
        await clock.advance(359)
        with pytest.raises(NotYet):
            await keys.rotate()
        await clock.advance(1)
        await keys.rotate()
        with pytest.raises(NotYet):
            await keys.rotate()

    async def test_old_keys_go_when_their_last_token_has_expired(
        self, secrets: MemorySecrets, database: Database, clock: VirtualClock
    ) -> None:
        keys = SigningKeys(secrets, database, clock)
        first = (await keys.ring()).current.kid
        for _ in range(4):
            await clock.advance(600)
            await keys.rotate()
        published = {key["kid"] for key in json.loads(secrets.kept[PUBLIC])["keys"]}
        assert first not in published
        assert len(published) == 4, "current, next, and what signed in the last quarter of an hour"

    async def test_of_two_processes_that_begin_at_once_there_is_one_ring(
        self, secrets: MemorySecrets, database: Database, clock: VirtualClock
    ) -> None:
        rings = await asyncio.gather(*(SigningKeys(secrets, database, clock).ring() for _ in range(4)))
        assert len({ring.current.kid for ring in rings}) == 1
        assert RING in secrets.kept

    async def test_a_name_that_nobody_knows_is_looked_up_every_five_seconds_at_most(
        self, secrets: MemorySecrets, database: Database, clock: VirtualClock
    ) -> None:
        signing = SigningKeys(secrets, database, clock)
        known = (await signing.ring()).next.kid
        keys = PublicKeys(secrets, clock)
        public = secrets.kept.pop(PUBLIC)
        assert await keys.find(known) is None
        secrets.kept[PUBLIC] = public
        await clock.advance(4)
        assert await keys.find(known) is None, "not read again"
        await clock.advance(1)
        assert await keys.find(known) is not None


class Away(Database):
    """A database that can be away."""

    def __init__(self, real: Database) -> None:
        super().__init__(real._pool)
        self.away = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        if self.away:
            raise Unavailable("The database does not answer just now.")
        async with super().connection() as connection:
            yield connection


class TestRevocation:
    async def test_who_is_shut_out_is_out_everywhere_within_a_minute(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        await let_in(front, accounts, "ada@example.org")
        token = await token_of(await let_in(front, accounts, "bob@example.org"))
        assert await status(front, token) == 200
        await clock.advance(1)
        bob = await accounts.identity.user_by_email("bob@example.org")
        await accounts.identity.administer(bob.id, status="suspended")
        await clock.advance(15)
        assert await status(front, token) == 401
        await accounts.identity.administer(bob.id, status="active")
        await clock.advance(15)
        assert await status(front, token) == 401, "what was issued before stays void"
        assert await status(front, await token_of(await let_in(front, accounts, "bob@example.org"))) == 200

    async def test_who_has_another_role_needs_another_token(
        self, front: ASGIApp, accounts: Accounts, clock: VirtualClock
    ) -> None:
        await let_in(front, accounts, "ada@example.org")
        bob = await accounts.identity.add_user("bob@example.org", "admin")
        token = await token_of(await let_in(front, accounts, "bob@example.org"))
        assert await status(front, token, path="/api/v1/admin/users") == 200
        await clock.advance(1)
        await accounts.identity.administer(bob.id, role="user")
        await clock.advance(15)
        assert await status(front, token, path="/api/v1/admin/users") == 401

    async def test_without_a_database_tokens_are_good_for_a_minute_and_then_refused(
        self, secrets: MemorySecrets, database: Database, clock: VirtualClock
    ) -> None:
        gone = Away(database)
        issuer = Issuer(SigningKeys(secrets, database, clock), clock, issuer=PUBLIC_URL)
        verifier = Verifier(PublicKeys(secrets, clock), Revocations(gone, clock), clock, issuer=PUBLIC_URL)
        token = (await issuer.issue(Principal(uuid4(), uuid4(), "ada@example.org"))).token
        assert await verifier.authenticate(token, address=None)
        gone.away = True
        await clock.advance(50)
        assert await verifier.authenticate(token, address=None)
        await clock.advance(15)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await verifier.authenticate(token, address=None)
        gone.away = False
        assert await verifier.authenticate(token, address=None)


@given(st.lists(st.integers(0, 2000), max_size=12))
def test_whatever_the_rhythm_a_key_signs_only_long_after_it_was_published(gaps: list[int]) -> None:
    now, ring = NOON, model.new_ring({"kid": "0"}, {"kid": "1"}, NOON)
    published = {"0": NOON - timedelta(days=1), "1": NOON}
    for number, gap in enumerate(gaps, 2):
        now += timedelta(seconds=gap)
        try:
            ring = model.rotated(ring, {"kid": str(number)}, now)
        except NotYet:
            continue
        published[str(number)] = now
        assert now - published[ring.current.kid] >= model.PUBLISHED
        assert model.from_data(json.loads(json.dumps(model.as_data(ring)))) == ring


def test_a_fresh_key_has_what_verifiers_need() -> None:
    key = new_jwk()
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "Ed25519", "sig")
