"""The Management API by itself, as a container runs it: its start, its memory, `me` under load, and what it
costs to find out who asks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from uuid import UUID

import aiohttp
import psutil
from joserfc import jwt
from joserfc.jwk import OKPKey
from uuid_utils.compat import uuid7

from benchmarks.load import Load, load
from benchmarks.results import Result
from benchmarks.starting import SETTLE, memory_of
from ocmt.identity.accounts import Accounts
from ocmt.identity.model import token_hash
from ocmt.platform.argon import hash_code
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.migrations import migrate
from ocmt.platform.postgres_binaries import find_binaries
from ocmt.platform.principal import Principal
from ocmt.platform.reachable import ReachablePaths
from ocmt.platform.secrets import LocalSecrets
from ocmt.settings import load_settings
from ocmt.testing.installation import surroundings
from ocmt.testing.mail import MemoryMail

STORM = 200
CONNECTIONS = 80
SECONDS = 4.0
CODE = "ABCD-2345"


@dataclass
class Person:
    """One who signs in, from an address of their own."""

    id: UUID
    email: str
    link: str
    address: str


@dataclass
class Stage:
    """A database with people, and the service over it."""

    folder: Path
    dsn: str
    accounts: Accounts
    database: Database
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Of the service."""
        return f"http://localhost:{self.port}"

    @property
    def memory(self) -> dict[str, float]:
        """MB (10^6 bytes): now, and the most since its start."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (peak,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        return {"now": memory_of([psutil.Process(self.process.pid)]).rss, "peak": peak * 1024 / 1e6}

    async def start(self) -> float:
        """Start it; seconds up to its first 200 on `/readyz`."""
        began = time.perf_counter()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ocmt",
            "serve",
            "management",
            env=surroundings(
                DATABASE_URL=self.dsn,
                PORT=str(self.port),
                OCMT_HOST="127.0.0.1",
                OCMT_DATA_DIR=str(self.folder / "data"),
                OCMT_PUBLIC_URL=self.url,
                OCMT_TRUSTED_PROXIES="127.0.0.1",
            ),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with aiohttp.ClientSession() as session:
            await _until_ready(session, f"{self.url}/readyz", self.process)
        return time.perf_counter() - began

    async def stop(self) -> None:
        """End it in order."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await asyncio.wait_for(self.process.wait(), 15)

    async def people(self, count: int, *, second_factor: bool) -> list[Person]:
        """New ones, each with a link to sign in; with the same backup code, which costs the same to check."""
        people = []
        phc = hash_code(CODE.replace("-", ""))
        for number in range(count):
            email = f"{uuid7()}@example.org"
            user = await self.accounts.identity.add_user(email)
            link = await self.accounts.identity.make_link(email, ttl=timedelta(hours=1))
            people.append(
                Person(user.id, email, link.split("#token=")[1], f"198.51.{number // 250}.{number % 250}")
            )
            if second_factor:
                async with self.database.transaction() as connection:
                    await connection.execute(
                        "insert into totp_secrets (user_id, sealed, confirmed_at, created_at) "
                        "values ($1, '', now(), now())",
                        user.id,
                    )
                    await connection.execute(
                        "insert into backup_codes (id, user_id, code_hash, created_at) "
                        "values ($1, $2, $3, now())",
                        uuid7(),
                        user.id,
                        phc,
                    )
        return people


@contextlib.asynccontextmanager
async def _staged(folder: Path) -> AsyncIterator[Stage]:
    binaries = find_binaries(load_settings().cache_dir)
    assert binaries is not None, "run `make setup`"
    folder.mkdir(mode=0o711)
    async with contextlib.AsyncExitStack() as stack:
        server = EmbeddedPostgres(folder / "pg", binaries=binaries, view=ReachablePaths().view)
        dsn = await server.start()
        stack.push_async_callback(server.stop)
        await migrate(dsn)
        database = await Database.open(dsn, pool_size=5)
        stack.push_async_callback(database.close)
        port = _free_port()
        accounts = Accounts.over(
            database,
            LocalSecrets(folder / "data" / "secrets"),
            MemoryMail(),
            SystemClock(),
            public_url=f"http://localhost:{port}",
        )
        stage = Stage(folder, dsn, accounts, database, port)
        stack.push_async_callback(stage.stop)
        yield stage


async def measure(folder: Path, rounds: int) -> list[Result]:
    """Everything of this room. `rounds`: of starts, and of loads on either side."""
    async with _staged(folder) as stage:
        measured = await _starts(stage, rounds)
        measured.append(await _storm(stage))
        await stage.stop()
        await stage.start()
        return [*measured, *await _who_asks(stage, rounds)]


async def _starts(stage: Stage, rounds: int) -> list[Result]:
    await stage.start()  # the first makes what Python keeps of its modules
    seconds, idle = [], []
    for _ in range(rounds):
        await stage.stop()
        seconds.append(await stage.start())
        await asyncio.sleep(SETTLE)
        idle.append(stage.memory["now"])
    return [
        Result(
            "management_start",
            "s",
            seconds,
            target="≤ 1.0 s from the start of the process to `readyz`",
            met=median(seconds) <= 1.0,
        ),
        Result("management_memory", "MB", idle, target="RSS ≤ 150 MB, idle", met=max(idle) <= 150),
    ]


