"""`ocmt audit`: whether the audit log is whole, and all of it in a file."""

from __future__ import annotations

import json as as_json
from typing import Annotated

from cyclopts import App, Parameter

from ocmt.cli.database import open_identity
from ocmt.cli.output import AsJson, DataDir, print_json

app = App(name="audit", help="Verify and export the audit log.")


@app.command
async def verify(
    *,
    expect: Annotated[str | None, Parameter(help="The head that was printed the last time.")] = None,
    data: DataDir = None,
    json: AsJson = False,
) -> int:
    """Walk the chain and say whether a row was changed, removed or put in; exit code 1 if so.

    Who can write the database can also cut off the end, or make a whole new chain: keep the head that is
    printed elsewhere, and give it as `--expect` the next time.
    """
    async with open_identity(data) as identity:
        verdict = await identity.audit.verify()
        fault = verdict.fault
        if fault is None and expect is not None and not await identity.audit.has(bytes.fromhex(expect)):
            fault = "the head that you expect is not in the log: it was cut off or replaced"
    if json:
        print_json({"rows": verdict.rows, "head": verdict.head, "fault": fault})
    elif fault is None:
        print(f"{verdict.rows} rows, unbroken. Head: {verdict.head}")
    else:
        print(f"Broken: {fault}. {verdict.rows} rows before that are right.")
    return 0 if fault is None else 1


@app.command
async def export(
    *,
    after: Annotated[int, Parameter(help="Only what is behind that row.")] = 0,
    data: DataDir = None,
) -> None:
    """Print all of it as lines of JSON, oldest first."""
    async with open_identity(data) as identity:
        while rows := await identity.audit.read(after=after):
            for row in rows:
                shown = {
                    "id": row.id,
                    "at": row.at.isoformat(),
                    "action": row.action,
                    "actor_id": str(row.actor_id) if row.actor_id else None,
                    "subject_id": str(row.subject_id) if row.subject_id else None,
                    "details": row.details,
                    "hash": row.hash.hex(),
                }
                print(as_json.dumps(shown, ensure_ascii=False))
            after = rows[-1].id
