"""What a company trusts us with: ways to sign in, roles, keys, groups, the whole vault, the audit log."""

from ocmt.platform.migrations import run_sql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Emit 0010_accounts.sql."""
    run_sql(__file__)
