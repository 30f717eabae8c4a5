"""What the steps share: the clone, the cache folder, the tools to run things with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ocmt.setup.commands import Commands


@dataclass
class Place:
    """One set-up: where it reads from, where it writes to, what it runs."""

    project: Path
    """The clone."""
    cache: Path
    python: Path
    """The machine's Python, the base of the virtual environment."""
    commands: Commands

    @property
    def environment_python(self) -> Path:
        """The Python of the virtual environment."""
        return self.project / ".venv" / "bin" / "python"
