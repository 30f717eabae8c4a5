"""`ocmt db`: the schema, for those who migrate before they start the new version."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from ocmt.cli.database import open_dsn, open_installation
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
async def adopt(*, data: DataDir = None, json: AsJson = False) -> None:
    """Declare that the database, secrets, and objects belong together, after you moved them by hand.

    Nothing else needs this: a start, a restore, and an upgrade mark what is theirs by themselves.
    """
    from ocmt.bootstrap.stores import adopt_stores  # late, as only this command needs the stores

    async with open_installation(data) as opened:
        installation = await adopt_stores(opened.settings, opened.database)
    if json:
        print_json({"installation": installation})
    else:
        print(f"The database, secrets, and objects now belong to installation {installation}.")


@app.command
async def status(*, data: DataDir = None, json: AsJson = False) -> None:
    """Tell whether the schema is this program's."""
    async with open_dsn(load_settings(data_dir=data), create=False) as dsn:
        applied = await migrations.schema_revision(dsn)
    target = migrations.target_revision()
    current = (applied or "") >= target
    if json:
        print_json({"current": current, "schema": applied, "target": target})
    elif applied is not None and applied > target:
        print(f"The schema ({applied}) is newer than this program, which knows {target}.")
    elif current:
        print(f"The schema is current ({target}).")
    else:
        print(f"The schema is behind {target}: run `ocmt db migrate`.")