async def _storm(stage: Stage) -> Result:
    """All at once: a link each, and a backup code as the second step."""
    people = await stage.people(STORM, second_factor=True)
    took: list[float] = []

    async def sign_in(person: Person) -> None:
        headers = {"x-forwarded-for": person.address, "origin": stage.url}
        jar = aiohttp.CookieJar()
        async with aiohttp.ClientSession(stage.url, headers=headers, cookie_jar=jar) as browser:
            began = time.perf_counter()
            link = {"token": person.link, "confirm": True}
            async with browser.post("/api/v1/auth/magic-link/verify", json=link) as answer:
                assert answer.status == 200, await answer.text()
            async with browser.post("/api/v1/auth/mfa", json={"code": CODE}) as answer:
                assert answer.status == 200, await answer.text()
                assert (await answer.json())["email"] == person.email
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(sign_in(person) for person in people))
    peak = stage.memory["peak"]
    return Result(
        "login_storm_memory",
        "MB",
        [peak],
        target=f"peak RSS ≤ 400 MB while {STORM} sign in at once, each with a backup code (Argon2id)",
        met=peak <= 400,
        more={"seconds_p50": round(median(took), 2), "seconds_longest": round(max(took), 2)},
    )


async def _who_asks(stage: Stage, rounds: int) -> list[Result]:
    (person,) = await stage.people(1, second_factor=False)
    session = await _session_of(stage, person)
    ours, theirs = [], []
    async with _peer(stage) as peer:
        for _ in range(rounds):
            theirs.append(await _loaded(peer, "/me", {"cookie": f"ocmt={session}"}))
            ours.append(await _loaded(stage.port, "/api/v1/me", {"cookie": f"ocmt={session}"}))
    ratio = median(each.rate for each in ours) / median(each.rate for each in theirs)
    spread = median(each.percentile(99) / each.percentile(50) for each in ours)
    me = Result(
        "me_rate",
        "1/s",
        [each.rate for each in ours],
        target="ratio ≥ 0.5",
        met=ratio >= 0.5,
        peer="a bare Starlette route with the session's query",
        peer_samples=[each.rate for each in theirs],
    )
    tail = Result(
        "me_p99_by_p50",
        "",
        [each.percentile(99) / each.percentile(50) for each in ours],
        target=f"≤ 3 with {CONNECTIONS} requests at once",
        met=spread <= 3,
        more={
            "p50_ms": round(median(each.percentile(50) for each in ours), 2),
            "p99_ms": round(median(each.percentile(99) for each in ours), 2),
        },
    )
    return [me, tail, *await _credentials(stage, person, rounds)]


async def _credentials(stage: Stage, person: Person, rounds: int) -> list[Result]:
    """One at a time: what a request with each takes, and the part of that which is cryptography."""
    me = Principal(person.id, None, person.email, role="user")
    _, key = await stage.accounts.api_keys.make(me, "benchmark", ["account:read"])
    token = (await stage.accounts.issuer.issue(me)).token
    keys = await stage.accounts.issuer.keys.ring()
    public = OKPKey.import_key(dict(keys.current.jwk))
    links = [p for _ in range(rounds) for p in await stage.people(30, second_factor=False)]
    hashing = _microseconds(lambda: token_hash(key))
    verifying = _microseconds(lambda: jwt.decode(token, public, algorithms=["Ed25519"]))
    results = []
    for name, secret, crypto in (("api_key_check", key, hashing), ("jwt_verify", token, verifying)):
        headers = {"authorization": f"Bearer {secret}"}
        loads = [
            await load(stage.port, "/api/v1/me", headers, connections=1, seconds=2) for _ in range(rounds)
        ]
        results.append(_check(name, [each.percentile(50) for each in loads], crypto))
    by_link = [await _verify(stage, each) for each in links]
    return [_check("magic_link_verify", by_link, hashing), *results]


def _check(name: str, milliseconds: Sequence[float], crypto: float) -> Result:
    share = crypto / 1000 / median(milliseconds)
    return Result(
        name,
        "ms",
        milliseconds,
        target="measured: a whole request, one at a time",
        met=True,
        more={"cryptography_us": round(crypto, 1), "cryptography_percent": round(100 * share, 2)},
    )


async def _verify(stage: Stage, person: Person) -> float:
    headers = {"x-forwarded-for": person.address, "origin": stage.url}
    async with aiohttp.ClientSession(stage.url, headers=headers) as browser:
        await (await browser.get("/healthz")).read()  # the connection is not what is measured
        began = time.perf_counter()
        body = {"token": person.link, "confirm": True}
        async with browser.post("/api/v1/auth/magic-link/verify", json=body) as answer:
            assert answer.status == 200, await answer.text()
        return (time.perf_counter() - began) * 1000


async def _session_of(stage: Stage, person: Person) -> str:
    headers = {"x-forwarded-for": person.address, "origin": stage.url}
    async with aiohttp.ClientSession(stage.url, headers=headers) as browser:
        body = {"token": person.link, "confirm": True}
        async with browser.post("/api/v1/auth/magic-link/verify", json=body) as answer:
            return answer.cookies["ocmt"].value


async def _loaded(port: int, path: str, headers: Mapping[str, str]) -> Load:
    return await load(port, path, headers, connections=CONNECTIONS, seconds=SECONDS)


@contextlib.asynccontextmanager
async def _peer(stage: Stage) -> AsyncIterator[int]:
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bare_starlette", str(port), env=surroundings(DATABASE_URL=stage.dsn)
    )
    try:
        async with aiohttp.ClientSession() as session:
            await _until_ready(session, f"http://localhost:{port}/", process, status=404)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _until_ready(
    session: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process, status: int = 200
) -> None:
    async with asyncio.timeout(30):
        while True:
            assert process.returncode is None, "it did not start"
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as answer:
                    if answer.status == status:
                        return
            await asyncio.sleep(0.005)


def _microseconds(work: Callable[[], object], times: int = 2000) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return median(took) * 1e6


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
