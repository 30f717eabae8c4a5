"""Sign-ins at the agents' own host name."""

from ocmt.platform.migrations import run_sql

revision = "0022"
down_revision = "0019"


def upgrade() -> None:
    """Emit 0022_agent_visits.sql."""
    run_sql(__file__)
