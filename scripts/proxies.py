"""Installs the reverse proxies that the documentation describes, for the tests of those pages: nginx, Apache
and Caddy, as Debian packages them.

Runs from `make test`. Where apt or root is missing it installs nothing and succeeds: the tests of a proxy
that is not there are skipped and say so. The packages' services are never started.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {"nginx": "nginx", "apache2": "apache2", "caddy": "caddy"}
"""Program → Debian package."""
ELSEWHERE = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where servers are installed; an ordinary user's PATH does not name these folders."""
POLICY = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """Return the programs that are not installed."""
    path = f"{os.environ.get('PATH', os.defpath)}:{ELSEWHERE}"
    return [name for name in PACKAGES if shutil.which(name, path=path) is None]


@contextmanager
def no_services() -> Iterator[None]:
    """Forbid packages to start their services, in the way that Debian documents for chroots and images."""
    if POLICY.exists():
        yield
        return
    with tempfile.NamedTemporaryFile("w", dir=POLICY.parent, prefix=".policy-", delete=False) as file:
        file.write("#!/bin/sh\nexit 101\n")
    Path(file.name).chmod(0o755)
    Path(file.name).rename(POLICY)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def install(names: list[str]) -> None:
    """Install each package by itself, so that one that is not to be had does not hold up the others."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    patient = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    with no_services():
        for words in (["update"], *(["install", "-y", "--no-install-recommends", name] for name in names)):
            subprocess.run(  # noqa: S603
                [*patient, *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=False,
            )


def main() -> int:
    """Exit code: always 0, because the tests of a missing proxy are skipped with a reason."""
    wanted = missing()
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"Installing Debian's {', '.join(wanted)} for the tests of the proxies …", flush=True)
        install([PACKAGES[name] for name in wanted])
    for name in missing():
        print(
            f"{name} is not installed: the tests of the documentation's {name} configuration are skipped. "
            f"Debian: sudo apt install {PACKAGES[name]}",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
