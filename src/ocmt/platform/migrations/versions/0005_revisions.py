"""Revisions: which OpenClaw agents run, as data; and how each agent's upgrades went."""

from ocmt.platform.migrations import run_sql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Emit 0005_revisions.sql."""
    run_sql(__file__)
