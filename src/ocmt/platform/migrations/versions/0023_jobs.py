"""Programs that run in the background are a reason to stay awake."""

from ocmt.platform.migrations import run_sql

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Emit 0023_jobs.sql."""
    run_sql(__file__)
