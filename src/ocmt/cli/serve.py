"""`ocmt serve`: one service by itself, as in a container; its settings come from the environment."""

from __future__ import annotations

import gc
import os
from typing import Annotated

from cyclopts import App, Parameter

from ocmt.cli.output import DataDir
from ocmt.cli.process import allow_many_files, listen, say
from ocmt.errors import SetupProblem
from ocmt.settings import load_settings

app = App(name="serve", help="Run one service by itself, as in a container.")


@app.command
def management(
    *,
    data: DataDir = None,
    port: Annotated[int | None, Parameter(help="Port to listen on; else $PORT, else OCMT_PORT.")] = None,
    host: Annotated[str | None, Parameter(help="Address to listen on; default every address.")] = None,
) -> None:
    """Run the Management API (`/api/v1`) over the database that DATABASE_URL names, until SIGTERM."""
    gc.disable()  # nothing of what a start makes is garbage, and looking for it takes a tenth of the time
    given = port if port is not None else _port_of_platform()
    settings = load_settings(data_dir=data, port=given, host=host)
    if "host" not in settings.model_fields_set:
        # What is in front of a container comes from another address.
        settings = settings.model_copy(update={"host": "0.0.0.0"})  # noqa: S104
    listener = listen(settings)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    allow_many_files()

    import uvloop  # late, as everything that `--help` can do without

    from ocmt.bootstrap.management import run_management
    from ocmt.platform import telemetry

    telemetry.configure_logging(settings.log_format, settings.log_level)

    async def ready() -> None:
        gc.freeze()
        gc.enable()
        say(f"ready {settings.url}")

    uvloop.run(run_management(settings, listener, announce=say, ready=ready))


def _port_of_platform() -> int | None:
    """$PORT, by which Cloud Run and others tell a container where to listen."""
    port = os.environ.get("PORT")
    if not port:
        return None
    if not port.isdecimal():
        raise SetupProblem(f"PORT is {port!r}: it must be a number, such as 8080.")
    return int(port)
