"""What agents have planned, and more reasons to stay awake."""

from ocmt.platform.migrations import run_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Emit 0003_schedule.sql."""
    run_sql(__file__)
