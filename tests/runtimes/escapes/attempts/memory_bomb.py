"""As much memory as it can have, up to what a test machine can spare."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes

STEP = 16
MOST = 640


def attempt(given: dict[str, Any]) -> Outcomes:
    """In a child, which is the one that is killed: the largest."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = []
        for _ in range(MOST // STEP):
            held.append(b"x" * (STEP * 1024 * 1024))
            os.write(writing, b".")
            time.sleep(0.02)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        megabytes = STEP * len(pipe.read())
    os.waitpid(pid, 0)
    return {"megabytes": str(megabytes)}
