"""`ocmt db`: the schema, for those who migrate before they start the new version."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from ocmt.cli.database import open_dsn
from ocmt.cli.output import AsJson, DataDir, print_json
from ocmt.platform import migrations
from ocmt.settings import load_settings

app = App(name="db", help="Bring the database's schema up to date.")


@app.command
async def migrate(
    *,
    pre: Annotated[
        bool, Parameter(negative=(), help="Only the steps that the version before can live with.")
    ] = False,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Bring the schema up to this program's; does nothing where it is."""
    async with open_dsn(load_settings(data_dir=data), create=True) as dsn:
        applied = await migrations.migrate(dsn, "pre" if pre else "all")
    if json:
        print_json({"applied": applied})
    elif applied:
        print(f"Applied {', '.join(applied)}.")
    else:
        print("The schema is current; there was nothing to do.")


@app.command
async def status(*, data: DataDir = None, json: AsJson = False) -> None:
    """Tell whether the schema is this program's."""
    async with open_dsn(load_settings(data_dir=data), create=False) as dsn:
        current = await migrations.schema_is_current(dsn)
    target = migrations.target_revision()
    if json:
        print_json({"current": current, "target": target})
    elif current:
        print(f"The schema is current ({target}).")
    else:
        print(f"The schema is behind {target}: run `ocmt db migrate`.")
