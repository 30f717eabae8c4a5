"""How much of an agent's files is kept, by plan; when they were last saved, and why not since."""

from ocmt.platform.migrations import run_sql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Emit 0006_snapshot_limits.sql."""
    run_sql(__file__)
