"""A broker token has a lease, a plan has a policy for the internet, and what goes there is counted."""

from ocmt.platform.migrations import run_sql

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Emit 0018_egress_policy.sql."""
    run_sql(__file__)
