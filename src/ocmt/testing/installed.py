"""What `make setup` has installed on this machine, for tests that run the real programs."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from ocmt.runtimes.tools import Tools, find_tools


def installed_tools() -> Tools:
    """From `OCMT_CACHE_DIR`, or the usual cache folder. Raises: SetupProblem."""
    return find_tools(Path(os.environ.get("OCMT_CACHE_DIR") or user_cache_path("ocmt")))
