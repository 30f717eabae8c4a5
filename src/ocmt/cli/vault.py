"""`ocmt vault`: the keys that seal what users store."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from ocmt.cli.database import open_installation
from ocmt.cli.output import AsJson, DataDir, print_json
from ocmt.platform.clock import SystemClock
from ocmt.vault.service import Vault

app = App(name="vault", help="Rotate the keys that seal what users store.")


@app.command
async def rotate(
    *,
    user_keys: Annotated[bool, Parameter(negative=(), help="Also a new key for every user.")] = False,
    data: DataDir = None,
    json: AsJson = False,
) -> None:
    """Make a new master key and wrap every user's key by it, while everything runs. May be repeated."""
    async with open_installation(data) as opened:
        secrets = (await opened.stores()).secrets
        vault = Vault(opened.database, secrets, opened.identity.audit, SystemClock())
        version, wrapped = await vault.master.rotate()
        renewed = 0
        after = None
        while user_keys and (page := await vault.users(after=after)):
            for user_id in page:
                await vault.rotate_data_key(user_id)
            after, renewed = page[-1], renewed + len(page)
    if json:
        print_json({"master_version": version, "wrapped": wrapped, "user_keys": renewed})
    else:
        print(f"Master key version {version} wraps {wrapped} keys; {renewed} users have a new key.")
