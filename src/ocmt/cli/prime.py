"""`python -m ocmt.cli.prime TARGET`: OpenClaw's first start on this machine, for the set-up.

Shows that it starts in a sandbox here, and keeps what Node compiled, so that agents wake faster. Not a
command of `ocmt`: only `ocmt.setup` runs it.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path

from ocmt.errors import OcmtError
from ocmt.openclaw.config import gateway_environment, render_config
from ocmt.platform.reachable import ReachablePaths
from ocmt.runtimes.prime import prime_compile_cache
from ocmt.runtimes.tools import find_tools
from ocmt.settings import load_settings


def prime(target: Path) -> int:
    """Fill the folder `target`, which must not exist. Returns the exit code."""
    paths = ReachablePaths()
    paths.enter()  # before any thread
    settings = load_settings()
    filling = prime_compile_cache(
        find_tools(settings.cache_dir),
        target,
        config=render_config(model=settings.model),
        environment=gateway_environment(
            gateway_token=secrets.token_urlsafe(), broker_token=secrets.token_urlsafe()
        ),
        view=paths.view,
        private=[settings.data_dir],
    )
    try:
        asyncio.run(filling)
    except OcmtError as error:
        print(error.message, error.detail or "", sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(prime(Path(sys.argv[1])))
