"""Questions bound to their browser, accounts bound to their issuer."""

from ocmt.platform.migrations import run_sql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Emit 0011_bound.sql."""
    run_sql(__file__)
