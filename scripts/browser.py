"""Makes sure that a Chromium is there for the browser tests: Debian's, by apt, where we may."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def main() -> int:
    """Exit code: 0 when a browser is there."""
    if any(shutil.which(name) for name in NAMES):
        return 0
    apt = shutil.which("apt-get")
    if os.geteuid() == 0 and apt:
        print("Installing Debian's chromium for the browser tests …", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
            done = subprocess.run(  # noqa: S603
                [apt, *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=False,
            )
            if done.returncode:
                break
        if shutil.which("chromium"):
            return 0
    print(
        "The browser tests need Chromium or Google Chrome. Install it (Debian: sudo apt install chromium), "
        "then run make test again.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
