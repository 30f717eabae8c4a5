"""The files that the programs of a sandbox need from outside of the system's own folders, by name.

Node.js and Python are often installed in a folder that holds other things as well: `~/.local` contains the
data folder by default. So a sandbox never gets the folder of an installation, but the program, its libraries
and its modules, each by itself. Python is asked what it uses; for Node, the dynamic linker is asked.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ocmt.errors import SetupProblem
from ocmt.platform.linked import libraries, names_beside

ASK_TIMEOUT = 30.0
NODE_FOLDER = Path("/opt/node")
PYTHON_FOLDER = Path("/opt/python")
"""Where Python is put if the sandbox has something of its own at Python's path; it may not be relocatable."""
NPM = Path("lib/node_modules/npm")
"""Where npm lies, relative to the folder that Node was installed to."""
_SYSTEM = tuple(map(Path, ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")))
"""What every sandbox has anyway."""
_COVERED = tuple(map(Path, ("/tmp", "/var/tmp", "/var/run", "/proc", "/dev", "/home/agent")))  # noqa: S108
"""Where the sandbox has folders of its own, so that nothing of the machine's can be seen there."""
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
_QUESTION = """
import base64, ctypes, errno, json, os, resource, select, signal, socket, sys, sysconfig
paths = sysconfig.get_paths()
with open("/proc/self/maps", errors="surrogateescape") as maps:
    mapped = sorted({line[73:-1] for line in maps if line[73:74] == "/"})
print(json.dumps({
    "modules": [os.path.dirname(os.__file__), *sys.path],
    "packages": [paths["purelib"], paths["platlib"]],
    "mapped": mapped,
}))
"""
"""Imports what the supervisor and the probe import, so that every shared library that they need is mapped."""


@dataclass(frozen=True)
class Given:
    """One file or folder of this machine that is bound into a sandbox, read-only."""

    source: Path
    """Its real path."""
    target: Path


@dataclass(frozen=True)
class Programs:
    """What the two programs need, with what lies in the system's own folders."""

    files: tuple[Given, ...]
    python: Path
    """Where Python is, seen from inside."""
    hidden: tuple[Path, ...] = ()
    """Folders inside, below one of the targets, that are covered by empty ones: other people's packages."""
    node_has_npm: bool = False


@lru_cache(maxsize=16)
def programs(node: Path, python: Path) -> Programs:
    """What a sandbox must be given for these two to run. Blocks for about 0.1 s the first time.

    Raises: SetupProblem where Python does not answer.
    """
    python_files, hidden = _python_files(python)
    if any(python.is_relative_to(folder) for folder in _COVERED):
        prefix = python.parent.parent
        python_files = [Given(given.source, _moved(given.target, prefix)) for given in python_files]
        hidden = [_moved(path, prefix) for path in hidden]
        python = _moved(python, prefix)
    # One name may come from both; the order is kept, so that a folder comes before what lies inside it.
    files = dict.fromkeys((*_node_files(node), *python_files))
    has_npm = any(given.target == NODE_FOLDER / NPM for given in files)
    return Programs(tuple(files), python, tuple(hidden), has_npm)


def _moved(path: Path, prefix: Path) -> Path:
    return PYTHON_FOLDER / path.relative_to(prefix) if path.is_relative_to(prefix) else path


def _node_files(node: Path) -> Iterator[Given]:
    prefix = node.parent.parent
    yield Given(_real(node), NODE_FOLDER / "bin" / "node")
    if (prefix / NPM / "bin" / "npm-cli.js").is_file():
        yield Given(_real(prefix / NPM), NODE_FOLDER / NPM)
    for library in libraries(node):
        for name in names_beside(library):
            yield Given(_real(name), name)  # for a search path that is absolute
            if name.is_relative_to(prefix) and not is_system(prefix):
                yield Given(_real(name), NODE_FOLDER / name.relative_to(prefix))  # for a relative one


def _python_files(python: Path) -> tuple[list[Given], list[Path]]:
    said = _asked(python)
    found = [Given(_real(python), python)]
    modules = [Path(name) for name in dict.fromkeys(said["modules"]) if os.path.exists(name)]  # noqa: PTH110
    for path in modules:
        inside_another = any(path != one and path.is_relative_to(one) for one in modules)
        if not inside_another:
            found.append(Given(_real(path), path))
    bound = [given.target for given in found if given.source.is_dir()]
    for library in map(Path, said["mapped"]):
        if library in (python, _real(python)) or not _is_library(library):
            continue
        for name in names_beside(library):
            if not any(name.is_relative_to(folder) for folder in bound):
                found.append(Given(_real(name), name))
    packages = [Path(name) for name in dict.fromkeys(said["packages"]) if name]
    hidden = [
        path
        for path in packages
        if path.is_dir() and not path.is_symlink() and any(path.is_relative_to(folder) for folder in bound)
    ]
    return found, hidden


def _asked(python: Path) -> dict[str, list[str]]:
    try:
        answer = subprocess.run(  # noqa: S603 - our own question
            [python, "-I", "-S", "-B", "-c", _QUESTION],
            capture_output=True,
            timeout=ASK_TIMEOUT,
            check=True,
            env=_ENVIRONMENT,
            cwd="/",
        )
        said: dict[str, list[str]] = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        faults = getattr(error, "stderr", None) or b""
        raise SetupProblem(
            f"{python} does not run: agents need a Python with its whole standard library.",
            detail=faults.decode(errors="replace")[-500:] or repr(error),
        ) from error
    return said


def _is_library(path: Path) -> bool:
    return ".so" in path.suffixes and path.is_file()


def is_system(path: Path) -> bool:
    """Whether a sandbox has it at this very path, by the folders that it has of the machine."""
    return any(path.is_relative_to(folder) for folder in _SYSTEM)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
