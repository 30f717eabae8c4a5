"""Runs npm on the Node that the set-up found: `python scripts/npm.py --prefix ui test`."""

import json
import os
import sys
from pathlib import Path

from ocmt.setup.folders import cache_folder

tools = json.loads((cache_folder() / "tools.json").read_text())
node = Path(tools["node"])
os.environ["PATH"] = os.pathsep.join([str(node.parent), os.environ.get("PATH", os.defpath)])
os.execv(node, [str(node), tools["npm"], *sys.argv[1:]])  # noqa: S606
