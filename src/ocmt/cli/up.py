"""`ocmt up`: everything on this machine, on one port, with a link to sign in."""

from __future__ import annotations

import errno
import socket
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from cyclopts import Parameter

from ocmt.cli.process import allow_many_files, forget_address, keep_address, listen, require_safe_address, say
from ocmt.errors import SetupProblem
from ocmt.platform.reachable import ReachablePaths
from ocmt.settings import Settings, load_settings

if TYPE_CHECKING:
    from ocmt.identity.service import Identity


def up(
    *,
    data: Annotated[Path | None, Parameter(help="Folder for everything that must be kept.")] = None,
    port: Annotated[int | None, Parameter(help="Port to listen on; 0 takes a free one.")] = None,
    host: Annotated[str | None, Parameter(help="Address to listen on.")] = None,
    runtime: Annotated[
        Literal["sandbox", "docker", "process"] | None, Parameter(help="What runs the agents.")
    ] = None,
    demo_model: Annotated[
        bool | None, Parameter(help="Answer from the demo model even where there is a key.")
    ] = None,
) -> None:
    """Run everything on this machine, on one port; Ctrl-C ends it."""
    settings = load_settings(data_dir=data, port=port, host=host, runtime=runtime, demo_model=demo_model)
    require_safe_address(settings)
    listener = listen(settings)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    namesake = _keep_namesake(settings)
    allow_many_files()

    # Before any thread exists: as root this moves the process into a mount namespace of its own.
    paths = ReachablePaths()
    paths.enter()

    import uvloop  # late, as everything that `ocmt up --help` can do without

    with namesake:
        uvloop.run(_run(settings, listener, paths))


async def _run(settings: Settings, listener: socket.socket, paths: ReachablePaths) -> None:
    from ocmt.bootstrap.all_in_one import run_all_in_one
    from ocmt.platform import telemetry
    from ocmt.services.management import Management
    from ocmt.services.orchestrator import Orchestrator

    telemetry.configure_logging(settings.log_format, settings.log_level)

    kept = False

    async def ready(management: Management, orchestrator: Orchestrator) -> None:
        isolation = await orchestrator.runtime.probe()
        say(f"agents run in: {isolation.level} ({isolation.summary})")
        for missing in isolation.missing:
            say(f"  not here: {missing}")
        nonlocal kept
        keep_address(settings)
        kept = True
        say(f"ready {settings.url}")
        say(await _how_to_sign_in(management.accounts.identity))

    try:
        await run_all_in_one(settings, listener, paths, announce=say, ready=ready)
    finally:
        if kept:  # else the folder may be another process's, and the address its own
            forget_address(settings)
    say("stopped")


async def _how_to_sign_in(identity: Identity) -> str:
    """Return the line that says how to sign in: a link while nobody administers, then the command."""
    link = await identity.make_start_link()
    if link is not None:
        return f"sign in once: {link}"
    admin = await identity.first_administrator()
    email = admin.email if admin else "EMAIL"
    return f"sign in: `ocmt users login-link {email}` prints a link (with the same --data)"


def _keep_namesake(settings: Settings) -> AbstractContextManager[object]:
    """Hold our port on ::1, answering nobody: browsers look for `localhost` there first.

    Any other user of this machine could listen there, and be handed sign-in links and cookies that are ours.
    Raises SetupProblem where somebody does already.
    """
    if ":" in settings.host or urlsplit(settings.url).hostname != "localhost":
        return nullcontext()
    try:
        held = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        return nullcontext()  # this kernel knows no ::1
    try:
        held.bind(("::1", settings.port))
    except OSError as error:
        held.close()
        if error.errno != errno.EADDRINUSE:
            return nullcontext()  # this machine has no ::1, and so nobody on it
        raise SetupProblem(
            f"Port {settings.port} is in use on ::1, where browsers look for localhost first. Stop what "
            "listens there, choose another with --port, or set OCMT_PUBLIC_URL to "
            f"http://127.0.0.1:{settings.port}."
        ) from error
    return held
