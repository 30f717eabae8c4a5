"""`ocmt doctor`: what works on this machine, what does not, and what to do about it.

Tries things rather than guessing: runs Node, makes a sandbox, binds the port. Changes nothing, and may be
run beside a running `ocmt up`.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ocmt.broker.policy import clean_key, is_key
from ocmt.cli.output import AsJson, DataDir, print_json, print_table
from ocmt.errors import OcmtError, SetupProblem
from ocmt.platform.free_space import FreeSpace, read_folders
from ocmt.platform.installation import NotTogether
from ocmt.platform.mail import SmtpMail
from ocmt.platform.postgres_binaries import OLDEST_MAJOR, find_binaries, major_version
from ocmt.runtimes.base import Isolation
from ocmt.runtimes.paging import room_in_swap
from ocmt.runtimes.tools import find_tools
from ocmt.services.static_ui import find_ui
from ocmt.settings import Settings, load_settings
from ocmt.setup.bubblewrap import new_enough, version_of
from ocmt.setup.node import accepted

if TYPE_CHECKING:
    from ocmt.identity.oidc.model import Provider

DATA_SPACE = 500_000_000
AGENT_MEMORY = 1_500_000_000


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do where that is not well."""

    name: str
    ok: bool
    found: str
    advice: str | None = None


