"""Snapshots of agents' files: their generations, and the wish to have an older one back."""

from ocmt.platform.migrations import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Emit 0002_snapshots.sql."""
    run_sql(__file__)
