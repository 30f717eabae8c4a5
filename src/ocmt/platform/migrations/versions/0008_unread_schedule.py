"""That an agent has been awake since its schedule was read: nothing it planned is to be slept through."""

from ocmt.platform.migrations import run_sql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Emit 0008_unread_schedule.sql."""
    run_sql(__file__)
