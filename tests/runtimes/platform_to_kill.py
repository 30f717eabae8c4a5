"""A platform with one stubborn agent, for the test that kills it: `python -m … FOLDER BWRAP [spare]`.

With `spare`: one with a warm spare and no agent.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import structlog

from ocmt.runtimes.tools import Tools, own_python

from .conftest import REACHABLE, Counter, a_spec, inside, make_runtime
from .warm import a_recipe, ready


async def main(folder: Path, bwrap: Path, *, spare: bool) -> None:
    tools = Tools(folder / "node" / "bin" / "node", folder / "openclaw", bwrap, own_python())
    # Its word is all that goes to standard output.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if spare:
        warm = make_runtime(folder, tools, Counter(), REACHABLE.view, a_recipe(folder, tools))
        await ready(warm)
        print("running", flush=True)
        await asyncio.Event().wait()
    runtime = make_runtime(folder, tools, Counter(), REACHABLE.view)
    spec = a_spec("stubborn")
    await runtime.start(spec, {})
    await inside(runtime, spec.user_id, "import subprocess; subprocess.Popen(['sleep', '600']); answer = 1")
    print("running", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), spare=sys.argv[3:] == ["spare"]))
