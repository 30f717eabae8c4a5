"""What an agent may keep that was over its allowance of disk, noted beside its files.

The note is in the agent's folder, where only the platform writes: it concerns the files of that folder, goes
with them, and is read where no database can be asked. It holds the most that the agent may have until it is
back under its allowance: what was found when it was over for the first time, and a little on top, to be able
to run and remove files. It falls with what the agent removes, and nothing raises it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

TO_TIDY_UP = 64 * 1024**2
"""Bytes on top for an agent that has more than it may: to be able to run, and to remove some."""
_NOTE = "disk-excess.json"


@dataclass(frozen=True)
class Excess:
    """The most that an agent over its allowance may have."""

    bytes: int = 2**62
    unwatched: bool = False
    """Whether it had more files than could be watched."""


def read_excess(root: Path) -> Excess | None:
    """Return what is noted of that agent; None where it is under its allowance. Blocks. Raises: OSError."""
    try:
        noted = json.loads((root / _NOTE).read_text())
        return Excess(int(noted["bytes"]), noted["unwatched"] is True)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Excess(0, unwatched=True)  # a note that was cut off by a crash was still a note


def write_excess(root: Path, excess: Excess | None) -> None:
    """Note that, complete or not at all. Blocks. Raises: OSError."""
    path = root / _NOTE
    if excess is None:
        path.unlink(missing_ok=True)
        return
    unfinished = path.with_suffix(".new")
    with unfinished.open("w") as file:
        json.dump(asdict(excess), file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
