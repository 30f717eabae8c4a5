"""Sessions know the session that began an impersonation, and whether the vault was locked in them."""

from ocmt.platform.migrations import run_sql

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Emit 0016_identity.sql."""
    run_sql(__file__)
