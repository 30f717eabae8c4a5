"""`ocmt keys`: the keys that sign access tokens."""

from __future__ import annotations

from cyclopts import App

from ocmt.cli.database import open_installation
from ocmt.cli.output import AsJson, DataDir, print_json
from ocmt.identity.tokens.keys import SigningKeys, dropped_at
from ocmt.platform.clock import SystemClock

app = App(name="keys", help="Rotate the keys that sign access tokens.")


@app.command
async def rotate(*, data: DataDir = None, json: AsJson = False) -> None:
    """Have the next key sign from now on. No request fails: what the present one signed stays good."""
    async with open_installation(data) as opened:
        secrets = (await opened.stores()).secrets
        ring = await SigningKeys(secrets, opened.database, SystemClock()).rotate()
    drops = dropped_at(ring)
    if json:
        print_json({"current": ring.current.kid, "next": ring.next.kid, "old_keys_until": drops})
    else:
        print(f"Tokens are signed by {ring.current.kid} within half a minute.")
        if drops is not None:
            print(f"What was signed before stays good; the old key goes after {drops:%Y-%m-%d %H:%M} UTC.")
