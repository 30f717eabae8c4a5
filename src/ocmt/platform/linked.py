"""Which shared libraries a program needs, as the dynamic linker finds them. The standard library only."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

_TIMEOUT = 30.0
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


def libraries(program: Path) -> list[Path]:
    """The shared libraries of a program that is trusted; none for a script. Blocks."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # There is no ldd, or it is a script.
        answer = subprocess.run(  # noqa: S603
            ["ldd", program],  # noqa: S607 - from the system's folders, see _ENVIRONMENT
            capture_output=True,
            timeout=_TIMEOUT,
            check=True,
            env=_ENVIRONMENT,
            cwd="/",
            text=True,
            errors="surrogateescape",
        )
        lines = answer.stdout.splitlines()
        found = [line.rpartition(" => ")[2].rpartition(" (")[0].strip() for line in lines]
        return [Path(name) for name in found if name.startswith("/")]
    return []


def names_beside(library: Path) -> list[Path]:
    """The library and the symbolic links beside it that lead to it: the linker asks for one of those."""
    real = os.path.realpath(library)
    names = [library]
    with contextlib.suppress(OSError):
        entries = library.parent.iterdir()
        names += [entry for entry in entries if entry.is_symlink() and os.path.realpath(entry) == real]
    return list(dict.fromkeys(names))
