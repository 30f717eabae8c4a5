"""The name of a conversation's last batch of events: one that is written again is known by it."""

from ocmt.platform.migrations import run_sql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Emit 0009_last_batch.sql."""
    run_sql(__file__)
