"""More on the disk than it may have: in one file, in many, in a shut folder, in files without a name."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, tried

PIECE = b"x" * 1024 * 1024
MEGABYTES = 75
IN_A_FILE = 15
HELD: list[object] = []


def attempt(given: dict[str, Any]) -> Outcomes:
    """`way`: one of the functions below; `own`: a folder of its own."""
    return {given["way"]: tried(globals()[given["way"]], Path(given["own"]))}


def one_file(own: Path) -> None:
    with (own / "large").open("wb", buffering=0) as file:
        for _ in range(MEGABYTES):
            file.write(PIECE)


def many_files(own: Path) -> None:
    for number in range(MEGABYTES // IN_A_FILE):
        (own / f"{number}").write_bytes(PIECE * IN_A_FILE)


def a_shut_folder(own: Path) -> None:
    (own / "shut").mkdir()
    many_files(own / "shut")
    (own / "shut").chmod(0)


def deleted_files(own: Path) -> None:
    for number in range(MEGABYTES // IN_A_FILE):
        file = (own / f"{number}").open("w+b", buffering=0)
        (own / f"{number}").unlink()
        for _ in range(IN_A_FILE):
            file.write(PIECE)
        HELD.append(file)


def mapped_files(own: Path) -> None:
    for number in range(MEGABYTES // IN_A_FILE):
        path = own / f"{number}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        path.unlink()
        os.ftruncate(descriptor, len(PIECE) * IN_A_FILE)
        mapping = mmap.mmap(descriptor, len(PIECE) * IN_A_FILE)
        os.close(descriptor)
        mapping[:] = PIECE * IN_A_FILE
        HELD.append(mapping)


def empty_files(own: Path) -> None:
    for number in range(10_000):
        os.close(os.open(own / f"{number}", os.O_WRONLY | os.O_CREAT))


def nested_folders(own: Path) -> None:
    os.chdir(own)
    for _ in range(150):
        Path("deeper").mkdir()
        os.chdir("deeper")
    many_files(Path())
    os.chdir("/")
