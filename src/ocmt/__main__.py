"""`ocmt` and `python -m ocmt`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 misused."""
    from ocmt.cli.app import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
