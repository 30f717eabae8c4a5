"""Programs that run in the background are a reason to stay awake."""

from ocmt.platform.migrations import run_sql

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Emit 0015_jobs.sql."""
    run_sql(__file__)