def doctor(
    *,
    data: DataDir = None,
    port: Annotated[int | None, Parameter(help="The port that `ocmt up` is to have.")] = None,
    settings: Annotated[bool, Parameter(negative=(), help="Show every setting and its source.")] = False,
    as_json: AsJson = False,
) -> int:
    """Say what works on this machine, what does not, and what to do about it."""
    known = load_settings(data_dir=data, port=port)
    if settings:
        from ocmt.cli.setting_sources import setting_rows

        rows = setting_rows(known)
        if as_json:
            print_json(rows)
        else:
            print_table(rows, ("setting", "value", "source"), empty="no settings")
        return 0
    checks = examine(known)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            print(f"{'ok ' if check.ok else 'NO '} {check.name:<12} {check.found}")
            if check.advice:
                print(f"{'':<16} {check.advice}")
    return 0 if all(check.ok for check in checks) else 1


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which `ocmt up` needs what they look at."""
    looks: list[tuple[str, Callable[[Settings], Check]]] = [
        ("python", _python),
        *(_OF_DOCKER if settings.runtime == "docker" else _OF_SANDBOXES),
        ("database", _database),
        ("data folder", _data_folder),
        ("together", _together),
        ("memory", _memory),
        ("swap", _swap),
        ("spares", _spares),
        ("pages", _pages),
        ("port", _port),
        ("settings", _settings),
        ("address", _address),
        ("mail", _mail),
        ("sign-in", _sign_in),
        ("model", _model),
    ]
    return [_looked(name, look, settings) for name, look in looks]


def _looked(name: str, look: Callable[[Settings], Check], settings: Settings) -> Check:
    try:
        return look(settings)
    except OcmtError as error:
        if isinstance(error, NotTogether):
            return Check(name, False, "they are of two installations", error.message)
        return Check(name, False, "not found" if isinstance(error, SetupProblem) else "failed", error.message)


def _python(_settings: Settings) -> Check:
    return Check("python", True, platform.python_version())


def _settings(_settings: Settings) -> Check:
    from ocmt.cli.setting_sources import unknown_variables

    unknown = unknown_variables()
    if unknown:
        return Check("settings", False, f"no such setting: {', '.join(unknown)}", "Correct or unset them.")
    return Check("settings", True, "each is known and has its form")


def _address(settings: Settings) -> Check:
    from ocmt.bootstrap.features import public_address  # late, as it opens many rooms

    return Check("address", True, public_address(settings).url)


def _mail(settings: Settings) -> Check:
    if settings.smtp_url is None:
        return Check("mail", True, "into the local outbox; links are shown in the terminal (OCMT_SMTP_URL)")
    fault = SmtpMail(settings.smtp_url.get_secret_value(), settings.mail_from).check()
    if fault is not None:
        return Check("mail", False, fault, "Correct OCMT_SMTP_URL, or start that server.")
    return Check("mail", True, "the mail server answers, and takes the sign-in where one is set")


def _node(settings: Settings) -> Check:
    node = find_tools(settings.cache_dir).node
    try:
        answer = subprocess.run(  # noqa: S603 (the set-up's own choice)
            [node, "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("node", False, f"{node} does not run: {error}", "Run `make setup`.")
    version = answer.stdout.strip().removeprefix("v")
    if not accepted(version):
        return Check("node", False, f"{version} ({node})", "OpenClaw needs 24.16 or newer: run `make setup`.")
    return Check("node", True, f"{version} ({node})")


def _openclaw(settings: Settings) -> Check:
    folder = find_tools(settings.cache_dir).openclaw / "node_modules" / "openclaw"
    return Check(
        "openclaw", True, f"{json.loads((folder / 'package.json').read_text())['version']} ({folder})"
    )


def _bubblewrap(settings: Settings) -> Check:
    program = find_tools(settings.cache_dir).bwrap
    version = version_of(program)
    if not new_enough(version):
        return Check("bubblewrap", False, f"{program} is too old or does not run", "Run `make setup`.")
    return Check("bubblewrap", True, f"{'.'.join(map(str, version or ()))} ({program})")


def _sandbox(settings: Settings) -> Check:
    import structlog

    from ocmt.platform.clock import SystemClock
    from ocmt.platform.reachable import ReachablePaths
    from ocmt.runtimes.sandbox import SandboxRuntime

    if settings.runtime != "sandbox":
        return Check("sandbox", True, f"not used: the runtime is {settings.runtime}")
    paths = ReachablePaths()
    paths.enter()
    with tempfile.TemporaryDirectory(prefix="ocmt-doctor-") as folder:
        runtime = SandboxRuntime(
            data_dir=Path(folder),
            tools=find_tools(settings.cache_dir),
            doors={},
            clock=SystemClock(),
            log=structlog.get_logger("doctor"),
            view=paths.view,
            private=[settings.data_dir],
        )
        isolation = asyncio.run(runtime.probe())
    return _isolation("sandbox", isolation)


def _docker(settings: Settings) -> Check:
    import structlog

    from ocmt.platform.clock import SystemClock
    from ocmt.runtimes.docker import DockerRuntime

    async def probe(folder: Path) -> Isolation:
        runtime = DockerRuntime(
            data_dir=folder,
            doors={},
            clock=SystemClock(),
            log=structlog.get_logger("doctor"),
            url=settings.docker_url,
            image=settings.agent_image,
            private=[settings.data_dir],
        )
        try:
            return await runtime.probe()
        finally:
            await runtime.close()

    # Beside the data folder: Docker may see that one only, as where ocmt runs in a container itself.
    place = settings.data_dir if settings.data_dir.is_dir() else None
    with tempfile.TemporaryDirectory(prefix=".ocmt-doctor-", dir=place) as folder:
        return _isolation("docker", asyncio.run(probe(Path(folder))))


def _isolation(name: str, found: Isolation) -> Check:
    missing = "; ".join(found.missing)
    if not found.is_boundary:
        return Check(name, False, missing or found.level, found.summary)
    return Check(name, True, f"{found.level}: {found.summary}", missing and f"Not here: {missing}")


_OF_SANDBOXES: list[tuple[str, Callable[[Settings], Check]]] = [
    ("node", _node),
    ("openclaw", _openclaw),
    ("bubblewrap", _bubblewrap),
    ("sandbox", _sandbox),
]
_OF_DOCKER: list[tuple[str, Callable[[Settings], Check]]] = [("docker", _docker)]


def _database(settings: Settings) -> Check:
    if settings.database_url is not None:
        return asyncio.run(_server(settings.database_url.get_secret_value()))
    binaries = find_binaries(settings.cache_dir)
    if binaries is None:
        return Check(
            "database", False, "no PostgreSQL server found", "Run `make setup`, or set DATABASE_URL."
        )
    return Check("database", True, f"PostgreSQL {major_version(binaries)} ({binaries}), a private server")


async def _server(dsn: str) -> Check:
    from ocmt.platform.database import connect

    try:
        connection = await connect(dsn)
    except OcmtError as error:
        return Check("database", False, error.detail or "DATABASE_URL", error.message)
    try:
        major = connection.get_server_version().major
    finally:
        await connection.close(timeout=5)
    advice = "" if major >= OLDEST_MAJOR else f"PostgreSQL {OLDEST_MAJOR} or newer is needed."
    return Check("database", not advice, f"PostgreSQL {major}, from DATABASE_URL", advice)


def _data_folder(settings: Settings) -> Check:
    folder = settings.data_dir.expanduser().absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        elsewhere = "Name another with --data or OCMT_DATA_DIR, or change its owner."
        return Check("data folder", False, f"{folder} cannot be written", elsewhere)
    free = shutil.disk_usage(existing).free
    advice = None if free >= DATA_SPACE else "Make room: an agent's files and the database need some."
    read = read_folders(existing)
    if FreeSpace(read, floor=settings.disk_floor).below(read()):
        advice = "Make room: below the floor of free space (OCMT_DISK_FLOOR) nothing new is taken."
    return Check("data folder", advice is None, f"{folder}, {free / 1e9:.1f} GB free", advice)


def _together(settings: Settings) -> Check:
    """Whether database and stores belong to one installation. Marks nothing."""
    from ocmt.cli.database import running_dsn

    dsn = running_dsn(settings)
    if dsn is None:
        return Check("together", True, "not looked at: the private database does not run")
    from ocmt.bootstrap.stores import check_stores

    state = asyncio.run(check_stores(settings, dsn))
    return Check("together", True, state)


def _sign_in(settings: Settings) -> Check:
    if not settings.oidc:
        return Check("sign-in", True, "by links in mails; no other provider is set")
    from ocmt.identity.oidc.model import configure

    providers = [configure(name, **given.plain()) for name, given in settings.oidc.items()]
    faults = asyncio.run(_ask_providers(providers, settings.url))
    if faults:
        return Check("sign-in", False, "; ".join(faults), "See docs/how-to/add-oidc-provider.md.")
    return Check("sign-in", True, "by " + ", ".join(each.label for each in providers))


async def _ask_providers(providers: Sequence[Provider], url: str) -> list[str]:
    """What is wrong with each: their descriptions are fetched, nobody signs in."""
    from ocmt.identity.oidc.clients import Ask, clients_of
    from ocmt.identity.oidc.service import redirect_uri
    from ocmt.platform.clock import SystemClock
    from ocmt.platform.http import HttpClient

    faults = []
    async with HttpClient() as http:
        for provider, client in clients_of(providers, http, SystemClock()).values():
            ask = Ask("state", "nonce", "v" * 43, redirect_uri(url, provider.id))
            try:
                await client.authorization_url(ask)
            except OcmtError as error:
                faults.append(f"{provider.id}: {error.detail or error.message}")
    return faults


def _memory(_settings: Settings) -> Check:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = sum(int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    advice = (
        None if free >= AGENT_MEMORY else "An agent that is awake takes 1 to 1.5 GB: free some, or add swap."
    )
    return Check("memory", advice is None, f"{free / 1e9:.1f} GB available, swap included", advice)


def _spares(settings: Settings) -> Check:
    if not settings.warm_spares:
        return Check("spares", True, "none wanted (OCMT_WARM_SPARES)")
    if settings.runtime != "sandbox":
        return Check("spares", False, f"none: the runtime is {settings.runtime}", "They need `sandbox`.")
    from ocmt.runtimes.spares import SPARE_BYTES, obstacle

    folder = next(one for one in (settings.data_dir, *settings.data_dir.parents) if one.exists())
    reason = asyncio.run(obstacle(folder))
    if reason is not None:
        return Check("spares", False, f"none: {reason}", "Agents start without, as they always can.")
    return Check("spares", True, f"{settings.warm_spares}, of {SPARE_BYTES / 1e9:.1f} GB of memory each")


def _swap(_settings: Settings) -> Check:
    if os.geteuid() != 0:
        return Check("swap", True, "not used: only root can page paused agents out")
    room = room_in_swap()
    if room:
        return Check("swap", True, f"{room / 1e9:.1f} GB for paused agents, which then keep 64 MB of memory")
    return Check(
        "swap",
        True,
        "none, so a paused agent keeps its 1 GB. For many paused agents: fallocate -l 16G /swapfile && "
        "chmod 600 /swapfile && mkswap /swapfile && swapon /swapfile",
    )


def _pages(settings: Settings) -> Check:
    folder = find_ui(settings.ui_dir)
    if folder is None:
        return Check("pages", False, "the user interface is not built", "Run `make setup`.")
    return Check("pages", True, f"built ({folder})")


def _port(settings: Settings) -> Check:
    where = f"{settings.host}:{settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if _is_ours(settings):
                return Check("port", True, f"{where}: ocmt answers there")
            advice = "Choose another with --port or OCMT_PORT, or stop what listens there."
            return Check("port", False, f"{where}: {os.strerror(error.errno or 0)}", advice)
    return Check("port", True, f"{where} is free")


def _is_ours(settings: Settings) -> bool:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        with urllib.request.urlopen(f"http://{host}:{settings.port}/healthz", timeout=2) as answer:
            return bool(json.load(answer) == {"status": "alive"})
    except (OSError, ValueError):
        return False


def _model(settings: Settings) -> Check:
    if settings.demo_model or settings.anthropic_api_key is None:
        return Check(
            "model", True, "the demo model", "For Claude set ANTHROPIC_API_KEY, or add a key in the chat."
        )
    if not is_key(clean_key(settings.anthropic_api_key.get_secret_value())):
        return Check(
            "model",
            False,
            "ANTHROPIC_API_KEY contains a character that no key has",
            "Copy the key anew: one line of letters, digits, and hyphens.",
        )
    return Check("model", True, f"{settings.model} at {settings.anthropic_url}, with the platform's key")
