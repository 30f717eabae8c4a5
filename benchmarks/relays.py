"""The gateway proxy's splice beside nginx, haproxy and npm's configurable-http-proxy, in the same rounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.results import Result
from benchmarks.wire import HANDSHAKE, listening
from ocmt.cli.process import allow_many_files

SMALL, LARGE = 256, 16 * 1024
CONNECTIONS = 100
IDLE = 5_000
SECONDS = 3.0

_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err crit;
events {{ worker_connections 15000; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://127.0.0.1:{upstream};
    proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
    proxy_read_timeout 600s; }} }} }}
"""
_HAPROXY = """
global
  maxconn 7000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout tunnel 600s
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s 127.0.0.1:{upstream}
"""


async def measure(folder: Path, rounds: int) -> list[Result]:
    """Rates and latencies in interleaved rounds, memory in one."""
    allow_many_files()
    async with AsyncExitStack() as stack:
        rates: dict[int, dict[str, list[float]]] = {}
        delays: dict[str, list[dict[str, Any]]] = {}
        for size in (SMALL, LARGE):
            upstream = _free_port()
            await stack.enter_async_context(
                _process(upstream, sys.executable, "-m", "benchmarks.wire", "echo", upstream, size)
            )
            ways = {"direct": upstream, **await _relays(stack, folder / str(size), upstream)}
            rates[size] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, port in ways.items():
                    rates[size][name].append((await _crowd(port, size, CONNECTIONS))["rate"])
            if size == SMALL:
                delays = {name: [] for name in ways}
                for _ in range(rounds):
                    for name, port in ways.items():
                        delays[name].append(await _crowd(port, size, 1, timed=True))
                memory = await _memory(ways["ocmt"])
        return [*_judged(rates), *_delays(delays), memory, *await _scaling(stack, rounds)]


def _judged(rates: dict[int, dict[str, list[float]]]) -> list[Result]:
    small, large = rates[SMALL], rates[LARGE]
    others = {name: round(median(values)) for name, values in small.items() if name not in ("ocmt", "nginx")}
    results = []
    for size, told, least in ((SMALL, small, 0.8), (LARGE, large, 0.9)):
        if "nginx" not in told:
            continue
        ratio = median(told["ocmt"]) / median(told["nginx"])
        results.append(
            Result(
                f"gateway proxy, {size} B echo, {CONNECTIONS} connections",
                "messages/s",
                told["ocmt"],
                f"ratio ≥ {least}",
                ratio >= least,
                "nginx proxy_pass",
                told["nginx"],
                more={"others": others} if size == SMALL else {},
            )
        )
    if "configurable-http-proxy" in small:
        ratio = median(small["ocmt"]) / median(small["configurable-http-proxy"])
        results.append(
            Result(
                f"gateway proxy beside JupyterHub's, {SMALL} B",
                "messages/s",
                small["ocmt"],
                "ratio ≥ 3",
                ratio >= 3,
                "configurable-http-proxy",
                small["configurable-http-proxy"],
            )
        )
    return results


def _delays(delays: dict[str, list[dict[str, Any]]]) -> list[Result]:
    results = []
    for which, most in (("p50", 0.15), ("p99", 1.0)):
        added = [
            (ours[which] - direct[which]) * 1000
            for ours, direct in zip(delays["ocmt"], delays["direct"], strict=True)
        ]
        others = {
            name: round(
                (median(each[which] for each in told) - median(each[which] for each in delays["direct"]))
                * 1000,
                3,
            )
            for name, told in delays.items()
            if name not in ("ocmt", "direct")
        }
        results.append(
            Result(
                f"gateway proxy, added latency {which}",
                "ms",
                added,
                f"≤ {most}",
                median(added) <= most,
                more={"others": others},
            )
        )
    return results


