"""`python -m ocmt.setup`: what `scripts/bootstrap` runs, and `ocmt setup` too."""

import sys

from ocmt.setup.program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
