"""`ocmt setup`: the set-up that `make setup` runs, from within."""

from __future__ import annotations


def setup() -> int:
    """Fetch what the agents need on this machine: Node.js, OpenClaw, bubblewrap, PostgreSQL, the pages."""
    from ocmt.setup.program import main

    return main([])
