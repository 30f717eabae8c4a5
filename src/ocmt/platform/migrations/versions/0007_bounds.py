"""How much disk an agent may use and how long it may be awake at a time, by plan."""

from ocmt.platform.migrations import run_sql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Emit 0007_bounds.sql."""
    run_sql(__file__)
