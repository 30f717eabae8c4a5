"""The first schema."""

from ocmt.platform.migrations import run_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Emit 0001_initial.sql."""
    run_sql(__file__)
