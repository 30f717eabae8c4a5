"""Channels: endpoints, who may speak there, what came in, and what is owed."""

from ocmt.platform.migrations import run_sql

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Emit 0012_channels.sql."""
    run_sql(__file__)
