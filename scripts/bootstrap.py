"""Runs the set-up (src/ocmt/setup) from the clone, before anything is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from ocmt.setup.program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
