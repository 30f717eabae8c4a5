"""A platform with a running and a paused agent, for the test that kills it: `python -m … FOLDER IMAGE`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from .conftest import Counter, a_spec, inside, make_docker_runtime


async def main(folder: Path, image: str) -> None:
    runtime = make_docker_runtime(folder, image, Counter())
    running, paused = a_spec("stubborn"), a_spec("stubborn", slot=2)
    for spec in (running, paused):
        await runtime.start(spec, {})
        await inside(runtime, spec.user_id, "answer = 1")
    await runtime.pause(paused.user_id, {})
    print(running.user_id, paused.user_id, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
