"""An installation has an identity, and the schema names the oldest program that may use it."""

from ocmt.platform.migrations import run_sql

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Emit 0015_installation.sql."""
    run_sql(__file__)
