"""Webhooks taken, each committed before its 200, beside `pgbench` with the same insert and as many clients.

And the proof under `kill -9`: every 200 that a sender got is a row, and none is there twice. The intake and
the senders are processes of their own: `python -m benchmarks.intake serve|send …`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any, cast

import uvloop
from tests.accounts import make_user

from benchmarks.results import Result
from benchmarks.wire import listening
from ocmt.bootstrap.channels import ChannelSeal
from ocmt.channels.room import ChannelRoom
from ocmt.channels.signed import Signed, sign
from ocmt.chat.service import Chat
from ocmt.cli.process import allow_many_files
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database, Hints, connect
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.http import HttpClient
from ocmt.platform.migrations import migrate
from ocmt.platform.postgres_binaries import find_binaries
from ocmt.platform.reachable import ReachablePaths
from ocmt.platform.secrets import LocalSecrets
from ocmt.services.server import serve, stop_signal
from ocmt.settings import load_settings
from ocmt.testing.objects import MemoryObjects

SENDERS = 64
SECONDS = 5.0
KILL_AFTER = 0.4
BODY = json.dumps({"text": "x" * 300, "thread": "t"}).encode()
_PEER = """
\\set n random(1, 64)
insert into deliveries (id, endpoint_id, user_id, external_id, thread, body, received_at, next_at)
select gen_random_uuid(), e.id, e.user_id, gen_random_uuid()::text, 't', '\\x{body}'::bytea, now(), now()
from channel_endpoints e where e.name = 'e' || :n;
"""


async def measure(folder: Path, rounds: int, kills: int) -> list[Result]:
    """Rates in interleaved rounds; then the kills."""
    allow_many_files()
    binaries = find_binaries(load_settings().cache_dir)
    assert binaries is not None, "run `make setup`"
    folder.mkdir(mode=0o711, exist_ok=True)
    # For pgbench, which takes a connection for each of its clients.
    room = {"max_connections": "100"}
    server = EmbeddedPostgres(folder / "pg", binaries=binaries, view=ReachablePaths().view, settings=room)
    dsn = await server.start()
    try:
        await migrate(dsn)
        senders = folder / "senders.json"
        senders.write_text(json.dumps(await _endpoints(dsn, folder)))
        ours: list[dict[str, float]] = []
        peer: list[float] = []
        for _ in range(rounds):
            ours.append(await _round(dsn, folder, senders, SECONDS))
            if (rate := await _pgbench(dsn, folder)) is not None:
                peer.append(rate)
        rates = [each["rate"] for each in ours]
        worst = [each["p99"] * 1000 for each in ours]
        middle = sorted(rates)[len(rates) // 2]
        ratio = middle / sorted(peer)[len(peer) // 2] if peer else None
        return [
            Result(
                f"webhook intake, durable, {SENDERS} senders",
                "webhooks/s",
                rates,
                "≥ 2,000 and ratio ≥ 0.5",
                middle >= 2000 and (ratio is None or ratio >= 0.5),
                "pgbench, the same insert" if peer else None,
                peer,
            ),
            Result(
                "webhook intake, p99",
                "ms",
                worst,
                "≤ 50",
                sorted(worst)[len(worst) // 2] <= 50,
            ),
            await _kills(dsn, folder, senders, kills),
        ]
    finally:
        await server.stop()


async def _kills(dsn: str, folder: Path, senders: Path, kills: int) -> Result:
    """Each round the intake is killed under load; what was answered 200 must be there, once."""
    told = missing = 0
    connection = await connect(dsn)
    for _ in range(kills):
        said = await _round(dsn, folder, senders, KILL_AFTER, kill=True)
        ids = list(cast("list[str]", said["ids"]))
        told += len(ids)
        rows = await connection.fetchval(
            "select count(*) from deliveries where external_id = any($1::text[])", ids
        )
        missing += abs(len(ids) - rows)
    await connection.close()
    return Result(
        f"webhook intake, kill -9 under load, {kills} rounds: lost or doubled",
        "webhooks",
        [float(missing)],
        "0",
        missing == 0 and told > 0,
        more={"answered 200": told},
    )


async def _round(
    dsn: str, folder: Path, senders: Path, seconds: float, *, kill: bool = False
) -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    intake = await _start("serve", port, dsn, str(folder))
    try:
        await listening(int(port))
        sending = await _start("send", port, str(senders), str(60 if kill else seconds))
        assert sending.stdout is not None
        await sending.stdout.readline()
        if kill:
            await asyncio.sleep(seconds)
            intake.kill()
        told, _ = await sending.communicate()
    finally:
        if intake.returncode is None and not kill:
            intake.terminate()
        await intake.wait()
    measured = json.loads(told)
    assert isinstance(measured, dict)
    return measured


async def _endpoints(dsn: str, folder: Path) -> list[tuple[str, str]]:
    """(address, secret) of one for each sender, each of a user of their own."""
    database, clock = await Database.open(dsn, pool_size=5), SystemClock()
    room = _room(database, clock, Hints(dsn, clock), folder)
    made = []
    for number in range(SENDERS):
        user_id = await make_user(database, f"sender-{number}@example.org")
        opened = await room.channels.connect(user_id, "signed", {}, name=f"e{number + 1}")
        made.append((f"/webhooks/signed/{opened.connection.id}", str(opened.secret)))
    await database.close()
    return made


def _room(database: Database, clock: SystemClock, hints: Hints, folder: Path) -> ChannelRoom:
    return ChannelRoom.over(
        database,
        clock,
        hints,
        Chat(database, clock, MemoryObjects()),
        kinds={"signed": Signed(HttpClient().session, clock.now, local=True)},
        seal=ChannelSeal(LocalSecrets(folder / "secrets")),
        url="https://ocmt.example.org",
    )


async def _serve(port: int, dsn: str, folder: Path) -> None:
    clock = SystemClock()
    database = await Database.open(dsn, pool_size=5)
    room = _room(database, clock, Hints(dsn, clock), folder)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await room.intake(scope, receive, send)

    async def ready() -> None:
        pass

    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    await serve(app, listener, stop=stop_signal(), ready=ready)
    await database.close()


class _Sender(asyncio.Protocol):
    """One webhook after the other, each as soon as the one before is answered."""

    def __init__(self, path: str, secret: str, number: int) -> None:
        self._path, self._secret, self._number, self._count = path, secret, number, 0
        self.taken: list[str] = []
        self.times: list[float] = []
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.send()

    def send(self) -> None:
        self._count += 1
        self._id = f"{os.getpid()}-{self._number}-{self._count}"
        stamp = str(int(time.time()))
        signature = sign(self._secret, self._id, stamp, BODY)
        lines = (
            f"POST {self._path} HTTP/1.1",
            "Host: x",
            f"Content-Length: {len(BODY)}",
            f"webhook-id: {self._id}",
            f"webhook-timestamp: {stamp}",
            f"webhook-signature: {signature}",
            "",
            "",
        )
        head = "\r\n".join(lines)
        self._at = time.perf_counter()
        self.transport.write(head.encode() + BODY)

    def data_received(self, data: bytes) -> None:
        # The answer is small enough to come in one piece.
        if not data.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(data.decode("latin-1"))
        self.times.append(time.perf_counter() - self._at)
        self.taken.append(self._id)
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


async def _send(port: int, senders: Path, seconds: float) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    all_of_them = []
    for number, (path, secret) in enumerate(json.loads(senders.read_text())):
        _, sender = await loop.create_connection(
            lambda path=path, secret=secret, number=number: _Sender(path, secret, number),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        all_of_them.append(sender)
    print("sending", flush=True)
    began = time.perf_counter()
    await asyncio.wait([sender.gone for sender in all_of_them], timeout=seconds)
    took = time.perf_counter() - began
    times = sorted(each for sender in all_of_them for each in sender.times)
    ids = [each for sender in all_of_them for each in sender.taken]
    return {
        "rate": len(times) / took,
        "p99": times[len(times) * 99 // 100] if times else 0.0,
        "ids": ids if seconds > SECONDS else [],
    }


async def _pgbench(dsn: str, folder: Path) -> float | None:
    program = shutil.which("pgbench")
    if program is None:
        print("left out: pgbench is not installed (Debian: apt install postgresql-contrib)")
        return None
    script = folder / "insert.sql"
    script.write_text(_PEER.format(body=BODY.hex()))
    process = await asyncio.create_subprocess_exec(
        program, "-n", "-f", script, "-c", str(SENDERS), "-j", "1", "-T", str(int(SECONDS)), dsn,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await process.communicate()
    found = re.search(rb"tps = ([\d.]+)", told)
    assert found is not None, told.decode()
    return float(found[1])


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.intake", *arguments, stdout=asyncio.subprocess.PIPE
    )


def main() -> None:
    """See the module."""
    what, port, *more = sys.argv[1:]
    if what == "serve":
        uvloop.run(_serve(int(port), more[0], Path(more[1])))
    else:
        print(json.dumps(uvloop.run(_send(int(port), Path(more[0]), float(more[1])))))


if __name__ == "__main__":
    main()
