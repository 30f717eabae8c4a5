"""One request, sent over and over on so many connections at once: how many a second, and how long each took.

A process of its own (`python -m benchmarks.load`), with a client so bare that it is not what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import uvloop

WARM_UP = 0.5
"""Seconds whose answers do not count."""
GRACE = 30.0


@dataclass(frozen=True)
class Load:
    """What came of it."""

    rate: float
    """Answers a second."""
    milliseconds: Sequence[float]
    """Of each answer, sorted."""

    def percentile(self, percent: float) -> float:
        """Milliseconds within which so many of a hundred came."""
        return self.milliseconds[min(len(self.milliseconds) - 1, int(len(self.milliseconds) * percent / 100))]


async def load(port: int, path: str, headers: Mapping[str, str], *, connections: int, seconds: float) -> Load:
    """From a child process, on 127.0.0.1. Raises: RuntimeError where an answer was not 200."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.load",
        str(port),
        path,
        str(connections),
        str(seconds),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    # Not on the command line: there is a credential among them.
    told = json.dumps(dict(headers)).encode()
    output, _ = await asyncio.wait_for(process.communicate(told), seconds + GRACE)
    if process.returncode != 0:
        raise RuntimeError(f"the load on {path} failed")
    return Load(**json.loads(output))


class _Connection(asyncio.Protocol):
    """Sends the next request when the answer to the one before is here."""

    def __init__(self, request: bytes, took: list[float], done: asyncio.Event) -> None:
        self._request = request
        self._took = took
        self._done = done
        self._buffer = b""
        self.counts = False
        self.problem: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._send()

    def data_received(self, data: bytes) -> None:
        """One answer at most is under way."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._fail(self._buffer[:300].decode(errors="replace"))
            return
        if self.counts:
            self._took.append((time.perf_counter() - self._sent) * 1000)
        self._buffer = b""
        if self._done.is_set():
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Expected only at the end."""
        if not self._done.is_set():
            self._fail(f"connection lost: {error}")

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self._done.set()
        self._transport.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("an answer without its length")


async def _main(port: int, path: str, connections: int, seconds: float) -> int:
    headers = {"host": f"localhost:{port}", **json.loads(sys.stdin.read())}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    took: list[float] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: _Connection(request, took, done), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(WARM_UP)
    for each in opened:
        each.counts = True
    began = time.perf_counter()
    try:
        await asyncio.wait_for(done.wait(), seconds)
    except TimeoutError:
        done.set()
    lasted = time.perf_counter() - began
    problems = [each.problem for each in opened if each.problem]
    if not took:
        problems.append("there was no answer")
    if problems:
        print(problems[0], file=sys.stderr)
        return 1
    print(json.dumps({"rate": len(took) / lasted, "milliseconds": sorted(took)}))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    given = parser.parse_args()
    sys.exit(uvloop.run(_main(given.port, given.path, given.connections, given.seconds)))
