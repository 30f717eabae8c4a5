"""Attachments: files that people and channels send with a message."""

from ocmt.platform.migrations import run_sql

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Emit 0013_attachments.sql."""
    run_sql(__file__)
