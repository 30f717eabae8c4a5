"""Deliveries that were given up are found without looking at all others."""

from ocmt.platform.migrations import run_sql

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Emit 0014_given_up.sql."""
    run_sql(__file__)
