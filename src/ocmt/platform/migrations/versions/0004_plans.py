"""Plans: what an agent may use and when it sleeps, as data."""

from ocmt.platform.migrations import run_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Emit 0004_plans.sql."""
    run_sql(__file__)
