"""What each user keeps is counted where it is written, and every table that a user can fill has a bound."""

from ocmt.platform.migrations import run_sql

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Emit 0017_budgets.sql."""
    run_sql(__file__)
