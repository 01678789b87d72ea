"""What Alembic runs: the migrations, on the connection and for the prefix that it is given."""

from __future__ import annotations

from alembic import context

from liteflow.providers.sql.migrating import version_table
from liteflow.providers.sql.schema import tables

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    target_metadata=tables(attributes["prefix"]).metadata,
    version_table=version_table(attributes["prefix"]),
    prefix=attributes["prefix"],
)
with context.begin_transaction():
    context.run_migrations()
