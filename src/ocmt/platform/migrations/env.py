"""What Alembic runs to render the migrations: SQL text only, no connection of its own."""

from __future__ import annotations

from alembic import context

context.configure(
    dialect_name="postgresql",
    output_buffer=context.config.attributes["output"],
    transactional_ddl=False,  # the caller holds the one transaction around everything
)
context.run_migrations()
