"""The catalogue's generation, and aliases of locales."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    generation = op.create_table(
        "generation",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(generation, [{"id": 1, "number": 0}])

    op.create_table(
        "locale_aliases",
        sa.Column("locale", sa.String(255), primary_key=True),
        sa.Column("instead", sa.String(255), nullable=False),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.Column("changed_by", sa.String(255), nullable=False),
    )
