"""As many processes as it can have. Ends by itself within seconds."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes

TRIES = 1024
SECONDS = 2.0


def attempt(given: dict[str, Any]) -> Outcomes:
    end = time.monotonic() + SECONDS
    started = []
    for _ in range(TRIES):
        try:
            pid = os.fork()
        except OSError:
            continue
        if pid == 0:
            time.sleep(max(0.0, end - time.monotonic()))
            os._exit(0)
        started.append(pid)
    for pid in started:
        os.waitpid(pid, 0)
    return {"processes at once": str(len(started))}