async def _memory(port: int) -> Result:
    """Of the relay's process, by 5,000 idle connections."""
    (process,) = [each for each in psutil.process_iter() if _listens_as(each, "relay", port)]
    before = process.memory_info().rss
    writers = []
    for _ in range(IDLE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        writers.append(writer)
    await asyncio.sleep(1)
    each = (process.memory_info().rss - before) / IDLE / 1024
    for writer in writers:
        writer.transport.abort()
    return Result("gateway proxy, memory of an idle connection", "KB", [each], "≤ 8", each <= 8)


async def _scaling(stack: AsyncExitStack, rounds: int) -> list[Result]:
    """Two workers on one port beside one: they share nothing but the kernel's queue."""
    upstream, one, two = _free_port(), _free_port(), _free_port()
    start = (sys.executable, "-m", "benchmarks.wire")
    await stack.enter_async_context(_process(upstream, *start, "echo", upstream, SMALL))
    alone = [await stack.enter_async_context(_process(one, *start, "relay", one, upstream))]
    pair = [await stack.enter_async_context(_process(two, *start, "relay", two, upstream)) for _ in range(2)]
    single: list[float] = []
    double: list[float] = []
    single_cost: list[float] = []
    double_cost: list[float] = []
    for _ in range(rounds):
        for port, workers, rates, costs in (
            (one, alone, single, single_cost),
            (two, pair, double, double_cost),
        ):
            before = _processor_seconds(workers)
            rates.append((await _crowd(port, SMALL, CONNECTIONS))["rate"])
            costs.append((_processor_seconds(workers) - before) / (rates[-1] * SECONDS) * 1e6)
    return [
        Result(
            "gateway proxy, two workers: processor time of a message",
            "µs",
            double_cost,
            "at most 1.1 of one worker's",
            median(double_cost) <= 1.1 * median(single_cost),
            "one worker",
            single_cost,
        ),
        Result(
            "gateway proxy, two workers beside one",
            "messages/s",
            double,
            "ratio > 1",
            median(double) > median(single),
            "one worker",
            single,
            more={"cores": len(os.sched_getaffinity(0)), "note": "clients and echo share the cores"},
        ),
    ]


async def _relays(stack: AsyncExitStack, folder: Path, upstream: int) -> dict[str, int]:
    folder.mkdir(parents=True)
    ours = _free_port()
    await stack.enter_async_context(
        _process(ours, sys.executable, "-m", "benchmarks.wire", "relay", ours, upstream)
    )
    found = {"ocmt": ours}
    for name, text, arguments in (
        ("nginx", _NGINX, ("-c", "{file}")),
        ("haproxy", _HAPROXY, ("-f", "{file}")),
    ):
        program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            print(f"left out: {name} is not installed (Debian: apt install {name})")
            continue
        port, file = _free_port(), folder / f"{name}.conf"
        file.write_text(text.format(folder=folder, port=port, upstream=upstream))
        words = [argument.format(file=file) for argument in arguments]
        await stack.enter_async_context(_process(port, program, *words))
        found[name] = port
    proxy = await _configurable_http_proxy()
    if proxy is not None:
        port, api = _free_port(), _free_port()
        await stack.enter_async_context(
            _process(
                port,
                *proxy,
                "--ip",
                "127.0.0.1",
                "--port",
                port,
                "--api-port",
                api,
                "--default-target",
                f"http://127.0.0.1:{upstream}",
                "--log-level",
                "error",
            )
        )
        found["configurable-http-proxy"] = port
    return found


async def _configurable_http_proxy() -> list[str] | None:
    """npm's, installed beside the benchmarks the first time."""
    from ocmt.runtimes.tools import find_tools
    from ocmt.settings import load_settings

    settings = load_settings()
    place = settings.cache_dir / "benchmarks"
    entry = place / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"
    node = find_tools(settings.cache_dir).node
    npm = node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
    if not entry.is_file():
        command = [str(node), str(npm)] if npm.is_file() else ["npm"]
        place.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            process = await asyncio.create_subprocess_exec(
                *command, "install", "--silent", "--prefix", place, "configurable-http-proxy@5"
            )
            await process.wait()
    if not entry.is_file():
        print("left out: configurable-http-proxy could not be installed from npm")
        return None
    return [str(node), str(entry)]


async def _crowd(port: int, size: int, count: int, *, timed: bool = False) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.wire", "crowd",
        *(str(each) for each in (port, size, count, SECONDS, int(timed))),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await process.communicate()
    measured = json.loads(told)
    assert isinstance(measured, dict)
    return measured


@asynccontextmanager
async def _process(port: int, *command: object) -> AsyncIterator[psutil.Process]:
    process = await asyncio.create_subprocess_exec(
        *(str(word) for word in command),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await listening(port)
        yield psutil.Process(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _processor_seconds(processes: Iterable[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _listens_as(process: psutil.Process, what: str, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()[-3:-1] == [what, str(port)]
    return False
