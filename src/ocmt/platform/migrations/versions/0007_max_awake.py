"""How long an agent may be awake at a time, by plan."""

from ocmt.platform.migrations import run_sql

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    """Emit 0007_max_awake.sql."""
    run_sql(__file__)
