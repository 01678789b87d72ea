"""The heartbeats of processes."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

from liteflow.providers.sql.columns import LongText, Name, table_options

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make their table."""
    prefix: str = op.get_context().opts["prefix"]
    op.create_table(
        f"{prefix}_processes",
        Column("id", Name, primary_key=True),
        Column("format", BigInteger, nullable=False),
        Column("value", LongText, nullable=False),
        **table_options(op.get_bind().dialect),
    )
