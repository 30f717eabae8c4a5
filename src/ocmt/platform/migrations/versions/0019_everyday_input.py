"""Messages of several deliveries, control words that pass the queue, and ids that stay known."""

from ocmt.platform.migrations import run_sql

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Emit 0019_everyday_input.sql."""
    run_sql(__file__)
