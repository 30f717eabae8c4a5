"""`ocmt` and `python -m ocmt`."""

from __future__ import annotations

import codecs
import locale
import os
import sys


def main() -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 misused."""
    _speak_utf_8()
    from ocmt.cli.app import run

    return run(sys.argv[1:])


def _speak_utf_8() -> None:
    """Begin again in Python's UTF-8 mode if the locale has another encoding: our files are UTF-8."""
    if not sys.flags.utf8_mode and codecs.lookup(locale.getpreferredencoding(False)).name != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
